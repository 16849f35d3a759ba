"""Metrics of tasks in sequence: by hand, by plain loops, and what is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrsched import diagnostics

NAN = math.nan


def random_stream(seed, tasks=3, phases=6):
  """Performance in (0, 1) and tasks: every task at least once, some often."""
  rng = np.random.default_rng(seed)
  order = [*rng.permutation(tasks), *rng.integers(tasks, size=phases - tasks)]
  task_of = np.repeat(order, rng.integers(2, 7, size=phases))
  performance = rng.uniform(0.05, 1.0, (len(task_of), tasks))
  # Tasks are not evaluated from the start on, but before their own phase.
  for task in range(tasks):
    own = np.flatnonzero(task_of == task)[0]
    performance[: rng.integers(own + 1), task] = NAN
  return performance, task_of


def first_phase(task_of, task):
  """Start and end of the first stretch of evaluations of a task."""
  start = list(task_of).index(task)
  end = start
  while end < len(task_of) and task_of[end] == task:
    end += 1
  return start, end


def nan_mean(values):
  known = [value for value in values if not math.isnan(value)]
  return sum(known) / len(known) if known else NAN


def assert_per_task(got, want):
  # Sums of less than 100 values below 1: 1e-14.
  np.testing.assert_allclose(got.of_task, want, rtol=0, atol=1e-12)
  assert got.mean == pytest.approx(nan_mean(want), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
  ('losses', 'tolerance', 'want'),
  [
    # Rises, falls below the start, rises again.
    ([2.0, 2.5, 3.0, 2.5, 1.5, 2.25], 0.0, (1.0, 120, 140, 0.25)),
    # Back within the tolerance only, a step earlier.
    ([2.0, 2.5, 3.0, 2.5, 1.5, 2.25], 0.5, (1.0, 120, 130, 0.25)),
    # Never back.
    ([2.0, 3.0, 2.75, 2.5, 2.5, 2.25], 0.125, (1.0, 110, None, 0.25)),
    # The dip before the peak is no recovery.
    ([2.0, 1.5, 3.0, 2.5, 2.5, 2.5], 0.0, (1.0, 120, None, 0.5)),
    # No gap at all.
    ([2.0, 1.75, 1.5, 1.5, 1.5, 1.25], 0.0, (0.0, 100, 100, -0.75)),
    # The first of equal peaks.
    ([2.0, 3.0, 2.0, 3.0, 2.0, 2.0], 0.0, (1.0, 110, 120, 0.0)),
    # A gap within the tolerance is over at its peak.
    ([2.0, 2.25, 2.0, 2.0, 2.0, 2.0], 0.25, (0.25, 110, 110, 0.0)),
  ],
)
def test_the_gap_by_hand(losses, tolerance, want):
  steps = [100, 110, 120, 130, 140, 150]
  assert diagnostics.stability_gap(steps, losses, tolerance) == want


def test_one_evaluation_has_no_gap():
  assert diagnostics.stability_gap([7], [2.0]) == (0.0, 7, 7, 0.0)


@pytest.mark.parametrize('seed', range(5))
def test_the_gap_knows_neither_level_nor_unit(seed):
  rng = np.random.default_rng(seed)
  steps = np.cumsum(rng.integers(1, 9, 40))
  # Multiples of 1/64 are added exactly.
  losses = rng.integers(0, 128, 40) / 64
  gap = diagnostics.stability_gap(steps, losses, 0.25)
  assert diagnostics.stability_gap(steps, losses + 3, 0.25) == gap
  doubled = diagnostics.stability_gap(steps, 2 * losses, 0.5)
  assert doubled == (2 * gap[0], gap[1], gap[2], 2 * gap[3])
  later = diagnostics.stability_gap(steps + 100, losses, 0.25)
  assert later.peak_step == gap.peak_step + 100
  assert later.depth == gap.depth


def test_a_gap_is_never_deeper_than_with_more_evaluations():
  rng = np.random.default_rng(0)
  losses = rng.lognormal(size=101)
  every = diagnostics.stability_gap(np.arange(101), losses)
  tenth = diagnostics.stability_gap(np.arange(0, 101, 10), losses[::10])
  assert tenth.depth < every.depth
  assert tenth.forgetting == every.forgetting


# Tasks 0, 1 and 0 again; task 1 is evaluated from the end of the first phase.
PERFORMANCE = [
  [0.25, NAN],
  [0.75, 0.125],
  [0.375, 0.5],
  [0.5, 0.625],
  [0.5, 1.0],
  [0.875, 0.75],
  [1.0, 0.875],
]
TASK_OF = [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
  ('metric', 'arguments', 'want'),
  [
    ('final_acc', (), [1.0, 0.875]),
    ('min_acc', (), [0.375, 0.75]),
    # Of task 0 from 0.75 to 0.375, of task 1 from 1 to 0.75.
    ('windowed_forgetting', (2,), [0.375, 0.25]),
    # Of task 0 from 0.25 to 0.75, of task 1 from before its phase, 0.125.
    ('windowed_plasticity', (2,), [0.5, 0.375]),
    ('windowed_plasticity', (3,), [0.5, 0.5]),
    # Of task 0 from 0.375 to 1 in five evaluations.
    ('windowed_plasticity', (4,), [0.5, 0.875]),
    ('windowed_plasticity', (5,), [0.625, 0.875]),
    ('learning_curve_area', (1,), [0.25, 0.5]),
    ('learning_curve_area', (2,), [0.5, 0.5625]),
  ],
)
def test_metrics_by_hand(metric, arguments, want):
  got = getattr(diagnostics, metric)(PERFORMANCE, TASK_OF, *arguments)
  assert list(got.of_task) == want
  assert got.mean == sum(want) / 2


def test_the_worst_case_by_hand():
  assert list(diagnostics.worst_case_acc(PERFORMANCE, TASK_OF)) == [
    0.25,
    0.75,
    (0.5 + 0.375) / 2,
    (0.625 + 0.375) / 2,
    (1.0 + 0.375) / 2,
    (0.875 + 0.75) / 2,
    (1.0 + 0.75) / 2,
  ]


def test_maintenance_by_hand():
  got = diagnostics.performance_maintenance(PERFORMANCE, TASK_OF)
  # Phases are shorter than ten evaluations: the last tenth is the last one.
  assert list(got.mrlep.of_task) == [-0.875 / 3, -0.375 / 2]
  assert got.mrtlp.mean == got.mrlep.mean == (-0.875 / 3 - 0.375 / 2) / 2


def test_maintenance_of_a_long_phase():
  own = np.arange(20.0)
  got = diagnostics.performance_maintenance(
    np.stack([[*own, 10.0, 12.0], np.zeros(22)], 1), [0] * 20 + [1] * 2
  )
  # A tenth of 20 is 18 and 19.
  assert list(got.mrtlp.of_task) == pytest.approx([11 - 18.5, NAN], nan_ok=True)
  assert list(got.mrlep.of_task) == pytest.approx([11 - 19, NAN], nan_ok=True)


def test_the_reference_of_maintenance_is_the_most_recent_phase():
  values = [[1.0, 0.0], [0.5, 1.0], [2.0, 1.0], [2.25, 1.0]]
  got = diagnostics.performance_maintenance(values, [0, 1, 0, 1])
  assert got.mrlep.of_task[0] == ((0.5 - 1.0) + (2.25 - 2.0)) / 2


def test_transfer_by_hand():
  contrast = diagnostics.transfer(PERFORMANCE, TASK_OF)
  ratio = diagnostics.transfer(PERFORMANCE, TASK_OF, 'ratio')
  # Nothing was evaluated before the first phase, so task 0's own second one
  # gives task 1 its only transfer.
  assert np.isnan(contrast.forward).all()
  assert ratio.backward[1, 0] == 0.5 / 0.75
  assert ratio.backward[0, 1] == 0.875 / 1.0
  assert contrast.backward[1, 0] == -0.25 / 1.25
  assert contrast.backward[0, 1] == -0.125 / 1.875
  assert np.isnan(np.diag(contrast.backward)).all()


def test_transfer_forward_needs_an_evaluation_before():
  values = [[0.25, 0.25, 0.25], [0.5, 0.375, 0.25], [0.5, 0.75, 0.5]]
  values.append([0.5, 0.75, 1.0])
  got = diagnostics.transfer(values, [-1, 0, 1, 2], 'ratio')
  np.testing.assert_array_equal(
    got.forward, [[NAN, 1.5, 1.0], [NAN, NAN, 2.0], [NAN, NAN, NAN]]
  )
  np.testing.assert_array_equal(
    got.backward, [[NAN, NAN, NAN], [1.0, NAN, NAN], [1.0, 1.0, NAN]]
  )


def test_transfer_of_several_phases_is_their_mean():
  values = [[1.0, 0.5], [0.5, 1.0], [1.0, 1.0], [0.25, 1.0]]
  got = diagnostics.transfer(values, [0, 1, 0, 1], 'ratio')
  assert got.backward[1, 0] == (0.5 / 1.0 + 0.25 / 1.0) / 2


def test_transfer_of_losses_is_of_their_difference():
  losses = np.array([[2.0, 5.0], [1.5, 4.0], [2.25, 3.0]])
  for level in (0.0, 1.0):
    performance = np.exp(-(losses + level))
    ratio = diagnostics.transfer(performance, [-1, 0, 1], 'ratio')
    contrast = diagnostics.transfer(performance, [-1, 0, 1])
    assert ratio.forward[0, 1] == pytest.approx(math.exp(1.0))
    assert contrast.forward[0, 1] == pytest.approx(math.tanh(0.5))
    assert contrast.backward[1, 0] == pytest.approx(math.tanh(-0.375))


@pytest.mark.parametrize('seed', range(20))
def test_minima_and_worst_case_are_plain_loops(seed):
  performance, task_of = random_stream(seed)
  worst, minima = [], {}
  trained = []
  for row, current in zip(performance, task_of, strict=True):
    for task in trained:
      if task != current:
        minima[task] = min(minima.get(task, math.inf), row[task])
    if current not in trained:
      trained.append(current)
    old = [minima[task] for task in trained if task != current]
    worst.append((row[current] + sum(old)) / (1 + len(old)))
  got = diagnostics.worst_case_acc(performance, task_of)
  np.testing.assert_allclose(got, worst, rtol=1e-12)
  assert_per_task(
    diagnostics.min_acc(performance, task_of),
    [minima.get(task, NAN) for task in range(3)],
  )


@pytest.mark.parametrize('window', [2, 3, 10, 100])
@pytest.mark.parametrize('seed', range(10))
def test_windowed_metrics_are_plain_loops(seed, window):
  performance, task_of = random_stream(seed)
  falls, rises = [], []
  for task in range(3):
    start, _ = first_phase(task_of, task)
    if start > 0 and not math.isnan(performance[start - 1, task]):
      start -= 1
    fall = rise = 0.0
    for i in range(start, len(task_of)):
      for j in range(i + 1, min(i + window, len(task_of))):
        change = performance[j, task] - performance[i, task]
        fall, rise = max(fall, -change), max(rise, change)
    falls.append(fall)
    rises.append(rise)
  stream = performance, task_of, window
  assert_per_task(diagnostics.windowed_forgetting(*stream), falls)
  assert_per_task(diagnostics.windowed_plasticity(*stream), rises)


@pytest.mark.parametrize('seed', range(10))
def test_learning_curve_area_is_a_plain_loop(seed):
  performance, task_of = random_stream(seed)
  want = []
  for task in range(3):
    start, _ = first_phase(task_of, task)
    want.append((performance[start, task] + performance[start + 1, task]) / 2)
  assert_per_task(
    diagnostics.learning_curve_area(performance, task_of, 2), want
  )


@pytest.mark.parametrize('seed', range(10))
def test_transfer_is_a_plain_loop(seed):
  performance, task_of = random_stream(seed)
  found = {}
  for e in range(1, len(task_of)):
    if task_of[e] == task_of[e - 1]:
      continue
    end = e
    while end + 1 < len(task_of) and task_of[end + 1] == task_of[e]:
      end += 1
    for task in {0, 1, 2} - {task_of[e]}:
      kind = 'backward' if task in task_of[:e] else 'forward'
      ratio = performance[end, task] / performance[e - 1, task]
      if not math.isnan(ratio):
        found.setdefault((kind, task_of[e], task), []).append(ratio)
  got = diagnostics.transfer(performance, task_of, 'ratio')
  for kind in ('forward', 'backward'):
    for i in range(3):
      for j in range(3):
        want = nan_mean(found.get((kind, i, j), []))
        value = getattr(got, kind)[i, j]
        assert value == pytest.approx(want, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize('seed', range(5))
def test_differences_know_no_level(seed):
  performance, task_of = random_stream(seed)
  for metric in ('windowed_forgetting', 'windowed_plasticity'):
    function = getattr(diagnostics, metric)
    want = function(performance, task_of, 4).of_task
    assert_per_task(function(performance - 7, task_of, 4), want)
  want = diagnostics.performance_maintenance(performance, task_of)
  got = diagnostics.performance_maintenance(performance - 7, task_of)
  assert_per_task(got.mrtlp, want.mrtlp.of_task)
  assert_per_task(got.mrlep, want.mrlep.of_task)


@pytest.mark.parametrize('seed', range(5))
def test_forgetting_backwards_is_plasticity(seed):
  curve = np.random.default_rng(seed).random((30, 1))
  forgetting = diagnostics.windowed_forgetting(curve, [0] * 30, 5)
  assert diagnostics.windowed_plasticity(curve[::-1], [0] * 30, 5) == forgetting
  assert diagnostics.windowed_plasticity(-curve, [0] * 30, 5) == forgetting


def test_what_only_rises_forgets_nothing():
  rising = [[0.25], [0.5], [1.0]]
  assert diagnostics.windowed_forgetting(rising, [0] * 3, 2).mean == 0.0
  assert diagnostics.windowed_plasticity(rising[::-1], [0] * 3, 2).mean == 0.0


@pytest.mark.parametrize('seed', range(5))
def test_tasks_may_be_numbered_in_any_order(seed):
  performance, task_of = random_stream(seed)
  order = np.array([2, 0, 1])  # the task that each new column shows
  new_of = np.argsort(order)[task_of]
  for metric in ('final_acc', 'min_acc'):
    function = getattr(diagnostics, metric)
    want = function(performance, task_of).of_task[order]
    assert_per_task(function(performance[:, order], new_of), want)
  # Sums in another order: one rounding.
  np.testing.assert_allclose(
    diagnostics.worst_case_acc(performance[:, order], new_of),
    diagnostics.worst_case_acc(performance, task_of),
    rtol=1e-12,
  )


def test_one_task_has_nothing_to_keep():
  values, task_of = [[0.5], [0.25]], [0, 0]
  assert math.isnan(diagnostics.min_acc(values, task_of).mean)
  kept = diagnostics.performance_maintenance(values, task_of)
  assert math.isnan(kept.mrlep.mean)
  assert list(diagnostics.worst_case_acc(values, task_of)) == [0.5, 0.25]


@pytest.mark.parametrize(
  ('performance', 'task_of', 'said'),
  [
    ([0.5, 0.5], [0, 0], r'performance must have the shape .* got \(2,\)'),
    (np.zeros((0, 2)), [], r'at least one of each, got \(0, 2\)'),
    ([[0.5]], [0, 0], r'for each of 1 evaluations, got int64 of shape \(2,\)'),
    ([[0.5]], [0.0], 'whole number for each of 1 evaluations, got float64'),
    ([[0.5], [0.5]], [0, 1], '0 to 0, or -1, got 1 at 1'),
    ([[0.5], [0.5]], [-2, 0], 'or -1, got -2 at 0'),
    ([[0.5], [0.5]], [0, -1], 'only before any training, got it after task 0'),
    ([[0.5, 0.5]], [0], 'no evaluation while task 1 was trained'),
    ([[0.5]], [-1], 'no evaluation while task 0 was trained'),
    ([[NAN], [0.5]], [0, 0], 'must be finite .* got nan of task 0 at 0'),
    ([[0.5], [NAN]], [0, 0], 'got nan of task 0 at 1'),
    ([[NAN], [NAN]], [-1, 0], 'got nan of task 0 at 1'),
    ([[0.5, 0.1], [0.5, NAN], [0.5, 1]], [0, 0, 1], 'nan of task 1 at 1'),
    ([[0.5, -math.inf], [0.5, 1.0]], [0, 1], 'got -inf of task 1 at 0'),
  ],
)
def test_bad_tasks_are_named(performance, task_of, said):
  for metric in (
    diagnostics.final_acc,
    diagnostics.min_acc,
    diagnostics.worst_case_acc,
    diagnostics.performance_maintenance,
    diagnostics.transfer,
    lambda p, t: diagnostics.windowed_forgetting(p, t, 2),
    lambda p, t: diagnostics.windowed_plasticity(p, t, 2),
    lambda p, t: diagnostics.learning_curve_area(p, t, 1),
  ):
    with pytest.raises(ValueError, match=said):
      metric(performance, task_of)


@pytest.mark.parametrize(
  ('steps', 'losses', 'tolerance', 'said'),
  [
    ([], [], 0.0, r'losses must have the shape .* got \(0,\)'),
    ([1], [[2.0]], 0.0, r'got \(1, 1\)'),
    ([1, 2], [2.0, NAN], 0.0, 'losses must be finite, got nan at 1'),
    ([1], [2.0, 2.0], 0.0, r'each of 2 losses, got int64 of shape \(1,\)'),
    ([1.0, 2.0], [2.0, 2.0], 0.0, 'got float64'),
    ([1, 5, 5], [2.0] * 3, 0.0, 'steps must rise, got 5 after 5'),
    ([1, 5, 4], [2.0] * 3, 0.0, 'steps must rise, got 4 after 5'),
    ([1, 2], [2.0, 2.0], -0.1, 'tolerance must be finite and >= 0, got -0.1'),
    ([1, 2], [2.0, 2.0], NAN, 'tolerance must be finite and >= 0, got nan'),
  ],
)
def test_a_bad_curve_is_named(steps, losses, tolerance, said):
  with pytest.raises(ValueError, match=said):
    diagnostics.stability_gap(steps, losses, tolerance)


@pytest.mark.parametrize(
  ('call', 'said'),
  [
    (
      lambda: diagnostics.windowed_forgetting(PERFORMANCE, TASK_OF, 1),
      'window must be a whole number >= 2, got 1',
    ),
    (
      lambda: diagnostics.windowed_plasticity(PERFORMANCE, TASK_OF, 2.0),
      'window must be a whole number >= 2, got 2.0',
    ),
    (
      lambda: diagnostics.learning_curve_area(PERFORMANCE, TASK_OF, 0),
      'beta must be a whole number >= 1, got 0',
    ),
    (
      lambda: diagnostics.learning_curve_area(PERFORMANCE, TASK_OF, 3),
      'every first phase, got 3, and task 0 has 2',
    ),
    (
      lambda: diagnostics.transfer([[-2.0]], [0]),
      r'performance must be > 0 for transfer, got -2.0; .* exp\(-losses\)',
    ),
    (
      lambda: diagnostics.transfer([[2.0]], [0], 'difference'),
      "measure must be 'contrast' or 'ratio', got 'difference'",
    ),
  ],
)
def test_bad_arguments_are_named(call, said):
  with pytest.raises(ValueError, match=said):
    call()
