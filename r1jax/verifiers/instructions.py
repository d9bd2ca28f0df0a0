"""Does a text follow instructions that a program can check?

The instructions are those of IFEval (Zhou et al. 2023, arXiv 2311.07911). All
must hold for the text as it is, which the paper calls strict accuracy.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1jax.errors import BadProblem
from r1jax.text import think_format
from r1jax.types import Problem, Verdict
from r1jax.verifiers import instruction_checks as checks

# Instruction -> its function, whose arguments after the text are those of the
# instruction.
INSTRUCTIONS: dict[str, Callable[..., bool]] = {
  "change_case:capital_word_frequency": checks.capital_words,
  "change_case:english_capital": checks.english_capital,
  "change_case:english_lowercase": checks.english_lowercase,
  "combination:repeat_prompt": checks.repeat_prompt,
  "combination:two_responses": checks.two_responses,
  "detectable_content:number_placeholders": checks.placeholders,
  "detectable_content:postscript": checks.postscript,
  "detectable_format:constrained_response": checks.constrained_response,
  "detectable_format:json_format": checks.json_format,
  "detectable_format:multiple_sections": checks.sections,
  "detectable_format:number_bullet_lists": checks.bullets,
  "detectable_format:number_highlighted_sections": checks.highlights,
  "detectable_format:title": checks.title,
  "keywords:existence": checks.keywords,
  "keywords:forbidden_words": checks.forbidden_words,
  "keywords:frequency": checks.keyword_frequency,
  "keywords:letter_frequency": checks.letter_frequency,
  "language:response_language": checks.response_language,
  "length_constraints:nth_paragraph_first_word": checks.first_word,
  "length_constraints:number_paragraphs": checks.paragraphs,
  "length_constraints:number_sentences": checks.sentences,
  "length_constraints:number_words": checks.words,
  "punctuation:no_comma": checks.no_comma,
  "startend:end_checker": checks.end_phrase,
  "startend:quotation": checks.quotation,
}


def verify(problem: Problem, completion: str) -> Verdict:
  """Whether the text after the thinking follows all instructions.

  Args:
    problem: a `Problem` whose data has "instructions", a list of
      {"id": one of `INSTRUCTIONS`, and its arguments}.
    completion: the text that the policy wrote. The text in the answer tags
      counts, if there are any, else all after the thinking.

  Returns:
    `Verdict`; reason "correct", "no_answer" or the id of the first instruction
    that does not hold.

  Raises:
    BadProblem: see `check_problem`.
  """
  check_problem(problem)
  text = final_answer(problem, completion)
  if text is None:
    return Verdict(False, 0.0, "no_answer")
  for instruction in problem.data["instructions"]:
    name, arguments = _read(instruction)
    if not INSTRUCTIONS[name](text, **arguments):
      return Verdict(False, 0.0, name)
  return Verdict(True, 1.0, "correct")


def final_answer(problem: Problem, completion: str) -> str | None:
  """The text that must follow the instructions, or None."""
  tagged = think_format.answer(completion)
  text = think_format.after_thinking(completion) if tagged is None else tagged
  return text.strip() or None


def layout(
  instruction_id_list: Sequence[str],
  kwargs: Sequence[Mapping[str, Any] | None],
) -> list[dict[str, Any]]:
  """The "instructions" of a problem, from two columns of the public data set.

  Args:
    instruction_id_list: ids, keys of `INSTRUCTIONS`.
    kwargs: the arguments of each; those that are None are left out.
  """
  return [
    {"id": name} | {k: v for k, v in (more or {}).items() if v is not None}
    for name, more in zip(instruction_id_list, kwargs, strict=True)
  ]


def check_problem(problem: Problem) -> None:
  """Raises a `BadProblem` if an instruction or an argument is not known."""
  instructions = problem.data.get("instructions")
  if not isinstance(instructions, list) or not instructions:
    raise BadProblem(
      f'problem {problem.id}: data needs "instructions", a list of'
      ' {"id": ..., and its arguments}'
    )
  for i, instruction in enumerate(instructions):
    if fault := _fault(instruction):
      raise BadProblem(f"problem {problem.id}: instruction {i}: {fault}")


def _read(instruction):
  """The id and the arguments; whole numbers may have come as floats."""
  arguments = {
    name: int(value) if isinstance(value, float) else value
    for name, value in instruction.items()
    if name != "id" and value is not None
  }
  return instruction["id"], arguments


def _fault(instruction):
  """What is wrong with an instruction, or None."""
  if not isinstance(instruction, Mapping):
    return f"must be an object, not {instruction!r:.40}"
  name = instruction.get("id")
  if not isinstance(name, str) or name not in INSTRUCTIONS:
    return f'id "{name}" is unknown; known: {", ".join(INSTRUCTIONS)}'
  parameters = list(inspect.signature(INSTRUCTIONS[name]).parameters)[1:]
  given = {k for k, v in instruction.items() if k != "id" and v is not None}
  if given != set(parameters):
    return f"{name} takes {', '.join(parameters) or 'no arguments'}, not" + (
      f" {', '.join(sorted(given)) or 'none'}"
    )
  for parameter in parameters:
    wanted = _wanted(parameter, instruction[parameter])
    if wanted:
      return f"{parameter}={instruction[parameter]!r:.40} must be {wanted}"
  return None


def _wanted(name, value):
  """What an argument must be; None if it is that."""
  if name.endswith("relation"):
    good = value in checks.RELATIONS
    return None if good else " or ".join(checks.RELATIONS)
  if name.startswith(("num_", "nth_")) or name.endswith("frequency"):
    good = type(value) in (int, float) and 0 <= value < 1e9
    return None if good and value == int(value) else "a whole number"
  if name in ("keywords", "forbidden_words"):
    good = isinstance(value, list) and value and all(map(_is_text, value))
    return None if good else "a list of words"
  if name == "letter":
    good = _is_text(value) and len(value) == 1
    return None if good else "one letter"
  return None if _is_text(value) else "a text"


def _is_text(value):
  return isinstance(value, str) and bool(value.strip())
