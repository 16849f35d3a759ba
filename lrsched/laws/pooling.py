"""Pooled knowledge: the kernel that many data sets share, as a prior.

The kernel of `Concave` is fitted to all curves of several data sets at once,
with `L0, A, a, K` for each. What is kept is the kernel, how sharply the curves
determine it, and how `a` and `K` vary from one data set to the next.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from lrsched.laws import problem
from lrsched.laws.concave import Concave
from lrsched.laws.curve import Curve
from lrsched.laws.problem import Prior

LAW = Concave()
OWN = 4  # L0, A, a, K: of one data set; the rest is the kernel
MOST_POINTS = 80  # of a curve: neighbours say the same
# A kernel parameter that the pool has on its bound is held there.
PINNED = 0.01
# Points of a curve are not independent, and a new data set is not one of the
# pool: a tenth of the information is believed.
BELIEVED = 0.1
KERNEL_START = (0.75, np.log(1000.0), 0.4, 0.05, 0.7)


class Pooled(NamedTuple):
  """What data sets have in common, in fitted coordinates.

  Attributes:
    kernel: [5] the shared w, log C, b, g, q.
    information: [5, 5] of the pooled fit about them, `L0, A, a, K` being free.
    own_mean: [2] mean of a and log K over the data sets.
    own_sd: [2] their standard deviation from one data set to another.
    model_error: root mean square log error at the ends of the curves.
    sources: names of the data sets.
  """

  kernel: tuple[float, ...]
  information: tuple[tuple[float, ...], ...]
  own_mean: tuple[float, float]
  own_sd: tuple[float, float]
  model_error: float
  sources: tuple[str, ...]

  def prior(self) -> Prior:
    """As a Gaussian for a fit of `Concave`."""
    mean = np.zeros(len(LAW.parameters))
    root = np.zeros((OWN + 3, len(LAW.parameters)))
    mean[2:OWN], mean[OWN:] = self.own_mean, self.kernel
    root[0, 2], root[1, 3] = 1 / np.asarray(self.own_sd)
    low, high = (b[OWN:] for b in problem.bounds_of(LAW))
    margin = 1e-3 * (high - low)
    pinned = (mean[OWN:] < low + margin) | (mean[OWN:] > high - margin)
    information = BELIEVED * np.asarray(self.information)
    root[2:, OWN:] = _root(information + np.diag(pinned / PINNED**2))
    return Prior(mean, root)


def _root(information: np.ndarray) -> np.ndarray:
  """`R` with `R^T R` the information."""
  values, vectors = np.linalg.eigh(information)
  return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def pool(data_sets: Mapping[str, Sequence[Curve]]) -> Pooled:
  """The kernel that data sets share.

  Each curve counts alike, however often it was evaluated.

  Args:
    data_sets: curves by data set; those of one set are of one model, data and
      peak LR. At least two sets.

  Raises:
    ValueError: if there are fewer than two data sets.
  """
  if len(data_sets) < 2:
    raise ValueError(f'pool needs two data sets, got {sorted(data_sets)}')
  stacked = [
    problem.stack(curves, LAW, 'true_sum', curves[0].peak_lr, MOST_POINTS)
    for curves in data_sets.values()
  ]
  bounds = problem.bounds_of(LAW)
  n = len(stacked)
  low, high = (np.r_[np.tile(b[:OWN], n), b[OWN:]] for b in bounds)
  start = [_own_start(curves) for curves in data_sets.values()]
  z = np.clip(
    np.r_[np.concatenate(start), KERNEL_START], low + 1e-6, high - 1e-6
  )
  roots = [_curve_weights(data) for data in stacked]

  @functools.lru_cache(maxsize=1)
  def at(z: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    rows, blocks = [], []
    for i, (data, root) in enumerate(zip(stacked, roots, strict=True)):
      own = slice(OWN * i, OWN * (i + 1))
      x = np.asarray([*z[own], *z[OWN * n :]])
      r, j = problem.residuals_and_slopes(LAW, x, data)
      rows.append(r * root / problem.HUBER)
      j = j * root[:, None] / problem.HUBER
      block = np.zeros((len(j), len(z)))
      block[:, own], block[:, OWN * n :] = j[:, :OWN], j[:, OWN:]
      blocks.append(block)
    return np.concatenate(rows), np.concatenate(blocks)

  found = scipy.optimize.least_squares(
    lambda z: at(tuple(z))[0],
    z,
    lambda z: at(tuple(z))[1],
    bounds=(low, high),
    loss=problem.huber(sum(len(d.log_losses) for d in stacked)),
    x_scale='jac',
    max_nfev=200,
  )
  r, j = at(tuple(found.x))
  n_points = np.concatenate([d.n_points for d in stacked])
  last = np.cumsum(n_points)[n_points > 0] - 1
  ends = (r * problem.HUBER / np.concatenate(roots))[last]
  j = j / np.sqrt(np.maximum(np.abs(r), 1))[:, None]  # Huber, as squares
  h = j.T @ j
  k = OWN * n
  information = h[k:, k:] - h[k:, :k] @ np.linalg.solve(
    h[:k, :k] + 1e-9 * np.eye(k), h[:k, k:]
  )
  own = found.x[:k].reshape(n, OWN)[:, 2:]
  return Pooled(
    kernel=tuple(found.x[k:].tolist()),
    information=tuple(map(tuple, information.tolist())),
    own_mean=tuple(own.mean(axis=0).tolist()),
    own_sd=tuple(own.std(axis=0, ddof=1).tolist()),
    model_error=float(np.sqrt(np.mean(ends**2))),
    sources=tuple(data_sets),
  )


def _own_start(curves: Sequence[Curve]) -> np.ndarray:
  lowest = min(float(np.nanmin(c.losses)) for c in curves)
  lr_sum = max(float(c.lr_of_updates().sum() / c.peak_lr) for c in curves)
  return problem.to_z(LAW, LAW.starts(lowest, lr_sum, 1.0)[0])[:OWN]


def _curve_weights(data: problem.Data) -> np.ndarray:
  """[n] roots of weights that make every curve count as 40 points."""
  n = data.n_points
  return np.sqrt(np.repeat(40 / np.maximum(n, 1), n))
