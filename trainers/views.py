"""Several views of each sequence in one batch (arXiv:2503.18371).

Letters of shapes: A accumulation steps, W windows of a microbatch, S views of
each, L length, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from trainers.fields import config
from trainers.fields import require


@config
class Views:
  """Each batch holds fewer windows, each several times, corrupted.

  A batch of `batch_size` sequences is `batch_size / n` windows of the corpus.
  The first view of a window is the window itself; in the others a share of the
  input tokens is replaced, and the tokens to predict stay. An update minimises

    loss over all views + kl_weight * KL(first view || other view)

  where the KL divergence is the mean over positions and the other views, in
  nats per token, and no gradient flows into the first view. At as many updates
  a window comes back after `n` times as many: see `recall_interval`.

  Attributes:
    n: views of each window; divides every microbatch.
    corrupt_frac: probability that an input token of a later view is replaced by
      another one; every other of the model's vocabulary is as likely.
    kl_weight: of the divergence; 0 only predicts.
    kl_from_step: first update of the run with the divergence.
  """

  n: int = 4
  corrupt_frac: float = 0.1
  kl_weight: float = 1.0
  kl_from_step: int = 0

  def check(self) -> None:
    require(self.n >= 2, 'Views.n', self.n, 'must be >= 2')
    require(
      0 <= self.corrupt_frac <= 1,
      'Views.corrupt_frac',
      self.corrupt_frac,
      'must be in [0, 1]',
    )
    for name in ('kl_weight', 'kl_from_step'):
      value = getattr(self, name)
      require(value >= 0, f'Views.{name}', value, 'must be >= 0')


class Draw(NamedTuple):
  """What the corruption of a batch is a function of, beside its shape.

  Attributes:
    seed: uint32, of the run's data.
    step: int32, the update.
  """

  seed: jax.Array | np.uint32
  step: jax.Array | np.int32


class ViewBatch(NamedTuple):
  """Windows and the inputs of their views.

  Attributes:
    tokens_AxWxL1: int32, the windows.
    inputs_AxWxSxL: int32, what the network reads of each view.
  """

  tokens_AxWxL1: jax.Array
  inputs_AxWxSxL: jax.Array


def check_views(
  views: Views, batch_sizes: tuple[int, ...], accum_steps: int
) -> None:
  """Raises ValueError unless every microbatch holds whole windows."""
  each = views.n * accum_steps
  for batch_size in batch_sizes:
    require(
      batch_size % each == 0,
      'DataConfig.batch_size',
      batch_size,
      f'must be a multiple of data.views.n={views.n} x accum_steps='
      f'{accum_steps} = {each}, as a microbatch holds all views of a window',
    )


def recall_interval(n_windows: int, batch_size: int, n_views: int) -> float:
  """Updates between two exposures of a window, `n_windows / (batch / views)`.

  Args:
    n_windows: windows of the corpus, each drawn once per epoch.
    batch_size: sequences of a batch, views counted.
    n_views: views of each window; 1 is training without views.
  """
  return n_windows * n_views / batch_size


def views_of(
  tokens_AxWxL1: jax.Array, views: Views, vocab_size: int, draw: Draw
) -> ViewBatch:
  """The views of a batch: a pure function of the windows, seed and step.

  The same whatever the accumulation steps and the devices: what is drawn for a
  view depends on the place of its window in the batch.
  """
  key = jax.random.fold_in(jax.random.key(draw.seed), draw.step)
  inputs_AxWx1xL = tokens_AxWxL1[:, :, None, :-1]
  a, w, _, length = inputs_AxWx1xL.shape
  # One draw for both questions: each takes seconds to compile on a CPU.
  bits = jax.random.bits(key, (2, a, w, views.n - 1, length))
  replaced = bits[0] >> 8 < round(views.corrupt_frac * 2**24)
  # 1 to vocab_size - 1 further on: every other token, and never the same.
  shift = (1 + bits[1] % (vocab_size - 1)).astype(jnp.int32)
  others = (inputs_AxWx1xL + jnp.where(replaced, shift, 0)) % vocab_size
  inputs_AxWxSxL = jnp.concatenate([inputs_AxWx1xL, others], axis=2)
  return ViewBatch(tokens_AxWxL1, inputs_AxWxSxL)


def kl_of_views(logits_WxSxLxV: jax.Array) -> jax.Array:
  """Mean KL divergence of later views from the first, a constant; in nats.

  `sum_v p_1(v) (log p_1(v) - log p_s(v))`, averaged over windows, positions and
  views `s > 1`.
  """
  log_p = jax.nn.log_softmax(logits_WxSxLxV, axis=-1)
  first, others = jax.lax.stop_gradient(log_p[:, :1]), log_p[:, 1:]
  return jnp.mean(jnp.sum(jnp.exp(first) * (first - others), axis=-1))
