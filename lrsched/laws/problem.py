"""Fitting a law as robust least squares, with few compiled programs.

The objective is that of the papers: the sum over curves and points of the
Huber loss of `log loss - log prediction`, bent at 1e-3. Parameters are fitted
in coordinates `z`: the value, or its logarithm where the law says so. A
Gaussian prior adds rows that are not bent.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from lrsched.laws.curve import Curve
from lrsched.laws.law import Law
from lrsched.laws.path import Path
from lrsched.laws.path import Warmup
from lrsched.laws.path import path_of

HUBER = 1e-3  # of the log residual
TOLERANCE = 2e-3  # of the peak: how straight the LR is between two changes
LEAST_LOSS = 1e-3  # nats
POINTS = 64  # of a block
LEAST_CHANGES = 64  # of a block; four times as many where they are too few
FIRST_SHARE = 0.02  # of the longest curve: too early for a power law

OF_POINTS = ('steps', 'lr_sums', 'lrs')
OF_CHANGES = (
  'before',
  'after',
  'during',
  'first_steps',
  'last_steps',
  'first_sums',
  'last_sums',
)


class Block(NamedTuple):
  """Some points of a path, padded to a shape that others have too.

  Attributes:
    n: points that are real, the first ones.
    path: [POINTS] points, and [K] changes.
  """

  n: int
  path: Path


class Data(NamedTuple):
  """The points of one fit, curve after curve.

  Attributes:
    blocks: where a law is evaluated.
    log_losses: [n].
    n_points: of each curve.
  """

  blocks: list[Block]
  log_losses: np.ndarray
  n_points: np.ndarray


class Prior(NamedTuple):
  """A Gaussian in fitted coordinates: rows `root @ (z - mean)` of variance 1.

  Attributes:
    mean: [p].
    root: [rows, p]; a zero column leaves a parameter free.
  """

  mean: np.ndarray
  root: np.ndarray


def points_of(
  curve: Curve, first_step: int, most: int | None = None
) -> np.ndarray:
  """Rows of a curve that a fit uses: measured, late enough, spread if many."""
  rows = curve.measured
  rows = rows[curve.steps[rows] >= max(first_step, curve.warmup_steps)]
  if most is not None and len(rows) > most:
    rows = rows[
      np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    ]
  return rows


def first_step_of(curves: Sequence[Curve]) -> int:
  """The step before which no point is fitted."""
  return round(FIRST_SHARE * max(int(c.steps[-1]) for c in curves))


def stack(
  curves: Sequence[Curve],
  law: Law,
  warmup: Warmup,
  peak_lr: float,
  most_points: int | None = None,
) -> Data:
  """The points of curves that a fit uses."""
  first_step, unit = first_step_of(curves), law.unit(peak_lr)
  blocks: list[Block] = []
  log_losses = []
  for curve in curves:
    rows = points_of(curve, first_step, most_points)
    path = path_of(
      curve.lr_of_updates(),
      curve.steps[rows],
      warmup_steps=curve.warmup_steps,
      warmup=warmup,
      reference_lr=unit,
      tolerance=TOLERANCE * peak_lr / unit,
      n_params=law.size_of(curve.n_params),
    )
    blocks += blocks_of(path)
    log_losses.append(np.log(curve.losses[rows]))
  return Data(
    blocks=blocks,
    log_losses=np.concatenate(log_losses),
    n_points=np.asarray([len(y) for y in log_losses]),
  )


def blocks_of(path: Path) -> list[Block]:
  """A path in parts that share a few shapes, each with the changes so far.

  A program is compiled for each shape and law, and a change that is still to
  come costs time and says nothing.
  """
  blocks = []
  for begin in range(0, len(path.steps), POINTS):
    points = {f: getattr(path, f)[begin : begin + POINTS] for f in OF_POINTS}
    n = len(points['steps'])
    k = int(np.searchsorted(path.last_steps, points['steps'].max(), 'right'))
    n_changes = LEAST_CHANGES
    while n_changes < k:
      n_changes *= 4
    # A padded change has no drop, and is never reached.
    fill = {'last_steps': np.inf, 'first_steps': np.inf}
    padded = {f: np.pad(x, (0, POINTS - n), 'edge') for f, x in points.items()}
    for f in OF_CHANGES:
      rest = np.full(n_changes - k, fill.get(f, 1.0))
      padded[f] = np.concatenate([getattr(path, f)[:k], rest])
    with jax.enable_x64(True):
      columns = path._replace(**padded)
      blocks.append(Block(n, Path(*map(jnp.asarray, columns))))
  return blocks


def to_params(law: Law, z: Any) -> dict[str, Any]:
  """Parameters by name from fitted coordinates."""
  xp = np if isinstance(z, np.ndarray) else jnp
  return {
    p.name: xp.exp(z[i]) if p.is_log else z[i]
    for i, p in enumerate(law.parameters)
  }


def to_z(law: Law, params: dict[str, float]) -> np.ndarray:
  """Fitted coordinates of parameters by name."""
  return np.asarray(
    [
      np.log(params[p.name]) if p.is_log else params[p.name]
      for p in law.parameters
    ]
  )


def bounds_of(law: Law) -> tuple[np.ndarray, np.ndarray]:
  """Least and greatest fitted coordinates."""
  ends = [
    (np.log(p.low), np.log(p.high)) if p.is_log else (p.low, p.high)
    for p in law.parameters
  ]
  return np.asarray([e[0] for e in ends]), np.asarray([e[1] for e in ends])


@functools.partial(jax.jit, static_argnums=0)
def _losses_and_slopes(
  law: Law, z: jax.Array, path: Path
) -> tuple[jax.Array, jax.Array]:
  """[E] losses and [p, E] slopes, by one derivative at a time.

  Most parameters are not in the kernel: their tangents are a row each, where
  all derivatives at once would take a kernel for each.
  """
  values = [z[i] for i in range(len(law.parameters))]
  slopes = []
  for i, value in enumerate(values):
    f = lambda x, i=i: law.at(
      to_params(law, [*values[:i], x, *values[i + 1 :]]), path
    )
    losses, slope = jax.jvp(f, (value,), (jnp.ones_like(value),))
    slopes.append(slope)
  return losses, jnp.stack(slopes)


def losses_and_slopes(
  law: Law, z: np.ndarray, path: Path | list[Block]
) -> tuple[np.ndarray, np.ndarray]:
  """[E] losses at points and [E, p] their derivatives in `z`, in float64."""
  blocks = blocks_of(path) if isinstance(path, Path) else path
  if not blocks:
    return np.zeros(0), np.zeros((0, len(law.parameters)))
  with jax.enable_x64(True):
    found = [_losses_and_slopes(law, z, block.path) for block in blocks]
  pairs = list(zip(blocks, found, strict=True))
  losses = [np.asarray(y)[: block.n] for block, (y, _) in pairs]
  slopes = [np.asarray(d)[:, : block.n] for block, (_, d) in pairs]
  return np.concatenate(losses), np.concatenate(slopes, axis=1).T


def residuals_and_slopes(
  law: Law, z: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
  """[n] log residuals and [n, p] their derivatives in `z`."""
  losses, slopes = losses_and_slopes(law, z, data.blocks)
  # A start may predict a negative loss; its logarithm is steep, not NaN.
  low = losses < LEAST_LOSS
  losses = np.where(low, LEAST_LOSS, losses)
  slopes = np.where(low[:, None], 0.0, slopes)
  return data.log_losses - np.log(losses), -slopes / losses[:, None]


def huber(n_bent: int) -> Any:
  """A `loss` for scipy: Huber, bent at 1, for the first rows; else squares."""

  def rho(squares: np.ndarray) -> np.ndarray:
    out = np.stack([squares, np.ones_like(squares), np.zeros_like(squares)])
    bent = (np.arange(len(squares)) < n_bent) & (squares > 1)
    root = np.sqrt(squares[bent])
    out[:, bent] = 2 * root - 1, 1 / root, -0.5 / root**3
    return out

  return rho


def solve(
  law: Law,
  data: Data,
  start: np.ndarray,
  prior: Prior | None,
  max_nfev: int,
) -> scipy.optimize.OptimizeResult:
  """The least objective reached from one start; `x` are coordinates `z`.

  Its `status` is 0 if that took more than `max_nfev` evaluations.
  """
  low, high = bounds_of(law)
  margin = 1e-6 * (high - low)

  # The solver asks for the slopes where it has just asked for the residuals.
  @functools.lru_cache(maxsize=1)
  def at(z: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(z)
    r, j = residuals_and_slopes(law, x, data)
    if prior is None:
      return r / HUBER, j / HUBER
    return (
      np.concatenate([r / HUBER, prior.root @ (x - prior.mean)]),
      np.concatenate([j / HUBER, prior.root]),
    )

  return scipy.optimize.least_squares(
    lambda z: at(tuple(z))[0],
    np.clip(start, low + margin, high - margin),
    lambda z: at(tuple(z))[1],
    bounds=(low, high),
    loss=huber(len(data.log_losses)),
    x_scale='jac',
    max_nfev=max_nfev,
  )
