"""What a fitted law says: forecasts with intervals, within its evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.base import Schedule
from lrsched.base import traced_once
from lrsched.laws import problem
from lrsched.laws.concave import Concave
from lrsched.laws.curve import Curve
from lrsched.laws.law import Law
from lrsched.laws.path import Warmup
from lrsched.laws.path import path_of
from lrsched.laws.published import Annealing
from lrsched.laws.published import AnnealingOfSize
from lrsched.laws.published import Functional
from lrsched.laws.published import LossDrop
from lrsched.laws.published import MultiPower

SAME_PEAK = 0.02  # how far another peak may be from the fitted one
Z90 = 1.6449  # of a normal, for a 90 % interval
# Standard deviation of the log loss after a rise of the LR that no fitted curve
# has one like: what such forecasts were off by in runs of our own.
RISE_ERROR = 0.01

# Laws by the name that a saved fit has.
KINDS: dict[str, type[Law]] = {
  law.__name__: law
  for law in (
    Annealing,
    AnnealingOfSize,
    Concave,
    Functional,
    LossDrop,
    MultiPower,
  )
}


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

  @classmethod
  def given(
    cls,
    law: Law,
    params: Mapping[str, float],
    *,
    peak_lr: float,
    warmup: Warmup = 'true_sum',
  ) -> Fit:
    """Parameters known from elsewhere, as a fit without any uncertainty.

    Args:
      law: the law.
      params: all its parameters, such as a paper's.
      peak_lr: of the curves they were fitted to, > 0.
      warmup: the convention on the warmup that they are for.

    Raises:
      ValueError: if a parameter is missing, unknown or not finite, or the peak
        is not positive.
    """
    law.check(params)
    if not (np.isfinite(peak_lr) and peak_lr > 0):
      raise ValueError(f'peak_lr must be finite and > 0, got {peak_lr}')
    n = len(law.parameters)
    return cls(
      law=law,
      params={name: float(params[name]) for name in law.names()},
      peak_lr=float(peak_lr),
      warmup=warmup,
      curves=(),
      cost=0.0,
      noise=0.0,
      model_error=0.0,
      covariance=np.zeros((n, n)),
      has_rises=False,
      verdict=('the parameters were given: their uncertainty is not known',),
    )

  def to_dict(self) -> dict[str, Any]:
    """The fit as JSON values; `from_dict` gives it back exactly."""
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return values | {
      'law': type(self.law).__name__,
      'curves': list(self.curves),
      'covariance': self.covariance.tolist(),
      'verdict': list(self.verdict),
    }

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> Fit:
    """The fit that `to_dict` gave.

    Raises:
      ValueError: naming what is missing, unknown or of no known law.
    """
    names = {f.name for f in dataclasses.fields(cls)}
    if set(values) != names:
      odd = sorted(names ^ set(values))
      raise ValueError(f'a fit must have exactly its fields; check {odd}')
    if values['law'] not in KINDS:
      raise ValueError(
        f'law must be one of {", ".join(KINDS)}, got {values["law"]!r}'
      )
    law = KINDS[values['law']]()
    law.check(values['params'])
    return cls(
      **dict(values)
      | {
        'law': law,
        'params': {n: float(values['params'][n]) for n in law.names()},
        'curves': tuple(values['curves']),
        'covariance': np.asarray(values['covariance'], np.float64),
        'verdict': tuple(values['verdict']),
      }
    )

  def forecast(
    self,
    schedule: Schedule | np.ndarray | Curve,
    at_steps: np.ndarray | None = None,
    *,
    total_steps: int | None = None,
    warmup_steps: int | None = None,
    n_params: float | None = None,
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
      n_params: size of the model, for a law that asks for it; by default that
        of a curve.

    Raises:
      ValueError: if the LRs do not cover the steps, their peak is not that of
        the fit, or they rise above all that they were since the warmup.
    """
    lrs, warmup_steps = lr_of_updates(schedule, total_steps, warmup_steps)
    if at_steps is None:
      if isinstance(schedule, Curve):
        at_steps = schedule.steps[schedule.measured]
      else:
        at_steps = np.unique(
          np.linspace(warmup_steps, len(lrs) - 1, 200, dtype=int)
        )
    self.check_evidence(lrs, warmup_steps)
    if n_params is None and isinstance(schedule, Curve):
      n_params = schedule.n_params
    unit = self.law.unit(self.peak_lr)
    path = path_of(
      lrs,
      np.asarray(at_steps),
      warmup_steps=warmup_steps,
      warmup=self.warmup,
      reference_lr=unit,
      tolerance=0.2 * problem.TOLERANCE * self.peak_lr / unit,
      n_params=self.law.size_of(n_params),
    )
    z = problem.to_z(self.law, self.params)
    with jax.enable_x64(True):
      mean, slopes = map(
        np.asarray, problem.losses_and_slopes(self.law, z, path)
      )
    log_slopes = slopes / np.maximum(mean, 1e-3)[:, None]
    variance = np.einsum('ep,pq,eq->e', log_slopes, self.covariance, log_slopes)
    variance += self.noise**2 + self.model_error**2
    if not self.has_rises:
      risen = np.cumsum(_rises(lrs, warmup_steps)) > 0
      variance += np.where(risen[np.asarray(at_steps)], RISE_ERROR**2, 0.0)
    sd = np.sqrt(variance)
    return Forecast(
      steps=np.asarray(at_steps),
      mean=mean,
      low=mean * np.exp(-Z90 * sd),
      high=mean * np.exp(Z90 * sd),
    )

  def check_evidence(self, lrs: np.ndarray, warmup_steps: int) -> None:
    """Raises ValueError if the fitted curves say nothing about such LRs."""
    peak_lr = float(lrs.max())
    if abs(peak_lr / self.peak_lr - 1) > SAME_PEAK:
      raise ValueError(
        f'the peak LR must be that of the fitted curves, {self.peak_lr:.4g}, '
        f'got {peak_lr:.4g}; fit to curves at that peak'
      )
    check_rises('the LRs', lrs, warmup_steps)


def check_rises(what: str, lrs: np.ndarray, warmup_steps: int) -> None:
  """Raises ValueError if LRs rise above all that they were since the warmup.

  Laws count changes of the LR from the end of the warmup on: to them, the loss
  of a low LR from the start is that of the peak.
  """
  after = lrs[max(warmup_steps - 1, 0) :]
  before = np.maximum.accumulate(after)[:-1]
  above = np.flatnonzero(after[1:] > before * (1 + 1e-6) + 1e-6 * lrs.max())
  if above.size:
    i = int(above[0])
    raise ValueError(
      f'{what} rise above {before[i]:.4g}, the highest since the warmup of '
      f'{warmup_steps} updates, at update {max(warmup_steps - 1, 0) + i + 1}; '
      'laws know rises back to an LR that was there before; is the warmup '
      'longer?'
    )


def rises(lrs: np.ndarray, warmup_steps: int) -> bool:
  """Whether an LR rises after the warmup, by more than rounding."""
  return bool(_rises(lrs, warmup_steps).any())


def _rises(lrs: np.ndarray, warmup_steps: int) -> np.ndarray:
  """[T] whether an update's LR is above the one before, after the warmup."""
  risen = np.diff(lrs, prepend=lrs[0]) > 1e-6 * lrs.max()
  return risen & (np.arange(len(lrs)) >= max(warmup_steps, 1))


def lr_of_updates(
  schedule: Schedule | np.ndarray | Curve,
  total_steps: int | None = None,
  warmup_steps: int | None = None,
) -> tuple[np.ndarray, int]:
  """The LRs of a run, and the length of its warmup.

  Args:
    schedule: a schedule, a curve, or the [T] LRs of every update.
    total_steps: length of the run, for a schedule; its end by default.
    warmup_steps: if it is not what the schedule's first phase, the curve, or
      the initial rise of the LRs says.

  Returns:
    [T] float64 LRs of every update, and the updates of the warmup.

  Raises:
    ValueError: if a schedule has no end, and no length is given.
  """
  if isinstance(schedule, Curve):
    lrs, known = schedule.lr_of_updates(), schedule.warmup_steps
  elif isinstance(schedule, Schedule):
    total_steps = total_steps or schedule.end_step
    if total_steps is None:
      raise ValueError(
        f'total_steps must be given: {type(schedule).__name__} has no end'
      )
    with jax.enable_x64(True):
      lrs = np.asarray(traced_once(schedule, jnp.arange(total_steps)))
    first = schedule.phases()[0]
    known = (first.end or 0) if first.name == 'warmup' else 0
  else:
    lrs = np.asarray(schedule, np.float64)
    stops = np.flatnonzero(np.diff(lrs) <= 0)
    top = int(stops[0]) if stops.size else len(lrs) - 1
    known = top + 1 if top else 0
  return lrs, known if warmup_steps is None else warmup_steps
