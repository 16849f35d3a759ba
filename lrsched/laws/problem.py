"""Fitting a law as robust least squares: curves stacked, one compiled program.

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
from scipy.optimize import OptimizeResult
from scipy.optimize import least_squares

from lrsched.laws.curve import Curve
from lrsched.laws.law import Law
from lrsched.laws.path import Path
from lrsched.laws.path import Warmup
from lrsched.laws.path import path_of

HUBER = 1e-3  # of the log residual
TOLERANCE = 2e-3  # of the peak: how straight the LR is between two changes
PAD = 64  # lengths are padded to multiples, so that few shapes are compiled
FIRST_SHARE = 0.02  # of the longest curve: too early for a power law


class Data(NamedTuple):
  """Curves of one fit, stacked and padded.

  Attributes:
    path: each field [C, E] or [C, K].
    log_losses: [C, E].
    weights: [C, E] 1 at a point, 0 at padding.
  """

  path: Path
  log_losses: np.ndarray
  weights: np.ndarray


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
  """The curves as arrays of one shape."""
  first_step, unit = first_step_of(curves), law.unit(peak_lr)
  paths, log_losses = [], []
  for curve in curves:
    rows = points_of(curve, first_step, most_points)
    paths.append(
      path_of(
        curve.lr_of_updates(),
        curve.steps[rows],
        warmup_steps=curve.warmup_steps,
        warmup=warmup,
        reference_lr=unit,
        tolerance=TOLERANCE * peak_lr / unit,
      )
    )
    log_losses.append(np.log(curve.losses[rows]))
  n_points = _padded(max(len(y) for y in log_losses))
  n_changes = _padded(max(len(p.before) for p in paths))
  # A padded change has no drop, and is never reached.
  fill = {'last_steps': np.inf, 'first_steps': np.inf}
  columns = {}
  for field in Path._fields:
    length = n_points if field in ('steps', 'lr_sums', 'lrs') else n_changes
    columns[field] = np.stack(
      [_pad(getattr(p, field), length, fill.get(field, 1.0)) for p in paths]
    )
  return Data(
    path=Path(**columns),
    log_losses=np.stack([_pad(y, n_points, 0.0) for y in log_losses]),
    weights=np.stack(
      [_pad(np.ones(len(y)), n_points, 0.0) for y in log_losses]
    ),
  )


def _padded(n: int) -> int:
  return -(-max(n, 1) // PAD) * PAD


def _pad(values: np.ndarray, n: int, fill: float) -> np.ndarray:
  return np.concatenate([values, np.full(n - len(values), fill)])


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


def _residuals(law: Law, z: jax.Array, data: Data) -> jax.Array:
  losses = jax.vmap(lambda path: law.at(to_params(law, z), path))(data.path)
  # A start may predict a negative loss; its logarithm is steep, not NaN.
  logs = jnp.log(jnp.maximum(losses, 1e-3))
  return ((data.log_losses - logs) * data.weights).ravel()


@functools.partial(jax.jit, static_argnums=0)
def residuals(law: Law, z: jax.Array, data: Data) -> jax.Array:
  """[C E] log residuals, 0 at padding."""
  return _residuals(law, z, data)


@functools.partial(jax.jit, static_argnums=0)
def jacobian(law: Law, z: jax.Array, data: Data) -> jax.Array:
  """[C E, p] their derivatives in the fitted coordinates."""
  return jax.jacfwd(lambda z: _residuals(law, z, data))(z)


@functools.partial(jax.jit, static_argnums=0)
def losses_and_slopes(
  law: Law, z: jax.Array, path: Path
) -> tuple[jax.Array, jax.Array]:
  """[E] losses of one path and [E, p] their derivatives."""
  f = lambda z: law.at(to_params(law, z), path)
  return f(z), jax.jacfwd(f)(z)


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
  law: Law, data: Data, start: np.ndarray, prior: Prior | None
) -> OptimizeResult:
  """The least objective reached from one start; `x` are coordinates `z`."""
  low, high = bounds_of(law)
  margin = 1e-6 * (high - low)

  def rows(z: np.ndarray) -> np.ndarray:
    r = np.asarray(residuals(law, z, data)) / HUBER
    return r if prior is None else np.r_[r, prior.root @ (z - prior.mean)]

  def slopes(z: np.ndarray) -> np.ndarray:
    j = np.asarray(jacobian(law, z, data)) / HUBER
    return j if prior is None else np.r_[j, prior.root]

  with jax.enable_x64(True):
    return least_squares(
      rows,
      np.clip(start, low + margin, high - margin),
      slopes,
      bounds=(low, high),
      loss=huber(data.weights.size),
      x_scale='jac',
      max_nfev=200,
    )


def information(
  law: Law, data: Data, z: np.ndarray, prior: Prior | None
) -> np.ndarray:
  """[p, p] Gauss-Newton information of the objective at `z`."""
  with jax.enable_x64(True):
    r = np.asarray(residuals(law, z, data)) / HUBER
    j = np.asarray(jacobian(law, z, data)) / HUBER
  weights = 1 / np.maximum(np.abs(r), 1)  # Huber's, as reweighted squares
  found = (j * weights[:, None]).T @ j
  return found if prior is None else found + prior.root.T @ prior.root
