"""A model with its tokenizer: prompts in, completions out, in a few lines."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np

from r1jax import meshes, origin
from r1jax.errors import UserError
from r1jax.meshes import Mesh
from r1jax.model import ModelConfig
from r1jax.sampling.sampler import Callbacks, Sampler, SamplerConfig
from r1jax.text import prompts as prompts_lib
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.text.stops import Stops
from r1jax.text.tokenizer import Tokenizer

# How R1 is sampled (DeepSeek-R1 v2, D.1).
TEMPERATURE, TOP_P = 0.6, 0.95
# "auto": the chat template if the tokenizer has one, else the text as it is.
Template = Literal["auto", prompts_lib.Template]
TEMPLATES = get_args(Literal["auto"]) + prompts_lib.TEMPLATES


@dataclasses.dataclass(frozen=True)
class Completion:
  """A completion of a prompt.

  Attributes:
    prompt: the text that was asked, without the template.
    text: the completion, without its end token or a stop string.
    tokens: how many the model wrote, the end token included.
    logprob: the sum of their log-probabilities in nats, in the distributions
      that they were drawn from: at the temperature and within top_p.
    finish: "stop" if the model or a stop string ended it, "length" if the
      limit did.
    index: number of the prompt, from 0.
  """

  prompt: str
  text: str
  tokens: int
  logprob: float
  finish: Literal["stop", "length"]
  index: int


class LanguageModel:
  """A model with its tokenizer.

  Example:
    model = r1jax.load("hf:smollm2")
    for c in model.sample(["What is 3 + 4?"], max_new_tokens=64):
      print(c.text)

  Args:
    config: the `ModelConfig`.
    params: its parameters, on the mesh.
    tokenizer: its `Tokenizer`.
    mesh: the devices to sample on.

  Attributes:
    config, params, tokenizer: as given.
  """

  def __init__(
    self, config: ModelConfig, params: Any, tokenizer: Tokenizer, mesh: Mesh
  ):
    self.config, self.params, self.tokenizer = config, params, tokenizer
    self._mesh = mesh

  def sample(
    self,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 256,
    samples: int = 1,
    temperature: float = TEMPERATURE,
    top_p: float = TOP_P,
    seed: int = 0,
    stop: Sequence[str] = (),
    template: Template = "auto",
    slots: int = 64,
    progress: Callable[[int], None] | None = None,
  ) -> list[Completion]:
    """Completions of prompts.

    The draw of a completion depends on the seed, the number of its prompt and
    its own number only.

    Args:
      prompts: N texts.
      max_new_tokens: most tokens of a completion.
      samples: completions of each prompt.
      temperature: divides the logits; 0 takes the likeliest token.
      top_p: draws among the likeliest tokens with this share of the
        probability.
      seed: of the draws.
      stop: strings; a completion ends before the first of them.
      template: how a text becomes a prompt, one of `TEMPLATES`.
      slots: completions that are decoded side by side.
      progress: function of the number of completions that are finished.

    Returns:
      list of N * samples `Completion`s, those of a prompt side by side.

    Raises:
      UserError: an argument is out of range, or a prompt is empty or leaves no
        room for a completion.
    """
    _check(prompts, max_new_tokens, samples, temperature)
    render = self.renderer(template)
    encoded = [self.tokenizer.encode(render(text)) for text in prompts]
    limits = self._limits(encoded, max_new_tokens)
    if not prompts:
      return []
    config = SamplerConfig(
      slots=min(slots, len(prompts) * samples),
      max_new_tokens=max(limits),
      eos_id=self.tokenizer.end_ids,
      top_p=top_p,
      greedy=temperature == 0,
      stop=tuple(stop),
    )
    stops = Stops(stop, self.tokenizer.decode) if stop else None
    sampler = Sampler(self.config, config, samples, self._mesh)
    done = 0

    def on_finished(ids, rows):
      nonlocal done
      done += len(ids)
      if progress is not None:
        progress(done)

    rollout = sampler.sample(
      sampler.load(self.params),
      encoded,
      jax.random.key(seed),
      temperature or 1.0,
      limits=np.repeat(limits, samples),
      callbacks=Callbacks(
        on_finished=on_finished, end_of=stops.end if stops else None
      ),
    )
    rollout = jax.device_get(rollout)
    found = [
      self._completion(prompts, rollout, i, samples)
      for i in range(len(prompts) * samples)
    ]
    if stops is None:
      return found
    return [dataclasses.replace(c, text=stops.trim(c.text)) for c in found]

  def renderer(self, template: Template = "auto") -> Callable[..., str]:
    """The function that makes a prompt of a text; see `prompts.renderer`.

    Args:
      template: one of `TEMPLATES`.
    """
    return prompts_lib.renderer(
      resolved(template, self.tokenizer), self.tokenizer
    )

  def _limits(self, encoded, most):
    """[N] most tokens of the completions of each prompt."""
    limits = []
    for n, tokens in enumerate(encoded):
      room = self.config.max_length - len(tokens)
      if not tokens or room < 1:
        raise UserError(
          f"prompt {n} has {len(tokens)} tokens; the model takes 1 to"
          f" {self.config.max_length - 1}"
        )
      limits.append(min(most, room))
    return limits

  def _completion(self, prompts, rollout, i, samples):
    n = int(rollout.lengths[i])
    return Completion(
      prompt=prompts[i // samples],
      text=self.tokenizer.decode(rollout.tokens[i, :n].tolist()),
      tokens=n,
      logprob=float(rollout.logprobs[i, :n].astype(np.float64).sum()),
      finish="stop" if rollout.ended[i] else "length",
      index=i // samples,
    )


def load(
  name: str, dtype: str | None = None, mesh: Mesh | None = None
) -> LanguageModel:
  """Loads a model with its tokenizer.

  Args:
    name: "hf:DIR", "run:DIR/PHASE", "run:DIR/PHASE@STEP", a directory or a
      hub id; see `r1jax.origin`.
    dtype: of parameters and activations; None: as stored.
    mesh: the devices; None: all of them, each with the whole model.

  Raises:
    UserError: there is no model of this name, or it is damaged.
  """
  found = origin.find(name)
  mesh = mesh or meshes.make_mesh(data=-1)
  tokenizer = tokenizer_lib.load(found.tokenizer())
  size = ModelConfig(**found.fields()).vocab_size
  tokenizer_lib.check_fits(tokenizer, size, f"{found}: ")
  config, params = found.load(mesh, dtype)
  return LanguageModel(config, params, tokenizer, mesh)


def resolved(template: str, tokenizer: Tokenizer) -> str:
  """The template that "auto" means for a tokenizer; others as they are."""
  if template != "auto":
    return template
  return "chat" if has_template(tokenizer) else "none"


def has_template(tokenizer: Tokenizer) -> bool:
  """Whether a tokenizer has a chat template."""
  return getattr(tokenizer, "has_template", hasattr(tokenizer, "template"))


def _check(prompts, max_new_tokens, samples, temperature):
  """Raises a `UserError` for arguments of `sample` that are out of range."""
  if isinstance(prompts, str):
    raise UserError("prompts is one text; give a list of texts")
  for name, value in (("max_new_tokens", max_new_tokens), ("samples", samples)):
    if not value >= 1:
      raise UserError(f"{name}={value} must be at least 1")
  if not 0 <= temperature < float("inf"):
    raise UserError(f"temperature={temperature} must be at least 0, and finite")
