"""The tags of a completion: thinking first, then the answer.

    <think> ... </think> <answer> ... </answer>

Only the package `text` spells these tags. Everyone else asks this module.

Thinking is open from an opening tag until a closing tag. A completion whose
thinking is open at its end answers nothing, whatever stands in it.
"""

import re

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)


def compose(thinking: str, answer: str) -> str:
  """A completion with its tags; spaces separate tags and texts.

  Args:
    thinking: the text between the think tags; may be empty.
    answer: the text between the answer tags.
  """
  parts = (THINK, thinking, END_THINK, ANSWER, answer, END_ANSWER)
  return " ".join(part for part in parts if part)


def is_prefilled(prompt: str) -> bool:
  """Whether a prompt ends with the opening think tag.

  The policy then writes the thinking without that tag.

  Args:
    prompt: the text before a completion.
  """
  return prompt.rstrip().endswith(THINK)


def whole(prompt: str, completion: str) -> str:
  """A completion with the opening think tag that its prompt prefilled.

  `r1jax.verifiers` gives verifiers this text, so that none has to look at the
  prompt to see whether the thinking is open.

  Args:
    prompt: the text before the completion.
    completion: the text that the policy wrote.
  """
  return THINK + completion if is_prefilled(prompt) else completion


def is_open(completion: str) -> bool:
  """Whether the thinking has begun, or begun again, and does not close.

  Args:
    completion: the text that the policy wrote, as `whole` makes it.
  """
  return THINK in completion.rpartition(END_THINK)[2]


def well_formed(completion: str, prefilled: bool = False) -> bool:
  """Whether a completion has each tag exactly once and in order.

  Only white space may stand outside of the two pairs, and neither pair may be
  empty (R1 v2, 2.2). The paper asks for the think tags; that the answer's tags
  count too is our reading, since the paper's template asks for both.

  Args:
    completion: the text that the policy wrote.
    prefilled: whether the prompt already ended with the opening think tag.
  """
  text = (THINK if prefilled else "") + completion
  if any(text.count(tag) != 1 for tag in TAGS):
    return False
  before, _, text = text.partition(THINK)
  thought, _, text = text.partition(END_THINK)
  between, _, text = text.partition(ANSWER)
  answered, _, after = text.partition(END_ANSWER)
  # In another order a tag is left in one of the parts.
  if any(tag in thought + answered for tag in TAGS):
    return False
  outside = before + between + after
  return bool(thought.strip() and answered.strip() and not outside.strip())


def share_of_tags(completion: str, prefilled: bool = False) -> float:
  """The share of the four tags that occur once, after the tags before them.

  A policy that has never seen the format can improve this share step by step.
  A share of 1.0 does not imply `well_formed`.

  Args:
    completion: the text that the policy wrote.
    prefilled: whether the prompt already ended with the opening think tag.

  Returns:
    0.0, 0.25, 0.5, 0.75 or 1.0.
  """
  text = (THINK if prefilled else "") + completion
  good, after = 0, 0
  for tag in TAGS:
    at = text.find(tag, after)
    if at >= 0 and text.count(tag) == 1:
      good += 1
      after = at + len(tag)
  return good / len(TAGS)


def thinking(completion: str) -> str:
  """The text between the think tags.

  Without an opening tag it starts at the start of the completion. Without a
  closing tag it ends at the answer or at the end of the completion.

  Args:
    completion: the text that the policy wrote.
  """
  text = completion.split(THINK, 1)[-1]
  return re.split(f"{END_THINK}|{ANSWER}", text, maxsplit=1)[0]


def after_thinking(completion: str) -> str:
  """The text after the last closing think tag; all of it without think tags.

  Args:
    completion: the text that the policy wrote, as `whole` makes it.

  Returns:
    str; empty where `is_open`.
  """
  return "" if is_open(completion) else completion.rpartition(END_THINK)[2]


def answer(completion: str) -> str | None:
  """The text in the last pair of answer tags after the thinking.

  Args:
    completion: the text that the policy wrote, as `whole` makes it.

  Returns:
    str without white space around it; None if there is no such pair, or where
    `is_open`.
  """
  head, end, _ = after_thinking(completion).rpartition(END_ANSWER)
  _, begin, body = head.rpartition(ANSWER)
  if not end or not begin:
    return None
  return body.split(END_ANSWER, 1)[0].strip()
