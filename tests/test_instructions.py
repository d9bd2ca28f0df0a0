"""Each instruction of IFEval, by texts that follow it and texts that do not."""

import pytest

from r1jax import verifiers
from r1jax.errors import BadProblem
from r1jax.types import Problem
from r1jax.verifiers import instruction_checks, instructions

WORDS = "length_constraints:number_words"
LEAST, LESS = "at least", "less than"

# (instruction, arguments, texts that follow it, texts that do not).
CASES = [
  (
    "change_case:capital_word_frequency",
    dict(capital_frequency=2, capital_relation=LEAST),
    ["NO, I said", "BIG and LOUD"], ["One Big word", "LOUD"],
  ),
  (
    "change_case:capital_word_frequency",
    dict(capital_frequency=2, capital_relation=LESS),
    ["one LOUD word", "none"], ["TWO LOUD words"],
  ),
  (
    "change_case:english_capital", {},
    ["ALL OF IT, 12.", "NA\u00cfVE"], ["All of it", "12", "\u041d\u0415\u0422"],
  ),
  (
    "change_case:english_lowercase", {},
    ["all of it, 12.", "it's"], ["All of it", "12", "\u043d\u0435\u0442"],
  ),
  (
    "combination:repeat_prompt", dict(prompt_to_repeat="Write a poem."),
    ["Write a poem.\n\nRoses", "write a poem. Roses"],
    ["Roses. Write a poem.", "Write a poem"],
  ),
  (
    "combination:two_responses", {},
    ["a\n******\nb", "******\na\n******\nb\n******"],
    ["a", "a ****** a", "a ****** b ****** c", "a ****** ****** b", "******"],
  ),
  (
    "detectable_content:number_placeholders", dict(num_placeholders=2),
    ["[name] of [city]", "[a][b] [c]"], ["[name]", "name, city", "[a\nb] [c]"],
  ),
  (
    "detectable_content:postscript", dict(postscript_marker="P.S."),
    ["Hi.\n\nP.S. more", "Hi. p.s. more", "Hi\nP. S. more"],
    ["Hi.", "PS: more", "Hi.\nP.S."],
  ),
  (
    "detectable_content:postscript", dict(postscript_marker="P.P.S"),
    ["Hi\nP.P.S more", "Hi\np.p.s: more"], ["P.S. more", "Hi"],
  ),
  (
    "detectable_format:constrained_response", {},
    ["My answer is yes.", "Hm. My answer is maybe."],
    ["yes", "my answer is no", "My answer is certain."],
  ),
  (
    "detectable_format:json_format", {},
    ['{"a": [1]}', '```json\n{"a": 1}\n```', "```\n[1]\n```", " 12 "],
    ["{'a': 1}", 'Here: {"a": 1}', '{"a": NaN}', "", "[" * 100_000, "```\n```"],
  ),
  (
    "detectable_format:multiple_sections",
    dict(section_spliter="Section", num_sections=2),
    ["Section 1\na\nSection 2\nb", "Section1 a Section2 b Section 3"],
    ["Section 1\na", "SECTION 1 a SECTION 2 b", "Section a, Section b"],
  ),
  (
    "detectable_format:number_bullet_lists", dict(num_bullets=2),
    ["* a\n* b", "Such as:\n- a\n  - b\nand", "* a\n**c**\n- b"],
    ["* a", "* a\n* b\n* c", "a * b - c", "*\n*"],
  ),
  (
    "detectable_format:number_highlighted_sections", dict(num_highlights=2),
    ["*a* and *b*", "**a** and *b*", "*a* *b* *c*"],
    ["*a*", "**a**", "** ** **", "2 * 3", "*a\nb* *c"],
  ),
  (
    "detectable_format:title", {},
    ["<<A poem>>\nRoses", "Roses\n<< of >> it"],
    ["<A poem>", "<<>>", "<< >>", "<<A\npoem>>", ">> <<", "A poem"],
  ),
  (
    "keywords:existence", dict(keywords=["rose", "red"]),
    ["Roses are red", "RED rose"], ["Roses are blue", ""],
  ),
  (
    "keywords:forbidden_words", dict(forbidden_words=["rose", "c++"]),
    ["Roses are red", "c"], ["A Rose is red", "rose.", "in C++ too"],
  ),
  (
    "keywords:frequency", dict(keyword="red", frequency=2, relation=LEAST),
    ["Red, red", "red reds red"], ["red", "none"],
  ),
  (
    "keywords:frequency", dict(keyword="red", frequency=2, relation=LESS),
    ["Red", "none"], ["red Red"],
  ),
  (
    "keywords:letter_frequency",
    dict(letter="n", let_frequency=3, let_relation=LESS),
    ["No n", "a"], ["No nun"],
  ),
  (
    "keywords:letter_frequency",
    dict(letter="!", let_frequency=2, let_relation=LEAST),
    ["a! b!"], ["a!"],
  ),
  (
    "length_constraints:nth_paragraph_first_word",
    dict(num_paragraphs=2, nth_paragraph=2, first_word="roses"),
    ["a\n\nRoses are", 'a\nb\n\n\n"Roses, he', "a\n \n**roses** x"],
    ["a\n\nRosesare red", "Roses\n\na", "a\n\nroses\n\nb", "roses", "a\nroses"],
  ),
  (
    "length_constraints:number_paragraphs", dict(num_paragraphs=2),
    ["a\n***\nb", "***\na\n***\nb", "a *** b ***"],
    ["a\n\nb", "a *** b *** c", "a *** *** b", "a"],
  ),
  (
    "length_constraints:number_sentences",
    dict(num_sentences=3, relation=LEAST),
    ["One. Two! Three?", "One.\nTwo\n\nThree",
     "\u4e00\u3002\u4e8c\uff01\u4e09"],
    ["Mr. A. Smith paid 3.5 dollars. He left.", "One... two", "", "a\nb\nc"],
  ),
  (
    "length_constraints:number_sentences",
    dict(num_sentences=2, relation=LESS),
    ["It is, e.g. Mr. Smith.", '"So I go," he said'], ["One. Two."],
  ),
  (
    "length_constraints:number_words", dict(num_words=3, relation=LEAST),
    ["one two three", "one, two-three"], ["one two", "a . b"],
  ),
  (
    "length_constraints:number_words", dict(num_words=3, relation=LESS),
    ["one two"], ["one two three"],
  ),
  ("punctuation:no_comma", {}, ["one and two"], ["one, two", "1,000"]),
  (
    "startend:end_checker", dict(end_phrase="Any questions?"),
    ["So it is. Any questions?", '"So. any questions?"\n'],
    ["Any questions? No.", "questions?"],
  ),
  (
    "startend:quotation", {},
    ['"All of it."', ' "a\nb" '], ['"', 'He said "no"', '"a" b', "'a'"],
  ),
]  # fmt: skip


def problem(*these):
  return Problem(
    "p7", "instructions", "?", "", "en", {"instructions": these and list(these)}
  )


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_what_follows_and_what_does_not(name, arguments, good, bad):
  p = problem({"id": name, **arguments})
  for text in good:
    said = verifiers.verify(p, f"<think> hm, </think>{text}")
    assert said.correct and said.score == 1.0, text
  for text in bad:
    said = verifiers.verify(p, f"<think> hm, </think>{text}")
    assert not said.correct, text
    assert said.reason == (name if text.strip() else "no_answer")


def test_all_25_are_tried():
  tried = {name for name, *_ in CASES} | {"language:response_language"}
  assert tried == set(instructions.INSTRUCTIONS) and len(tried) == 25


@pytest.mark.parametrize(
  ("code", "text"),
  [
    ("de", "Die Katze liegt auf dem Sofa und schl\u00e4ft den ganzen Tag."),
    ("it", "Il gatto dorme sul divano tutto il giorno e non si muove."),
    ("hi", "\u092c\u093f\u0932\u094d\u0932\u0940 \u0938\u094b\u092b\u0947"
     " \u092a\u0930 \u0938\u094b \u0930\u0939\u0940 \u0939\u0948\u0964"),
    ("ko", "\uace0\uc591\uc774\uac00 \uc18c\ud30c\uc5d0\uc11c \uc7a0\uc744"
     " \uc794\ub2e4."),
    ("en", "The cat sleeps on the sofa all day and does not move."),
  ],
)  # fmt: skip
def test_languages(code, text):
  for other in ("de", "it", "hi", "ko", "en"):
    p = problem({"id": "language:response_language", "language": other})
    assert verifiers.verify(p, text).correct == (code == other)


def test_all_must_hold_and_the_first_that_does_not_is_named():
  p = problem(
    {"id": "punctuation:no_comma"},
    {"id": "startend:quotation"},
    {"id": "keywords:existence", "keywords": ["sea"]},
  )
  assert verifiers.verify(p, '"the sea"').correct
  assert verifiers.verify(p, "the sea").reason == "startend:quotation"
  assert verifiers.verify(p, '"the, sea"').reason == "punctuation:no_comma"
  assert verifiers.verify(p, '"the lake"').reason == "keywords:existence"
  # In the tags only their text counts.
  tagged = '<think>, </think> Well, <answer>"the sea"</answer>'
  assert verifiers.verify(p, tagged).correct


def test_thinking_that_never_ends_follows_nothing():
  p = problem({"id": "punctuation:no_comma"})
  assert verifiers.verify(p, "<think> it goes on").reason == "no_answer"
  assert verifiers.verify(p, "<think> a </think>").reason == "no_answer"


def test_the_public_layout():
  columns = dict(
    instruction_id_list=[
      "punctuation:no_comma", "length_constraints:number_words",
    ],
    kwargs=[
      {"num_words": None, "relation": None, "keyword": None},
      {"num_words": 3.0, "relation": "at least", "keyword": None},
    ],
  )  # fmt: skip
  data = {"instructions": instructions.layout(**columns)}
  assert data["instructions"] == [
    {"id": "punctuation:no_comma"},
    {
      "id": "length_constraints:number_words",
      "num_words": 3.0,
      "relation": "at least",
    },
  ]
  p = Problem("p", "instructions", "?", "", "en", data)
  assert verifiers.verify(p, "one two three").correct
  assert not verifiers.verify(p, "one two").correct
  p.data["instructions"][0]["letter"] = None  # left out, as in the data set
  assert verifiers.verify(p, "one two three").correct


@pytest.mark.parametrize(
  ("instruction", "message"),
  [
    ({"id": "punctuation:no_dots"}, "0: id .*no_dots.*known: .*no_comma"),
    ({}, 'id "None" is unknown'),
    ("punctuation:no_comma", "must be an object"),
    ({"id": "punctuation:no_comma", "letter": "a"}, "no arguments, not letter"),
    ({"id": "keywords:existence"}, "takes keywords, not none"),
    ({"id": "keywords:existence", "keywords": "sea"}, "a list of words"),
    ({"id": "keywords:existence", "keywords": []}, "a list of words"),
    (
      {"id": WORDS, "num_words": 2.5, "relation": LESS},
      "num_words=2.5 must be a whole number",
    ),
    (
      {"id": WORDS, "num_words": 2, "relation": "<"},
      "relation='<' must be at least or less than",
    ),
    (
      {"id": "detectable_format:number_bullet_lists", "num_bullets": True},
      "whole number",
    ),
    (
      {"id": "keywords:letter_frequency", "letter": "ab", "let_frequency": 1,
       "let_relation": LESS},
      "one letter",
    ),
    ({"id": "startend:end_checker", "end_phrase": " "}, "must be a text"),
  ],
)  # fmt: skip
def test_what_nobody_can_follow(instruction, message):
  with pytest.raises(BadProblem, match=f"p7: .*{message}"):
    verifiers.check_problem(problem(instruction))


@pytest.mark.parametrize(
  "data", [{}, {"instructions": []}, {"instructions": "x"}]
)
def test_there_must_be_instructions(data):
  with pytest.raises(BadProblem, match='p7: data needs "instructions"'):
    verifiers.check_problem(Problem("p7", "instructions", "?", "", "en", data))


def test_sentences_end_where_they_do():
  text = 'Dr. Who met J. R. Smith at 3.30 p.m. today! "Why?" she asked. I.\nEnd'
  assert instruction_checks.split_sentences(text) == [
    "Dr. Who met J. R. Smith at 3.30 p.m. today!", '"Why?"', "she asked.",
    "I.", "End",
  ]  # fmt: skip
