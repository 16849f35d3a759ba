"""Fits of laws to loss curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy

from lrsched.laws import problem
from lrsched.laws.curve import Curve
from lrsched.laws.fitted import SAME_PEAK
from lrsched.laws.fitted import Fit
from lrsched.laws.fitted import check_rises
from lrsched.laws.fitted import rises
from lrsched.laws.law import Law
from lrsched.laws.path import Warmup
from lrsched.laws.problem import Data
from lrsched.laws.problem import Prior

SCREENING = 15  # evaluations from each start; the best one goes on
MOST_EVALUATIONS = 1000
CONTRADICTION = 0.03  # median log residual at which curves do not fit together


def fit(
  law: Law,
  curves: Sequence[Curve],
  *,
  prior: Prior | None = None,
  warmup: Warmup = 'true_sum',
  model_error: float = 0.0,
) -> Fit:
  """The parameters of a law that explain loss curves best.

  Minimises the sum of Huber losses (bend 1e-3) of `log loss - log prediction`
  from the law's starts, in float64, within the bounds of the law's parameters.
  The warmup and the first 2 % of the longest curve are not fitted.

  Args:
    law: what to fit.
    curves: at least one, all at one peak LR.
    prior: a Gaussian on the fitted coordinates, or None.
    warmup: the convention on the warmup; see `lrsched.laws.path`.
    model_error: passed on to the `Fit`.

  Raises:
    ValueError: if the curves have different peaks, too few points, no decay
      (without a prior), or contradict each other.
  """
  peak_lr = _check_curves(law, curves, prior)
  data = problem.stack(curves, law, warmup, peak_lr)
  screened = [
    problem.solve(law, data, start, prior, SCREENING)
    for start in _starts(law, curves, peak_lr, prior)
  ]
  nearest = min(screened, key=lambda end: end.cost)
  best = problem.solve(law, data, nearest.x, prior, MOST_EVALUATIONS)
  r, _ = problem.residuals_and_slopes(law, best.x, data)
  middle = float(np.median(np.abs(r)))
  if middle > CONTRADICTION:
    raise ValueError(
      f'{type(law).__name__} misses the curves by {100 * middle:.1f} % in the '
      'median: they contradict each other, or are not of one model and data set'
    )
  noise, covariance = _uncertainty(law, data, best.x, prior)
  low, high = problem.bounds_of(law)
  free = (best.x > low + 1e-6 * (high - low)) & (
    best.x < high - 1e-6 * (high - low)
  )
  return Fit(
    law=law,
    params={n: float(v) for n, v in problem.to_params(law, best.x).items()},
    peak_lr=peak_lr,
    warmup=warmup,
    curves=tuple(c.name for c in curves),
    cost=float(best.cost) * problem.HUBER**2,
    noise=noise,
    model_error=model_error,
    covariance=covariance,
    has_rises=any(rises(c.lr_of_updates(), c.warmup_steps) for c in curves),
    verdict=_verdict(law, best, free, curves, prior),
  )


def _uncertainty(
  law: Law, data: Data, z: np.ndarray, prior: Prior | None
) -> tuple[float, np.ndarray]:
  """Standard deviation of log losses, and [p, p] covariance of a fit at `z`.

  The covariance is that of an M-estimate, `H^-1 V H^-1` (Huber 1964): with `J`
  the slopes of the log residuals in units of the bend, `psi` the derivative of
  the Huber loss, and expectations over Gaussian noise of the scale found,

      H = E[psi'] J^T J + P,  V = E[psi^2] J^T J + P

  `P` is the information of the prior, and of the bounds: what the curves leave
  open is uncertain by the distance between a parameter's bounds. So is one on
  its bound, about which the curves may say no more than that it is near there.
  """
  low, high = problem.bounds_of(law)
  width = high - low  # as unit of the parameters
  r, slopes = problem.residuals_and_slopes(law, z, data)
  j = slopes * width / problem.HUBER
  found, p = j.T @ j, np.eye(len(z))
  if prior is not None:
    root = prior.root * width
    p += root.T @ root
  scale = 1.4826 * float(np.median(np.abs(r)))
  # Residuals are smaller than the noise by what the parameters take up.
  h = _psi_moments(scale / problem.HUBER)[0] * found
  taken = float(np.trace(np.linalg.solve(h + p, h)))
  noise = max(scale * math.sqrt(len(r) / (len(r) - taken)), 1e-5)
  slope, square = _psi_moments(noise / problem.HUBER)
  root_v = np.linalg.cholesky(square * found + p)
  half = width[:, None] * np.linalg.solve(slope * found + p, root_v)
  return noise, half @ half.T


def _psi_moments(sd: float) -> tuple[float, float]:
  """E[psi'] and E[psi^2] of `psi(u) = min(max(u, -1), 1)`, for Gaussian `u`.

  A count of residuals below the bend would be too high for E[psi'] where the
  noise is larger: such a fit passes through as many points as it can.
  """
  sd = max(sd, 1e-9)
  inside = math.erf(1 / (sd * math.sqrt(2)))
  density = math.exp(-0.5 / sd**2) / (sd * math.sqrt(2 * math.pi))
  return inside, sd**2 * (inside - 2 * density) + 1 - inside


def _starts(
  law: Law, curves: Sequence[Curve], peak_lr: float, prior: Prior | None
) -> list[np.ndarray]:
  unit = law.unit(peak_lr)
  starts = law.starts(
    min(float(np.nanmin(c.losses)) for c in curves),
    max(float(c.lr_of_updates().sum()) for c in curves) / unit,
    peak_lr / unit,
  )
  vectors = [problem.to_z(law, start) for start in starts]
  if prior is None:
    return vectors
  # Where the prior has an opinion, it is the better guess.
  known = np.any(prior.root != 0, axis=0)
  return [np.where(known, prior.mean, z) for z in vectors]


def _check_curves(
  law: Law, curves: Sequence[Curve], prior: Prior | None
) -> float:
  """The peak of the curves; raises ValueError if they cannot be fitted."""
  if not curves:
    raise ValueError('curves must hold at least one curve')
  peak_lr = curves[0].peak_lr
  for curve in curves:
    check_rises(curve.name, curve.lr_of_updates(), curve.warmup_steps)
    if abs(curve.peak_lr / peak_lr - 1) > SAME_PEAK:
      raise ValueError(
        f'curves must have one peak LR, got {peak_lr:.4g} in {curves[0].name} '
        f'and {curve.peak_lr:.4g} in {curve.name}'
      )
  first_step = problem.first_step_of(curves)
  n_points = sum(len(problem.points_of(c, first_step)) for c in curves)
  n_needed = len(law.parameters) + 2 if prior is None else 6
  if n_points < n_needed:
    raise ValueError(
      f'{type(law).__name__} needs {n_needed} losses after the warmup and step '
      f'{first_step}, got {n_points}; evaluate more often'
    )
  if prior is None and not any(_decays(c) for c in curves):
    raise ValueError(
      'no curve decays its LR: a constant LR says nothing about what a decay '
      'gains; add a run with a decay, or use auto, which has a prior on it'
    )
  return peak_lr


def _decays(curve: Curve) -> bool:
  lrs = curve.lrs[curve.steps >= curve.warmup_steps]
  return bool(lrs.size and lrs.min() < 0.9 * curve.peak_lr)


def _verdict(
  law: Law,
  end: scipy.optimize.OptimizeResult,
  free: np.ndarray,
  curves: Sequence[Curve],
  prior: Prior | None,
) -> tuple[str, ...]:
  lines = []
  if not any(_decays(c) for c in curves):
    lines.append(
      'no curve decays its LR: what a decay gains comes from the prior alone'
    )
  if end.status == 0:
    lines.append(
      f'the search had not ended after {MOST_EVALUATIONS} evaluations: the '
      'curves leave a valley of parameters'
    )
  # A prior may hold a parameter on its bound, which is then no surprise.
  root = np.zeros((1, len(free))) if prior is None else prior.root
  held = np.any(root != 0, axis=0).tolist()
  bound = [
    p.name
    for p, is_free, is_held in zip(law.parameters, free, held, strict=True)
    if not (is_free or is_held)
  ]
  if bound:
    lines.append(
      f'on the bounds of the search: {", ".join(bound)}; the curves do not '
      'identify them'
    )
  return tuple(lines)
