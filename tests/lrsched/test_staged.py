"""WSD and WSD-S against their formulas and published code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from tests.registry import WSD
from tests.registry import WSDS


def reference_wsd(t, peak, final, warmup, stable, decay):
  """The docstring's cases, in Python floats, linear decay."""
  if t < warmup:
    return peak * (t + 1) / warmup
  if t < warmup + stable:
    return peak
  done = min((t - warmup - stable) / decay, 1.0)
  return peak + (final - peak) * done


@pytest.mark.parametrize('warmup', [0, 1, 7])
@pytest.mark.parametrize('stable', [0, 1, 20])
@pytest.mark.parametrize('decay', [1, 2, 30])
@pytest.mark.parametrize('final', [0.0, 0.25])
def test_wsd_is_its_formula(warmup, stable, decay, final):
  wsd = lrsched.WSD(
    peak_lr=2.0,
    final_lr=final,
    warmup_steps=warmup,
    stable_steps=stable,
    decay_steps=decay,
  )
  steps = np.arange(warmup + stable + decay + 5)
  expected = [
    reference_wsd(t, 2.0, final, warmup, stable, decay) for t in steps
  ]
  np.testing.assert_allclose(wsd(jnp.asarray(steps)), expected, rtol=3e-7)


def test_wsd_ends_are_exact():
  """The peak and the floor to the bit, at the steps the convention names."""
  wsd = lrsched.WSD(
    peak_lr=3e-4,
    final_lr=3e-5,
    warmup_steps=7,
    stable_steps=10,
    decay_steps=13,
    decay=lrsched.CosineDecay(),
  )
  assert wsd(6) == wsd(16) == wsd(17) == jnp.float32(3e-4)
  assert wsd(30) == wsd(2**31 - 1) == jnp.float32(3e-5)
  assert wsd(29) > wsd(30)


def test_decay_from_equals_the_trunk_before_the_decay():
  branch = WSD.decay_from(40, 10)
  steps = jnp.arange(41)
  np.testing.assert_array_equal(branch(steps), WSD(steps))
  assert branch.end_step == 50
  assert branch(49) < branch(40) == WSD(40)


def test_decay_from_inside_the_warmup_is_refused():
  with pytest.raises(ValueError, match='warmup_steps=10, got 9'):
    WSD.decay_from(9, 5)


def test_levanter_cycles():
  """Levanter's inverse decay, `1/(s/min + (1-s)/max)` with LR 1e-3, min 1e-4.

  Decay 0.1 of each cycle, cycles ending at 300, 700, 1000, no warmup. (Its step
  271 repeats step 270, a clamp we do not have.)
  """
  wsds = lrsched.WSDS.of_cycle(
    peak_lr=1e-3,
    final_lr=1e-4,
    warmup_steps=0,
    cycle_ends=(300, 700, 1000),
    decay_frac=0.1,
  )
  assert wsds.decay_steps == (30, 40, 30)
  values = {
    0: 1e-3,
    269: 1e-3,
    270: 1e-3,
    271: 7.692308e-4,
    285: 1.818182e-4,
    299: 1.030928e-4,
    300: 1e-3,
    660: 1e-3,
    699: 1e-3 / (1 + 9 * 39 / 40),
    700: 1e-3,
    1000: 1e-4,
    5000: 1e-4,
  }
  for t, lr in values.items():
    assert float(wsds(t)) == pytest.approx(lr, rel=1e-6), t


def test_three_readings_of_a_decay_length():
  common = dict(
    peak_lr=1.0, final_lr=0.1, warmup_steps=10, cycle_ends=(100, 300, 700)
  )
  assert lrsched.WSDS.of_cycle(decay_frac=0.1, **common).decay_steps == (
    10,
    20,
    40,
  )
  assert lrsched.WSDS.of_total(decay_frac=0.1, **common).decay_steps == (
    10,
    30,
    70,
  )
  assert lrsched.WSDS.of_steps(decay_steps=25, **common).decay_steps == (
    25,
    25,
    25,
  )


def test_wsds_with_one_cycle_is_wsd():
  one = lrsched.WSDS(
    peak_lr=1e-3,
    final_lr=1e-4,
    warmup_steps=10,
    cycle_ends=(100,),
    decay_steps=(20,),
    decay=lrsched.OneMinusSqrt(),
  )
  wsd = lrsched.WSD(
    peak_lr=1e-3,
    final_lr=1e-4,
    warmup_steps=10,
    stable_steps=70,
    decay_steps=20,
    decay=lrsched.OneMinusSqrt(),
  )
  np.testing.assert_array_equal(one(jnp.arange(120)), wsd(jnp.arange(120)))


def test_each_cycle_is_a_wsd_branch_of_the_peak():
  """Up to its first end WSD-S is the WSD of that budget, to the bit."""
  first = lrsched.WSD(
    peak_lr=1e-3,
    final_lr=1e-4,
    warmup_steps=5,
    stable_steps=17,
    decay_steps=3,
    decay=lrsched.InverseDecay(),
  )
  np.testing.assert_array_equal(WSDS(jnp.arange(25)), first(jnp.arange(25)))
  assert WSDS(25) == jnp.float32(1e-3)


BAD_WSD = [
  (dict(warmup_steps=-1), 'WSD.warmup_steps must be a whole number >= 0'),
  (dict(warmup_steps=1.5), 'WSD.warmup_steps must be a whole number'),
  (dict(warmup_steps=True), 'WSD.warmup_steps must be a whole number'),
  (dict(decay_steps=0), 'WSD.decay_steps must be a whole number >= 1'),
  (dict(decay_steps='5'), 'WSD.decay_steps must be a whole number'),
  (dict(peak_lr=float('nan')), 'WSD.peak_lr must be a finite real'),
  (dict(peak_lr=float('inf')), 'WSD.peak_lr must be a finite real'),
  (dict(peak_lr=-1e-3), 'WSD.peak_lr must be a finite real number >= 0'),
  (dict(peak_lr=1j), 'WSD.peak_lr must be a finite real'),
  (dict(final_lr=1.0), 'WSD.final_lr must be at most peak_lr'),
  (dict(decay='linear'), 'WSD.decay must be a DecayShape'),
  (
    dict(decay=lrsched.InverseDecay()),
    'WSD.final_lr must be > 0 with InverseDecay',
  ),
  (dict(stable_steps=2**31 - 1), 'WSD: the lengths must sum to at most'),
  (dict(stable_steps=2**31), 'WSD.stable_steps must be a whole number'),
]


@pytest.mark.parametrize(('change', 'message'), BAD_WSD)
def test_wsd_refuses(change, message):
  good = dict(peak_lr=1e-3, warmup_steps=1, stable_steps=1, decay_steps=1)
  with pytest.raises(ValueError, match=message):
    lrsched.WSD(**{**good, **change})


def test_typo_in_a_keyword_is_an_error():
  with pytest.raises(TypeError, match='peek_lr'):
    lrsched.WSD(peek_lr=1e-3, warmup_steps=1, stable_steps=1, decay_steps=1)


BAD_WSDS = [
  (dict(cycle_ends=(), decay_steps=()), 'one length for each'),
  (dict(decay_steps=(1,)), 'one length for each of the cycle_ends'),
  (dict(cycle_ends=(20, 20)), r'cycle_ends\[1\] must be > cycle_ends\[0\]=20'),
  (dict(cycle_ends=(5, 20)), r'cycle_ends\[0\] must be > warmup_steps=5'),
  (dict(decay_steps=(16, 1)), r'decay_steps\[0\] must be at most 15'),
  (dict(decay_steps=(1, 21)), r'decay_steps\[1\] must be at most 20'),
  (dict(cycle_ends=[20, 40]), 'WSDS.cycle_ends must be a tuple'),
  (dict(final_lr=0.0), 'WSDS.final_lr must be > 0 with InverseDecay'),
]


@pytest.mark.parametrize(('change', 'message'), BAD_WSDS)
def test_wsds_refuses(change, message):
  good = dict(
    peak_lr=1e-3,
    final_lr=1e-4,
    warmup_steps=5,
    cycle_ends=(20, 40),
    decay_steps=(1, 1),
  )
  with pytest.raises(ValueError, match=message):
    lrsched.WSDS(**{**good, **change})


@pytest.mark.parametrize('decay_frac', [0.0, -0.1, 1.1])
def test_readings_refuse_a_fraction_outside_0_1(decay_frac):
  with pytest.raises(ValueError, match='decay_frac must be in'):
    lrsched.WSDS.of_cycle(
      peak_lr=1.0,
      final_lr=0.1,
      warmup_steps=0,
      cycle_ends=(10,),
      decay_frac=decay_frac,
    )


def test_decay_from_the_middle_of_a_decay_is_refused():
  """It would jump back to the peak where the LR has begun to fall."""
  with pytest.raises(ValueError, match='step must be <= 80, where'):
    WSD.decay_from(81, 5)


def test_fractions_are_the_decimals_as_written_halves_up():
  wsds = lrsched.WSDS.of_total(
    peak_lr=1.0,
    final_lr=0.1,
    warmup_steps=0,
    cycle_ends=(25, 50),
    decay_frac=0.1,
  )
  assert wsds.decay_steps == (3, 5)


def test_a_float_length_is_refused_inside_a_transformation_too():
  make = lambda w: lrsched.WSD(
    peak_lr=1.0, warmup_steps=w, stable_steps=1, decay_steps=1
  )(0)
  with pytest.raises(ValueError, match='warmup_steps must be a whole number'):
    jax.jit(make)(2.7)
