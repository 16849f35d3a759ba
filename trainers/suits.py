"""Whether a schedule suits a run: its length, phases, batch ramp and budget."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
from typing import Any

import lrsched
from trainers.fields import require
from trainers.finish import Finish
from trainers.finish import TokensAt
from trainers.horizon import BatchRamp


def check_ramps(
  where: str, spec: lrsched.Schedule, ramp: BatchRamp | None
) -> None:
  """Raises ValueError if a schedule follows another ramp than the data."""
  for i, found in enumerate(_ramped_in(spec)):
    asked = ramp and (ramp.boundaries, ramp.batch_sizes)
    require(
      (found.boundaries, found.batch_sizes) == asked,
      where if found is spec else f'{where}: its Ramped {i}',
      found,
      f'must have the ramp of the data, {ramp}: make it by ramp.schedule(...)',
    )


def _ramped_in(spec: Any) -> list[lrsched.Ramped]:
  """Every `Ramped` in a schedule, however deep."""
  if isinstance(spec, tuple):
    return [found for part in spec for found in _ramped_in(part)]
  if not isinstance(spec, lrsched.Schedule):
    return []
  inside = [getattr(spec, f.name) for f in dataclasses.fields(spec)]  # type: ignore[arg-type]
  mine = [spec] if isinstance(spec, lrsched.Ramped) else []
  return mine + _ramped_in(tuple(inside))


def check_schedule(
  where: str, spec: lrsched.Schedule, total_steps: int
) -> None:
  """Raises ValueError if a schedule does not suit a run of this length."""
  end_step = spec.end_step
  if end_step is not None and end_step < total_steps:
    raise ValueError(
      f'{where} ends at step {end_step}, before total_steps={total_steps}; '
      'lengthen it, shorten the run, or say what follows with a Sequence'
    )
  # A decay that an import or a Sequence made of a WSD is what it is.
  stable_first = isinstance(spec, (lrsched.WSD, lrsched.WSDS, lrsched.WSDC))
  phases = spec.phases()
  for i, (name, start, end) in enumerate(phases):
    length = total_steps if end is None else end - start
    if name == 'warmup' and length >= total_steps:
      raise ValueError(
        f'{where}.warmup_steps must be less than total_steps={total_steps}, '
        f'got {length}: the run would end in its warmup'
      )
    before = phases[i - 1] if i else phases[0]
    if stable_first and name == 'decay' and before.name == 'stable':
      stable_steps = start - before.start
      if length > stable_steps:
        raise ValueError(
          f'{where}.decay_steps must be at most stable_steps={stable_steps}, '
          f'got {length}; a run that mostly decays is a '
          'Warmup(schedule=Linear(...)) or a Sequence'
        )


def check_finish(
  where: str,
  spec: lrsched.Schedule,
  total_steps: int,
  finish: Finish,
  tokens_at: TokensAt,
) -> None:
  """Raises ValueError unless a schedule can decay in time for a budget."""
  budgets = ('by_step', 'by_tokens', 'by_time', 'by_device_hours')
  given = [name for name in budgets if getattr(finish, name) is not None]
  if given and not _can_decay(spec, total_steps):
    raise ValueError(
      f'Finish.{given[0]} needs schedules whose decay can begin early, such as '
      f'WSD or Infinite, got {where}={spec}; change it, or drop the budget'
    )
  if not finish.is_over(total_steps, tokens_at):
    return
  is_late = lambda step: finish.is_last_chance(step, tokens_at)
  begin = bisect.bisect_left(range(total_steps), True, key=is_late)
  length = finish.asked_steps_at(begin)
  budget = f'Finish.by_step={finish.by_step}, by_tokens={finish.by_tokens}'
  try:
    [decay] = lrsched.decay_branches(spec, (begin,), (length,)).branches
    check_schedule(where, decay.spec, decay.end_step)
  except ValueError as error:
    raise ValueError(
      f'{budget}: the decay of {length} updates would begin at step {begin}, '
      f'where {where} has none: {error}; change the budget or the schedule'
    ) from error
  if finish.is_over(decay.end_step, tokens_at):
    raise ValueError(
      f'{budget} must leave room for a decay of {length} updates from step '
      f'{begin} on; raise it'
    )


def _can_decay(spec: lrsched.Schedule, total_steps: int) -> bool:
  """Whether a decay can begin at the start of some phase."""
  for phase in spec.phases():
    with contextlib.suppress(ValueError):
      lrsched.decay_branches(spec, (min(phase.start, total_steps),), (1,))
      return True
  return False
