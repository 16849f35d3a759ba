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
from lrsched.lineage import CARRIES
from lrsched.lineage import Carry
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
  saved_spec: Schedule,
  saved_step: int,
  asked_spec: Schedule,
  policy: Policy,
  carry: Carry = 'all',
) -> RestorePlan:
  """Decides which schedule runs after a restore, and from which update.

  - `resume` goes on with the saved schedule and demands that the asked one is
    equal to it.
  - `replace` goes on in the same run with the asked schedule.
  - `branch` starts a new run from the saved step with the asked schedule; the
    old run stays as it is. It may leave a part of the state behind:

      ==============  =======  =========  ==================  ==============
      `carry`         weights  optimizer  next update         its LR
      ==============  =======  =========  ==================  ==============
      'all'           saved    saved      `saved_step`        asked(saved_step)
      'no_optimizer'  saved    anew       `saved_step`        asked(saved_step)
      'weights'       saved    anew       0                   asked(0)
      ==============  =======  =========  ==================  ==============

  An optimizer that begins anew has no second moment yet: an asked schedule that
  gives it the full LR at once, without a warmup, is named in the diff.

  Args:
    saved_spec: the schedule in the checkpoint.
    saved_step: updates made when it was saved, >= 0.
    asked_spec: the schedule asked for now.
    policy: one of 'resume', 'replace', 'branch'.
    carry: what a branch takes along.

  Returns:
    The diff (changed fields, what is left behind, then for both the LR of the
    next update, its phase and the end, where they differ), the schedule to run
    and the step.

  Raises:
    ValueError: if the policy or `carry` is unknown, the step negative, a part
      of the state is left behind without a branch, the schedules differ under
      `resume`, or the asked schedule ends at or before the step.

  Example:
    >>> import lrsched
    >>> old = lrsched.Constant(lr=1e-3)
    >>> plan = plan_restore(
    ...   old, 100, lrsched.Constant(lr=5e-4), 'replace'
    ... )
    >>> plan.diff[0]
    'schedule.lr: 0.001 -> 0.0005'
    >>> plan = plan_restore(old, 100, old, 'branch', 'weights')
    >>> plan.step, plan.diff[0]
    (0, 'next update: 100 -> 0, as only the weights are carried')
  """
  if policy not in POLICIES:
    raise ValueError(f'policy must be one of {POLICIES}, got {policy!r}')
  if carry not in CARRIES:
    raise ValueError(f'carry must be one of {CARRIES}, got {carry!r}')
  if carry != 'all' and policy != 'branch':
    raise ValueError(
      f"carry must be 'all' under policy {policy!r}, got {carry!r}: a run that "
      "goes on keeps its state; use 'branch' for a new run"
    )
  whole = isinstance(saved_step, (int, np.integer))
  if not whole or not 0 <= saved_step <= MAX_STEPS:
    raise ValueError(
      f'saved_step must be an integer in 0..{MAX_STEPS}, got {saved_step!r}'
    )
  saved_step = int(saved_step)
  step = 0 if carry == 'weights' else saved_step
  changes = diff(to_dict(saved_spec), to_dict(asked_spec))
  if not changes and carry == 'all':
    return RestorePlan(diff=(), spec=saved_spec, step=step)
  lines = (
    *changes,
    *_left_behind(asked_spec, saved_step, step, carry),
    *_next_lr(saved_spec, saved_step, asked_spec, step),
    *_timeline(saved_spec, saved_step, asked_spec, step),
  )
  if policy == 'resume':
    raise ValueError(
      "the schedule differs from the checkpoint's:\n  "
      + '\n  '.join(lines)
      + "\nuse 'replace' to change it in this run, or 'branch' for a new run"
    )
  end_step = asked_spec.end_step
  if end_step is not None and end_step <= step:
    raise ValueError(
      f'the asked schedule ends at step {end_step}, but the checkpoint is at '
      f'step {step}; ask for one that ends later, or for Constant'
    )
  return RestorePlan(diff=lines, spec=asked_spec, step=step)


def _left_behind(
  asked: Schedule, saved_step: int, step: int, carry: Carry
) -> tuple[str, ...]:
  """What a branch does not take along, and what is risky about that."""
  if carry == 'all':
    return ()
  lines = ['optimizer state: begins anew']
  if carry == 'weights':
    lines.insert(
      0, f'next update: {saved_step} -> 0, as only the weights are carried'
    )
  # Adam's first steps have the size of the LR whatever the gradient: a rise is
  # what protects trained weights from them.
  if lr_at(asked, step) >= lr_at(asked, step + 1) > 0:
    lines.append(
      f'a cold optimizer starts at LR {lr_at(asked, step):.6g} without a '
      'warmup; lrsched.Rewarm and lrsched.Warmup have one'
    )
  return tuple(lines)


def _next_lr(
  saved: Schedule, saved_step: int, asked: Schedule, step: int
) -> tuple[str, ...]:
  before, after = lr_at(saved, saved_step), lr_at(asked, step)
  if before == after and saved == asked:
    return ()
  return (f'LR of update {step}: {before:.6g} -> {after:.6g}',)


def _timeline(
  saved: Schedule, saved_step: int, asked: Schedule, step: int
) -> tuple[str, ...]:
  """What moves in time: the phase of the next update, and the end."""
  phases = [_phase_at(saved, saved_step), _phase_at(asked, step)]
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
