"""The loss on a fixed set of validation sequences."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trainers.averaging import lawa_mean
from trainers.config import ModelConfig
from trainers.model import next_token_loss
from trainers.sharding import BATCH_AXES
from trainers.train_step import TrainState
from trainers.train_step import graph_of


class EvalResult(NamedTuple):
  """Losses of the evaluation set.

  Attributes:
    losses: float32 [sequences], mean nats per token of each sequence.
    mean: their mean.
    standard_error: of the mean, over sequences; sequences of one document are
      correlated, so it is a lower bound of the error over documents.
  """

  losses: np.ndarray
  mean: float
  standard_error: float


def paired_standard_error(losses: np.ndarray, others: np.ndarray) -> float:
  """Standard error of the mean difference of two models on the same sequences.

  Args:
    losses: float [sequences], of one model.
    others: float [sequences], of the other, in the same order.
  """
  difference = np.asarray(losses, float) - np.asarray(others, float)
  return float(difference.std(ddof=1) / math.sqrt(len(difference)))


@functools.cache
def make_eval_step(
  model: ModelConfig, mesh: Mesh
) -> Callable[[Any, jax.Array], jax.Array]:
  """The compiled `(params, tokens [B, L+1]) -> mean nats per token, [B]`.

  Made once for each model and mesh, so that runs in one process share it.
  """
  graph = graph_of(model)

  def step(params: Any, tokens_BxL: jax.Array) -> jax.Array:
    _, nats_BxL = next_token_loss(nnx.merge(graph, params), tokens_BxL)
    return jnp.mean(nats_BxL, axis=-1)

  # Replicated, so that every process can read all of them.
  return jax.jit(step, out_shardings=NamedSharding(mesh, P()))


def place_eval_batches(
  batches: Iterable[np.ndarray], mesh: Mesh
) -> list[jax.Array]:
  """Evaluation batches on the devices; every process holds the whole set."""
  sharding = NamedSharding(mesh, P(BATCH_AXES, None))
  return [
    jax.make_array_from_callback(b.shape, sharding, b.__getitem__)
    for b in batches
  ]


def evaluate(
  eval_step: Callable,
  params: Any,
  batches: list[jax.Array],
  is_stopping: Callable[[], bool] = lambda: False,
) -> EvalResult | None:
  """Mean loss and its standard error over all sequences of the batches.

  None if the run was told to stop meanwhile: what is not whole is not reported.
  """
  losses = []
  for tokens in batches:
    losses.append(np.asarray(eval_step(params, tokens)))
    if is_stopping():
      return None
  return summarise(np.concatenate(losses))


def summarise(losses: np.ndarray) -> EvalResult:
  """The mean over sequences, in float64, and its standard error."""
  mean = float(losses.mean(dtype=np.float64))
  error = float(losses.std(ddof=1, dtype=np.float64) / math.sqrt(len(losses)))
  return EvalResult(losses, mean, error)


def averages_of(state: TrainState) -> Iterator[tuple[str, Any]]:
  """The averages of the weights that a state holds, by name, one at a time."""
  if state.ema is not None:
    yield 'ema', state.ema
  if state.lawa is not None:
    yield 'lawa', _lawa_mean(state.lawa, state.params)


_lawa_mean = jax.jit(lawa_mean)
