"""The actor: problems in, completions and their rewards out.

A phase gives the actor its parameters and asks it for rollouts. The actor does
not know how these parameters are trained.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from r1jax import hosts, stopping
from r1jax import model as model_lib
from r1jax.errors import BadProblem, UserError
from r1jax.phases.common import Sampling, Setup
from r1jax.rewards import judges, overlong
from r1jax.rewards import score as rewards_lib
from r1jax.sampling.sampler import Callbacks, Loaded, Sampler
from r1jax.text.stops import Stops
from r1jax.types import Problem, Rollout, Verdict


class Scored(NamedTuple):
  """A rollout on the host, with its texts, verdicts and rewards.

  Completions of problem n have the numbers n G to n G + G - 1.

  Attributes:
    problems: N `Problem`s.
    prompts: their tokens, N arrays of different lengths.
    rollout: `Rollout` of numpy arrays.
    texts: C completions, decoded.
    verdicts: C `Verdict`s.
    scores: C dicts of `rewards.score`.
    seconds: that the host spent on verdicts and rewards, most of them while
      the device sampled.
  """

  problems: list[Problem]
  prompts: list[np.ndarray]
  rollout: Rollout
  texts: list[str]
  verdicts: list[Verdict]
  scores: list[dict[str, Any]]
  seconds: float = 0.0

  @property
  def group(self) -> int:
    """G, completions of each problem."""
    return len(self.texts) // len(self.problems)

  @property
  def reward(self) -> np.ndarray:
    """[N, G] float32."""
    rewards = np.asarray([s["reward"] for s in self.scores], np.float32)
    return rewards.reshape(len(self.problems), -1)

  @property
  def judged(self) -> np.ndarray:
    """[N] bool, False for the group of a problem that nobody can judge."""
    judged = np.asarray([verdict.judged for verdict in self.verdicts])
    return np.asarray(judged.reshape(len(self.problems), -1).all(axis=1))

  @property
  def has_signal(self) -> np.ndarray:
    """[N] bool, False where nothing can be learned from a group.

    Its rewards are all equal, or nobody can judge its problem.
    """
    rewards = self.reward
    return self.judged & (rewards != rewards[:, :1]).any(axis=1)

  def replace(
    self, groups: np.ndarray, other: "Scored", others: np.ndarray
  ) -> "Scored":
    """The same rollout with some groups of another one.

    Args:
      groups: numbers of the groups to replace.
      other: a `Scored` with the same G.
      others: numbers of the groups of `other` that take their place.

    Returns:
      `Scored`; its seconds are those of both.
    """

    def rows(groups):
      first = np.asarray(groups)[:, None] * self.group
      return (first + np.arange(self.group)).ravel()

    def mixed(mine, theirs, to, source):
      mine = mine.copy()
      for i, j in zip(to, source):
        mine[i] = theirs[j]
      return mine

    at, source = rows(groups), rows(others)
    return Scored(
      mixed(self.problems, other.problems, groups, others),
      mixed(self.prompts, other.prompts, groups, others),
      jax.tree.map(
        lambda a, b: mixed(a, b, at, source), self.rollout, other.rollout
      ),
      mixed(self.texts, other.texts, at, source),
      mixed(self.verdicts, other.verdicts, at, source),
      mixed(self.scores, other.scores, at, source),
      self.seconds + other.seconds,
    )

  def mean(self, part: str) -> float:
    """The mean of one part of the scores, over completions that have it."""
    values = [s[part] for s in self.scores if part in s]
    return float(np.mean(values)) if values else float("nan")

  def rows(self, count: int) -> list[dict[str, Any]]:
    """The first completion of each of the first problems, to read.

    Args:
      count: of problems.

    Returns:
      list of dicts, as `PhaseIO.samples` takes them.
    """
    return [
      {
        "id": p.id,
        "prompt": p.prompt,
        "completion": self.texts[i * self.group],
        **self.scores[i * self.group],
      }
      for i, p in enumerate(self.problems[:count])
    ]


class Actor:
  """Samples completions of problems and scores them.

  Example:
    actor = Actor(config, config.setup(), group=8, rewards={"accuracy": 1.0})
    actor.load(state.params)
    scored = actor.rollout(problems, step)

  Args:
    config: the phase's, a `common.Sampling`.
    setup: the phase's `Setup`, whose `sampler_mesh` the actor runs on.
    group: G, completions of each problem.
    rewards: part of the reward -> weight, see `rewards.score`.
    overlong: tokens before the limit at which `overlong.penalty` starts; 0
      for no penalty.
    keep: whether rollouts tell which tokens top-k and top-p kept.
  """

  def __init__(
    self,
    config: Sampling,
    setup: Setup,
    group: int,
    rewards: Mapping[str, Any],
    overlong: int = 0,
    keep: bool = False,
  ):
    self._config, self._rewards, self._overlong = config, rewards, overlong
    self._tokenizer, self._key = setup.tokenizer, setup.key
    self._mesh = setup.sampler_mesh
    self._sampler = Sampler(
      config.model, config.decoder(setup.tokenizer), group, self._mesh, keep
    )
    self._loaded: Loaded | None = None
    stop = config.sampler.stop
    self._stops = Stops(stop, self._tokenizer.decode) if stop else None

  def load(self, params: Any) -> None:
    """Takes the parameters of the next rollouts to the actor's devices.

    Args:
      params: of the model, on any mesh. On the actor's own mesh they are not
        copied.
    """
    params = model_lib.place(self._config.model, params, self._mesh)
    self._loaded = self._sampler.load(params)

  def unload(self) -> None:
    """Frees the memory of the weights until the next `load`."""
    self._loaded = None

  def rollout(
    self,
    problems: Sequence[Problem],
    step: int | None = None,
    redraw: int = 0,
    progress: Callable[[int], None] | None = None,
  ) -> Scored:
    """Samples completions, verifies them and computes their rewards.

    Finished completions are verified while the device decodes the others.
    Verifiers that may take long run in other processes (`judges`).

    Args:
      problems: N `Problem`s.
      step: the phase's step, which decides the randomness; None in a phase of
        one rollout.
      redraw: number of the rollout within the step, from 0.
      progress: function of the number of completions that are finished.

    Returns:
      a `Scored`, equal on every host.

    Raises:
      UserError: a prompt is too long, or a problem cannot be verified.
    """
    key = self._key if step is None else jax.random.fold_in(self._key, step)
    key = jax.random.fold_in(key, redraw) if redraw else key
    judging = _Judging(
      problems, self._sampler.group, self._tokenizer, self._stops, progress
    )
    prompts, rollout = self._sample(problems, key, judging.on_finished)
    begin = time.perf_counter()
    penalty = None
    if self._overlong:
      penalty = overlong.penalty(
        rollout.lengths, self._config.sampler.max_new_tokens, self._overlong
      )
    verdicts = judging.verdicts()
    # Only there: a reward model may cost something.
    scores = hosts.on_first(
      rewards_lib.score, judging.problems, judging.texts, verdicts,
      self._rewards, penalty,
    )  # fmt: skip
    seconds = judging.seconds + time.perf_counter() - begin
    return Scored(
      list(problems), prompts, rollout, judging.texts, verdicts, scores, seconds
    )

  def _sample(self, problems, key, on_finished):
    """Prompts (N arrays of tokens) and a `Rollout` of numpy arrays."""
    prompts = [np.asarray(self._tokenizer.encode(p.prompt)) for p in problems]
    longest = max(map(len, prompts))
    most = self._config.model.max_length
    new = self._config.sampler.max_new_tokens
    if longest + new > most:
      culprit = problems[int(np.argmax([len(p) for p in prompts]))]
      raise UserError(
        f"{self._config.name}: the prompt of problem {culprit.id} has"
        f" {longest} tokens; with max_new_tokens={new} that exceeds the"
        f" model's max_length={most}; shorten the prompt or change either"
      )
    rollout = self._sampler.sample(
      self._loaded,
      prompts,
      key,
      self._config.temperature,
      callbacks=Callbacks(
        on_finished=on_finished,
        end_of=self._stops.end if self._stops else None,
      ),
    )
    return prompts, jax.tree.map(hosts.whole, rollout)


class _Judging:
  """The verdicts of one rollout, which arrive while it is sampled.

  Each host asks for the verdicts of its share of the completions.

  Args:
    problems: N `Problem`s.
    group: G, completions of each problem.
    tokenizer: decodes completions.
    stops: `Stops`, or None. What follows a stop string is not part of a text.
    progress: as of `Actor.rollout`.

  Attributes:
    problems: C `Problem`s, one for each completion.
    texts: C completions; None if not finished.
    seconds: that `on_finished` has taken.
  """

  def __init__(self, problems, group, tokenizer, stops=None, progress=None):
    self.problems = [p for p in problems for _ in range(group)]
    self.texts = [None] * len(self.problems)
    self.seconds = 0.0
    self._tokenizer, self._stops = tokenizer, stops
    self._progress, self._finished = progress, 0
    self._own = hosts.share(range(len(self.problems)))
    self._futures = [None] * len(self.problems)

  def on_finished(self, ids, rows):
    """Decodes finished completions and asks for their verdicts.

    Args:
      ids: numbers of the completions.
      rows: their rows of the `Rollout`, as numpy arrays.

    Raises:
      Stopped: a signal asks for it. The rollout is lost.
    """
    if hosts.is_alone():
      # Several hosts stop together, at the end of the step.
      stopping.check()
    begin = time.perf_counter()
    for i, tokens, n, ended in zip(ids, rows.tokens, rows.lengths, rows.ended):
      text = self._tokenizer.decode(tokens[:n].tolist())
      if self._stops is not None:
        text = self._stops.trim(text)
      self.texts[i] = text
      if ended and int(i) in self._own:
        self._futures[i] = judges.shared().submit(self.problems[i], text)
    self._finished += len(ids)
    if self._progress is not None:
      self._progress(self._finished)
    self.seconds += time.perf_counter() - begin

  def verdicts(self):
    """Waits for the C `Verdict`s; they are equal on every host.

    Raises:
      Exception: on every host, what a verifier raised on any of them.
    """
    verdicts = hosts.gather([_verdict(self._futures[i]) for i in self._own])
    for verdict in verdicts:
      if isinstance(verdict, Exception):
        raise verdict
    return verdicts


def _verdict(future):
  """A `Verdict`, or the error that every host must raise."""
  if future is None:
    return rewards_lib.CUT
  try:
    return future.result()
  except BadProblem:
    return rewards_lib.SKIPPED
  except Exception as e:
    return e
