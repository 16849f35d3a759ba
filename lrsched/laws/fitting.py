"""Fits of laws to loss curves."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from lrsched.laws import problem
from lrsched.laws.curve import Curve
from lrsched.laws.fitted import SAME_PEAK
from lrsched.laws.fitted import Fit
from lrsched.laws.fitted import rises
from lrsched.laws.law import Law
from lrsched.laws.path import Warmup
from lrsched.laws.problem import Prior

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
  ends = [
    problem.solve(law, data, start, prior)
    for start in _starts(law, curves, peak_lr, prior)
  ]
  best = min(ends, key=lambda end: end.cost)
  with jax.enable_x64(True):
    r = np.asarray(problem.residuals(law, best.x, data))
  r = r[data.weights.ravel() > 0]
  middle = float(np.median(np.abs(r)))
  if middle > CONTRADICTION:
    raise ValueError(
      f'{type(law).__name__} misses the curves by {100 * middle:.1f} % in the '
      'median: they contradict each other, or are not of one model and data set'
    )
  noise = max(1.4826 * middle, 1e-5)
  info = problem.information(law, data, best.x, prior)
  low, high = problem.bounds_of(law)
  free = (best.x > low + 1e-6 * (high - low)) & (
    best.x < high - 1e-6 * (high - low)
  )
  # A parameter on its bound is as certain as the bound.
  covariance = np.zeros_like(info)
  inside = np.ix_(free, free)
  covariance[inside] = np.linalg.pinv(info[inside], hermitian=True)
  # Rows count in units of the bend; the noise is what it was found to be.
  covariance *= max(1.0, (noise / problem.HUBER) ** 2)
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
    verdict=_verdict(law, best.x, free, curves, prior),
  )


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
  z: np.ndarray,
  free: np.ndarray,
  curves: Sequence[Curve],
  prior: Prior | None,
) -> tuple[str, ...]:
  lines = []
  if not any(_decays(c) for c in curves):
    lines.append(
      'no curve decays its LR: what a decay gains comes from the prior alone'
    )
  # A prior may hold a parameter on its bound, which is then no surprise.
  root = np.zeros((1, len(z))) if prior is None else prior.root
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
