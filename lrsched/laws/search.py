"""The LR curve that ends at the least loss of a law: knots, and a search.

The LR may fall at some knots, denser towards the end, with lines between them.
Were it free at every update, laws would be exploited rather than used:

- A fall counts at once, at the rate of the LR after it. So `MultiPower`, whose
  rate grows as the LR falls, has stairs for an optimum: with the last 3,000 of
  24,000 updates free, jumps to an eighth of the LR, predicted .0025 nats below
  the best smooth decay. If it may rise as well, it alternates between 0 and the
  peak, down to losses below 0.
- A fall is credited for good with what was to be gained when it happened. So
  `Concave`, and `Functional` where its `c3` is small, would have the LR fall
  right after the warmup, for .05 nats on public curves and more after a short
  warmup; and for .08 if it may rise again.

No curve shows either. Both need a pause after a fall; so here the relative rate
of fall never slackens: the LR is log-concave, and does not rise. Constant LRs,
linear and cosine decays to 0 and powers of the fraction left are, and the
smooth optimum of `MultiPower` and `Functional` turned out to be. Only the last
150 updates, where the LR is low, may fall one by one: under `MultiPower` that
is a jump from .03 of the peak, worth .0001 nats, as published optima have.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
import scipy

from lrsched.laws import problem
from lrsched.laws.ends import onward
from lrsched.laws.fitted import Fit
from lrsched.laws.law import Law
from lrsched.laws.path import Path

HEAD_KNOTS = 80
TAIL_STEPS = 150  # the last updates, free one by one
TAIL_FRAC = 0.007  # of the run after the warmup, at most
BETWEEN = 12  # nodes for each knot: laws bend between them
LEAST_SHARE = 1e-4  # of the peak, in a start: its logarithm is finite
START_FRACS = (0.1, 0.3, 1.0)  # linear decays to start from, of the run
OPTIONS = {'maxiter': 1000, 'ftol': 1e-12, 'gtol': 1e-9, 'maxcor': 30}


class Grid(NamedTuple):
  """Knots of an LR curve, and the nodes at which a law takes it.

  Attributes:
    knots: [K] updates, rising: from the first one after the warmup to the last.
    is_tail: [K - 1] whether the LR is free one by one after a knot.
    nodes: [N] updates, rising; the knots are among them.
    knot_before: [N] index of the knot before a node, K - 2 for the last.
    weight: [N] of the knot after it.
  """

  knots: np.ndarray
  is_tail: np.ndarray
  nodes: np.ndarray
  knot_before: np.ndarray
  weight: np.ndarray


class Search(NamedTuple):
  """What a search is about; LRs in the unit of the law.

  Attributes:
    fit: the law and its parameters.
    start: the path to the first knot.
    grid: the knots.
    peak_lr: the LR of share 1.
    final_lr: the LR of share 0.
  """

  fit: Fit
  start: Path
  grid: Grid
  peak_lr: float
  final_lr: float


def grid_of(warmup_steps: int, total_steps: int) -> Grid:
  """Knots and nodes for a run; the first knot is at the peak."""
  last, n = total_steps - 1, total_steps - warmup_steps
  tail = last - min(TAIL_STEPS, int(TAIL_FRAC * n))
  left = np.linspace(1, 0, HEAD_KNOTS + 1) ** 2
  head = tail - ((tail - warmup_steps) * left).round()
  knots = np.unique(np.append(head, np.arange(tail, total_steps)))
  nodes = np.unique(np.linspace(knots[:-1], knots[1:], BETWEEN + 1).round())
  before = np.searchsorted(knots, nodes, side='right') - 1
  before = np.minimum(before, len(knots) - 2)
  weight = (nodes - knots[before]) / np.diff(knots)[before]
  return Grid(knots, knots[:-1] >= tail, nodes, before, weight)


def shares_of(search: Search, z: np.ndarray) -> np.ndarray:
  """[K] how far the LR at each knot is from the final one to the peak.

  Args:
    search: what it is about.
    z: [K - 1] free variables, >= 0: by how much the relative rate of fall rises
      at each knot, times the updates left; in the tail, the relative fall after
      the knot.
  """
  grid = search.grid
  steps, left = np.diff(grid.knots), grid.knots[-1] + 1 - grid.knots[:-1]
  falls = np.where(grid.is_tail, z, np.cumsum(z / left) * steps)
  return np.append(1.0, np.exp(-np.cumsum(falls)))


def variables_of(search: Search, shares: np.ndarray) -> np.ndarray:
  """Variables near [K] shares that fall: a start."""
  grid = search.grid
  falls = -np.diff(np.log(np.maximum(shares, LEAST_SHARE)))
  steps, left = np.diff(grid.knots), grid.knots[-1] + 1 - grid.knots[:-1]
  rates = np.maximum.accumulate(falls / steps)
  return np.where(grid.is_tail, falls, np.diff(rates, prepend=0.0) * left)


def loss_and_slope(search: Search, z: np.ndarray) -> tuple[float, np.ndarray]:
  """The loss at the end of the run, and its [K - 1] derivatives in `z`."""
  grid, shares = search.grid, shares_of(search, z)
  i, weight = grid.knot_before, grid.weight
  at_nodes = shares[i] + (shares[i + 1] - shares[i]) * weight
  lrs = search.peak_lr * at_nodes + search.final_lr * (1 - at_nodes)
  loss, (_, by_lr) = end_and_slopes(search, lrs)
  # And back, through each line above.
  by_node = by_lr * (search.peak_lr - search.final_lr)
  n = len(grid.knots)
  by_share = np.bincount(i, by_node * (1 - weight), n)
  by_share += np.bincount(i + 1, by_node * weight, n)
  by_log = -by_share[1:] * shares[1:]
  steps, left = np.diff(grid.knots), grid.knots[-1] + 1 - grid.knots[:-1]
  by_fall = _sums_of_later(by_log)
  by_rate = np.where(grid.is_tail, 0.0, by_fall * steps)
  by_z = np.where(grid.is_tail, by_fall, _sums_of_later(by_rate) / left)
  return loss, by_z


def _sums_of_later(x: np.ndarray) -> np.ndarray:
  """The transpose of a cumulative sum."""
  return np.cumsum(x[::-1])[::-1]


def end_and_slopes(
  search: Search, lrs: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
  """The loss at the end for [N] LRs at the nodes, in the unit of the law.

  Returns:
    It, and its derivatives in the [p] fitted coordinates and in the LRs.
  """
  fit = search.fit
  with jax.enable_x64(True):
    loss, slopes = _end_and_slopes(
      fit.law,
      problem.to_z(fit.law, fit.params),
      search.start,
      search.grid.nodes,
      lrs,
    )
    return float(loss), (np.asarray(slopes[0]), np.asarray(slopes[1]))


@functools.partial(jax.jit, static_argnums=0)
def _end_and_slopes(
  law: Law, z: jax.Array, start: Path, nodes: jax.Array, lrs: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  def loss(z: jax.Array, lrs: jax.Array) -> jax.Array:
    return law.at(problem.to_params(law, z), onward(start, nodes, lrs))[0]

  return jax.value_and_grad(loss, (0, 1))(z, lrs)


def best_shares(search: Search) -> np.ndarray:
  """[K] shares with the least loss that was found from any start."""
  knots = search.grid.knots
  left = (knots[-1] + 1 - knots) / (knots[-1] + 1 - knots[0])
  starts = [np.minimum(left / frac, 1.0) for frac in START_FRACS]
  starts.append(np.sin(0.5 * np.pi * left) ** 2)  # a cosine
  found = [
    scipy.optimize.minimize(
      functools.partial(loss_and_slope, search),
      variables_of(search, shares),
      jac=True,
      method='L-BFGS-B',
      bounds=[(0, None)] * (len(knots) - 1),
      options=OPTIONS,
    )
    for shares in starts
  ]
  return shares_of(search, min(found, key=lambda end: end.fun).x)
