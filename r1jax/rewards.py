"""Verdicts to named parts, parts to one reward."""

from r1jax import verifiers
from r1jax.errors import UserError
from r1jax.types import Verdict
from r1jax.verifiers import language, think_format


def accuracy(problem, completion, verdict):
  """The verifier's score (R1 v2, 2.2)."""
  return verdict.score


def form(problem, completion, verdict):
  """1.0 where thinking and answer stand in their tags (R1 v2, 2.2, Eq. 4)."""
  # The template may end with an opening tag, which the policy then omits.
  prefilled = problem.prompt.rstrip().endswith("<think>")
  good = verdict is not CUT and think_format.well_formed(completion, prefilled)
  return float(good)


def consistency(problem, completion, verdict):
  """Words of the thinking in the question's language (R1 v2, 3.2.1, Eq. 7)."""
  thinking = think_format.thinking(completion)
  return language.consistency(thinking, problem.language)


# A cut completion is neither right nor well formed, whatever it says: the
# paper is silent, and a policy must not profit from never coming to an end.
CUT = Verdict(False, 0.0, "cut")

# To add a part: a function (problem, completion, verdict) -> float in [0, 1].
PARTS = {"accuracy": accuracy, "format": form, "language": consistency}


def check_weights(weights):
  """Raises a `UserError` for a weight of a part that does not exist."""
  for name in weights:
    if name not in PARTS:
      raise UserError(
        f'rewards: "{name}" is unknown; known: {", ".join(PARTS)}'
      )


def score(problem, completion, weights, *, ended):
  """The parts of a completion's reward and their weighted sum.

  Args:
    problem: the `Problem`. completion: what the policy wrote.
    weights: part -> weight; a part without one is reported, not rewarded.
    ended: False for a completion that was cut.

  Returns:
    dict: "reward", each of `PARTS` in [0, 1], and the verifier's "reason".

  Raises:
    UserError: a weight names no part, or a problem no verifier.
  """
  check_weights(weights)
  verdict = verifiers.verify(problem, completion) if ended else CUT
  parts = {
    name: part(problem, completion, verdict) for name, part in PARTS.items()
  }
  reward = sum(weight * parts[name] for name, weight in weights.items())
  return {"reward": reward, **parts, "reason": verdict.reason}
