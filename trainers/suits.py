"""Whether a schedule suits a run: its length, its phases, its batch ramp."""

from __future__ import annotations

import dataclasses
from typing import Any

import lrsched
from trainers.fields import require
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
