"""Fits of laws to loss curves, and what they forecast."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.base import Schedule
from lrsched.laws import problem
from lrsched.laws.curve import Curve
from lrsched.laws.law import Law
from lrsched.laws.path import Warmup
from lrsched.laws.path import path_of
from lrsched.laws.problem import Prior

SAME_PEAK = 0.02  # how far another peak may be from the fitted one
CONTRADICTION = 0.03  # median log residual at which curves do not fit together
Z90 = 1.6449  # of a normal, for a 90 % interval


class Forecast(NamedTuple):
  """Predicted losses in nats, with a 90 % interval for a measured loss.

  Attributes:
    steps: [E] updates after which the loss is predicted.
    mean: [E].
    low: [E] 5 % quantile.
    high: [E] 95 % quantile.
  """

  steps: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
  """A law fitted to curves.

  Attributes:
    law: the law.
    params: its parameters by name.
    peak_lr: peak of the curves; forecasts are for this peak.
    warmup: the convention on the warmup that `params` are for.
    curves: names of the fitted curves.
    cost: the objective reached: sum of Huber losses of log residuals, with
      those of the prior.
    noise: standard deviation of a measured log loss about the fit (robust).
    model_error: standard deviation of a forecast's log loss where the fit is
      certain: what laws of this kind are off by.
    covariance: [p, p] of the fitted coordinates.
    has_rises: whether a fitted curve has an LR that rises after its warmup.
    verdict: what the curves could not decide, in words; empty if nothing.
  """

  law: Law
  params: dict[str, float]
  peak_lr: float
  warmup: Warmup
  curves: tuple[str, ...]
  cost: float
  noise: float
  model_error: float
  covariance: np.ndarray
  has_rises: bool
  verdict: tuple[str, ...]

  def forecast(
    self,
    schedule: Schedule | np.ndarray | Curve,
    at_steps: np.ndarray | None = None,
    *,
    total_steps: int | None = None,
    warmup_steps: int | None = None,
  ) -> Forecast:
    """The losses that the law expects under a schedule.

    Args:
      schedule: a schedule, the [T] LRs of every update, or a curve (its losses
        are not read).
      at_steps: updates after which to predict, rising; by default the rows of
        a curve that have a loss, else 200 steps to the end.
      total_steps: length of the run, for a schedule; its end by default.
      warmup_steps: updates of the warmup; by default those of the schedule's
        first phase, of the curve, or the initial rise of the LRs.

    Raises:
      ValueError: if the LRs do not cover the steps, their peak is not that of
        the fit, or they rise after the warmup and no fitted curve does.
    """
    lrs, warmup_steps = lr_of_updates(schedule, total_steps, warmup_steps)
    if at_steps is None:
      if isinstance(schedule, Curve):
        at_steps = schedule.steps[schedule.measured]
      else:
        at_steps = np.unique(
          np.linspace(warmup_steps, len(lrs) - 1, 200, dtype=int)
        )
    self._check_evidence(lrs, warmup_steps)
    unit = self.law.unit(self.peak_lr)
    path = path_of(
      lrs,
      np.asarray(at_steps),
      warmup_steps=warmup_steps,
      warmup=self.warmup,
      reference_lr=unit,
      tolerance=0.2 * problem.TOLERANCE * self.peak_lr / unit,
    )
    z = problem.to_z(self.law, self.params)
    with jax.enable_x64(True):
      mean, slopes = map(
        np.asarray, problem.losses_and_slopes(self.law, z, path)
      )
    log_slopes = slopes / np.maximum(mean, 1e-3)[:, None]
    variance = np.einsum('ep,pq,eq->e', log_slopes, self.covariance, log_slopes)
    sd = np.sqrt(variance + self.noise**2 + self.model_error**2)
    return Forecast(
      steps=np.asarray(at_steps),
      mean=mean,
      low=mean * np.exp(-Z90 * sd),
      high=mean * np.exp(Z90 * sd),
    )

  def _check_evidence(self, lrs: np.ndarray, warmup_steps: int) -> None:
    peak_lr = float(lrs.max())
    if abs(peak_lr / self.peak_lr - 1) > SAME_PEAK:
      raise ValueError(
        f'the peak LR must be that of the fitted curves, {self.peak_lr:.4g}, '
        f'got {peak_lr:.4g}; fit to curves at that peak'
      )
    if not self.has_rises and rises(lrs, warmup_steps):
      raise ValueError(
        'the LR rises after its warmup, which none of the fitted curves does; '
        'a law fitted to falls alone does not say what a rise costs'
      )


def rises(lrs: np.ndarray, warmup_steps: int) -> bool:
  """Whether an LR rises after the warmup, by more than rounding."""
  after = lrs[max(warmup_steps - 1, 0) :]
  return bool(np.any(np.diff(after) > 1e-6 * lrs.max()))


def lr_of_updates(
  schedule: Schedule | np.ndarray | Curve,
  total_steps: int | None,
  warmup_steps: int | None,
) -> tuple[np.ndarray, int]:
  """[T] float64 LRs of every update, and the length of the warmup."""
  if isinstance(schedule, Curve):
    lrs, known = schedule.lr_of_updates(), schedule.warmup_steps
  elif isinstance(schedule, Schedule):
    total_steps = total_steps or schedule.end_step
    if total_steps is None:
      raise ValueError(
        f'total_steps must be given: {type(schedule).__name__} has no end'
      )
    lrs = np.asarray(_all(schedule, total_steps), np.float64)
    first = schedule.phases()[0]
    known = (first.end or 0) if first.name == 'warmup' else 0
  else:
    lrs = np.asarray(schedule, np.float64)
    stops = np.flatnonzero(np.diff(lrs) <= 0)
    top = int(stops[0]) if stops.size else len(lrs) - 1
    known = top + 1 if top else 0
  return lrs, known if warmup_steps is None else warmup_steps


def _all(schedule: Schedule, total_steps: int) -> jax.Array:
  with jax.enable_x64(True):
    return jax.jit(lambda s, t: s(t))(schedule, jnp.arange(total_steps))


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
