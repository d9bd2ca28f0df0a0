"""Chat templates in the style of public models, and hostile ones."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from r1jax.errors import UserError
from r1jax.text import template_process, think_format
from r1jax.text.chat_template import ChatTemplate, target

DATA = Path(__file__).parent / "data" / "models"


def rows(name):
  """The rows of a file, each with its number as the test's name."""
  lines = (DATA / name).read_text(encoding="utf-8").splitlines()
  return [pytest.param(json.loads(x), id=str(i)) for i, x in enumerate(lines)]


@pytest.mark.parametrize("case", rows("templates.jsonl"))
def test_a_template(case):
  template = ChatTemplate(case["source"], case["special"], case["arguments"])
  text = template.render(
    case["messages"], generate=case["generate"], think=case["think"],
    **case["variables"],
  )  # fmt: skip
  assert text == case["expected"]


@pytest.mark.parametrize("case", rows("hostile_templates.jsonl"))
def test_a_hostile_template(case):
  """One line of error, within the limits, and the next template renders."""
  begin = time.monotonic()
  with pytest.raises(UserError) as e:
    ChatTemplate(case["source"]).render([{"role": "user", "content": "a"}])
  assert "\n" not in str(e.value) and len(str(e.value)) < 400
  assert str(e.value).startswith("chat template: ")
  # CPU time is limited; the machine may be busy.
  assert time.monotonic() - begin < 60
  assert ChatTemplate("{{ messages[0] }}").render(["b"]) == "b"


def test_a_template_that_would_take_for_ever_ends():
  source = "{% for i in range(99999) %}" * 4 + "{% endfor %}" * 4
  with pytest.raises(UserError, match="more than 2 s of CPU time"):
    ChatTemplate(source).render([])


def test_memory_and_length_are_limited():
  source = "{% set a = 'a' * 10**11 %}"
  with pytest.raises(UserError, match="more than 256 MiB of memory"):
    ChatTemplate(source).render([])
  source = "{% for i in range(300) %}{{ 'a' * 100000 }}{% endfor %}"
  with pytest.raises(UserError, match="text of more than 16777216 characters"):
    ChatTemplate(source).render([])


def test_variables_that_are_not_json():
  with pytest.raises(UserError, match="must be JSON"):
    ChatTemplate("x").render([], tools=[object()])


def test_what_is_no_template():
  with pytest.raises(UserError, match="text was expected"):
    ChatTemplate(["x"])


def test_long_messages_and_any_characters():
  text = "a\ud83d\n\u2028é" * 200_000
  assert ChatTemplate("{{ messages[0] }}").render([text]) == text


def test_threads_share_the_process():
  template, got = ChatTemplate("{{ messages[0] * 1000 }}"), {}

  def work(i):
    got[i] = [template.render([str(i)]) for _ in range(20)]

  threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert got == {i: [str(i) * 1000] * 20 for i in range(8)}


def test_a_process_that_was_killed_is_replaced():
  template = ChatTemplate("{{ messages[0] }}")
  os.kill(template_process._workers[0].process.pid, signal.SIGKILL)
  with pytest.raises(UserError, match="ends its process"):
    template.render(["a"])
  assert template.render(["a"]) == "a"


@pytest.mark.parametrize("case", rows("targets.jsonl"))
def test_a_target(case):
  got = target(case["prompt"], case["reply"])
  assert got == case["expected"]
  if think_format.is_prefilled(case["prompt"]) and "Yes <" not in got:
    assert think_format.THINK not in got


def test_thinking_that_is_closed_cannot_be_opened():
  template = ChatTemplate("<think>\n\n</think>\n\n\n")
  assert template.render([]) == "<think>\n\n</think>\n\n"
  with pytest.raises(UserError, match="enable_thinking=True"):
    template.render([], think=True)
