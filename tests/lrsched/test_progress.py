"""Stretched, Sampled and Ramped: where a schedule is after t updates."""

import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched

# The LR is the schedule's own step: what a combinator asks for can be read.
LINE = lrsched.PiecewiseLinear(steps=(0, 2**20), lrs=(0.0, float(2**20)))


_at = jax.jit(lambda line, t: line(t))  # one program for all lengths


def position(line, t):
  return float(_at(lrsched.as_arrays(line), t))


@pytest.mark.parametrize(
  ('from_steps', 'to_steps'),
  [(100, 37), (37, 100), (1000, 1), (1, 7), (64, 64)],
)
def test_stretched_reads_the_exact_place(from_steps, to_steps):
  line = lrsched.Stretched(
    schedule=LINE, from_steps=from_steps, to_steps=to_steps
  )
  for t in (0, 1, 2, 36, 37, 99, 1000):
    place = fractions.Fraction(t * from_steps, to_steps)
    assert position(line, t) == pytest.approx(float(place), rel=1e-6)


@pytest.mark.parametrize('to_steps', [2**30, 2**30 - 1, 999_999_937])
@pytest.mark.parametrize('from_steps', [2**30, 2**30 - 1, 123_456_789])
def test_the_place_is_exact_where_products_would_wrap(from_steps, to_steps):
  """A late knot sees one step of 10^9: the whole part must be exact."""
  rng = np.random.default_rng(0)
  for t in (*rng.integers(1, 2**31 - 1, 20).tolist(), 2**31 - 1, to_steps):
    whole = min(t * from_steps // to_steps, 2**31 - 2)
    start = max(whole - 1, 0)
    window = lrsched.Sequence(  # without an end, as a stretched end must fit
      schedules=(
        lrsched.PiecewiseLinear(steps=(start, start + 2), lrs=(0.0, 2.0)),
        lrsched.Constant(lr=2.0),
      ),
      boundaries=(start + 2,),
    )
    line = lrsched.Stretched(
      schedule=window, from_steps=from_steps, to_steps=to_steps
    )
    rest = math.fmod(t * from_steps % to_steps / to_steps, 1)
    if t * from_steps // to_steps >= 2**31 - 2:
      rest = 0  # as far as steps go
    expected = min(whole - start + rest, 2.0)
    assert position(line, t) == pytest.approx(expected, abs=1e-6), t


def test_a_closed_form_stretched_is_its_longer_self():
  short = lrsched.Linear(peak_lr=1e-3, total_steps=100)
  long = lrsched.Linear(peak_lr=1e-3, total_steps=250)
  stretched = lrsched.Stretched(schedule=short, from_steps=100, to_steps=250)
  steps = jnp.arange(300)
  np.testing.assert_allclose(
    stretched(steps), long(steps), rtol=1e-5, atol=1e-10
  )
  assert stretched.end_step == 250


def test_shifted_goes_on_where_it_was():
  cosine = lrsched.Cosine(peak_lr=1e-3, total_steps=100)
  rest = lrsched.Shifted(schedule=cosine, by_steps=40)
  np.testing.assert_array_equal(
    rest(jnp.arange(80)), cosine(jnp.arange(40, 120))
  )
  assert rest.end_step == 60
  last = lrsched.Shifted(schedule=cosine, by_steps=2**31 - 1)
  assert float(last(2**31 - 1)) == 0.0
  assert last.end_step == 0


def test_phases_of_a_shifted_schedule_are_those_that_are_left():
  wsd = lrsched.WSD(
    peak_lr=1.0, warmup_steps=10, stable_steps=70, decay_steps=20
  )
  left = lrsched.Shifted(schedule=wsd, by_steps=85).phases()
  assert left == (('stable', 0, 0), ('decay', 0, 15))


def test_sampled_every_step_is_the_schedule_itself():
  rex = lrsched.REX(peak_lr=1e-3, total_steps=100)
  sampled = lrsched.Sampled(schedule=rex, every_steps=1)
  np.testing.assert_array_equal(sampled(jnp.arange(120)), rex(jnp.arange(120)))


def test_rex_sampled_at_50_and_75_percent():
  """A profile sampled seldom is a step schedule."""
  rex = lrsched.REX(peak_lr=1.0, total_steps=100)
  sampled = lrsched.Sampled(schedule=rex, every_steps=25)
  steps = jnp.asarray([0, 24, 25, 49, 50, 74, 75, 99, 100])
  stairs = [1, 1, *[6 / 7] * 2, *[2 / 3] * 2, 0.4, 0.4, 0]
  np.testing.assert_allclose(sampled(steps), stairs, rtol=1e-6)


def test_a_sampled_exponential_is_optax_staircase():
  import optax

  ours = lrsched.Sampled(
    schedule=lrsched.Exponential(peak_lr=1e-3, factor=0.5, every_steps=30),
    every_steps=30,
  )
  theirs = optax.exponential_decay(1e-3, 30, 0.5, staircase=True)
  steps = jnp.arange(200)
  np.testing.assert_allclose(ours(steps), theirs(steps), rtol=1e-6)


RAMP = dict(boundaries=(10, 25, 60), batch_sizes=(3, 5, 24, 64))


def samples(t, boundaries, batch_sizes):
  size = lambda u: batch_sizes[sum(u >= b for b in boundaries)]
  return sum(size(u) for u in range(t))


def test_ramped_counts_samples():
  line = lrsched.Ramped(schedule=LINE, **RAMP)
  for t in (0, 1, 9, 10, 11, 24, 25, 26, 59, 60, 61, 500):
    place = samples(t, **RAMP) / 64
    assert position(line, t) == pytest.approx(place, rel=1e-6, abs=1e-6), t


def test_a_ramp_and_wsd_together_end_where_they_should():
  """Warmup, stable phase and decay end at the samples they were given."""
  wsd = lrsched.WSD(
    peak_lr=1e-3, warmup_steps=4, stable_steps=40, decay_steps=16
  )
  ramped = lrsched.Ramped(schedule=wsd, **RAMP)
  for own, real in zip(wsd.phases(), ramped.phases(), strict=True):
    # The first update by which that phase's samples have all been seen.
    assert samples(real.end, **RAMP) >= 64 * own.end
    assert samples(real.end - 1, **RAMP) < 64 * own.end
  end = ramped.end_step
  assert end == ramped.steps_for(60)
  assert float(ramped(end)) == 0.0
  assert float(ramped(end - 1)) > 0.0
  # All of the run's samples: within one batch of what a full-size run sees.
  assert 0 <= samples(end, **RAMP) - 64 * 60 < 64


def test_a_ramp_without_stages_changes_nothing():
  cosine = lrsched.Cosine(peak_lr=1e-3, total_steps=100)
  ramped = lrsched.Ramped(schedule=cosine, boundaries=(), batch_sizes=(7,))
  steps = jnp.arange(120)
  np.testing.assert_array_equal(ramped(steps), cosine(steps))


def test_power_follows_the_tokens_of_a_ramp():
  power = lrsched.Power(peak_lr=1.0, batch_size=64, tokens_per_step=64 * 512)
  ramped = lrsched.Ramped(schedule=power, **RAMP)
  t = 1000
  tokens = samples(t, **RAMP) * 512
  assert float(ramped(t)) == pytest.approx(64 * 4 * tokens**-0.51, rel=1e-5)


BAD = [
  (
    lambda: lrsched.Stretched(schedule=LINE, from_steps=0, to_steps=1),
    r'Stretched\.from_steps must be a whole number >= 1 and <= 1073741824',
  ),
  (
    lambda: lrsched.Stretched(schedule=LINE, from_steps=1, to_steps=2**30 + 1),
    r'Stretched\.to_steps must be',
  ),
  (
    lambda: lrsched.Sampled(schedule=LINE, every_steps=0),
    r'Sampled\.every_steps must be a whole number >= 1',
  ),
  (
    lambda: lrsched.Ramped(schedule=LINE, boundaries=(5,), batch_sizes=(8,)),
    r'Ramped\.batch_sizes must be one more than boundaries, got 1 for 1',
  ),
  (
    lambda: lrsched.Ramped(
      schedule=LINE, boundaries=(5, 5), batch_sizes=(8, 9, 10)
    ),
    r'Ramped\.boundaries\[1\] must be > boundaries\[0\]=5',
  ),
]


@pytest.mark.parametrize(('make', 'message'), BAD)
def test_bad_values_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_ramp_of_a_hundred_stages_is_one_small_program():
  ramp = dict(
    boundaries=tuple(range(10, 1010, 10)),
    batch_sizes=tuple(range(1, 102)),
  )
  line = lrsched.Ramped(schedule=LINE, **ramp)
  for t in (0, 5, 10, 995, 1000, 5000):
    place = samples(t, **ramp) / 101
    assert position(line, t) == pytest.approx(place, rel=1e-6), t
  n = len(jax.make_jaxpr(lambda t: line(t))(5).jaxpr.eqns)
  assert n < 2500


def test_between_equal_lrs_is_that_lr_to_the_bit():
  flat = lrsched.Constant(lr=0.1)
  stretched = lrsched.Stretched(schedule=flat, from_steps=7, to_steps=19)
  assert set(np.asarray(stretched(jnp.arange(100)))) == {np.float32(0.1)}


@pytest.mark.parametrize(
  'make',
  [
    lambda s: lrsched.Stretched(schedule=s, from_steps=1, to_steps=2**30),
    lambda s: lrsched.Sampled(schedule=s, every_steps=2**30),
    lambda s: lrsched.Ramped(
      schedule=s, boundaries=(2**30,), batch_sizes=(1, 2**30)
    ),
  ],
)
def test_an_end_beyond_the_last_step_is_refused(make):
  long = lrsched.Linear(peak_lr=1.0, total_steps=2**31 - 1)
  with pytest.raises(ValueError, match='the lengths must sum to at most 2'):
    make(long)
