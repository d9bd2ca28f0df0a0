"""The losses of TRL's trainer, on the same arrays. Wants `.[peers]`."""

import collections
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import variants
from r1jax.variants import Loss

torch = pytest.importorskip("torch")
grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")

C, T = 6, 9  # completions; tokens of the longest


def arrays(seed):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, T + 1, C)
  mask = np.arange(T) < lengths[:, None]
  old = -rng.exponential(size=(C, T))
  logprobs = old + 0.5 * rng.normal(size=(C, T))
  ref = old + 0.5 * rng.normal(size=(C, T))
  advantages = rng.normal(size=C)
  floats = (logprobs, old, ref, advantages)
  return [x.astype(np.float32) for x in floats], mask


def trl_loss(loss_type, data, mask, beta, low, high, level="token", delta=None):
  """Loss and gradient by the log-probabilities, from TRL's own method."""
  logprobs, old, ref, advantages = map(torch.tensor, data)
  logprobs.requires_grad_()
  gather = types.SimpleNamespace(
    gather=lambda x: x, reduce=lambda x, **_: x, num_processes=1,
    gather_for_metrics=lambda x: x,
  )  # fmt: skip
  trainer = types.SimpleNamespace(
    _get_per_token_logps_and_entropies=lambda *_, **__: (
      logprobs, torch.zeros_like(logprobs), None,
    ),
    _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
    accelerator=gather, args=types.SimpleNamespace(
      delta=delta, use_bias_correction_kl=False, steps_per_generation=1,
    ),
    aux_loss_enabled=False, beta=beta, current_gradient_accumulation_steps=1,
    epsilon_high=high, epsilon_low=low, importance_sampling_level=level,
    loss_type=loss_type, max_completion_length=T,
    model=types.SimpleNamespace(training=True), off_policy_mask_threshold=None,
    top_entropy_quantile=1.0, use_vllm=False, _entropy_bonus_enabled=False,
  )  # fmt: skip
  ids = torch.zeros(C, T, dtype=torch.long)
  loss = grpo_trainer.GRPOTrainer._compute_loss(
    trainer, None,
    dict(
      prompt_ids=ids[:, :1], prompt_mask=ids[:, :1] + 1, completion_ids=ids,
      completion_mask=torch.tensor(mask).long(), advantages=advantages,
      old_per_token_logps=old, ref_per_token_logps=ref,
      num_items_in_batch=torch.tensor(mask.sum()),
    ),
  )  # fmt: skip
  loss.backward()
  return loss.item(), logprobs.grad.numpy()


def our_loss(data, mask, settings):
  logprobs, old, ref, advantages = map(jnp.asarray, data)
  weights = variants.weights_of(settings, jnp.asarray(mask), T)

  def loss(x):
    return variants.policy_loss(
      settings, x, old, ref, jnp.broadcast_to(advantages[:, None], x.shape),
      weights, segments=jnp.ones(x.shape, jnp.int32),
    )[0]  # fmt: skip

  return jax.value_and_grad(loss)(logprobs)


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
  "theirs, ours",
  [
    (dict(loss_type="grpo"), Loss()),
    (dict(loss_type="dr_grpo"), Loss(mean="constant")),
    (
      dict(loss_type="dapo", high=0.28),
      Loss(mean="token", epsilon_high=0.28),
    ),
    (dict(loss_type="grpo", level="sequence"), Loss(objective="gspo")),
    # TRL's epsilon_high is the bound itself, and it has no lower one.
    (
      dict(loss_type="cispo", high=1.28, low=1.0),
      Loss(objective="cispo", mean="token", epsilon_high=0.28),
    ),
  ],
  ids=["GRPO", "Dr. GRPO", "DAPO", "GSPO", "CISPO"],
)
def test_loss_and_gradient(theirs, ours, beta):
  for seed in range(3):
    data, mask = arrays(seed)
    options = dict(low=0.2, high=0.2, beta=beta) | theirs
    want, want_grad = trl_loss(data=data, mask=mask, **options)
    settings = dataclasses.replace(ours, epsilon=options["low"], beta=beta)
    got, got_grad = our_loss(data, mask, settings)
    assert float(got) == pytest.approx(want, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(got_grad, want_grad, rtol=1e-4, atol=1e-6)


def test_two_sided_clipping_differs_by_design():
  """TRL's delta caps the ratio of every token; dual clip, as Ye et al. wrote
  it, puts a floor under c A. With A < 0 they are one and the same."""
  data, mask = arrays(0)
  data[3] = -np.abs(data[3])
  want, want_grad = trl_loss("grpo", data, mask, 0.0, 0.2, 0.2, delta=1.5)
  got, grad = our_loss(data, mask, Loss(dual_clip=1.5))
  assert float(got) == pytest.approx(want, rel=1e-5)
  np.testing.assert_allclose(grad, want_grad, rtol=1e-4, atol=1e-6)
