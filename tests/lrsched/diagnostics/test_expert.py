"""A learner of many tasks against a single-task expert, by hand and by loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrsched import diagnostics

NAN = math.nan


@pytest.mark.parametrize(
  ('count', 'share', 'last'),
  [
    *((1, 0.1, 1), (9, 0.1, 1), (10, 0.1, 1), (11, 0.1, 2), (30, 0.1, 3)),
    *((100, 0.07, 7), (4, 0.5, 2), (4, 1.0, 4), (1000, 1e-12, 1)),
  ],
)
def test_terminal_performance_is_of_whole_evaluations(count, share, last):
  curve = np.arange(count, dtype=float) ** 2
  want = sum(curve[count - last :]) / last
  assert diagnostics.terminal_performance(curve, share) == want


@pytest.mark.parametrize(
  ('curve', 'window', 'want'),
  [
    ([0.25, 1.0, 0.5, 1.0], 1, (1.0, 2)),
    ([0.25, 1.0, 0.5, 1.0], 2, (0.75, 3)),
    ([0.25, 1.0, 0.5, 1.5], 4, (0.8125, 4)),
    ([0.1] * 7, 3, (pytest.approx(0.1), 3)),
  ],
)
def test_saturation_by_hand(curve, window, want):
  assert diagnostics.saturation(curve, window) == want


@pytest.mark.parametrize('window', [1, 2, 7, 30])
@pytest.mark.parametrize('seed', range(5))
def test_saturation_is_a_plain_loop(seed, window):
  curve = np.random.default_rng(seed).random(30)
  best, reached = -math.inf, 0
  for end in range(window, 31):
    mean = sum(curve[end - window : end]) / window
    if mean > best:
      best, reached = mean, end
  got = diagnostics.saturation(curve, window)
  assert got.value == pytest.approx(best, rel=1e-12)
  assert got.experiences == reached


def test_relative_performance_ends_with_the_shorter():
  relative = diagnostics.relative_performance
  assert relative([0.5, 0.5, 9.0], [0.25, 0.75]) == 1.0
  assert relative([0.5, 1.0], [0.25, 0.5, 9.0]) == 2.0
  # Of losses: a constant lead of 0.25 nats.
  losses = np.random.default_rng(0).random(20)
  got = relative(np.exp(-losses), np.exp(-(losses + 0.25)))
  assert got == pytest.approx(math.exp(0.25))


def test_sample_efficiency_by_hand():
  efficiency = diagnostics.sample_efficiency
  expert = [0.25, 0.5, 0.75, 1.0]
  assert efficiency(expert, expert, 1) == 1.0
  # Half the level in half the time.
  assert efficiency([0.25, 0.5], expert, 1) == 1.0
  # The same level two evaluations earlier, with a window of two.
  assert efficiency([0.5, 1.0, 0.875, 0.875], [0.5, 0.5, 0.5, 1.0], 2) == (
    0.9375 / 0.75 * (4 / 3)
  )


def test_reaching_nothing_soon_is_not_efficient():
  efficiency = diagnostics.sample_efficiency
  expert = [0.25, 0.5, 0.75, 1.0]
  assert efficiency([0.125, 0.195], expert, 1) == 0.0
  assert efficiency([0.125, 0.2], expert, 1) == 0.2 * 2
  assert efficiency([1.0, 0.5, 0.75], expert, 1) == 0.0
  # A level line does not fall.
  assert efficiency([0.3] * 7, [0.3] * 7, 2) == 1.0


@pytest.mark.parametrize(
  ('call', 'said'),
  [
    (
      lambda: diagnostics.terminal_performance([]),
      r'performance must have the shape .* got \(0,\)',
    ),
    (
      lambda: diagnostics.terminal_performance([1.0, NAN]),
      'performance must be finite, got nan at 1',
    ),
    (
      lambda: diagnostics.terminal_performance([1.0], 0.0),
      r'share must be in \(0, 1\], got 0.0',
    ),
    (
      lambda: diagnostics.terminal_performance([1.0], 1.5),
      r'share must be in \(0, 1\], got 1.5',
    ),
    (
      lambda: diagnostics.saturation([1.0, 1.0], 3),
      r'window must be a whole number in 1\.\.2, the evaluations, got 3',
    ),
    (lambda: diagnostics.saturation([1.0], 0), 'evaluations, got 0'),
    (lambda: diagnostics.saturation([1.0], 1.0), 'evaluations, got 1.0'),
    (
      lambda: diagnostics.relative_performance([1.0], [-1.0]),
      r'expert must be > 0, got -1.0; of losses pass exp\(-losses\)',
    ),
    (
      lambda: diagnostics.sample_efficiency([0.0], [1.0], 1),
      'performance must be > 0, got 0.0',
    ),
    (
      lambda: diagnostics.sample_efficiency([1.0, 1.0], [1.0], 2),
      r'window must be a whole number in 1\.\.1',
    ),
  ],
)
def test_bad_input_is_named(call, said):
  with pytest.raises(ValueError, match=said):
    call()
