"""Templates render as they are written, safely."""

import pytest

from r1jax.errors import UserError
from r1jax.text import think_format
from r1jax.text.chat_template import ChatTemplate, target
from r1jax.text.prompts import r1_zero

CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content']"
  " + '<|im_end|>' + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As DeepSeek-R1's: no white space between parts, history without thinking.
R1 = (
  "{{ bos_token }}{% for m in messages %}"
  "{% if m.role == 'system' %}{{ m.content }}{% endif %}"
  "{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% endif %}"
  "{% if m.role == 'assistant' %}<｜Assistant｜>"
  "{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}"
  "{% endfor %}"
  "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def user(text):
  return {"role": "user", "content": text}


def test_chatml():
  text = ChatTemplate(CHATML).render([user("1 < 2 & 'x'?")])
  assert text == (
    "<|im_start|>user\n1 < 2 & 'x'?<|im_end|>\n<|im_start|>assistant\n"
  )
  text = ChatTemplate(CHATML).render([user("a")], generate=False)
  assert text == "<|im_start|>user\na<|im_end|>\n"


def test_r1_prefills_once():
  template = ChatTemplate(R1, SPECIAL)
  want = "<s><｜User｜>a<｜Assistant｜><think>\n"
  assert template.render([user("a")]) == want
  assert template.render([user("a")], think=True) == want
  assert (
    ChatTemplate(CHATML)
    .render([user("a")], think=True)
    .endswith("assistant\n<think>\n")
  )


def test_history_loses_its_thinking_but_a_target_does_not():
  template = ChatTemplate(R1, SPECIAL)
  reply = "<think>\nlong\n</think>\n\nb"
  history = template.render(
    [user("a"), {"role": "assistant", "content": reply}, user("c")]
  )
  assert "long" not in history
  prompt = template.render([user("a")])
  completion = target(prompt, reply)
  assert prompt + completion == f"<s><｜User｜>a<｜Assistant｜>{reply}"
  assert completion == "long\n</think>\n\nb"  # what is prefilled: not trained
  assert target(ChatTemplate(CHATML).render([user("a")]), reply) == reply


def test_the_format_reward_knows_of_the_prefilled_tag():
  prompt = ChatTemplate(R1, SPECIAL).render([user("a")])
  completion = target(prompt, "<think>\nx\n</think>\n<answer>b</answer>")
  assert think_format.well_formed(
    completion, prompt.rstrip().endswith("<think>")
  )
  assert not think_format.well_formed(completion)


def test_r1_zero():
  text = r1_zero("What is {1+1}?")
  assert text.endswith("User: What is {1+1}?. Assistant:")
  assert "<think> reasoning process here </think>" in text


@pytest.mark.parametrize(
  "source, words",
  [
    ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ("{% if %}", "chat template"),
    ("{{ messages[0].content.absent.more }}", "absent"),
    ("{{ messages + 1 }}", "TypeError"),
    ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ("{{ messages.append(1) }}", "unsafe"),
    ("{{ 1 // 0 }}", "Zero"),
  ],
)
def test_what_a_template_may_not(source, words):
  with pytest.raises(UserError) as e:
    ChatTemplate(source).render([user("a")])
  assert words in str(e.value)
  assert "\n" not in str(e.value)


def test_variables_json_and_loop_controls():
  template = ChatTemplate(
    "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}"
    "{{ {'a': '<é>'} | tojson }}{{ tools | length }}{% endfor %}"
    "{{ strftime_now('%%') }}"
  )
  text = template.render([user("a"), user("b")], tools=[1, 2, 3])
  assert text == '{"a": "<é>"}3%'
