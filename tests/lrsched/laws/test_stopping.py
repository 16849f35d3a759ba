"""The stopping rule, on curves of which the limit is known."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from lrsched.laws.learning_trend import LearningTrend
from lrsched.laws.learning_trend import stopping

POINTS = 60
EVEN = np.linspace(500, 30000, POINTS)
GEOMETRIC = np.geomspace(300, 30000, POINTS)


def curve(kind, x, rng):
  """What is still to be gained at x, and the limit, of a random curve."""
  limit, a, b = rng.uniform([1.5, 0.3, 0.3], [3.0, 1.0, 0.8])
  u = x / 3000
  gain = {
    'power': a * u**-b,
    'two powers': 0.7 * a * u**-b + 0.3 * a * u ** (-2 * b),
    'shifted power': a * (u + 0.5) ** -b,
  }[kind]
  return gain, limit


def test_a_fit_recovers_a_power_law():
  for b in (0.1, 0.5, 2.0):
    found = LearningTrend.fit(x=EVEN, losses=2.5 + 0.4 * (EVEN / 3e4) ** -b)
    # The search for b ends within 1e-7.
    assert found.b == pytest.approx(b, rel=1e-5)
    assert found.c == pytest.approx(2.5, abs=1e-5)
    assert found.a == pytest.approx(0.4, abs=1e-5)
    assert float(found(x=1.2e5)) == pytest.approx(2.5 + 0.4 * 4**-b, abs=1e-5)


def test_a_fit_is_the_least_squares_one():
  rng = np.random.default_rng(0)
  losses = 2 + (EVEN / 3e4) ** -0.4 + rng.normal(0, 0.02, POINTS)
  found = LearningTrend.fit(x=EVEN, losses=losses)

  def squares(c, a, b):
    return np.sum((c + a * (EVEN / 3e4) ** -b - losses) ** 2)

  least = squares(found.c, found.a, found.b)
  for i in range(3):
    for factor in (1 - 1e-3, 1 + 1e-3):
      moved = [found.c, found.a, found.b]
      moved[i] *= factor
      assert squares(*moved) > least


def test_an_anchor_damps_a_distorted_loss():
  x = EVEN[:20]
  losses = 2 + (x / 3e4) ** -0.4
  losses[-1] += 0.1
  free = LearningTrend.fit(x=x, losses=losses)
  anchored = LearningTrend.fit(x=x, losses=losses, anchor=2.0)
  assert abs(anchored.c - 2) < 0.2 * abs(free.c - 2)


def test_a_power_law_without_noise():
  losses = 2 + 5 / EVEN**0.5
  found = stopping(x=EVEN, losses=losses, threshold_nats=0.06)
  gain = losses - 2
  assert found.may_stop
  assert found.bound == found.bounds[-1]
  assert found.prediction_level == 3  # the first trend there is
  assert np.all(np.isinf(found.bounds[:9]))  # too few points to say
  assert np.all(np.isnan(found.asymptotes[:3]))
  np.testing.assert_allclose(found.asymptotes[3:], 2, atol=1e-4)
  np.testing.assert_allclose(found.bounds[9:], 2 * gain[9:], rtol=1e-3)
  for threshold, want in ((found.bound * 1.001, True), (0.05, False)):
    again = stopping(x=EVEN, losses=losses, threshold_nats=threshold)
    assert again.may_stop is want


def test_what_it_says_at_a_point_needs_no_later_one():
  gain, limit = curve('power', EVEN, np.random.default_rng(3))
  losses = limit + gain + np.random.default_rng(4).normal(0, 0.005, POINTS)
  whole = stopping(x=EVEN, losses=losses, threshold_nats=0.1)
  for i in (12, 30, 59):
    part = stopping(x=EVEN[:i], losses=losses[:i], threshold_nats=0.1)
    np.testing.assert_array_equal(part.bounds, whole.bounds[:i])
    assert part.bound == whole.bounds[i - 1]


def test_after_the_prediction_level_the_asymptotes_rise():
  gain, limit = curve('shifted power', EVEN, np.random.default_rng(2))
  losses = limit + gain + np.random.default_rng(3).normal(0, 0.002, POINTS)
  found = stopping(x=EVEN, losses=losses, threshold_nats=0.1)
  rising = found.asymptotes[found.prediction_level :]
  assert len(rising) > 5
  assert np.all(np.diff(rising) > -1e-6)


def test_no_level_while_trends_promise_more_and_more():
  # The curve falls further than each power through its beginning.
  x = EVEN / 3e4
  losses = 2 + 0.2 * x**-0.2 + 0.05 * x**-1.5
  found = stopping(x=EVEN, losses=losses, threshold_nats=10.0)
  assert found.prediction_level is None
  assert np.isinf(found.bound)
  assert not found.may_stop
  assert np.all(np.diff(found.asymptotes[3:]) < 0)


@functools.cache
def simulated():
  """Bounds and gains of noisy curves of all kinds."""
  found = []
  for kind in ('power', 'two powers', 'shifted power'):
    for noise in (0.001, 0.005, 0.02):
      for x in (EVEN, GEOMETRIC):
        for seed in range(10):
          rng = np.random.default_rng(seed)
          gain, limit = curve(kind, x, rng)
          losses = limit + gain + rng.normal(0, noise, POINTS)
          bounds = stopping(x=x, losses=losses, threshold_nats=0.1).bounds
          found.append((bounds, gain))
  return found


def test_the_bound_holds_for_95_of_100_noisy_curves():
  with_level = [(b, g) for b, g in simulated() if np.isfinite(b).any()]
  # Half of the 180 have one: the rule is not vacuous.
  assert len(with_level) >= 60
  held = [np.all(gain <= bounds) for bounds, gain in with_level]
  assert np.mean(held) >= 0.95


def test_one_layer_alone_is_no_bound():
  # Why the bound is two: one layer fails somewhere on many of the curves.
  with_level = [(b, g) for b, g in simulated() if np.isfinite(b).any()]
  held = [np.all(gain <= bounds / 2) for bounds, gain in with_level]
  assert np.mean(held) < 0.8


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'threshold_nats': 0.0}, 'threshold_nats must be finite and > 0'),
    ({'x': [1.0, 3.0, 2.0]}, r'x must rise: x\[2\]=2 is not above 3'),
    ({'x': [0.0, 3.0, 4.0]}, r'x\[0\] must be finite and > 0'),
    ({'losses': [3.0, 2.0]}, 'lengths must be equal'),
  ],
)
def test_what_is_wrong_is_named(changes, said):
  given = {'x': [1.0, 2.0, 3.0], 'losses': [3.0, 2.0, 1.5]}
  with pytest.raises(ValueError, match=said):
    stopping(**({'threshold_nats': 0.1} | given | changes))


def test_a_trend_must_fall():
  with pytest.raises(ValueError, match='fall towards a positive asymptote'):
    LearningTrend.fit(x=EVEN, losses=np.linspace(2, 3, POINTS))
