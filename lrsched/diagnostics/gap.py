"""The stability gap: old data while new data is trained on.

An evaluation at the end alone misses what happens in between: a model that
moves to new data often loses much of the old at once, and then wins part of it
back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from jaxtyping import Int

from lrsched.diagnostics.task_stream import checked_curve


class StabilityGap(NamedTuple):
  """How the loss on old data went through a phase on new data.

  Attributes:
    depth: the highest loss less the loss at the start, >= 0.
    peak_step: the first step with the highest loss.
    recovery_step: the first step from the peak on whose loss is at most the
      loss at the start plus the tolerance; None if there is none.
    forgetting: the loss at the end less the loss at the start; below 0 the
      phase made the model better at the old data too.
  """

  depth: float
  peak_step: int
  recovery_step: int | None
  forgetting: float


def stability_gap(
  steps: Int[np.typing.ArrayLike, ' evaluations'],
  losses: Float[np.typing.ArrayLike, ' evaluations'],
  tolerance: float = 0.0,
) -> StabilityGap:
  """The gap in the loss `L` of an old domain while new data is trained on.

      depth = max_t L(t) - L(t_0),   forgetting = L(t_end) - L(t_0)

  `t_0` is before the first update of the phase. Between two evaluations the
  loss may be higher: the depth is a lower bound, closer the denser they are.

  Args:
    steps: updates done at each evaluation, rising.
    losses: of the old domain, in any unit, finite.
    tolerance: how far above the loss at the start counts as recovered, in the
      unit of the losses, >= 0. Of the order of their standard error.

  Returns:
    Depth, peak, recovery and what is forgotten for good.

  Raises:
    ValueError: if the shapes differ, the steps do not rise, a loss is not
      finite or the tolerance is out of range.

  Source: De Lange, van de Ven and Tuytelaars (arXiv:2205.13452), on losses
    instead of accuracies.

  Example:
    >>> gap = stability_gap([900, 910, 920, 960], [2.0, 2.5, 2.25, 1.75])
    >>> gap.depth, gap.peak_step, gap.recovery_step, gap.forgetting
    (0.5, 910, 960, -0.25)
  """
  curve = checked_curve('losses', losses)
  at = np.asarray(steps)
  if at.shape != curve.shape or at.dtype.kind not in 'iu':
    raise ValueError(
      f'steps must be a whole number for each of {len(curve)} losses, got '
      f'{at.dtype} of shape {at.shape}'
    )
  wrong = np.flatnonzero(at[1:] <= at[:-1])
  if wrong.size:
    i = wrong[0]
    raise ValueError(f'steps must rise, got {at[i + 1]} after {at[i]}')
  if not (np.ndim(tolerance) == 0 and 0 <= tolerance < np.inf):
    raise ValueError(f'tolerance must be finite and >= 0, got {tolerance}')
  peak = int(curve.argmax())
  back = np.flatnonzero(curve[peak:] <= curve[0] + tolerance)
  return StabilityGap(
    depth=float(curve[peak] - curve[0]),
    peak_step=int(at[peak]),
    recovery_step=int(at[peak + back[0]]) if back.size else None,
    forgetting=float(curve[-1] - curve[0]),
  )
