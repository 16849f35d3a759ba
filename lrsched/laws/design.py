"""Schedules designed by a fitted law, and what they gain over known ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrsched.base import Schedule
from lrsched.compose import Warmup
from lrsched.elementary import Cosine
from lrsched.laws.decays import LINEAR
from lrsched.laws.decays import best_decay
from lrsched.laws.ends import check
from lrsched.laws.ends import end_loss
from lrsched.laws.ends import start_of
from lrsched.laws.ends import verdict_of
from lrsched.laws.ends import warmed_up
from lrsched.laws.fitted import Z90
from lrsched.laws.fitted import Fit
from lrsched.laws.fitted import lr_of_updates
from lrsched.laws.search import Search
from lrsched.laws.search import best_shares
from lrsched.laws.search import end_and_slopes
from lrsched.laws.search import grid_of
from lrsched.tables import Tabulated


class Gain(NamedTuple):
  """How much lower a design ends than another schedule, with a 90 % interval.

  Attributes:
    over: the other schedule, of the same length, warmup and peak.
    nats: the difference of the predicted losses.
    low: 5 % quantile.
    high: 95 % quantile.
  """

  over: Schedule
  nats: float
  low: float
  high: float


class Design(NamedTuple):
  """A schedule, and what the law expects of it.

  Attributes:
    schedule: the LR of every update, the warmup included.
    decay_steps: updates from the first fall to the end.
    loss: predicted after the last update, in nats, every change counted.
    low: 5 % quantile of a measured loss, as `Fit.forecast` has it.
    high: 95 % quantile.
    gain_over_cosine: over a cosine to 0 or to a tenth of the peak, whichever
      is predicted to end lower.
    gain_over_wsd: over a linear decay of the best length.
    verdict: what the fit could not decide, in words; empty if nothing.
  """

  schedule: Tabulated
  decay_steps: int
  loss: float
  low: float
  high: float
  gain_over_cosine: Gain
  gain_over_wsd: Gain
  verdict: tuple[str, ...]


def optimize_schedule(
  fit: Fit,
  total_steps: int,
  peak_lr: float,
  *,
  warmup_steps: int,
  final_lr: float = 0.0,
) -> Design:
  """The schedule with the lowest loss that a fitted law predicts at its end.

      min L(T - 1)   over lr(t), W <= t < T,   final <= lr(t) <= peak

  after a linear warmup of `W` updates, with `lr(W) = peak`. From there on the
  LR only falls, ever faster in relative terms but for the last 150 updates (the
  last 0.7 % of a shorter run): `lrsched.laws.search` says why. The law's loss
  is differentiated in the LR curve, and a bounded quasi-Newton search is
  started from decays of three lengths and a cosine.

  The interval of a gain is that of the difference of two predictions: the
  covariance of the fit along the difference of their derivatives, as they share
  the parameters, and `fit.model_error` of the loss once. Errors that no
  parameter explains are about half shared by schedules of one length: on the
  curves of `docs/forecasts.md`, with priors of other sources, 108 of 112 pairs
  of such curves end within it and the noise of both. No interval holds that a
  design is where the law is most optimistic.

  Args:
    fit: a fit of `Concave` (what `auto` gives), `Functional` or `MultiPower`.
    total_steps: T, of the run with its warmup; at least 100 more than that.
    peak_lr: that of the fitted curves, to 2 %.
    warmup_steps: W, as in `lrsched.Warmup`.
    final_lr: the least LR, in [0, peak_lr).

  Raises:
    ValueError: if an argument is out of range, or the fit is of another law or
      peak.

  Source: the problem is that of Luo et al. (arXiv:2503.12811), section 5, who
    descend in the fall at every update.

  Example:
    >>> from lrsched import laws
    >>> params = dict(
    ...   L0=2.65, A=0.6, alpha=0.45, B=438.0, C=2.1, beta=0.6, gamma=0.66
    ... )
    >>> fit = laws.Fit.given(
    ...   laws.MultiPower(), params, peak_lr=3e-4, warmup='whole'
    ... )
    >>> design = optimize_schedule(fit, 24000, 3e-4, warmup_steps=2000)
    >>> round(design.gain_over_cosine.nats, 2), design.schedule.end_step
    (0.07, 24000)
  """
  check(fit, total_steps, peak_lr, warmup_steps, final_lr, LINEAR)
  if not final_lr < peak_lr:
    raise ValueError(
      f'final_lr must be below peak_lr={peak_lr}, got {final_lr}'
    )
  unit = fit.law.unit(fit.peak_lr)
  first_lrs = warmed_up(total_steps, peak_lr, warmup_steps)
  search = Search(
    fit=fit,
    start=start_of(fit, first_lrs),
    grid=grid_of(warmup_steps, total_steps),
    peak_lr=peak_lr / unit,
    final_lr=final_lr / unit,
  )
  updates = np.arange(warmup_steps, total_steps)
  shares = np.interp(updates, search.grid.knots, best_shares(search))
  shares = np.minimum.accumulate(shares)  # rounding may have it rise
  after = peak_lr * shares + final_lr * (1 - shares)
  lrs = np.append(first_lrs[:warmup_steps], after)
  loss = end_loss(fit, lrs, warmup_steps)
  forecast = fit.forecast(
    lrs, np.asarray([total_steps - 1]), warmup_steps=warmup_steps
  )
  cosines = [
    Warmup(
      schedule=Cosine(
        peak_lr=peak_lr, final_lr=low_lr, total_steps=total_steps - warmup_steps
      ),
      warmup_steps=warmup_steps,
    )
    for low_lr in (0.0, 0.1 * peak_lr)
  ]
  wsd = best_decay(
    fit, total_steps, peak_lr, warmup_steps=warmup_steps, final_lr=final_lr
  )
  gains = [_gain(search, lrs, loss, over) for over in (*cosines, wsd.schedule)]
  decay_steps = int(np.sum(shares < 1))
  return Design(
    schedule=Tabulated(lrs=lrs),
    decay_steps=decay_steps,
    loss=loss,
    # A forecast joins changes, and misses the loss by about 1e-5.
    low=loss * float(forecast.low[0] / forecast.mean[0]),
    high=loss * float(forecast.high[0] / forecast.mean[0]),
    gain_over_cosine=min(gains[:2], key=lambda gain: gain.nats),
    gain_over_wsd=gains[2],
    verdict=verdict_of(fit, decay_steps, total_steps),
  )


def _gain(search: Search, lrs: np.ndarray, loss: float, over: Schedule) -> Gain:
  """Of `lrs`, which end at `loss`, over another schedule."""
  fit, nodes = search.fit, search.grid.nodes.astype(int)
  unit = fit.law.unit(fit.peak_lr)
  others, _ = lr_of_updates(over)
  slopes = [
    end_and_slopes(search, x[nodes] / unit)[1][0] for x in (lrs, others)
  ]
  along = slopes[1] - slopes[0]
  variance = along @ fit.covariance @ along + (fit.model_error * loss) ** 2
  margin = Z90 * float(np.sqrt(variance))
  nats = end_loss(fit, others, int(search.grid.knots[0])) - loss
  return Gain(over, nats, nats - margin, nats + margin)
