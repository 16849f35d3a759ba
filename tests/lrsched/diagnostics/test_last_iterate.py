"""The last-iterate bound is the formula, its table and true of descent."""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from lrsched import diagnostics


def wsd(total_steps, decay):
  """Stable for 80 % of the updates, then `decay` to one update before its end.

  The last fifth of `n` updates is at the shape's `(i+1)/(n+1)`: the decay of
  `n+1` steps begins, still at the peak, one update before.
  """
  n = total_steps // 5
  return lrsched.WSD(
    peak_lr=1.0,
    warmup_steps=0,
    stable_steps=total_steps - n - 1,
    decay_steps=n + 1,
    decay=decay,
  )


# Peak 1, best first.
SCHEDULES = {
  'linear': lambda t: lrsched.Linear(peak_lr=1.0, total_steps=t),
  'rex': lambda t: lrsched.REX(peak_lr=1.0, total_steps=t),
  'cosine': lambda t: lrsched.Cosine(peak_lr=1.0, total_steps=t),
  'wsd_1_sqrt': lambda t: wsd(t, lrsched.OneMinusSqrt()),
  'wsd_linear': lambda t: wsd(t, lrsched.LinearDecay()),
  'constant': lambda t: lrsched.Constant(lr=1.0),
}

# Best base LR at T = 1000, best bound at T = 1000 and T = 100, for G = D = 1.
TABLE = {
  'linear': (0.031529, 0.063434, 0.203608),
  'rex': (0.025424, 0.064039, 0.206129),
  'cosine': (0.030624, 0.065243, 0.209114),
  'wsd_1_sqrt': (0.017099, 0.067493, 0.217795),
  'wsd_linear': (0.016178, 0.068680, 0.222049),
  'constant': (0.010856, 0.092111, 0.248543),
}


def table_lrs(name, total_steps):
  """The LRs of the table: our updates 0 to T-1, but for the line.

  Its `1 - k/(T+1)` with `k = 1` to `T` is a line of `T+1` steps that starts at
  its step 1.
  """
  if name == 'linear':
    spec = lrsched.Linear(peak_lr=1.0, total_steps=total_steps + 1)
    return np.asarray(spec(jnp.arange(1, total_steps + 1)))
  return np.asarray(SCHEDULES[name](total_steps)(jnp.arange(total_steps)))


@pytest.mark.parametrize('name', TABLE)
def test_the_table(name):
  best_lr, best_1000, best_100 = TABLE[name]
  got = diagnostics.bound(table_lrs(name, 1000), 1000)
  # Half a unit of the last digit printed.
  assert got.best_factor == pytest.approx(best_lr, abs=5e-7)
  assert got.best_value == pytest.approx(best_1000, abs=5e-7)
  got = diagnostics.bound(table_lrs(name, 100), 100)
  assert got.best_value == pytest.approx(best_100, abs=5e-7)


@pytest.mark.parametrize('total_steps', [100, 1000, 10_000])
def test_schedules_rank_as_in_the_table(total_steps):
  best = [
    diagnostics.bound(make(total_steps), total_steps).best_value
    for make in SCHEDULES.values()
  ]
  assert best == sorted(best)
  # The closest two, linear and REX, are 0.9 % apart.
  assert min(b / a for a, b in itertools.pairwise(best)) > 1.005


def by_the_formula(lrs, grad_norms, distance):
  """The bound term by term, O(T^2): (distance term, gradient term)."""
  squares, total = (lrs * grad_norms) ** 2, len(lrs)
  tail = lambda values, k: sum(float(v) for v in values[k:])
  later = sum(
    lrs[k] / tail(lrs, k + 1) * tail(squares, k) / tail(lrs, k)
    for k in range(total - 1)
  )
  s = tail(lrs, 0)
  return distance**2 / (2 * s), tail(squares, 0) / (2 * s) + later / 2


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('total_steps', [1, 2, 97])
def test_it_is_the_formula(total_steps, seed):
  rng = np.random.default_rng(seed)
  lrs = rng.lognormal(sigma=2.0, size=total_steps)
  lrs[rng.random(total_steps) < 0.2] = 0.0  # an update may rest
  lrs[-1] = rng.lognormal()
  norms = rng.lognormal(size=total_steps)
  got = diagnostics.bound(lrs, total_steps, distance=3.0, grad_norms=norms)
  want = by_the_formula(lrs, norms, 3.0)
  # Sums of at most 97 positive terms: 1e-14.
  assert got.distance_term == pytest.approx(want[0], rel=1e-12)
  assert got.gradient_term == pytest.approx(want[1], rel=1e-12)
  assert got.value == pytest.approx(sum(want), rel=1e-12)


def test_a_million_steps_are_summed_without_loss():
  total_steps = 10**6
  lrs = np.asarray(
    lrsched.Cosine(peak_lr=1.0, total_steps=total_steps)(
      jnp.arange(total_steps)
    ),
    np.longdouble,
  )
  sums = np.cumsum(lrs[::-1])[::-1]
  means = np.cumsum(lrs[::-1] ** 2)[::-1] / sums
  want = (means[0] + np.sum(lrs[:-1] / sums[1:] * means[:-1])) / 2
  got = diagnostics.bound(
    lrsched.Cosine(peak_lr=1.0, total_steps=total_steps), total_steps
  )
  # A tail taken as the total less a prefix would have no digits at all.
  assert got.gradient_term == pytest.approx(float(want), rel=1e-12)


def test_a_scaled_schedule_has_the_same_best():
  cosine = lrsched.Cosine(peak_lr=1.0, total_steps=200)
  a = diagnostics.bound(cosine, 200, distance=2.0)
  low = dataclasses.replace(cosine, peak_lr=0.125)
  b = diagnostics.bound(low, 200, distance=2.0)
  assert b.best_factor == pytest.approx(8 * a.best_factor, rel=1e-12)
  assert b.best_value == pytest.approx(a.best_value, rel=1e-12)


@pytest.mark.parametrize('name', SCHEDULES)
def test_the_best_factor_is_best(name):
  lrs = table_lrs(name, 100).astype(np.float64)
  norms = np.linspace(2.0, 0.5, 100)
  value = lambda c: diagnostics.bound(c * lrs, 100, grad_norms=norms).value
  got = diagnostics.bound(lrs, 100, grad_norms=norms)
  assert value(got.best_factor) == pytest.approx(got.best_value, rel=1e-12)
  # (c + 1/c) / 2 is 1.0000005 at 1 +- 1e-3.
  for c in (0.5, 0.999, 1.001, 2.0):
    assert value(c * got.best_factor) > got.best_value * (1 + 4e-7)


@pytest.mark.parametrize('seed', range(20))
def test_descent_on_a_convex_function_keeps_it(seed):
  """On |x|, for the weights at which the last gradient is taken."""
  rng = np.random.default_rng(seed)
  lrs = rng.lognormal(mean=-1.0, sigma=1.5, size=30)
  distance = rng.lognormal(sigma=2.0)
  x, excess = distance, []
  for lr in lrs:
    excess.append(abs(x))
    x -= lr * np.sign(x)
  for n in range(1, 31):
    limit = diagnostics.bound(lrs[:n], n, distance=distance).value
    assert excess[n - 1] <= limit


def test_updates_at_0_at_the_end_are_left_out():
  lrs = np.array([1.0, 0.0, 0.5, 0.25])
  norms = np.array([1.0, 5.0, 2.0, 3.0])
  want = diagnostics.bound(lrs, 4, grad_norms=norms)
  rest = diagnostics.bound(
    np.append(lrs, [0.0, 0.0]), 6, grad_norms=np.append(norms, [7.0, 7.0])
  )
  assert rest == want
  linear = lrsched.Linear(peak_lr=1.0, total_steps=50)
  assert diagnostics.bound(linear, 60) == diagnostics.bound(linear, 50)


def test_an_lr_just_above_0_at_the_end_counts():
  ends = [
    diagnostics.bound([1.0, 1.0, end], 3).value for end in (1e-3, 1e-6, 0.0)
  ]
  assert ends[1] == pytest.approx(1000 * ends[0], rel=0.02)
  assert ends[2] < 2


@pytest.mark.parametrize(
  ('lrs', 'total_steps', 'given', 'said'),
  [
    ([], 0, {}, 'total_steps must be a whole number >= 1, got 0'),
    ([1.0], 1.0, {}, 'total_steps must be a whole number >= 1, got 1.0'),
    ([1.0], 1, {'distance': 0.0}, 'distance must be finite and > 0'),
    ([1.0], 1, {'distance': np.nan}, 'distance must be finite and > 0'),
    ([1.0, 1.0], 3, {}, r'shape \(3,\) of total_steps, got \(2,\)'),
    ([[1.0, 1.0]], 2, {}, r'got \(1, 2\)'),
    ([1.0, -1.0], 2, {}, r'schedule_or_lrs must be finite and >= 0, got -1'),
    ([1.0, np.nan], 2, {}, 'schedule_or_lrs must be finite and >= 0, got nan'),
    ([0.0, 0.0], 2, {}, 'must hold an LR > 0'),
    ([1.0, 1.0], 2, {'grad_norms': [1.0]}, 'grad_norms must have the shape'),
    ([1.0, 1.0], 2, {'grad_norms': [1.0, -1.0]}, 'grad_norms must be finite'),
    ([1.0, 1.0], 2, {'grad_norms': np.inf}, 'grad_norms must be finite'),
    ([1.0, 0.0], 2, {'grad_norms': [0.0, 1.0]}, 'grad_norms must be > 0'),
    (lambda t: t, 2, {}, 'pass its LRs'),
    (lrsched.Constant(lr=0.0), 2, {}, 'must hold an LR > 0'),
  ],
)
def test_bad_input_is_named(lrs, total_steps, given, said):
  with pytest.raises(ValueError, match=said):
    diagnostics.bound(lrs, total_steps, **given)
