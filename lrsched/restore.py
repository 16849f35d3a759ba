"""What a restore does to the schedule: decided here, without any file.

A trainer gives the schedule a checkpoint was saved with and the one it is asked
to run; it gets back what to run and what to tell, or an error. Nothing about
the learning rate changes without a line in the diff.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import numpy as np

from lrsched.base import MAX_STEPS
from lrsched.base import Schedule
from lrsched.base import as_arrays
from lrsched.spec import diff
from lrsched.spec import to_dict

Policy = Literal['resume', 'replace', 'branch']
POLICIES = ('resume', 'replace', 'branch')


@jax.jit
def _evaluate(schedule: Schedule, step: jax.Array) -> jax.Array:
  return schedule(step)


def lr_at(schedule: Schedule, step: int) -> float:
  """The LR of one update as a Python number, through one compiled program.

  A call of the schedule itself compiles each of its operations; this compiles
  once for all schedules of a structure, so a restart that shows LRs compiles
  nothing that the start of the run did not.

  Args:
    schedule: a schedule with concrete leaves.
    step: the update, counted from 0.

  Example:
    >>> import lrsched
    >>> lr_at(lrsched.Linear(peak_lr=1.0, total_steps=4), 1)
    0.75
  """
  return float(_evaluate(as_arrays(schedule), np.int32(step)))


class RestorePlan(NamedTuple):
  """What to run after a restore.

  Attributes:
    diff: what changes, a line each; empty if nothing does.
    spec: the schedule to run.
    step: its next update; the number of updates made so far.
  """

  diff: tuple[str, ...]
  spec: Schedule
  step: int


def plan_restore(
  saved_spec: Schedule, saved_step: int, asked_spec: Schedule, policy: Policy
) -> RestorePlan:
  """Decides which schedule runs after a restore, or refuses.

  - `resume` goes on with the saved schedule and demands that the asked one is
    equal to it.
  - `replace` goes on in the same run with the asked schedule.
  - `branch` starts a new run at the saved step with the asked schedule; the
    old run stays as it is.

  The plan is the same for `replace` and `branch`; what they do to runs and
  folders is the trainer's part.

  Args:
    saved_spec: the schedule in the checkpoint.
    saved_step: updates made when it was saved, >= 0.
    asked_spec: the schedule asked for now.
    policy: one of 'resume', 'replace', 'branch'.

  Returns:
    The diff (changed fields, then for both the LR of the next update, its phase
    and the end, where they differ), the schedule to run and the step.

  Raises:
    ValueError: if the policy is unknown, the step negative, the schedules
      differ under `resume`, or the asked schedule ends at or before the step.

  Example:
    >>> import lrsched
    >>> old = lrsched.Constant(lr=1e-3)
    >>> plan = plan_restore(
    ...   old, 100, lrsched.Constant(lr=5e-4), 'replace'
    ... )
    >>> plan.diff[0]
    'schedule.lr: 0.001 -> 0.0005'
  """
  if policy not in POLICIES:
    raise ValueError(f'policy must be one of {POLICIES}, got {policy!r}')
  whole = isinstance(saved_step, (int, np.integer))
  if not whole or not 0 <= saved_step <= MAX_STEPS:
    raise ValueError(
      f'saved_step must be an integer in 0..{MAX_STEPS}, got {saved_step!r}'
    )
  saved_step = int(saved_step)
  changes = diff(to_dict(saved_spec), to_dict(asked_spec))
  if not changes:
    return RestorePlan(diff=(), spec=saved_spec, step=saved_step)
  before, after = lr_at(saved_spec, saved_step), lr_at(asked_spec, saved_step)
  lines = (
    *changes,
    f'LR of update {saved_step}: {before:.6g} -> {after:.6g}',
    *_timeline(saved_spec, asked_spec, saved_step),
  )
  if policy == 'resume':
    raise ValueError(
      "the schedule differs from the checkpoint's:\n  "
      + '\n  '.join(lines)
      + "\nuse 'replace' to change it in this run, or 'branch' for a new run"
    )
  end_step = asked_spec.end_step
  if end_step is not None and end_step <= saved_step:
    raise ValueError(
      f'the asked schedule ends at step {end_step}, but the checkpoint is at '
      f'step {saved_step}; ask for one that ends later, or for Constant'
    )
  return RestorePlan(diff=lines, spec=asked_spec, step=saved_step)


def _timeline(saved: Schedule, asked: Schedule, step: int) -> tuple[str, ...]:
  """What moves in time: the phase of the next update, and the end."""
  phases = [_phase_at(spec, step) for spec in (saved, asked)]
  ends = [
    'never' if spec.end_step is None else f'at step {spec.end_step}'
    for spec in (saved, asked)
  ]
  rows = ((f'phase of update {step}', phases), ('schedule ends', ends))
  return tuple(f'{name}: {a} -> {b}' for name, (a, b) in rows if a != b)


def _phase_at(spec: Schedule, step: int) -> str:
  for name, start, end in spec.phases():
    if start <= step and (end is None or step < end):
      return name
  return 'after the end'
