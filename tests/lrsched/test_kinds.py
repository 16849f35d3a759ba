"""Each further kind against published values, closed forms, or optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched

STEPS = jnp.arange(1010)


def test_rex_published_values():
  rex = lrsched.REX(peak_lr=1.0, total_steps=5)
  values = [1, 0.888889, 0.75, 0.571429, 0.333333, 0]
  np.testing.assert_allclose(rex(jnp.arange(6)), values, atol=5.5e-7)


@pytest.mark.parametrize(
  ('beta', 'values'),
  [
    (0.5, (1, 0.947368, 0.857143, 0.666667, 0.4, 0.181818, 0)),
    (0.9, (1, 0.989011, 0.967742, 0.909091, 0.769231, 0.526316, 0)),
  ],
)
def test_rex_in_the_paper_and_in_its_authors_code(beta, values):
  rex = lrsched.REX(peak_lr=1.0, total_steps=100, beta=beta)
  steps = jnp.asarray([0, 10, 25, 50, 75, 90, 100])
  np.testing.assert_allclose(rex(steps), values, atol=5.5e-7)


def test_beta_0_is_linear():
  rex = lrsched.REX(peak_lr=1e-3, total_steps=1000, beta=0.0)
  linear = lrsched.Linear(peak_lr=1e-3, total_steps=1000)
  np.testing.assert_allclose(rex(STEPS), linear(STEPS), rtol=1e-6)


@pytest.mark.parametrize('power', [0.5, 1.0, 2.0, 3.5])
def test_polynomial_equals_optax(power):
  ours = lrsched.Polynomial(
    peak_lr=1e-3, final_lr=1e-4, total_steps=1000, power=power
  )
  theirs = optax.polynomial_schedule(1e-3, 1e-4, power, 1000)
  np.testing.assert_allclose(ours(STEPS), theirs(STEPS), rtol=2e-5)


def test_exponential_equals_optax():
  ours = lrsched.Exponential(
    peak_lr=1e-3, final_lr=1e-5, factor=0.7, every_steps=50
  )
  theirs = optax.exponential_decay(1e-3, 50, 0.7, end_value=1e-5)
  np.testing.assert_allclose(ours(STEPS), theirs(STEPS), rtol=2e-6)


def test_transformer_schedule_of_vaswani_et_al():
  """d = 512, W = 4000; their step counts from 1."""
  peak_lr = 512**-0.5 * 4000**-0.5
  noam = lrsched.Warmup(
    schedule=lrsched.InverseSqrt(peak_lr=peak_lr, timescale_steps=4000),
    warmup_steps=4000,
  )
  assert float(noam(4000 - 1)) == pytest.approx(6.987712e-4, rel=1e-6)
  assert float(noam(16000)) == pytest.approx(3.493856e-4, rel=1e-6)


@pytest.mark.parametrize(
  ('batch_size', 'tokens', 'lr'),
  [
    (128, 1e10, 0.004066961),
    (128, 1e11, 0.001256811),
    (128, 1e12, 0.000388392),
    (1024, 1e11, 0.010054488),
    (1024, 1e12, 0.003107134),
    (1024, 1e10, 0.02),  # under the cap until 2.6e10
  ],
)
def test_power_published_values(batch_size, tokens, lr):
  power = lrsched.Power(
    peak_lr=0.02, batch_size=batch_size, tokens_per_step=1_000_000
  )
  assert float(power(int(tokens / 1e6))) == pytest.approx(
    lr, rel=3e-7, abs=5.5e-10
  )


@pytest.mark.parametrize('exponent', [-0.51, -0.49, -1.3])
@pytest.mark.parametrize('tokens_per_step', [1, 1_000_003, 2**31 - 1])
def test_power_is_float64_to_1e_6_beyond_int32_tokens(
  exponent, tokens_per_step
):
  power = lrsched.Power(
    peak_lr=1e9,
    exponent=exponent,
    batch_size=128,
    tokens_per_step=tokens_per_step,
  )
  steps = np.unique(np.logspace(0, 9.3, 2000).astype(np.int64))
  tokens = steps.astype(np.float64) * tokens_per_step
  expected = 128 * 4.0 * tokens ** np.float64(np.float32(exponent))
  lrs = jax.jit(power)(jnp.asarray(steps))
  np.testing.assert_allclose(lrs, expected, rtol=1e-6)


def test_power_is_continuous_where_its_phases_meet():
  power = lrsched.Power(
    peak_lr=1.0,
    batch_size=8,
    tokens_per_step=4096,
    warmup_steps=100,
    stable_steps=800,
    decay_steps=100,
  )
  lrs = np.asarray(power(jnp.arange(1001)))
  assert lrs[99] == lrs[100]
  assert lrs[900] == pytest.approx(lrs[899], rel=1e-3)
  assert np.all(np.diff(lrs[100:]) < 0)
  assert lrs[1000] == 0.0


@pytest.mark.parametrize(
  ('shape', 'values'),
  [
    (lrsched.CosineDecay(), (3e-4, 2.802297e-4, 2.325e-4, 1.847703e-4)),
    (
      lrsched.InverseSqrtDecay(alpha=10.0),
      (3e-4, 2.100351e-4, 1.856295e-4, 1.730181e-4),
    ),
  ],
)
def test_infinite_published_values(shape, values):
  infinite = lrsched.Infinite(
    peak_lr=3e-4,
    const_lr=1.65e-4,
    final_lr=3e-5,
    warmup_steps=0,
    cooldown_steps=400,
    const_steps=100,
    anneal_steps=400,
    cooldown=shape,
  )
  cooldown = infinite(jnp.asarray([0, 100, 200, 300]))
  np.testing.assert_allclose(cooldown, values, rtol=5e-7)
  np.testing.assert_array_equal(
    infinite(jnp.arange(400, 501)), np.float32(1.65e-4)
  )
  anneal = infinite(500 + jnp.asarray([0, 100, 200, 300, 400]))
  expected = (1.65e-4, 1.077440e-4, 7.035624e-5, 4.594221e-5, 3e-5)
  np.testing.assert_allclose(anneal, expected, rtol=5e-7)


def test_an_annealing_branches_off_the_constant_phase():
  infinite = lrsched.Infinite(
    peak_lr=3e-4,
    const_lr=1e-4,
    final_lr=1e-5,
    warmup_steps=10,
    cooldown_steps=20,
    const_steps=1000,
    anneal_steps=50,
  )
  branch = infinite.anneal_from(100, 30)
  np.testing.assert_array_equal(
    branch(jnp.arange(101)), infinite(jnp.arange(101))
  )
  assert branch.end_step == 130
  with pytest.raises(ValueError, match='step must be >= 30'):
    infinite.anneal_from(29, 30)


def test_sgdr_published_values():
  """T_0 = 10, T_mult = 2."""
  sgdr = lrsched.CosineRestarts.of_period(
    peak_lr=1.0, first_steps=10, multiplier=2, n_cycles=4
  )
  values = {
    0: 1,
    5: 0.5,
    9: 0.024472,
    10: 1,
    20: 0.5,
    29: 0.006156,
    30: 1,
    50: 0.5,
    69: 0.001541,
    70: 1,
  }
  for t, value in values.items():
    assert float(sgdr(t)) == pytest.approx(value, abs=5.5e-7), t


def test_one_cycle_published_values():
  cycle = lrsched.OneCycle.of_torch(max_lr=1.0, total_steps=100)
  values = {0: 0.04, 15: 0.52, 30: 1.0, 65: 0.500002, 100: 4e-6}
  for t, value in values.items():
    assert float(cycle(t)) == pytest.approx(value, abs=5.5e-7), t


def test_one_cycle_equals_optax():
  ours = lrsched.OneCycle.of_torch(max_lr=1e-3, total_steps=1000)
  theirs = jax.vmap(optax.cosine_onecycle_schedule(1000, 1e-3))
  np.testing.assert_allclose(ours(STEPS), theirs(STEPS), atol=2e-10)


def test_linear_one_cycle_falls_to_where_it_began_and_on():
  cycle = lrsched.OneCycle.of_torch(
    max_lr=1.0, total_steps=100, three_phase=True, anneal_strategy='linear'
  )
  values = {0: 0.04, 30: 1.0, 45: 0.52, 60: 0.04, 80: 0.020002, 100: 4e-6}
  for t, value in values.items():
    assert float(cycle(t)) == pytest.approx(value, abs=5.5e-7), t


def test_triangular2_halves_each_cycle():
  clr = lrsched.Triangular(
    low_lr=0.1, peak_lr=1.1, up_steps=10, down_steps=10, peak_factor=0.5
  )
  peaks = [float(clr(t)) for t in (10, 30, 50)]
  np.testing.assert_allclose(peaks, [1.1, 0.6, 0.35], rtol=1e-6)
  np.testing.assert_allclose(clr(jnp.arange(0, 80, 20)), 0.1, rtol=1e-6)


def test_deepseek_steps():
  step = lrsched.Step.of_deepseek(peak_lr=1.0, total_steps=1000)
  values = [float(step(t)) for t in (799, 800, 899, 900, 5000)]
  np.testing.assert_allclose(values, [1, 0.316, 0.316, 0.1, 0.1], rtol=1e-6)


def test_wsdc_without_end_is_wsd_held():
  wsdc = lrsched.WSDC(
    peak_lr=1e-3, const_lr=1e-4, warmup_steps=5, stable_steps=9, decay_steps=9
  )
  wsd = lrsched.WSD(
    peak_lr=1e-3, final_lr=1e-4, warmup_steps=5, stable_steps=9, decay_steps=9
  )
  np.testing.assert_array_equal(wsdc(STEPS), wsd(STEPS))
  assert wsdc.end_step is None


REFUSED = [
  # 0 in float32, whose logarithm is not a number.
  (lrsched.Exponential, dict(factor=1e-50, every_steps=5), 'in float32'),
  (
    lrsched.Triangular,
    dict(low_lr=0.0, up_steps=1, down_steps=1, peak_factor=1e-50),
    'Triangular.peak_factor must be',
  ),
  (lrsched.REX, dict(total_steps=5, beta=1.0), 'REX.beta must be'),
  (lrsched.Polynomial, dict(total_steps=5, power=0), 'Polynomial.power must'),
  (lrsched.Exponential, dict(factor=1.1, every_steps=5), 'Exponential.factor'),
  (lrsched.InverseSqrt, dict(timescale_steps=0), 'timescale_steps must be'),
  (
    lrsched.Power,
    dict(batch_size=1, tokens_per_step=1, stable_steps=5),
    'stable_steps must be 0 without a decay',
  ),
  (lrsched.CosineRestarts, dict(cycle_ends=()), 'must not be empty'),
  (lrsched.CosineRestarts, dict(cycle_ends=(5, 5)), r'cycle_ends\[1\] must be'),
  (lrsched.Step, dict(boundaries=(5,), factors=()), 'as many as boundaries'),
  (lrsched.Step, dict(boundaries=(5,), factors=(2.0,)), r'factors\[0\] must'),
  (
    lrsched.WSDC,
    dict(const_lr=2.0, warmup_steps=0, stable_steps=1, decay_steps=1),
    'WSDC.const_lr must be at most peak_lr',
  ),
]


@pytest.mark.parametrize(('kind', 'fields', 'message'), REFUSED)
def test_bad_values_are_refused(kind, fields, message):
  with pytest.raises(ValueError, match=message):
    kind(peak_lr=1.0, **fields)
