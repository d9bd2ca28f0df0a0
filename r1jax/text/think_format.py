"""The form of an answer: thinking first, then the answer, each in its tags."""

import re

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_FORM = re.compile(
  r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL
)


def well_formed(completion, prefilled=False):
  """Whether a completion has exactly one ordered pair of each tag.

  Nothing but white space may stand outside of the tags, nor may a part be
  empty. R1 v2, 2.2; that the answer's tags count too is our reading, since
  the template asks for both.

  Args:
    completion: the text that the policy wrote.
    prefilled: the prompt already ended with `<think>`.
  """
  text = ("<think>" if prefilled else "") + completion
  if any(text.count(tag) != 1 for tag in _TAGS):
    return False
  match = _FORM.fullmatch(text)
  return bool(match and match[1].strip() and match[2].strip())


def graded(completion, prefilled=False):
  """The share of the four tags that stand once and after those before.

  What a policy that has never seen the form can climb by; `well_formed` is
  what it is to reach, and 1.0 here is not yet that.

  Args:
    completion: the text that the policy wrote.
    prefilled: the prompt already ended with `<think>`.

  Returns:
    0.0, 0.25, 0.5, 0.75 or 1.0.
  """
  text = ("<think>" if prefilled else "") + completion
  good, after = 0, 0
  for tag in _TAGS:
    at = text.find(tag, after)
    if at >= 0 and text.count(tag) == 1:
      good += 1
      after = at + len(tag)
  return good / len(_TAGS)


def thinking(completion):
  """What was thought: between the think tags, or up to what there is."""
  text = completion.split("<think>", 1)[-1]
  return re.split(r"</think>|<answer>", text, maxsplit=1)[0]


def answer(completion):
  """The body of the last pair of answer tags, or None.

  What stands before the end of the thinking is no answer.
  """
  text = completion.rsplit("</think>", 1)[-1]
  if "</answer>" not in text or "<answer>" not in text:
    return None
  head = text.rsplit("</answer>", 1)[0]
  if "<answer>" not in head:
    return None
  body = head.rsplit("<answer>", 1)[1]
  return body.split("</answer>", 1)[0].strip()
