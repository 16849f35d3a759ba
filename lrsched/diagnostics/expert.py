"""A learner of many tasks against one that learned a single task alone.

All of these are ratios: of losses pass `np.exp(-losses)`, the geometric mean
probability of a token, which is positive and grows as the loss falls.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrsched.diagnostics.task_stream import Curve
from lrsched.diagnostics.task_stream import checked_curve

# Less of the expert's level than this is not having learned the task.
_LEAST_OF_EXPERT = 0.2


class Saturation(NamedTuple):
  """The best level a curve reaches; see `saturation`.

  Attributes:
    value: the highest moving average.
    experiences: evaluations made when it is first reached.
  """

  value: float
  experiences: int


def saturation(performance: Curve, window: int) -> Saturation:
  """The highest moving average of a curve, and when it is first reached.

  The average is over `window` consecutive evaluations of the curve itself,
  without copies beyond its ends, so it is reached at the last of them.

  Args:
    performance: float [evaluations] of one task, finite.
    window: evaluations of the moving average, >= 1, at most all.

  Returns:
    The value, and the experience to saturation in evaluations, >= window.

  Raises:
    ValueError: if a shape or a value is wrong.

  Source: New et al. (arXiv:2301.07799), saturation and experience to
    saturation.

  Example:
    >>> saturation([0.0, 0.5, 1.0, 0.5], window=2)
    Saturation(value=0.75, experiences=3)
  """
  curve = checked_curve('performance', performance)
  whole = isinstance(window, (int, np.integer))
  if not whole or not 1 <= window <= len(curve):
    raise ValueError(
      f'window must be a whole number in 1..{len(curve)}, the evaluations, got '
      f'{window!r}'
    )
  parts = np.lib.stride_tricks.sliding_window_view(curve, window)
  means = parts.mean(axis=1)
  best = int(means.argmax())
  return Saturation(float(means[best]), best + int(window))


def relative_performance(performance: Curve, expert: Curve) -> float:
  """What a learner of many tasks has of one that learned this task alone: RP.

      RP = sum_t p(t) / sum_t p_expert(t)

  over as many evaluations as both have. Above 1 the earlier tasks paid off.

  Args:
    performance: p > 0, float [evaluations], of a task in all its phases, one
      after the other; of losses their `exp(-loss)`.
    expert: the same of a run on this task alone, evaluated as often.

  Returns:
    RP, > 0.

  Raises:
    ValueError: if a shape or a value is wrong.

  Source: New et al. (arXiv:2301.07799), performance relative to a single-task
    expert.

  Example:
    >>> relative_performance([0.5, 0.75], [0.25, 0.25, 0.5])
    2.5
  """
  curve = _positive('performance', performance)
  other = _positive('expert', expert)
  both = min(len(curve), len(other))
  return float(curve[:both].sum() / other[:both].sum())


def sample_efficiency(performance: Curve, expert: Curve, window: int) -> float:
  """How much sooner, and how high, a learner saturates than an expert: SE.

      SE = (saturation / saturation_expert)
           * (experiences_expert / experiences)

  Args:
    performance: p > 0, as in `relative_performance`.
    expert: the same of a run on this task alone, evaluated as often.
    window: evaluations of the moving average, as in `saturation`.

  Returns:
    SE, > 1 if the earlier tasks paid off. 0 if the learner saturates below a
    fifth of the expert, or the straight line through its curve falls: reaching
    nothing soon is not efficient.

  Raises:
    ValueError: if a shape or a value is wrong.

  Source: New et al. (arXiv:2301.07799), sample efficiency; the two rules for 0
    are those of the authors' evaluation program.

  Example:
    >>> sample_efficiency([0.25, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.5], 1)
    4.0
  """
  curve = _positive('performance', performance)
  own = saturation(curve, window)
  best = saturation(_positive('expert', expert), window)
  centred = np.arange(len(curve)) - (len(curve) - 1) / 2
  if (
    own.value < _LEAST_OF_EXPERT * best.value
    or centred @ (curve - curve[0]) < 0
  ):
    return 0.0
  return own.value / best.value * (best.experiences / own.experiences)


def _positive(name: str, values: Curve) -> np.ndarray:
  """A curve that ratios can be taken of, or ValueError."""
  curve = checked_curve(name, values)
  if (curve <= 0).any():
    raise ValueError(
      f'{name} must be > 0, got {curve[curve <= 0][0]}; of losses pass '
      'exp(-losses)'
    )
  return curve
