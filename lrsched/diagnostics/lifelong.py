"""What tasks that are trained in sequence do to each other.

Transfer is a ratio: pass `np.exp(-losses)`, the geometric mean probability of a
token, which is positive and grows as the loss falls; `-losses` has no ratio
that means anything. Of two losses the ratio is then `exp(L_1 - L_2)`, and the
contrast `tanh((L_1 - L_2) / 2)`: functions of the difference in nats.
Performance maintenance is a difference: pass `-losses`, and it is in nats.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from lrsched.diagnostics.task_stream import Curve
from lrsched.diagnostics.task_stream import Performance
from lrsched.diagnostics.task_stream import PerTask
from lrsched.diagnostics.task_stream import TaskOfEvaluation
from lrsched.diagnostics.task_stream import checked_curve
from lrsched.diagnostics.task_stream import task_stream


class Transfer(NamedTuple):
  """What training one task does to another; see `transfer`.

  Attributes:
    forward: float [tasks, tasks], `forward[i, j]` of task i on task j before j
      was trained; NaN where there is none.
    backward: float [tasks, tasks], of task i on task j after j was trained.
  """

  forward: np.ndarray
  backward: np.ndarray


class Maintenance(NamedTuple):
  """How well tasks are kept; see `performance_maintenance`.

  Attributes:
    mrtlp: against the most recent terminal learning performance.
    mrlep: against the most recent learning evaluation performance.
  """

  mrtlp: PerTask
  mrlep: PerTask


def transfer(
  performance: Performance,
  task_of_evaluation: TaskOfEvaluation,
  measure: Literal['contrast', 'ratio'] = 'contrast',
) -> Transfer:
  """How training task i changes task j: forward and backward transfer.

      contrast = (p_2 - p_1) / (p_2 + p_1),   ratio = p_2 / p_1

  with `p_1` and `p_2` the performance of j at the last evaluation before a
  phase of i and at the last one of the phase. Above 0 (a ratio above 1) i
  helps j. Forward if j was not trained yet, else backward; the mean if i has
  several such phases.

  Args:
    performance: p > 0, float [evaluations, tasks], higher is better; of losses
      their `exp(-loss)`. A column may begin with NaN where its task was not
      evaluated yet, up to its own phase; such pairs have no transfer.
    task_of_evaluation: int [evaluations], the task that was being trained; the
      last evaluation of a phase is made after its last update. -1 before any
      training; without one of these the first phase has no `p_1`.
    measure: 'contrast', in (-1, 1), or 'ratio', in (0, inf).

  Returns:
    Two arrays [tasks, tasks], NaN where a pair has no transfer.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: New et al. (arXiv:2301.07799), forward and backward transfer.

  Example:
    >>> found = transfer([[0.75, 0.25], [0.25, 0.75]], [0, 1])
    >>> float(found.backward[1, 0])
    -0.5
  """
  stream = task_stream(performance, task_of_evaluation)
  values = stream.performance
  if (values <= 0).any():
    raise ValueError(
      f'performance must be > 0 for transfer, got {values[values <= 0][0]}; of '
      'losses pass exp(-losses)'
    )
  if measure not in ('contrast', 'ratio'):
    raise ValueError(f"measure must be 'contrast' or 'ratio', got {measure!r}")
  count = values.shape[1]
  found: dict[tuple[bool, int, int], list[float]] = {}
  for phase in stream.phases:
    for task in range(count):
      if task == phase.task or phase.start == 0:
        continue
      before, after = values[phase.start - 1, task], values[phase.end - 1, task]
      if np.isnan(before):
        continue
      is_forward = phase.start < stream.first_phase(task).start
      change = after / before
      if measure == 'contrast':
        change = (after - before) / (after + before)
      found.setdefault((is_forward, phase.task, task), []).append(change)
  both = np.full((2, count, count), np.nan)
  for (is_forward, i, j), changes in found.items():
    both[int(is_forward), i, j] = np.mean(changes)
  return Transfer(forward=both[1], backward=both[0])


def performance_maintenance(
  performance: Performance, task_of_evaluation: TaskOfEvaluation
) -> Maintenance:
  """How much better or worse tasks are while others are trained: PM.

      PM_k = mean_t (a_k(t) - r_k(t))   over t after task k's first phase
                                        at which another task is trained

  The reference `r_k(t)` is of the last phase of k before `t`: the mean over the
  last tenth of its evaluations (MRTLP), or its last evaluation (MRLEP), which
  is the first one with the weights that the phase ended at. Below 0 the task is
  forgotten, above 0 it goes on to gain.

  Args:
    performance: a, as in `transfer`, of any sign; of losses their `-loss`.
    task_of_evaluation: as in `transfer`.

  Returns:
    Both, of each task, NaN of one that nothing was trained after, and means
    over the others.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: New et al. (arXiv:2301.07799), performance maintenance; every later
    evaluation counts as an evaluation block.

  Example:
    >>> kept = performance_maintenance(
    ...   [[0.25, 0.0], [1.0, 0.0], [0.5, 0.5], [0.75, 1.0]],
    ...   [0, 0, 1, 1],
    ... )
    >>> kept.mrlep
    PerTask(mean=-0.375, of_task=array([-0.375,    nan]))
  """
  stream = task_stream(performance, task_of_evaluation)
  count = stream.performance.shape[1]
  by_terminal, by_evaluation = np.full((2, count), np.nan)
  for task, column in enumerate(stream.performance.T):
    terminal, last, kept = np.nan, np.nan, []
    for phase in stream.phases:
      part = column[phase.start : phase.end]
      if phase.task == task:
        terminal, last = terminal_performance(part), float(part[-1])
      elif not math.isnan(last):
        kept += [(value - terminal, value - last) for value in part]
    if kept:
      by_terminal[task], by_evaluation[task] = np.mean(kept, axis=0)
  return Maintenance(PerTask.of(by_terminal), PerTask.of(by_evaluation))


def terminal_performance(performance: Curve, share: float = 0.1) -> float:
  """The mean over the last evaluations of a phase.

  Args:
    performance: float [evaluations] of one phase and task, finite.
    share: of the evaluations, in (0, 1]; rounded up to whole evaluations.

  Returns:
    The mean, in the unit of the performance.

  Raises:
    ValueError: if a shape or a value is wrong.

  Source: New et al. (arXiv:2301.07799), terminal performance.

  Example:
    >>> terminal_performance([0.0, 0.5, 0.25, 0.75], share=0.5)
    0.5
  """
  curve = checked_curve('performance', performance)
  if not (np.ndim(share) == 0 and 0 < share <= 1):
    raise ValueError(f'share must be in (0, 1], got {share}')
  # 0.07 * 100 is a little more than 7, and means 7.
  last = math.ceil(round(share * len(curve), 9))
  return float(curve[-max(last, 1) :].mean())
