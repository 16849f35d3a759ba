"""Where logged LRs deviate from a schedule, and what that looks like.

Each cause is a test on all rows: it is named only if the log is what that cause
would have made of the schedule, within the tolerance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import lrsched
from experiments.logged import lrs_of

# An LR this much below the highest one is compared as if it were this large: at
# the end of a decay to 0 only the rounding of float32 is left.
FLOOR = 1e-3
ROUNDING = 1e-6  # within which a logged LR is the same number
LEAST_ROWS = 3  # fewer fit too many explanations
MAX_TABLE = 2**22  # steps of the schedule that are searched
MAX_CHECKS = 64  # rows that narrow the search before all are compared


class Comparison(NamedTuple):
  """Logged LRs beside those of a schedule; rows rise in steps.

  Attributes:
    steps: int64 [n], the updates logged.
    logged: float64 [n].
    spec: float64 [n], the schedule's LRs of these updates.
    deviations: float64 [n], `|logged - spec| / spec`.
    tolerance: the greatest deviation that counts as equal.
    floor: the least LR that deviations are relative to.
  """

  steps: np.ndarray
  logged: np.ndarray
  spec: np.ndarray
  deviations: np.ndarray
  tolerance: float
  floor: float

  @property
  def first(self) -> int | None:
    """The first row that deviates."""
    bad = np.flatnonzero(self.deviations > self.tolerance)
    return int(bad[0]) if bad.size else None

  def near(self, lrs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where LRs are equal within the tolerance."""
    return _deviations(lrs, wanted, self.floor) <= self.tolerance


def _deviations(
  lrs: np.ndarray, wanted: np.ndarray, floor: float
) -> np.ndarray:
  return np.abs(lrs - wanted) / np.maximum(wanted, floor)


def compare(
  lrs: dict[int, float], schedule: lrsched.Schedule, tolerance: float
) -> Comparison:
  """The LRs of a log, by update, beside the schedule's.

  Raises:
    ValueError: if the tolerance is not in (0, 1).
  """
  if not 0 < tolerance < 1:
    raise ValueError(f'tolerance must be in (0, 1), got {tolerance:g}')
  steps = np.array(sorted(lrs), np.int64)
  logged = np.array([lrs[int(t)] for t in steps])
  spec = lrs_of(schedule, steps)
  floor = FLOOR * max(logged.max(), spec.max()) or 1.0
  return Comparison(
    steps, logged, spec, _deviations(logged, spec, floor), tolerance, floor
  )


def causes(found: Comparison, schedule: lrsched.Schedule) -> list[str]:
  """What would explain the deviation, the most specific first."""
  if found.first is None:
    return []
  end = max(schedule.end_step or 0, int(found.steps[-1])) + 3
  table = lrs_of(schedule, np.arange(min(end, MAX_TABLE)))
  if schedule.end_step is None or end > MAX_TABLE:
    table[-1] = np.nan  # what follows is not known, and equals nothing
  texts = (
    _warmup(found, schedule),
    _factor(found, found.first),
    _shift(found, found.first, table),
    _held(found, found.first, table),
    _digits(found),
  )
  return [text for text in texts if text is not None]


def _warmup(found: Comparison, schedule: lrsched.Schedule) -> str | None:
  """`t/W` in place of `(t+1)/W`."""
  phase = schedule.phases()[0]
  if phase.name != 'warmup' or phase.end is None:
    return None
  t = found.steps
  wanted = np.where(t < phase.end, found.spec * t / (t + 1), found.spec)
  if not found.near(found.logged, wanted).all():
    return None
  return (
    f'the warmup of the log is t/{phase.end}, from LR 0 at step 0; that of the '
    f'spec is (t+1)/{phase.end}'
  )


def _factor(found: Comparison, first: int) -> str | None:
  """A constant times the schedule."""
  logged, spec = found.logged[first:], found.spec[first:]
  over = spec > found.floor
  if over.sum() < LEAST_ROWS:
    return None
  factor = float(np.median(logged[over] / spec[over]))
  if factor == 0 or not found.near(logged, factor * spec).all():
    return None
  since = f'from step {found.steps[first]} on ' if first else ''
  return (
    f'{since}the log is {factor:.6g} times the spec: another peak LR, or a '
    'factor for batch size, devices or a parameter group'
  )


def _shift(found: Comparison, first: int, table: np.ndarray) -> str | None:
  """The schedule at other steps: off by one, or begun again."""
  steps, logged = found.steps[first:], found.logged[first:]
  if len(steps) < LEAST_ROWS or found.near(logged, logged[:1]).all():
    return None
  late = found.steps > 0  # what was before step 0 is not the schedule's
  if found.near(found.logged, _at(found.steps - 1, table))[late].all():
    by = -1
  else:
    # A few rows tell most candidates apart, the last one best.
    shifts = np.flatnonzero(found.near(logged[0], table)) - steps[0]
    cost = np.zeros(len(shifts))
    some = np.linspace(len(steps) - 1, 0, MAX_CHECKS).astype(np.int64)
    for i in dict.fromkeys(some.tolist()):
      wanted = _at(steps[i] + shifts, table)
      apart = _deviations(logged[i], wanted, found.floor)
      keep = apart <= found.tolerance
      shifts, cost = shifts[keep], cost[keep] + apart[keep]
    if not len(shifts):
      return None
    by = int(shifts[np.argmin(cost)])
    if not found.near(logged, _at(steps + by, table)).all():
      return None
  before = found.steps[:first]
  whole = found.near(found.logged[:first], _at(before + by, table)).all()
  since = '' if whole else f'from step {steps[0]} on '
  text = f'{since}the log equals spec(t{by:+d})'
  if whole and by == 1:
    return (
      f'{text}: off by one, the LR logged with an update is that of the next '
      '(--next_lr)'
    )
  if whole and by == -1:
    return (
      f'{text}: off by one, the steps of the log count updates done '
      '(--first_step=1)'
    )
  if first and found.steps[first - 1] < -by <= steps[0]:
    return f'{text}: the schedule began again at step {-by}'
  return (
    f'{text}: its step was {abs(by)} {"ahead" if by > 0 else "behind"}, as '
    'after a restart with another count of updates'
  )


def _at(steps: np.ndarray, table: np.ndarray) -> np.ndarray:
  """The schedule's LRs; it rests before step 0 and where the table ends."""
  return table[np.clip(steps, 0, len(table) - 1)]


def _held(found: Comparison, first: int, table: np.ndarray) -> str | None:
  """One LR where the schedule moves."""
  lr = found.logged[first]
  same = np.abs(found.logged[first:] - lr) <= ROUNDING * lr
  n = len(same) if same.all() else int(np.argmin(same))
  spec = found.spec[first : first + n]
  if n < LEAST_ROWS or found.near(spec, spec[:1]).all():
    return None
  start, end = found.steps[first], found.steps[first + n - 1]
  had = np.flatnonzero(found.near(lr, table[: start + 1]))
  of = f'the spec had at step {had[-1]}' if had.size else 'the spec never had'
  return (
    f'the log stays at {lr:.6g} in steps {start}..{end}, an LR that {of}: one '
    'restored from a checkpoint as a number, or a schedule not stepped'
  )


def _digits(found: Comparison) -> str | None:
  """The schedule, printed with few digits."""
  text = f'the worst deviation is {found.deviations.max():.2g}'
  power = np.floor(np.log10(np.maximum(found.spec, 1e-6 * found.floor)))
  apart = np.abs(found.logged - found.spec)
  for n in range(1, 7):
    if _prints_as(found.logged, f'.{n - 1}e'):
      if (apart <= 0.51 * 10.0 ** (power - n + 1)).all():
        return f'the log is the spec rounded to {n} significant digits; {text}'
      break
  for n in range(1, 12):
    if _prints_as(found.logged, f'.{n}f'):
      if (apart <= 0.51 * 10.0**-n).all():
        return f'the log is the spec rounded to {n} decimals; {text}'
      break
  return None


def _prints_as(lrs: np.ndarray, form: str) -> bool:
  return all(float(f'{lr:{form}}') == lr for lr in lrs.tolist())
