"""Problems in, completions and their verdicts out: what RL and tests share."""

import time
from typing import NamedTuple

import jax
import numpy as np

from r1jax import hosts
from r1jax.errors import BadProblem, UserError
from r1jax.rewards import judges, overlong
from r1jax.rewards import score as rewards_lib
from r1jax.sampling.sampler import Callbacks, Sampler
from r1jax.types import Rollout


class Scored(NamedTuple):
  """A rollout on the host, with its texts and verdicts; rows are [N * G].

  Attributes:
    problems: the N problems.
    prompts: their tokens, N arrays of differing lengths.
    rollout: `Rollout` of numpy arrays.
    texts: C completions, decoded.
    verdicts: C `Verdict`s.
    scores: C dicts of `rewards.score`.
    seconds: that the host spent on them, mostly while the device sampled.
  """

  problems: list
  prompts: list
  rollout: Rollout
  texts: list
  verdicts: list
  scores: list
  seconds: float = 0.0

  @property
  def reward(self):
    """[N, G] float32."""
    rewards = np.asarray([s["reward"] for s in self.scores], np.float32)
    return rewards.reshape(len(self.problems), -1)

  @property
  def judged(self):
    """[N] bool, False for the group of a problem that nobody can judge."""
    judged = np.asarray([verdict.judged for verdict in self.verdicts])
    return judged.reshape(len(self.problems), -1).all(axis=1)

  def replace(self, groups, other, others):
    """With `groups` of this rollout given up for `others` of `other`."""
    group = len(self.texts) // len(self.problems)

    def rows(groups):
      return (np.asarray(groups)[:, None] * group + np.arange(group)).ravel()

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

  def mean(self, part):
    """Mean of one part of the scores over those completions that have it."""
    values = [s[part] for s in self.scores if part in s]
    return float(np.mean(values)) if values else float("nan")


def generate(config, s, params, problems, group, key, on_finished=None):
  """Samples `group` completions of each problem.

  Args:
    config: of the phase, `common.Sampling`.
    s: the phase's `Setup`.
    params: parameters on the mesh.
    problems: N of them.
    group: G, completions of each problem.
    key: PRNG key of this rollout.
    on_finished: as of `sampler.Callbacks`, or None.

  Returns:
    prompts (N arrays of tokens) and a `Rollout` of numpy arrays.
  """
  prompts = [np.asarray(s.tokenizer.encode(p.prompt)) for p in problems]
  longest = max(map(len, prompts))
  new, most = config.sampler.max_new_tokens, config.model.max_length
  if longest + new > most:
    culprit = problems[int(np.argmax([len(p) for p in prompts]))]
    raise UserError(
      f"{config.name}: the prompt of problem {culprit.id} has {longest} tokens;"
      f" with max_new_tokens={new} that exceeds the model's"
      f" max_length={most}; shorten the prompt or change either"
    )
  sampler = Sampler(config.model, config.decoder(s.tokenizer), group, s.mesh)
  rollout = sampler.sample(
    sampler.load(params), prompts, key, config.temperature,
    callbacks=Callbacks(on_finished),
  )  # fmt: skip
  return prompts, jax.tree.map(np.asarray, rollout)


def sample_and_score(config, s, params, problems, group, key, weights):
  """As `generate`, and verifies finished completions during the decoding.

  Verifiers that may take long run in other processes (`judges`). Every host
  judges its share of the completions, and the first one alone asks reward
  models, so that rewards are made once and are the same on every host.

  Args:
    config: of the phase, `common.Sampling`.
    s: the phase's `Setup`.
    params: parameters on the mesh.
    problems: N of them.
    group: G, completions of each problem.
    key: PRNG key of this rollout.
    weights: of the rewards, see `rewards.score`.

  Returns:
    a `Scored`.
  """
  texts = [None] * (len(problems) * group)
  futures = [None] * len(texts)
  own = hosts.share(range(len(texts)))
  seconds = 0.0

  def verify(ids, rows):
    nonlocal seconds
    begin = time.perf_counter()
    for i, tokens, n, ended in zip(ids, rows.tokens, rows.lengths, rows.ended):
      texts[i] = s.tokenizer.decode(tokens[:n].tolist())
      if ended and int(i) in own:
        futures[i] = judges.shared().submit(problems[i // group], texts[i])
    seconds += time.perf_counter() - begin

  prompts, rollout = generate(config, s, params, problems, group, key, verify)
  begin = time.perf_counter()
  verdicts = hosts.gather([_verdict(futures[i]) for i in own])
  for verdict in verdicts:
    if isinstance(verdict, Exception):
      raise verdict
  scores = hosts.on_first(
    rewards_lib.score,
    [p for p in problems for _ in range(group)],
    texts,
    verdicts,
    weights,
    _penalty(config, rollout),
  )
  seconds += time.perf_counter() - begin
  return Scored(problems, prompts, rollout, texts, verdicts, scores, seconds)


def _penalty(config, rollout):
  """What long completions lose of their rewards; None if nothing is lost."""
  loss = getattr(config, "loss", None)
  if loss is None or not loss.overlong:
    return None
  return overlong.penalty(
    rollout.lengths, config.sampler.max_new_tokens, loss.overlong
  )


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


def sample_rows(scored, count):
  """The first completions as rows for a viewer: one of each of N problems."""
  group = len(scored.texts) // len(scored.problems)
  return [
    {
      "id": p.id,
      "prompt": p.prompt,
      "completion": scored.texts[i * group],
      **scored.scores[i * group],
    }
    for i, p in enumerate(scored.problems[:count])
  ]
