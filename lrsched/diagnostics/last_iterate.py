"""The last-iterate bound of a schedule, and the base LR that minimizes it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lrsched.base import Schedule


class Bound(NamedTuple):
  """A bound on the suboptimality of the last iterate; see `bound`.

  Multiplying the whole schedule by `c` makes it
  `distance_term / c + gradient_term * c`.

  Attributes:
    value: the bound of the schedule as given, in units of the loss.
    best_factor: what to multiply the schedule by for the least bound,
      `sqrt(distance_term / gradient_term)`. For a schedule with peak 1 it is
      the best peak LR.
    best_value: the least bound, `2 sqrt(distance_term * gradient_term)`.
    distance_term: the part of `value` due to the way to the optimum.
    gradient_term: the part of `value` due to the gradients.
  """

  value: float
  best_factor: float
  best_value: float
  distance_term: float
  gradient_term: float


def bound(
  schedule_or_lrs: Schedule | Float[np.typing.ArrayLike, ' T'],
  total_steps: int,
  *,
  distance: float = 1.0,
  grad_norms: float | Float[np.typing.ArrayLike, ' T'] = 1.0,
) -> Bound:
  """How far the last iterate of SGD can be from the optimum, by its LRs alone.

      B = D^2 / (2 S_1) + Q_1 / (2 S_1)
          + 1/2 sum_{k=1}^{T-1} (eta_k / S_{k+1}) (Q_k / S_k)

  with `S_k = eta_k + ... + eta_T` and `Q_k = eta_k^2 G_k^2 + ... +
  eta_T^2 G_T^2`. For a convex loss `f`, `E f(x_T) - f(x*) <= B`, where `x_1` is
  the start, `x_{k+1} = x_k - eta_k g_k`, and `G_k^2` is at least the mean of
  `|g_k|^2`. So it is about the weights at which the last of the T gradients is
  taken. `eta_k` is the LR of update `k - 1`, and the LRs are those a run
  applies, float32 unless x64 is on; all sums are float64, in O(T).

  It ranks schedules and carries a tuned peak LR from one to another; for a
  neural network it is no forecast of the loss.

  Updates at the end with an LR of exactly 0 are left out, of T too: they do
  not move the weights, and have no weight in the bound. An LR just above 0
  counts, and the bound then grows as `1/eta_T`: end a schedule at 0, or well
  above it.

  Args:
    schedule_or_lrs: a schedule, of which updates 0 to T-1 are looked at, or
      their T LRs; finite and >= 0.
    total_steps: T, >= 1.
    distance: D, from the start to the optimum, > 0.
    grad_norms: G, or G_1 to G_T; finite and >= 0.

  Returns:
    The bound, its two parts and the best factor for the schedule.

  Raises:
    ValueError: if an argument is out of range, the LRs or the norms are not T,
      the LRs are all 0, or the norms are 0 wherever the LR is not.

  Source: Defazio, Cutkosky, Mehta and Mishchenko (arXiv:2310.07831), Theorem
    10; for tuning: Schaipp et al. (arXiv:2501.18965).

  Example:
    >>> import lrsched
    >>> linear = bound(
    ...   lrsched.Linear(peak_lr=1.0, total_steps=1000), 1000
    ... )
    >>> constant = bound(lrsched.Constant(lr=1.0), 1000)
    >>> round(linear.best_value, 4), round(constant.best_value, 4)
    (0.0634, 0.0921)
    >>> round(linear.best_factor, 4), round(constant.best_factor, 4)
    (0.0315, 0.0109)
  """
  if not isinstance(total_steps, (int, np.integer)) or total_steps < 1:
    raise ValueError(
      f'total_steps must be a whole number >= 1, got {total_steps!r}'
    )
  if not (np.ndim(distance) == 0 and 0 < distance < np.inf):
    raise ValueError(f'distance must be finite and > 0, got {distance}')
  if isinstance(schedule_or_lrs, Schedule):
    schedule_or_lrs = schedule_or_lrs(jnp.arange(total_steps))
  elif callable(schedule_or_lrs):
    raise ValueError(
      'schedule_or_lrs must be an lrsched.Schedule or LRs, got '
      f'{schedule_or_lrs!r}; pass its LRs'
    )
  lrs = _checked('schedule_or_lrs', schedule_or_lrs, total_steps)
  if np.ndim(grad_norms) == 0:
    grad_norms = np.full(total_steps, grad_norms)
  norms = _checked('grad_norms', grad_norms, total_steps)
  if not lrs.any():
    raise ValueError('schedule_or_lrs must hold an LR > 0, got only zeros')
  moves = np.flatnonzero(lrs)[-1] + 1
  lrs, norms = lrs[:moves], norms[:moves]
  squares = (lrs * norms) ** 2
  if not squares.any():
    raise ValueError(
      'grad_norms must be > 0 at some update with an LR > 0, got only zeros'
    )
  lr_sums = np.cumsum(lrs[::-1])[::-1]
  square_sums = np.cumsum(squares[::-1])[::-1]
  distance_term = float(distance**2 / (2 * lr_sums[0]))
  means = square_sums / lr_sums
  later = np.sum(lrs[:-1] / lr_sums[1:] * means[:-1])
  gradient_term = float((means[0] + later) / 2)
  return Bound(
    value=distance_term + gradient_term,
    best_factor=(distance_term / gradient_term) ** 0.5,
    best_value=2 * (distance_term * gradient_term) ** 0.5,
    distance_term=distance_term,
    gradient_term=gradient_term,
  )


def _checked(name: str, values: np.typing.ArrayLike, length: int) -> np.ndarray:
  """The values as float64 [length], or ValueError."""
  array = np.asarray(values, np.float64)
  if array.shape != (length,):
    raise ValueError(
      f'{name} must have the shape ({length},) of total_steps, got '
      f'{array.shape}'
    )
  wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
  if wrong.size:
    raise ValueError(
      f'{name} must be finite and >= 0, got {array[wrong[0]]} at {wrong[0]}'
    )
  return array
