"""What a log says of a run: LRs and losses, by update.

Every format is brought to one convention, that of `lrsched.laws.Curve`: update
`t` counts from 0, `lrs[t]` is the LR of that update, `losses[t]` the loss after
it. What each format's own step counts is said where it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

import lrsched
from lrsched.laws import Curve

# What a column or tag is taken to be if its name is not given: the plain name
# if there is one, else the only one that looks like it.
NAMES = {
  'step': ('step', r'(.*[/ _.-])?(step|iter|iteration|update)s?'),
  'lr': ('lr', r'(.*[/ _.-])?(lr|learning[ _-]?rate)([/_.-].*)?'),
  'loss': ('loss', r'(.*[/ _.-])?loss'),
}
MAX_STEPS = 2**31 - 1  # as everywhere in lrsched
MANY = 20  # names that a message lists
NO_LR = 'no LR was found: name what holds it with lr='


class Reading(NamedTuple):
  """How to read a log, where it is not as expected; None: as the format says.

  Attributes:
    format: one of `experiments.curve_files.FORMATS`; None tells it from the
      file.
    step: name of the column of steps.
    lr: name of the column, tag or metric of the LR.
    loss: the same of the loss.
    pattern: regular expression with groups `step`, `lr` and `loss`, for a plain
      log.
    first_step: what the log calls the first update: 0, or 1 where it counts
      the updates done.
    next_lr: whether the LR logged with an update is that of the next one, as
      it is where a scheduler is stepped before the LR is asked for.
  """

  format: str | None = None
  step: str | None = None
  lr: str | None = None
  loss: str | None = None
  pattern: str | None = None
  first_step: int | None = None
  next_lr: bool = False


class Logged(NamedTuple):
  """A run's log; `schedule` is what the run itself says of LRs not logged."""

  name: str
  lrs: dict[int, float]
  losses: dict[int, float]
  schedule: lrsched.Schedule | None = None


Pairs = Iterable[tuple[int, float]]


def choose(
  where: str, what: str, names: Iterable[str], given: str | None
) -> str:
  """The name of the column or tag that holds `what`.

  Raises:
    ValueError: if the name given is not there, or none is and it cannot be
      told which one is meant.
  """
  names = list(names)
  shown = ', '.join(names[:MANY]) + (', ...' if len(names) > MANY else '')
  if given is not None:
    if given not in names:
      raise ValueError(f'{where}: {what} {given!r} is not there, but {shown}')
    return given
  found = _like(what, names)
  if len(found) != 1:
    raise ValueError(
      f'{where}: {"more than one" if found else "none"} of {shown} looks like '
      f'the {what}; name one with {what}='
    )
  return found[0]


def choose_series(
  where: str, names: Iterable[str], reading: Reading, losses: bool
) -> dict[str, str]:
  """The names of the LR, and of the loss if it is asked for.

  A log in which nothing looks like an LR has none.
  """
  names, chosen = list(names), {}
  if losses:
    chosen['loss'] = choose(where, 'loss', names, reading.loss)
  if reading.lr is not None or _like('lr', names):
    chosen['lr'] = choose(where, 'lr', names, reading.lr)
  return chosen


def _like(what: str, names: list[str]) -> list[str]:
  plain, like = NAMES[what]
  return [name for name in names if name.lower() == plain] or [
    name for name in names if re.fullmatch(like, name, re.IGNORECASE)
  ]


def step_in(where: str, text: Any) -> int:
  """A step: a whole number, as `10` or `10.0`, that is an int32 >= 0."""
  try:
    value = float(text)
    whole = int(text) if isinstance(text, int) else int(value)
  except (TypeError, ValueError, OverflowError):
    value, whole = math.nan, 0
  if whole != value or not 0 <= whole <= MAX_STEPS:
    raise ValueError(
      f'{where}: step must be a whole number in 0..2^31-1, got '
      f'{str(text)[:30]!r}'
    )
  return whole


def value_in(where: str, what: str, text: Any) -> float | None:
  """A finite number >= 0; None where there is nothing."""
  if text is None or (isinstance(text, str) and not text.strip()):
    return None
  try:
    value = float(text)
  except (TypeError, ValueError):
    value = math.nan
  if not (math.isfinite(value) and value >= 0):
    raise ValueError(
      f'{where}: {what} must be a finite number >= 0, got {str(text)[:30]!r}; '
      'cut a log where its run broke down'
    )
  return value


def logged(
  name: str,
  lrs: Pairs,
  losses: Pairs,
  reading: Reading,
  *,
  first_step: int,
  restarts: bool,
) -> Logged:
  """The log of a run from steps and values in the order of the file.

  The loss at a step before the first update (0 where updates done are counted)
  is that of the initial weights; no LR led to it, and it is left out.

  Args:
    name: of the run, for messages.
    lrs: steps, as the log counts them, and LRs.
    losses: the same of losses.
    reading: may say otherwise than the format on `first_step`.
    first_step: what the format calls the first update.
    restarts: whether the file is in the order of time, so that a step at or
      before the last one is a restart: it replaces what is from there on.
      Otherwise steps rise, and may only repeat with the same value.
  """
  if reading.first_step is not None:
    first_step = reading.first_step
  if first_step not in (0, 1):
    raise ValueError(f'{name}: first_step must be 0 or 1, got {first_step}')
  ahead = 1 if reading.next_lr else 0
  by_update = {
    step - first_step + ahead: lr
    for step, lr in _in_order(name, 'lr', lrs, restarts).items()
  }
  if min(by_update, default=0) < 0:
    raise ValueError(
      f'{name}: there is an LR at step 0, so the first update is not 1; read '
      'it with first_step=0'
    )
  kept = {
    step - first_step: loss
    for step, loss in _in_order(name, 'loss', losses, restarts).items()
    if step >= first_step
  }
  return Logged(name, by_update, kept)


def _in_order(
  name: str, what: str, pairs: Pairs, restarts: bool
) -> dict[int, float]:
  out: dict[int, float] = {}
  last = -1
  for step, value in pairs:
    if step <= last and not restarts:
      if step == last and value == out[step]:
        continue
      raise ValueError(
        f'{name}: {what} {value:g} at step {step} follows {out[last]:g} at '
        f'step {last}; steps must rise: sort the rows and drop repeated ones'
      )
    while out and next(reversed(out)) > step:
      out.popitem()
    out[step] = value
    last = step
  return out


def to_curve(
  log: Logged, schedule: lrsched.Schedule | None, warmup_steps: int | None
) -> Curve:
  """The curve of a log: a row for each update that has an LR or a loss.

  A loss between two logged LRs gets the LR on the line that joins them, as a
  curve has it anyway. Before the first and after the last logged LR the
  schedule gives the LR of every update; without one, the first LR holds before
  it, and a loss after the last is an error.

  Raises:
    ValueError: if there is no loss, or one whose LR nothing tells.
  """
  if not log.losses:
    raise ValueError(f'{log.name}: there is no loss')
  schedule = schedule or log.schedule
  lrs = dict(log.lrs)
  last_lr, last_loss = max(lrs, default=-1), max(log.losses)
  if schedule is not None:
    first_lr = min(lrs, default=0)
    steps = np.r_[:first_lr, last_lr + 1 : last_loss + 1]
    given = lrs_of(schedule, steps).tolist()
    lrs |= zip(steps.tolist(), given, strict=True)
  elif last_loss > last_lr:
    have = f'the last LR is of update {last_lr}' if lrs else NO_LR
    raise ValueError(
      f'{log.name}: there is a loss after update {last_loss}, but {have}; '
      'or give the schedule that the run had'
    )
  known = np.array(sorted(lrs.items())).T
  steps = np.union1d(list(lrs), list(log.losses))
  # As text, so that one place decides what the warmup is.
  rows = zip(steps.tolist(), np.interp(steps, *known).tolist(), strict=True)
  lines = [f'{t},{lr!r},{log.losses.get(t, "")!s}' for t, lr in rows]
  text = '\n'.join(('step,lr,loss', *lines))
  return Curve.from_csv(text, name=log.name, warmup_steps=warmup_steps)


@jax.jit
def _lrs_of(schedule: lrsched.Schedule, steps: jax.Array) -> jax.Array:
  return schedule(steps)


def lrs_of(schedule: lrsched.Schedule, steps: np.ndarray) -> np.ndarray:
  """The LRs of updates, float64 [n], through one compiled program."""
  steps = np.asarray(steps, np.int32)
  return np.asarray(_lrs_of(lrsched.as_arrays(schedule), steps), np.float64)
