"""The fixed set that GeRe replays: sequences, and a teacher's activations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.corpus import Corpus
from trainers.data import windows_per_epoch
from trainers.evaluate import place_eval_batches
from trainers.gere import GeRe
from trainers.objectives import Replay
from trainers.sharding import BATCH_AXES
from trainers.train_step import graph_of

ReplaySet = tuple[Replay, ...]  # the batches, in the order of their replay


def replay_tokens(config: RunConfig, corpus: Corpus) -> list[np.ndarray]:
  """The batches of the set: windows spread evenly over the training part.

  Args:
    config: a run with `gere`.
    corpus: that of `config.gere.source`, materialised.

  Returns:
    int32 arrays [gere.batch_size, seq_len + 1].

  Raises:
    ValueError: if the corpus is too small, or has ids the model has not.
  """
  gere, length = _gere_of(config), config.data.seq_len
  if corpus.vocab_size > config.model.vocab_size:
    raise ValueError(
      f'GeRe.source must have ids below model.vocab_size='
      f'{config.model.vocab_size}, got {corpus.vocab_size} in '
      f'{corpus.train_path}; use the tokens of the corpus that is trained on'
    )
  available = windows_per_epoch(corpus, length)
  if gere.n_sequences > available:
    raise ValueError(
      f'GeRe.n_sequences must be <= {available}, the windows of {length} '
      f'tokens in {corpus.train_path}, got {gere.n_sequences}; replay fewer '
      'sequences or use a larger corpus'
    )
  tokens = np.memmap(corpus.train_path, dtype=corpus.dtype, mode='r')
  starts = np.arange(gere.n_sequences) * available // gere.n_sequences * length
  sequences = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int32)
  return np.split(sequences, gere.n_sequences // gere.batch_size)


def fixed_set(
  config: RunConfig, params: Any, mesh: Mesh, corpus: Corpus
) -> ReplaySet:
  """The set on the devices, with the activations of a teacher.

  A pure function of its arguments: the same weights on the same mesh give the
  same bits, so a run that resumes makes it again from its first checkpoint.
  The activations are the last hidden state after the final norm, which is what
  the logits are made of, and of the same size in every network; they are kept
  in the compute dtype, which loses nothing. Thresholds are their mean less and
  plus one standard deviation, over all tokens of the set.

  Args:
    config: a run with `gere`.
    params: the teacher's weights.
    mesh: the devices; each holds its share of every batch.
    corpus: that of `config.gere.source`, materialised.

  Raises:
    ValueError: if the corpus does not fit.
  """
  batches = place_eval_batches(replay_tokens(config, corpus), mesh)
  with jax.set_mesh(mesh):
    hidden_of = _hidden_function(config.model, mesh)
    hidden = [hidden_of(params, tokens) for tokens in batches]
    low, high = _thresholds(hidden, mesh)
  return tuple(
    Replay(tokens, states, low, high)
    for tokens, states in zip(batches, hidden, strict=True)
  )


def replay_batch(replay_set: ReplaySet, step: int) -> Replay:
  """What update `step` replays: the batches in order, again and again."""
  return replay_set[step % len(replay_set)]


def _gere_of(config: RunConfig) -> GeRe:
  if config.gere is None:
    raise ValueError('RunConfig.gere must name what to replay, got None')
  return config.gere


@functools.cache
def _hidden_function(
  model: ModelConfig, mesh: Mesh
) -> Callable[[Any, jax.Array], jax.Array]:
  """The compiled `(params, tokens [B, L + 1]) -> last hidden state [B, L, D]`.

  The last token is only predicted, so it has no state.
  """
  graph = graph_of(model)

  def hidden(params: Any, tokens_BxL1: jax.Array) -> jax.Array:
    return nnx.merge(graph, params).hidden(tokens_BxL1[:, :-1])

  return jax.jit(hidden, out_shardings=NamedSharding(mesh, P(BATCH_AXES)))


def _thresholds(
  hidden: list[jax.Array], mesh: Mesh
) -> tuple[jax.Array, jax.Array]:
  """Mean of each dimension over all tokens, less and plus one deviation."""
  copied = NamedSharding(mesh, P())

  @functools.partial(jax.jit, out_shardings=copied)
  def mean_square_from(center_D: jax.Array, x_BxLxD: jax.Array) -> jax.Array:
    apart = x_BxLxD.astype(jnp.float32) - center_D[None, None]
    return jnp.stack([jnp.mean(apart, (0, 1)), jnp.mean(apart**2, (0, 1))])

  def moments(center_D: np.ndarray) -> np.ndarray:
    # One batch at a time, and their mean in float64.
    of_batches = [np.asarray(mean_square_from(center_D, x)) for x in hidden]
    return np.asarray(np.mean(of_batches, axis=0, dtype=np.float64))

  mean_D = moments(np.zeros(hidden[0].shape[-1], np.float32))[0]
  # Around the mean: differences of large squares would lose the deviation.
  std_D = np.sqrt(moments(mean_D.astype(np.float32))[1])
  low, high = (np.float32(mean_D + sign * std_D) for sign in (-1, 1))
  return jax.device_put(low, copied), jax.device_put(high, copied)
