"""When no more than a given loss is still to be gained, from the curve so far.

The rule of Vilares et al. for accuracy, put for a loss.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import scipy
from jaxtyping import Float

from lrsched.laws.scaling import as_points
from lrsched.laws.scaling import check_positive
from lrsched.laws.scaling import positive
from lrsched.laws.scaling import scaling_law

FEWEST_POINTS = 10  # with fewer, chance makes an asymptote rise as often as not
RISES = 5
ROUNDING = 1e-6  # of an asymptote, in nats: what the search for b leaves
# Logs of the exponents that are tried; slower looks like a logarithm, faster
# like a step, and neither tells an asymptote.
LOG_EXPONENTS = np.linspace(np.log(0.02), np.log(5.0), 25)


@scaling_law
class LearningTrend:
  """A power law of one loss curve.

      L(x) = c + a (x / x_last)^-b

  In nats; x is what the curve is plotted over: steps, tokens or LR sums. It is
  for a constant LR: a decay makes the loss fall faster than any such law.

  Attributes:
    c: asymptote.
    a: layer of convergence: how far the trend is above `c` at `x_last`.
    b: exponent.
    x_last: unit of x; where a fit's points end.

  Raises:
    ValueError: if a parameter is not finite and > 0.

  Source: Vilares et al. (arXiv:2402.02515), there for an accuracy that rises.

  Example:
    >>> trend = LearningTrend(c=2.0, a=0.5, b=0.5, x_last=1000.0)
    >>> float(trend(x=4000))
    2.25
  """

  c: float
  a: float
  b: float
  x_last: float

  def __call__(
    self, *, x: Float[jax.typing.ArrayLike, '*shape']
  ) -> Float[jax.Array, '*shape']:
    """The loss in nats.

    Args:
      x: steps, tokens or LR sum, > 0.

    Returns:
      The loss, float32, and float64 under x64.

    Raises:
      ValueError: if `x` is not finite and > 0.
    """
    (x,) = positive(x=x)
    return self.c + self.a * (x / self.x_last) ** -self.b

  @classmethod
  def fit(
    cls,
    *,
    x: Float[np.typing.ArrayLike, ' points'],
    losses: Float[np.typing.ArrayLike, ' points'],
    anchor: float | None = None,
  ) -> LearningTrend:
    """The trend of least squares, in float64.

    Args:
      x: steps, tokens or LR sums, > 0, rising.
      losses: at these, in nats.
      anchor: one more loss, at infinity: the asymptote of the fit before. It
        keeps a distorted loss from throwing the asymptote far off.

    Returns:
      The trend, with Python floats.

    Raises:
      ValueError: if there are fewer than 4 points, lengths differ, a number is
        not finite and > 0, `x` does not rise, or the losses do not fall
        towards a positive asymptote.

    Example:
      >>> x = np.arange(1, 21) * 100.0
      >>> trend = LearningTrend.fit(x=x, losses=2 + 5 * x**-0.5)
      >>> round(trend.c, 4), round(trend.b, 4)
      (2.0, 0.5)
    """
    points, y = _points(x, losses, at_least=4)
    if anchor is not None:
      check_positive('anchor', anchor)
    c, a, b = _fit(points, y, anchor)
    if not (c > 0 and a > 0):
      raise ValueError(
        f'losses must fall towards a positive asymptote, got c={c:.4g}, '
        f'a={a:.4g}: give more points, after the warmup'
      )
    return cls(c=c, a=a, b=b, x_last=float(points[-1]))


class Stopping(NamedTuple):
  """What `stopping` finds.

  Attributes:
    may_stop: whether no more than the threshold is still to be gained.
    prediction_level: index of the point since which the asymptotes have risen;
      None if they do not.
    bound: the most that is still to be gained after the last point, in nats;
      infinity without a prediction level.
    asymptotes: [n] of the trend through the points so far; NaN where there is
      none.
    bounds: [n] `bound` as it was at each point.
  """

  may_stop: bool
  prediction_level: int | None
  bound: float
  asymptotes: Float[np.ndarray, ' n']
  bounds: Float[np.ndarray, ' n']


def stopping(
  *,
  x: Float[np.typing.ArrayLike, ' n'],
  losses: Float[np.typing.ArrayLike, ' n'],
  threshold_nats: float,
) -> Stopping:
  """Whether a run at this LR has at most `threshold_nats` still to gain.

  A `LearningTrend` is fitted to the first 4, 5, ... points, each anchored at
  the asymptote of the one before. At the *prediction level* the asymptotes
  start to rise without a break: from then on each trend promises less than the
  last. It counts once there were 5 rises and 10 points. The *proximity
  condition* is that the curve then stays within one layer of convergence `a` of
  the trend, whose asymptote is `a` below its last point. So

      bound = 2 a

  is the most that is still to be gained, and the run may stop, or start its
  decay, when that is within the *convergence threshold*. The layer by itself
  estimates the gain: of simulated noisy curves, every second gained more at
  some point, and 1 in 90 more than the bound. It is least sure for few, early
  or very noisy points.

  A bound is about more steps at this LR: a decay gains more. Where the
  asymptotes fall, as they do while a curve falls further than its trends
  promised, there is no prediction level, and the bound is infinite.

  Args:
    x: steps, tokens or LR sums, > 0, rising; evenly spaced, or in their
      logarithm, after the warmup. 20 to 200 points; the time is quadratic.
    losses: at these, in nats, at a constant LR.
    threshold_nats: the convergence threshold, > 0.

  Returns:
    The answer, the level and the bounds. `bounds[i]` needs points up to `i`
    only.

  Raises:
    ValueError: if lengths differ, a number is not finite and > 0, or `x` does
      not rise.

  Source: Vilares et al. (arXiv:2402.02515), there for an accuracy. The factor
    2 and the counts of rises and points are ours.

  Example:
    >>> x = np.arange(1, 41) * 500.0
    >>> found = stopping(x=x, losses=2 + 5 / x**0.5, threshold_nats=0.1)
    >>> found.may_stop, round(found.bound, 4)
    (True, 0.0707)
  """
  if not (np.ndim(threshold_nats) == 0 and 0 < threshold_nats < np.inf):
    raise ValueError(
      f'threshold_nats must be finite and > 0, got {threshold_nats}'
    )
  points, y = _points(x, losses, at_least=1)
  asymptotes = np.full(len(y), np.nan)
  bounds = np.full(len(y), np.inf)
  start, anchor = 0, None  # of the rise that goes on
  for i in range(3, len(y)):
    c, a, _ = _fit(points[: i + 1], y[: i + 1], anchor)
    falls = c > 0 and a > 0
    if not (falls and anchor is not None and c > anchor - ROUNDING):
      start = i
    anchor = c if falls else None
    if falls:
      asymptotes[i] = c
      if i - start >= RISES and i + 1 >= FEWEST_POINTS:
        bounds[i] = 2 * a
  bound = float(bounds[-1])
  return Stopping(
    may_stop=bound <= threshold_nats,
    prediction_level=start if bound < np.inf else None,
    bound=bound,
    asymptotes=asymptotes,
    bounds=bounds,
  )


def _points(
  x: np.typing.ArrayLike, losses: np.typing.ArrayLike, at_least: int
) -> list[np.ndarray]:
  points, y = as_points({'x': x, 'losses': losses}, at_least=at_least)
  falls = np.flatnonzero(np.diff(points) <= 0)
  if len(falls):
    i = falls[0] + 1
    raise ValueError(
      f'x must rise: x[{i}]={points[i]:g} is not above {points[i - 1]:g}'
    )
  return [points, y]


def _fit(
  x: np.ndarray, y: np.ndarray, anchor: float | None
) -> tuple[float, float, float]:
  """c, a and b of least squares; c and a may come out below 0.

  For a given exponent they follow from linear regression, so the search is
  over the exponent alone.
  """
  log_x = np.log(x / x[-1])
  if anchor is not None:
    log_x, y = np.append(log_x, np.inf), np.append(y, anchor)

  def regress(log_b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z = np.exp(-np.exp(log_b)[:, None] * log_x)
    dz = z - z.mean(1, keepdims=True)
    a = dz @ (y - y.mean()) / np.sum(dz**2, 1)
    c = y.mean() - a * z.mean(1)
    residuals = c[:, None] + a[:, None] * z - y
    return c, a, np.sum(residuals**2, 1)

  best = int(np.argmin(regress(LOG_EXPONENTS)[2]))
  last = len(LOG_EXPONENTS) - 1
  log_b = scipy.optimize.minimize_scalar(
    lambda log_b: regress(np.array([log_b]))[2][0],
    bounds=LOG_EXPONENTS[[max(best - 1, 0), min(best + 1, last)]],
    method='bounded',
    options={'xatol': 1e-7},
  ).x
  c, a, _ = regress(np.array([log_b]))
  return float(c[0]), float(a[0]), float(np.exp(log_b))
