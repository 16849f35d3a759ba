"""Metrics of several tasks trained in sequence and evaluated all along.

They were made for accuracies; here they take any performance of which more is
better. Pass `-losses`: the metrics are sums, differences and minima, so they
are then in nats, and a forgetting of 0.1 is a loss that rose by 0.1.
(`exp(-losses)` would count the same rise less where the loss is high.)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lrsched.diagnostics.task_stream import Performance
from lrsched.diagnostics.task_stream import PerTask
from lrsched.diagnostics.task_stream import TaskOfEvaluation
from lrsched.diagnostics.task_stream import task_stream


def final_acc(
  performance: Performance, task_of_evaluation: TaskOfEvaluation
) -> PerTask:
  """Performance of every task at the last evaluation; the mean is ACC.

      ACC = 1/T sum_k a_k(t_end)

  Args:
    performance: a, float [evaluations, tasks], higher is better. A column may
      begin with NaN where its task was not evaluated yet, up to its own phase.
    task_of_evaluation: int [evaluations], the task that was being trained; the
      last evaluation of a phase is made after its last update. -1 before any
      training.

  Returns:
    Of each task, and the mean.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: as used by De Lange et al. (arXiv:2205.13452).

  Example:
    >>> final_acc([[0.5, 0.0], [0.75, 0.25], [0.5, 1.0]], [0, 0, 1])
    PerTask(mean=0.75, of_task=array([0.5, 1. ]))
  """
  return PerTask.of(
    task_stream(performance, task_of_evaluation).performance[-1]
  )


def min_acc(
  performance: Performance, task_of_evaluation: TaskOfEvaluation
) -> PerTask:
  """The worst performance of each task after it was trained: min-ACC.

      min-ACC_k = min_t a_k(t)   over t after task k's first phase
                                 at which another task is trained

  Args:
    performance: a, as in `final_acc`.
    task_of_evaluation: as in `final_acc`.

  Returns:
    Of each task, NaN of one that nothing was trained after; the mean is over
    the others.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: De Lange et al. (arXiv:2205.13452), min-ACC.

  Example:
    >>> min_acc([[0.75, 0.0], [0.25, 0.5], [0.5, 1.0]], [0, 1, 1])
    PerTask(mean=0.25, of_task=array([0.25,  nan]))
  """
  stream = task_stream(performance, task_of_evaluation)
  return PerTask.of(_running_minima(*stream)[-1])


def worst_case_acc(
  performance: Performance, task_of_evaluation: TaskOfEvaluation
) -> Float[np.ndarray, ' evaluations']:
  """The new task as it is, the old ones at their worst so far: WC-ACC.

      WC-ACC(t) = (a_T(t) + sum_{k<T} min-ACC_k(t)) / T

  with T the task in training and k those trained before, `min-ACC_k(t)` up to
  `t`. It weighs what is won against what is lost on the way; the last value is
  that of the whole sequence.

  Args:
    performance: a, as in `final_acc`.
    task_of_evaluation: as in `final_acc`.

  Returns:
    float [evaluations], NaN before any training.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: De Lange et al. (arXiv:2205.13452), WC-ACC.

  Example:
    >>> worst_case_acc([[0.75, 0.0], [0.25, 0.5], [0.5, 1.0]], [0, 1, 1])
    array([0.75 , 0.375, 0.625])
  """
  stream = task_stream(performance, task_of_evaluation)
  minima = _running_minima(*stream)
  out = np.full(len(minima), np.nan)
  for e, task in enumerate(stream.task_of_evaluation):
    if task >= 0:
      old = np.delete(minima[e], task)
      old = old[~np.isnan(old)]
      out[e] = (stream.performance[e, task] + old.sum()) / (1 + len(old))
  return out


def windowed_forgetting(
  performance: Performance, task_of_evaluation: TaskOfEvaluation, window: int
) -> PerTask:
  """The largest fall of each task within a few evaluations: WF.

      WF^w_k = max (a_k(t_i) - a_k(t_j))   over i < j < i + w

  A short window sees falls that are sudden, a long one also slow decline. The
  evaluations of a task count from the last one before its first phase on.

  Args:
    performance: a, as in `final_acc`.
    task_of_evaluation: as in `final_acc`.
    window: w, in consecutive evaluations, >= 2; more than there are is all.

  Returns:
    Of each task, 0 of one that never fell, and the mean.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: De Lange et al. (arXiv:2205.13452), WF.

  Example:
    >>> windowed_forgetting([[0.5], [1.0], [0.75], [0.25]], [0] * 4, 2)
    PerTask(mean=0.5, of_task=array([0.5]))
    >>> windowed_forgetting([[0.5], [1.0], [0.75], [0.25]], [0] * 4, 3)
    PerTask(mean=0.75, of_task=array([0.75]))
  """
  return _largest_fall(1.0, performance, task_of_evaluation, window)


def windowed_plasticity(
  performance: Performance, task_of_evaluation: TaskOfEvaluation, window: int
) -> PerTask:
  """The largest rise of each task within a few evaluations: WP.

      WP^w_k = max (a_k(t_j) - a_k(t_i))   over i < j < i + w

  The evaluations of a task count from the last one before its first phase on.

  Args:
    performance: a, as in `final_acc`.
    task_of_evaluation: as in `final_acc`.
    window: w, in consecutive evaluations, >= 2; more than there are is all.

  Returns:
    Of each task, 0 of one that never rose, and the mean.

  Raises:
    ValueError: if a shape or a value is wrong, or a phase has no evaluation.

  Source: De Lange et al. (arXiv:2205.13452), WP.

  Example:
    >>> windowed_plasticity([[0.25], [0.5], [1.0], [0.5]], [0] * 4, 3)
    PerTask(mean=0.75, of_task=array([0.75]))
  """
  return _largest_fall(-1.0, performance, task_of_evaluation, window)


def learning_curve_area(
  performance: Performance, task_of_evaluation: TaskOfEvaluation, beta: int
) -> PerTask:
  """How fast each task is learned: the mean of its first evaluations, LCA.

      LCA_k = 1/beta sum_{b=1}^{beta} a_k(t_b)

  with `t_1` the first evaluation of the task's first phase.

  Args:
    performance: a, as in `final_acc`.
    task_of_evaluation: as in `final_acc`.
    beta: evaluations to take, >= 1, which every task's first phase must have.

  Returns:
    Of each task, and the mean.

  Raises:
    ValueError: if a shape or a value is wrong, or a first phase has less than
      beta evaluations.

  Source: De Lange et al. (arXiv:2205.13452), LCA.

  Example:
    >>> learning_curve_area([[0.25], [0.75], [1.0]], [0, 0, 0], 2)
    PerTask(mean=0.5, of_task=array([0.5]))
  """
  stream = task_stream(performance, task_of_evaluation)
  areas = []
  if not isinstance(beta, (int, np.integer)) or beta < 1:
    raise ValueError(f'beta must be a whole number >= 1, got {beta!r}')
  for task in range(stream.performance.shape[1]):
    phase = stream.first_phase(task)
    if phase.end - phase.start < beta:
      raise ValueError(
        f'beta must be at most the evaluations of every first phase, got '
        f'{beta}, and task {task} has {phase.end - phase.start}'
      )
    areas.append(stream.performance[phase.start :][:beta, task].mean())
  return PerTask.of(areas)


def _running_minima(
  performance: np.ndarray, tasks: np.ndarray, phases: tuple
) -> np.ndarray:
  """min-ACC up to each evaluation, [evaluations, tasks]; NaN where none."""
  counted = np.full(performance.shape, np.nan)
  for task in range(performance.shape[1]):
    end = next(phase.end for phase in phases if phase.task == task)
    after = end + np.flatnonzero(tasks[end:] != task)
    counted[after, task] = performance[after, task]
  return np.fmin.accumulate(counted)


def _largest_fall(
  sign: float,
  performance: Performance,
  task_of_evaluation: TaskOfEvaluation,
  window: int,
) -> PerTask:
  """The largest fall of `sign * performance` inside a window, at least 0."""
  stream = task_stream(performance, task_of_evaluation)
  if not isinstance(window, (int, np.integer)) or window < 2:
    raise ValueError(f'window must be a whole number >= 2, got {window!r}')
  falls = []
  for task, column in enumerate(stream.performance.T):
    start = stream.first_phase(task).start
    if start > 0 and np.isfinite(column[start - 1]):
      start -= 1
    curve = sign * column[start:]
    lags = range(1, min(window, len(curve)))
    largest = [float((curve[:-lag] - curve[lag:]).max()) for lag in lags]
    falls.append(max([0.0, *largest]))
  return PerTask.of(falls)
