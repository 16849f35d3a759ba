"""Constant, Linear and Cosine, against closed forms and optax."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched

T = 1000
STEPS = jnp.arange(T + 10)


def test_linear_equals_optax():
  ours = lrsched.Linear(peak_lr=1e-3, final_lr=1e-4, total_steps=T)
  theirs = optax.linear_schedule(1e-3, 1e-4, T)
  # Theirs adds to the end value, ours mixes: a few roundings apart.
  np.testing.assert_allclose(ours(STEPS), theirs(STEPS), rtol=1e-5)


def test_cosine_equals_optax_up_to_its_rounding():
  """Optax computes 1 + cos, which in float32 is good to 1e-7 of the peak."""
  ours = lrsched.Cosine(peak_lr=1e-3, final_lr=1e-4, total_steps=T)
  theirs = optax.cosine_decay_schedule(1e-3, T, alpha=0.1)
  np.testing.assert_allclose(ours(STEPS), theirs(STEPS), atol=2e-10)


def test_cosine_keeps_its_relative_accuracy_at_the_last_step():
  """A float32 1 + cos is off by 2.5e-3 there."""
  expected = np.sin(np.pi / 2 / T) ** 2
  value = float(lrsched.Cosine(peak_lr=1.0, total_steps=T)(T - 1))
  assert value == pytest.approx(expected, rel=3e-7)


def test_constant_keeps_the_shape_of_the_step():
  lr = lrsched.Constant(lr=1)
  assert lr(5).shape == ()
  assert lr(jnp.arange(3)).shape == (3,)
  assert lr(5).dtype == jnp.float32
  assert not lr(5).weak_type


@pytest.mark.parametrize('step', [1.5, jnp.float32(2.0), True])
def test_a_step_must_be_an_integer(step):
  with pytest.raises(ValueError, match='step must be an integer'):
    lrsched.Constant(lr=1.0)(step)


def test_a_step_beyond_int32_is_an_error_not_a_wrap():
  with pytest.raises(ValueError, match='step must fit int32, got 2147483648'):
    lrsched.Constant(lr=1.0)(2**31)


def test_bfloat16_leaves_compute_in_float32():
  spec = lrsched.Linear(peak_lr=jnp.bfloat16(1.0), total_steps=1000)
  lrs = spec(jnp.arange(1000))
  assert lrs.dtype == jnp.float32
  assert len(np.unique(lrs)) == 1000


@pytest.mark.parametrize('cls', [lrsched.Linear, lrsched.Cosine])
def test_a_rise_is_refused(cls):
  with pytest.raises(ValueError, match='for a rise use Warmup'):
    cls(peak_lr=1e-4, final_lr=1e-3, total_steps=10)


@pytest.mark.parametrize('cls', [lrsched.Linear, lrsched.Cosine])
@pytest.mark.parametrize('total_steps', [0, -1, 2**31, 10.0, None])
def test_lengths_are_refused(cls, total_steps):
  with pytest.raises(ValueError, match='total_steps must be a whole number'):
    cls(peak_lr=1e-3, total_steps=total_steps)


def test_a_batch_of_specs_is_checked_too():
  with pytest.raises(ValueError, match=r'Constant\.lr must be'):
    lrsched.Constant(lr=np.array([1e-3, -1.0]))


@pytest.mark.parametrize(
  'step', [np.int64(2**31 + 5), np.uint32(3_000_000_000), np.array([0, 2**40])]
)
def test_a_numpy_step_beyond_int32_is_an_error_not_a_wrap(step):
  with pytest.raises(ValueError, match='step must fit int32'):
    lrsched.Linear(peak_lr=1.0, total_steps=10)(step)


def test_a_traced_unsigned_step_beyond_int32_is_the_last_step():
  late = jnp.asarray(3_000_000_000, jnp.uint32)
  assert lrsched.Linear(peak_lr=1.0, total_steps=10)(late) == 0.0


@pytest.mark.parametrize('lr', [1e39, 10**400, float('inf')])
def test_an_lr_must_be_finite_in_float32(lr):
  with pytest.raises(ValueError, match=r'Constant\.lr must be a finite real'):
    lrsched.Constant(lr=lr)
