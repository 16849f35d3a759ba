"""Averages of weights that stand for a decay, and their coefficients.

Weights after `j` segments of training are `x_j = x_0 + u_1 + ... + u_j`. An
average with coefficients `c_0 + ... + c_k = 1` is

    sum_j c_j x_j = x_0 + sum_j d_j u_j,    d_j = c_j + c_{j+1} + ... + c_k

so every average of a run's weights multiplies its updates by a falling series
of factors, as a decay of the LR does, and every falling series belongs to one
average. What the average leaves out is that a decay also changes where the
later gradients are taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lrsched.shapes import DecayShape
from lrsched.shapes import check_floor

SUM_TOLERANCE = 1e-6  # of coefficients, which a file may hold as float32
POINTS = 256  # at which a segment's mean factor is taken


def merge_weights(
  decay: DecayShape, n_checkpoints: int, final_frac: float = 0.0
) -> Float[np.ndarray, ' n_checkpoints']:
  """Coefficients of checkpoints whose average stands for a decay.

      c_j = d_j - d_{j+1},    d_0 = 1,    d_n = 0

  for checkpoints `0..n-1` at equal distances, the first where the decay would
  have begun, the last where it would have ended. `d_j` is the mean of the decay
  over the segment that ends at checkpoint `j`: all updates of a segment are in
  one difference of checkpoints and get one factor, so more checkpoints follow
  the shape more closely.

  A linear decay is the trapezoidal mean: equal weights, half of one at either
  end. A final LR above 0 leaves `final_frac` more to the last checkpoint.

  Args:
    decay: the shape of the decay.
    n_checkpoints: how many are averaged, >= 2.
    final_frac: LR at the end of the decay as a share of the peak, in [0, 1].

  Returns:
    float64 [n_checkpoints], oldest first, >= 0, with sum 1.

  Raises:
    ValueError: if an argument is out of range, the shape needs a final LR
      above 0, or it rises somewhere.

  Source: Tian et al., WSM (arXiv:2507.17634).

  Example:
    >>> from lrsched.shapes import LinearDecay
    >>> merge_weights(LinearDecay(), 5)
    array([0.125, 0.25 , 0.25 , 0.25 , 0.125])
  """
  if not isinstance(decay, DecayShape):
    raise ValueError(
      f'decay must be a decay shape such as LinearDecay(), got {decay!r}'
    )
  _check_count('n_checkpoints', n_checkpoints, 2)
  if not 0 <= final_frac <= 1:
    raise ValueError(f'final_frac must be in [0, 1], got {final_frac}')
  check_floor('final_frac', final_frac, decay)
  segments = n_checkpoints - 1
  middles = (np.arange(segments * POINTS) + 0.5) / (segments * POINTS)
  factors = np.asarray(decay(middles, final_frac), np.float64)
  factors = factors.reshape(segments, POINTS).mean(axis=1)
  weights = -np.diff(np.concatenate([[1.0], factors, [0.0]]))
  # The shape is float32: a flat one may seem to rise by its rounding.
  if weights.min() < -SUM_TOLERANCE:
    raise ValueError(
      f'decay must not rise, got {decay!r}, which does between checkpoints '
      f'{weights.argmin() - 1} and {weights.argmin() + 1} of {n_checkpoints}'
    )
  weights = np.maximum(weights, 0.0)
  return weights / weights.sum()


def ema_weights(decay: float, n: int) -> Float[np.ndarray, ' n']:
  """Coefficients of an exponential moving average that began at the oldest.

      e_0 = x_0,    e_j = b e_{j-1} + (1 - b) x_j,    e_{n-1} = sum_j c_j x_j

  Args:
    decay: b, in (0, 1).
    n: how many weights, >= 1.

  Returns:
    float64 [n], oldest first, with sum 1.

  Raises:
    ValueError: if an argument is out of range.

  Example:
    >>> ema_weights(0.5, 4)
    array([0.125, 0.125, 0.25 , 0.5  ])
  """
  _check_ema(decay)
  _check_count('n', n, 1)
  weights = (1 - decay) * decay ** np.arange(n - 1, -1, -1, dtype=np.float64)
  weights[0] = decay ** (n - 1)
  return weights


def ema_decay_of(window: int) -> float:
  """Decay of the moving average that is as old as a mean of `window` weights.

      b = (w - 1) / (w + 1)

  Both are then `(w - 1) / 2` updates old on average.

  Args:
    window: w, >= 2.

  Raises:
    ValueError: if the window is out of range.

  Example:
    >>> ema_decay_of(99)
    0.98
  """
  _check_count('window', window, 2)
  return (window - 1) / (window + 1)


def average(trees: Iterable[Any], coefficients: Sequence[float]) -> Any:
  """The weighted mean of trees of weights.

  Sums in order, in float64 for NumPy arrays and in at least float32 for JAX's,
  and rounds once. `trees` may be a generator, such as one that loads
  checkpoints: only the sum and one tree are held at a time.

  Args:
    trees: pytrees of floating-point arrays of one structure, shapes and dtypes.
    coefficients: one for each tree, in order, with sum 1.

  Returns:
    A tree with the structure, shapes and dtypes of each.

  Raises:
    ValueError: if the coefficients do not have sum 1 within 1e-6 or are not as
      many as the trees, or the trees differ, naming the path.

  Example:
    >>> average([{'w': np.ones(2)}, {'w': np.zeros(2)}], [0.25, 0.75])
    {'w': array([0.25, 0.25])}
  """
  weights = np.asarray(coefficients, np.float64)
  if weights.ndim != 1 or not len(weights):
    raise ValueError(f'coefficients must be a list, got {coefficients!r}')
  # Written so that it is false for NaN.
  if not abs(weights.sum() - 1) <= SUM_TOLERANCE:
    raise ValueError(
      f'coefficients must have sum 1, got {weights.sum()}; divide by their sum'
    )
  total, kinds = None, None
  pairs = itertools.zip_longest(trees, weights.tolist())
  for i, (tree, weight) in enumerate(pairs):
    if tree is None or weight is None:
      more = 'fewer' if tree is None else 'more'
      raise ValueError(
        f'coefficients must be one for each tree, got {len(weights)} and '
        f'{more} trees'
      )
    if kinds is None:
      kinds = _kinds(tree)
      total = jax.tree.map(lambda x, w=weight: w * _wide(x), tree)
    elif difference := _difference(kinds, _kinds(tree)):
      raise ValueError(f'trees[{i}] must be as trees[0], got {difference}')
    else:
      total = jax.tree.map(lambda t, x, w=weight: t + w * _wide(x), total, tree)
    like = tree
  return jax.tree.map(lambda t, x: t.astype(x.dtype), total, like)


def _wide(x: Any) -> Any:
  """For NumPy's arrays float64; JAX has float32 only, unless x64 is on."""
  if isinstance(x, np.ndarray):
    return x.astype(np.float64)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _kinds(tree: Any) -> dict[str, str]:
  """Shape and dtype of every leaf, by path."""
  kinds = {}
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      raise ValueError(
        f'trees must hold floating-point arrays, got {x.dtype} at '
        f'{name}; average the weights only'
      )
    kinds[name] = f'{x.dtype}{list(x.shape)}'
  return kinds


def _difference(first: dict[str, str], other: dict[str, str]) -> str | None:
  for name in [*first, *(n for n in other if n not in first)]:
    if first.get(name) != other.get(name):
      there, here = (k.get(name, '(absent)') for k in (first, other))
      return f'{name}: {here}, not {there}'
  return None


def _check_count(name: str, value: Any, least: int) -> None:
  is_whole = isinstance(value, (int, np.integer)) and value is not True
  if not is_whole or value < least:
    raise ValueError(f'{name} must be a whole number >= {least}, got {value!r}')


def _check_ema(decay: float) -> None:
  if not 0 < decay < 1:
    raise ValueError(f'decay must be in (0, 1), got {decay}')
