"""Dataclasses from mappings: types, names, messages; and their description."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from experiments import commandline, plan
from r1jax import checks, config, describe
from r1jax.config import Written, build
from r1jax.errors import UserError
from r1jax.phases import PHASES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circle:
  """A round thing."""

  kind: Literal["circle"] = "circle"
  # How far it is
  # from the middle to the edge.
  radius: float

  def __post_init__(self):
    checks.above(self, 0, "radius")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
  """A thing with corners.

  Attributes:
    side: how long it is.
    tilt, shift: how it lies, in
      degrees and metres.
  """

  kind: Literal["square"] = "square"
  side: float
  tilt: float = 0.0
  shift: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint:
  """The colour of a thing."""

  colour: Literal["red", "green"] = "red"
  coats: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
  """Everything at once."""

  # Its name.
  name: str = config.filled()
  size: int
  shape: Circle | Square = Circle(radius=1.0)
  paint: Paint | None = None
  parts: tuple[int, ...] = ()
  ends: tuple[float, float] = (0.0, 1.0)
  notes: Mapping[str, float | Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  solid: bool = True

  def __post_init__(self):
    checks.at_least(self, 1, "size")


def thing(**fields):
  return build(Thing, fields, "box", {"name": "x"})


def test_values_of_every_type():
  made = thing(
    size=2, shape=dict(kind="square", side=3), paint=dict(coats=2),
    parts=[1, 2], ends=[1, 2], notes={"a": 1, "b": {"c": [1]}}, solid=False,
  )  # fmt: skip
  assert made.name == "x"
  assert made.shape == Square(side=3.0) and type(made.shape.side) is float
  assert made.paint == Paint(coats=2)
  assert made.parts == (1, 2) and made.ends == (1.0, 2.0)
  assert made.notes == {"a": 1.0, "b": {"c": [1]}} and made.solid is False
  assert thing(size=1).shape == Circle(radius=1.0)
  assert thing(size=1, shape=Square(side=1.0)).shape.side == 1.0


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({}, "box.size is missing"),
    (dict(size="2"), 'box.size="2" must be a whole number'),
    (dict(size=True), "box.size=True must be a whole number"),
    (dict(size=0), "box.size=0 must be at least 1"),
    (dict(size=1, sold=True), 'box.sold is no key; did you mean "solid"?'),
    # A key that belongs into a group.
    (dict(size=1, coats=2), 'box.coats is no key; did you mean "paint.coats"?'),
    (dict(size=1, name="y"), "box.name is no key"),
    (dict(size=1, zzz=1), "box.zzz is no key; known: ends, notes, paint"),
    (dict(size=1, shape=dict(radius=1)), "box.shape.kind is missing"),
    (
      dict(size=1, shape=dict(kind="circl", radius=1)),
      'box.shape.kind="circl" is unknown; did you mean "circle"? known: circle',
    ),
    (
      dict(size=1, shape=dict(kind="circle", radius=-1.0)),
      "box.shape.radius=-1.0 must be above 0",
    ),
    (dict(size=1, shape=3), "box.shape=3 must be a group of keys"),
    (dict(size=1, paint=dict(colour="blue")), 'box.paint.colour="blue" is unk'),
    (dict(size=1, paint=dict(coats=None)), "box.paint.coats=None must be"),
    (dict(size=1, parts=3), "box.parts=3 must be a list of whole numbers"),
    (dict(size=1, parts=[1, "a"]), 'box.parts[1]="a" must be a whole number'),
    (dict(size=1, ends=[1.0]), "box.ends=[1.0] must be a pair of finite numb"),
    (dict(size=1, notes={"a": float("nan")}), "box.notes.a=nan must be a fini"),
    (dict(size=1, notes={3: 1.0}), "box.notes: the key 3 must be text"),
    (dict(size=1, solid=1), "box.solid=1 must be True or False"),
  ],
)
def test_what_is_wrong_is_named(fields, message):
  with pytest.raises(UserError) as error:
    thing(**fields)
  assert str(error.value).startswith(message)


def test_a_value_from_elsewhere_is_named_there():
  written = Written("paint", dict(coats="two"))
  with pytest.raises(UserError, match='^paint.coats="two" must be a whole'):
    thing(size=1, paint=written)
  assert thing(size=1, paint=Written("paint", dict(coats=3))).paint.coats == 3


def test_a_message_may_begin_with_the_name_of_its_class():
  for message in (
    "size=3 is odd",
    "thing: size=3 is odd",
    "thing.size=3 is odd",
  ):
    assert config.placed(message, Thing, "box") == "box.size=3 is odd"
  assert config.placed("so: it is", Thing, "box") == "box: so: it is"


def test_comments_are_those_of_the_source():
  found = {k.name: k for k in describe.keys(Thing)}
  assert found["shape.radius"].comment == (
    "How far it is from the middle to the edge."
  )
  assert found["shape.radius"].kind == "circle"
  assert (
    found["shape.tilt"].comment
    == found["shape.shift"].comment
    == ("How it lies, in degrees and metres.")
  )
  assert found["shape.kind"].type == '"circle" or "square"'
  assert found["shape.kind"].comment == (
    "circle: A round thing. square: A thing with corners."
  )
  assert found["size"].default is None and found["solid"].default == "True"
  assert "name" not in found


def test_every_key_is_described():
  classes = [plan.Experiment, *(cls for cls, _ in PHASES.values())]
  found = [key for cls in classes for key in describe.keys(cls)]
  assert len(found) > 200
  assert not [key.name for key in found if not key.comment]


def test_the_help_has_every_key_once():
  text = commandline.help_config()
  for line in (
    "task.corpus.longest (kind countdown): a whole number = 12",
    "models.NAME.d_model: a whole number [required]",
    "loss.epsilon: a finite number = 0.2",
    "mesh.tensor: a whole number = 1",
    "report.plot: a list of names or None = None",
  ):
    assert text.count(f"  {line}\n") == 1
  assert max(map(len, text.splitlines())) < 100
  rl = commandline.help_config("grpo")
  assert rl.startswith('Keys of a phase with phase="grpo":') and rl in text
  with pytest.raises(UserError, match="known: sft, grpo, rejection, evaluate"):
    commandline.help_config("ppo")
