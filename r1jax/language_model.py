"""A model with its tokenizer: prompts in, completions out, in a few lines."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np

from r1jax import checks, meshes, origin
from r1jax import config as config_lib
from r1jax.errors import UserError
from r1jax.meshes import Mesh
from r1jax.model import ModelConfig
from r1jax.sampling.sampler import Callbacks, Sampler, SamplerConfig
from r1jax.text import prompts as prompts_lib
from r1jax.text import tokenizer as tokenizer_lib
from r1jax.text.stops import Stops
from r1jax.text.tokenizer import Tokenizer
from r1jax.types import Rollout

# How R1 is sampled (DeepSeek-R1 v2, D.1).
TEMPERATURE, TOP_P = 0.6, 0.95
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
  """How completions are drawn."""

  # Most tokens of a completion.
  max_new_tokens: int = 256
  # Completions of each prompt.
  samples: int = 1
  # Divides the logits; 0 takes the likeliest token.
  temperature: float = TEMPERATURE
  # Draws among the likeliest tokens with this share of the probability.
  top_p: float = TOP_P
  # Seed of the draws.
  seed: int = 0
  # Strings; a completion ends before the first of them.
  stop: tuple[str, ...] = ()
  # How a text becomes a prompt: one of those of a task, or "auto", which is
  # the chat template if the tokenizer has one, else the text as it is.
  template: Template = "auto"
  # Completions that are decoded side by side.
  slots: int = 64

  def __post_init__(self):
    checks.at_least(self, 1, "max_new_tokens", "samples", "slots")
    checks.at_least(self, 0, "temperature", "seed")
    checks.shares(self, "top_p")


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
    progress: Callable[[int], None] | None = None,
    **draw: Any,
  ) -> list[Completion]:
    """Completions of prompts.

    A completion depends on the seed, the number of its prompt and its own
    number only.

    Args:
      prompts: N texts.
      progress: function of the number of completions that are finished.
      **draw: fields of `Draw`, such as `max_new_tokens` and `samples`.

    Returns:
      list of N * samples `Completion`s, those of a prompt side by side.

    Raises:
      UserError: an argument is unknown or out of range, or a prompt is empty
        or leaves no room for a completion.
    """
    if isinstance(prompts, str):
      raise UserError("prompts is one text; give a list of texts")
    how = config_lib.build(Draw, draw)
    render = self.renderer(how.template)
    encoded = [self.tokenizer.encode(render(text)) for text in prompts]
    if not encoded:
      return []
    limits = self._limits(encoded, how.max_new_tokens)
    stops = Stops(how.stop, self.tokenizer.decode) if how.stop else None
    rollout = self._rollout(encoded, limits, how, stops, progress)
    completions = []
    for i in range(len(encoded) * how.samples):
      n = int(rollout.lengths[i])
      text = self.tokenizer.decode(rollout.tokens[i, :n].tolist())
      completions.append(
        Completion(
          prompt=prompts[i // how.samples],
          text=stops.trim(text) if stops else text,
          **measures(rollout, i),
          index=i // how.samples,
        )
      )
    return completions

  def _rollout(self, encoded, limits, how, stops, progress):
    """The `Rollout`, as numpy arrays.

    Args:
      encoded: N lists of tokens.
      limits: N numbers, the most tokens of the completions of each.
      how: `Draw`.
      stops: `Stops` or None.
      progress: as of `sample`.
    """
    config = SamplerConfig(
      slots=min(how.slots, len(encoded) * how.samples),
      max_new_tokens=max(limits),
      eos_id=self.tokenizer.end_ids,
      top_p=how.top_p,
      greedy=how.temperature == 0,
      stop=how.stop,
    )
    done = 0

    def on_finished(ids, rows):
      nonlocal done
      done += len(ids)
      if progress is not None:
        progress(done)

    sampler = Sampler(self.config, config, how.samples, self._mesh)
    rollout = sampler.sample(
      sampler.load(self.params),
      encoded,
      jax.random.key(how.seed),
      how.temperature or 1.0,
      limits=np.repeat(limits, how.samples),
      callbacks=Callbacks(
        on_finished=on_finished, end_of=stops.end if stops else None
      ),
    )
    return jax.device_get(rollout)

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


def measures(rollout: Rollout, i: int) -> dict[str, Any]:
  """What `Completion` tells of the tokens of a completion.

  Args:
    rollout: a `Rollout` of numpy arrays.
    i: number of the completion.

  Returns:
    dict of tokens, logprob and finish.
  """
  n = int(rollout.lengths[i])
  return {
    "tokens": n,
    "logprob": float(rollout.logprobs[i, :n].astype(np.float64).sum()),
    "finish": "stop" if rollout.ended[i] else "length",
  }


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
