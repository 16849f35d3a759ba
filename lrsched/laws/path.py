"""A learning-rate curve as the laws see it: sums at points, and changes.

A law needs, at each point where it is evaluated, the sum of all LRs so far, and
for each change of the LR how long ago it was, in steps or in LR. `Path` holds
both; it is made once on the host, in float64, and no parameter of a law goes
into it. The changes are those of every update (exact), or of stretches between
points over which the LR is a line to within a tolerance (for fits): a law then
takes the mean of its kernel over the stretch.

Three conventions on the warmup exist, and fits under one are not valid under
another:

- `true_sum`: the LRs of the warmup are in the sum as they were; its rise is no
  change. The default.
- `whole`: as above, but the rise counts as changes (upwards) too; published
  MultiPower parameters are for this.
- `at_peak`: as if the warmup had been at the peak; the Annealing law's paper.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import numpy as np

# On the host, or traced.
Column = np.ndarray | jax.Array
ONE = np.ones(1)
Warmup = Literal['true_sum', 'whole', 'at_peak']
MOST_FALL = 0.9  # of the LR within one stretch
WARMUPS = ('true_sum', 'whole', 'at_peak')


class Path(NamedTuple):
  """See the module docstring; all float64, LRs in units of a reference LR.

  Attributes:
    steps: [E] the points, updates counted from 0.
    lr_sums: [E] sum of the LRs of updates 0 to the point, inclusive.
    lrs: [E] LR of the point's update.
    before: [K] LR before a change.
    after: [K] LR after it.
    during: [K] LR of its updates, on average.
    first_steps: [K] first update with a changed LR.
    last_steps: [K] last one; the change counts at points from it on.
    first_sums: [K] sum of the LRs before `first_steps`.
    last_sums: [K] sum of the LRs before `last_steps`.
    origin: [1] the sum of LRs at which the other sums are 0. It is 0 here; in
      the training step it is the sum so far, as a difference of two large
      float32 sums would be off by more than an update.
    size: [1] parameters of the model.
  """

  steps: Column
  lr_sums: Column
  lrs: Column
  before: Column
  after: Column
  during: Column
  first_steps: Column
  last_steps: Column
  first_sums: Column
  last_sums: Column
  origin: Column
  size: Column = ONE


def path_of(
  lrs: np.ndarray,
  at_steps: np.ndarray,
  *,
  warmup_steps: int = 0,
  warmup: Warmup = 'true_sum',
  reference_lr: float = 1.0,
  tolerance: float = 0.0,
  n_params: float = 1.0,
) -> Path:
  """The path of a learning-rate curve.

  Args:
    lrs: [T] LR of every update, >= 0.
    at_steps: [E] where laws are evaluated, in 0..T-1, rising.
    warmup_steps: updates of the warmup, in 0..T.
    warmup: the convention on it; see the module docstring.
    reference_lr: the LR that counts as 1, > 0; LRs and sums are divided by it.
    tolerance: 0 for every change of the LR as one of its own; else changes
      between points are joined while the LR stays within this share of the
      reference LR of a line.
    n_params: size of the model, for laws that ask for it.

  Raises:
    ValueError: if an argument is out of range, or `lrs` does not cover the
      points.
  """
  lrs, at_steps = np.asarray(lrs, np.float64), np.asarray(at_steps)
  if warmup not in WARMUPS:
    raise ValueError(f'warmup must be one of {WARMUPS}, got {warmup!r}')
  if lrs.ndim != 1 or not np.isfinite(lrs).all() or (lrs < 0).any():
    raise ValueError('lrs must be a list of finite values >= 0')
  if at_steps.size and not 0 <= at_steps.min() <= at_steps.max() < len(lrs):
    raise ValueError(
      f'at_steps must be in 0..{len(lrs) - 1}, the updates that lrs covers, '
      f'got {at_steps.min()}..{at_steps.max()}'
    )
  if not 0 <= warmup_steps <= len(lrs):
    raise ValueError(
      f'warmup_steps must be in 0..{len(lrs)}, got {warmup_steps}'
    )
  lrs = lrs / reference_lr
  if warmup == 'at_peak' and warmup_steps:
    lrs[:warmup_steps] = lrs[min(warmup_steps, len(lrs) - 1)]
  sums = np.concatenate([[0.0], np.cumsum(lrs)])  # sums[t]: before update t
  start = 1 if warmup == 'whole' else max(warmup_steps, 1)
  nodes = nodes_of(lrs, at_steps, start, tolerance)
  first, last = nodes[:-1] + 1, nodes[1:]
  changed = lrs[last] != lrs[nodes[:-1]]
  first, last = first[changed], last[changed]
  return Path(
    steps=at_steps.astype(np.float64),
    lr_sums=sums[at_steps + 1],
    lrs=lrs[at_steps],
    before=lrs[first - 1],
    after=lrs[last],
    during=(sums[last + 1] - sums[first]) / (last - first + 1),
    first_steps=first.astype(np.float64),
    last_steps=last.astype(np.float64),
    first_sums=sums[first],
    last_sums=sums[last],
    origin=np.zeros(1),
    size=np.full(1, n_params),
  )


def nodes_of(
  lrs: np.ndarray, at_steps: np.ndarray, start: int, tolerance: float
) -> np.ndarray:
  """Updates between which the LR counts as a line, from `start - 1` on."""
  last = int(at_steps.max(initial=0))
  if last < start:
    return np.asarray([start - 1])
  changes = start + np.flatnonzero(np.diff(lrs[start - 1 : last + 1]))
  exact = np.unique(np.concatenate([[start - 1], changes - 1, changes]))
  if not tolerance:
    return exact
  # Ends of stretches are points, or where a line would miss by too much.
  points = at_steps[at_steps >= start]
  nodes = [start - 1]
  for point in np.unique(np.concatenate([points, [last]])).tolist():
    while nodes[-1] < point:
      nodes.append(_as_far(lrs, nodes[-1], point, tolerance))
  return np.asarray(nodes)


def _as_far(lrs: np.ndarray, begin: int, end: int, tolerance: float) -> int:
  """The last update, at most `end`, up to which the LR is nearly a line."""
  while end > begin + 1:
    low, high = sorted((lrs[begin], lrs[end]))
    line = np.linspace(lrs[begin], lrs[end], end - begin + 1)
    # A power of the LR is no line where the LR falls by a large share.
    near = low >= MOST_FALL * high
    if near and np.abs(lrs[begin : end + 1] - line).max() <= tolerance:
      break
    end = begin + max((end - begin) // 2, 1)
  return end
