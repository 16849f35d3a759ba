"""Cosines that rise again, as several frameworks let them."""

from __future__ import annotations

import math

from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.cyclic import OneCycle
from lrsched.elementary import Cosine
from lrsched.tables import Tabulated

# Each piece is evaluated at each step; a table costs the same for any number.
MOST_PIECES = 16


def cosine_wave(
  *,
  peak_lr: float,
  low_lr: float,
  half_steps: float,
  until_step: int,
) -> Schedule:
  """`lr(t) = low + (peak - low) (1 + cos(pi t / h)) / 2` up to a step.

  A `Cosine` with one cycle up and down after another where `h` is a whole
  number, a table where it is not, or the pieces would be many.

  Args:
    peak_lr: learning rate at the tops, >= low_lr.
    low_lr: learning rate at the bottoms, >= 0.
    half_steps: h, from a top to a bottom, > 0.
    until_step: last step at which the value is this one.
  """
  half = round(half_steps)
  whole = abs(half - half_steps) <= 1e-9 * half_steps
  ends = range(half, max(until_step, half), 2 * half) if whole else range(0)
  if whole and len(ends) < MOST_PIECES:
    down = Cosine(peak_lr=peak_lr, final_lr=low_lr, total_steps=half)
    again = OneCycle(
      initial_lr=low_lr,
      peak_lr=peak_lr,
      final_lr=low_lr,
      up_steps=half,
      down_steps=half,
    )
    if not ends:
      return down
    return Sequence(
      schedules=(down, *(again for _ in ends)), boundaries=tuple(ends)
    )
  middle, reach = (peak_lr + low_lr) / 2, (peak_lr - low_lr) / 2
  return Tabulated(
    lrs=[
      # The sum may miss a bottom at 0 by a rounding.
      max(middle + reach * math.cos(math.pi * t / half_steps), 0.0)
      for t in range(until_step + 1)
    ]
  )
