"""Held-out accuracy of a checkpoint."""

from r1jax import scores
from r1jax.data import sources
from r1jax.phases import rollout as rollout_lib
from r1jax.phases.common import setup
from r1jax.training import learner
from r1jax.verifiers import final_answer


def evaluate(config, state, data, io):
  """Samples each held-out problem k times; a row of the closing table.

  Args:
    config: label (the row's name), problems (how many), samples (k),
      temperature, top_p, slots, max_new_tokens.
    state: `TrainState` of the policy.
    data: not used; the problems are the "test" split of `config.task`.
    io: the phase's `PhaseIO`.

  Returns:
    `state` unchanged, and the row: checkpoint, pass@1, cons@k, format,
    language, tokens (mean length of a completion). The phase's metrics also
    have half the width of pass@1's 95 % interval and, where the problems are
    of several tasks (by their ids, TASK-NUMBER), pass@1 of each.
  """
  s = setup(config)
  problems = sources.problems(config.task, io, s.tokenizer)["test"]
  problems = [problems[i] for i in range(min(config.problems, len(problems)))]
  io.bar(1, 0, show=("pass@1", "tokens"))
  scored = rollout_lib.sample_and_score(
    s, config, learner.place_params(state.params, s.mesh), problems,
    config.samples, s.key, config.temperature, {"accuracy": 1.0},
  )  # fmt: skip
  rollout = scored.rollout
  k = config.samples
  correct, answers = [], []
  for n, problem in enumerate(problems):
    group = slice(n * k, (n + 1) * k)
    correct.append([x["accuracy"] == 1 for x in scored.scores[group]])
    answers.append(
      [
        # What was cut has no answer, whatever it says.
        final_answer(problem, text) if ended else None
        for text, ended in zip(scored.texts[group], rollout.ended[group])
      ]
    )
  row = {
    "checkpoint": config.label,
    "pass@1": scores.pass_at_1(correct),
    f"cons@{k}": scores.cons_at_k(answers, correct),
    "format": scored.mean("format"),
    "language": scored.mean("language"),
    "tokens": float(rollout.lengths.mean()),
  }
  measured = {k: v for k, v in row.items() if k != "checkpoint"}
  if len(correct) > 1:
    measured["pass@1_half_width"] = scores.half_width(correct)
  for task, of_task in scores.by_task([p.id for p in problems], correct):
    measured[f"pass@1_{task}"] = scores.pass_at_1(of_task)
  io.report(0, measured)
  io.samples(0, rollout_lib.sample_rows(scored, 16))
  return state, row
