"""Evaluations of several tasks that were trained one after the other."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from jaxtyping import Int

Performance = Float[np.typing.ArrayLike, 'evaluations tasks']
Curve = Float[np.typing.ArrayLike, ' evaluations']
TaskOfEvaluation = Int[np.typing.ArrayLike, ' evaluations']


class PerTask(NamedTuple):
  """A metric of several tasks.

  Attributes:
    mean: over the tasks that have one; NaN if none has.
    of_task: float [tasks], NaN where a task has none.
  """

  mean: float
  of_task: np.ndarray

  @classmethod
  def of(cls, values: Float[np.typing.ArrayLike, ' tasks']) -> PerTask:
    """Values of all tasks, and their mean."""
    of_task = np.asarray(values, np.float64)
    known = of_task[~np.isnan(of_task)]
    return cls(float(known.mean()) if known.size else np.nan, of_task)


class Phase(NamedTuple):
  """Evaluations `start <= e < end`, made while one task was trained."""

  task: int
  start: int
  end: int


class TaskStream(NamedTuple):
  """Checked evaluations, and the phases they were made in.

  Attributes:
    performance: float64 [evaluations, tasks].
    task_of_evaluation: int [evaluations], -1 before any training.
    phases: in order, without the evaluations before any training.
  """

  performance: np.ndarray
  task_of_evaluation: np.ndarray
  phases: tuple[Phase, ...]

  def first_phase(self, task: int) -> Phase:
    """The phase in which a task was trained first."""
    return next(phase for phase in self.phases if phase.task == task)


def task_stream(
  performance: Performance, task_of_evaluation: TaskOfEvaluation
) -> TaskStream:
  """Checks what the metrics of several tasks take, and finds the phases.

  Args:
    performance: float [evaluations, tasks], higher is better. A column may
      begin with NaN where its task was not evaluated yet, up to its own phase;
      after that it is finite.
    task_of_evaluation: int [evaluations], the task that was being trained; the
      last evaluation of a phase is made after the phase's last update. -1 for
      evaluations before any training.

  Raises:
    ValueError: if a shape or a value breaks these rules, or a task was never
      evaluated while it was trained.
  """
  values = np.asarray(performance, np.float64)
  if values.ndim != 2 or 0 in values.shape:
    raise ValueError(
      'performance must have the shape [evaluations, tasks], at least one of '
      f'each, got {values.shape}'
    )
  tasks = np.asarray(task_of_evaluation)
  if tasks.shape != values.shape[:1] or tasks.dtype.kind not in 'iu':
    raise ValueError(
      'task_of_evaluation must be a whole number for each of '
      f'{len(values)} evaluations, got {tasks.dtype} of shape {tasks.shape}'
    )
  wrong = np.flatnonzero((tasks < -1) | (tasks >= values.shape[1]))
  if wrong.size:
    raise ValueError(
      f'task_of_evaluation must be a column of performance, 0 to '
      f'{values.shape[1] - 1}, or -1, got {tasks[wrong[0]]} at {wrong[0]}'
    )
  idle = int((tasks == -1).sum())
  if (tasks[:idle] != -1).any():
    raise ValueError(
      'task_of_evaluation may be -1 only before any training, got it after '
      f'task {tasks[tasks >= 0][0]}'
    )
  for task, column in enumerate(values.T):
    own = np.flatnonzero(tasks == task)
    if not own.size:
      raise ValueError(
        f'task_of_evaluation must name every task, got no evaluation while '
        f'task {task} was trained; evaluate each phase at least once'
      )
    known = np.flatnonzero(~np.isnan(column))
    start = min(own[0], known[0]) if known.size else own[0]
    wrong = np.flatnonzero(~np.isfinite(column[start:]))
    if wrong.size:
      raise ValueError(
        f'performance must be finite once a task is evaluated or trained, got '
        f'{column[start + wrong[0]]} of task {task} at {start + wrong[0]}'
      )
  changes = np.flatnonzero(np.diff(tasks[idle:])) + idle + 1
  ends = [idle, *(int(i) for i in changes), len(tasks)]
  phases = [Phase(int(tasks[a]), a, b) for a, b in itertools.pairwise(ends)]
  return TaskStream(values, tasks, tuple(phases))


def checked_curve(name: str, values: np.typing.ArrayLike) -> np.ndarray:
  """One curve as float64 [evaluations]; ValueError if it is not finite."""
  curve = np.asarray(values, np.float64)
  if curve.ndim != 1 or not curve.size:
    raise ValueError(
      f'{name} must have the shape [evaluations], at least one, got '
      f'{curve.shape}'
    )
  wrong = np.flatnonzero(~np.isfinite(curve))
  if wrong.size:
    raise ValueError(
      f'{name} must be finite, got {curve[wrong[0]]} at {wrong[0]}'
    )
  return curve
