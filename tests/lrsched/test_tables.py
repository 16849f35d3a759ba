"""Tabulated and PiecewiseLinear: values, identity, and what they refuse."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched

LRS = np.random.default_rng(0).uniform(0, 1e-3, 1000)


def test_each_update_has_its_value_and_the_last_one_holds():
  table = lrsched.Tabulated(lrs=LRS)
  np.testing.assert_array_equal(table(jnp.arange(1000)), np.float32(LRS))
  np.testing.assert_array_equal(
    table(jnp.arange(999, 1100)), np.float32(LRS[-1])
  )
  assert table.end_step == 1000


def test_the_gradient_of_an_update_is_its_own_entry():
  table = lrsched.as_arrays(lrsched.Tabulated(lrs=LRS[:5]))
  grad = jax.grad(lambda s: s(3), allow_int=True)(table)
  np.testing.assert_array_equal(grad.lrs, [0, 0, 0, 1, 0])


def test_the_values_are_a_copy_that_cannot_be_written():
  values = LRS.copy()
  table = lrsched.Tabulated(lrs=values)
  values[0] = 7
  assert table.lrs[0] == LRS[0]
  with pytest.raises(ValueError, match='read-only'):
    table.lrs[0] = 7


@pytest.mark.parametrize('make', [list, tuple, np.asarray, np.float64])
def test_whatever_holds_the_values_equal_tables_are_equal(make):
  table = lrsched.Tabulated(lrs=make(LRS))
  assert table == lrsched.Tabulated(lrs=LRS)
  assert hash(table) == hash(lrsched.Tabulated(lrs=LRS))
  assert table != lrsched.Tabulated(lrs=LRS[:-1])
  assert table != lrsched.Tabulated(lrs=LRS * 2)
  assert table != lrsched.Constant(lr=1.0)


def test_minus_zero_is_zero():
  assert lrsched.Tabulated(lrs=(-0.0, 1)) == lrsched.Tabulated(lrs=(0, 1))


def test_float32_values_are_kept_exactly():
  values = np.float32(LRS)
  table = lrsched.from_json(lrsched.to_json(lrsched.Tabulated(lrs=values)))
  np.testing.assert_array_equal(table(jnp.arange(1000)), values)


def test_lengths_of_tables_count_in_what_holds_them():
  table = lrsched.Tabulated(lrs=(1.0, 2.0))
  with pytest.raises(ValueError, match='Warmup: the lengths must sum to'):
    lrsched.Warmup(schedule=table, warmup_steps=2**31 - 1)


def test_a_batch_of_tables_is_evaluated_at_once():
  batch = lrsched.Tabulated(lrs=LRS[:4])
  batch = jax.tree.map(
    lambda x: jnp.stack([x, 2 * x]), lrsched.as_arrays(batch)
  )
  lrs = jax.vmap(lambda s: s(jnp.arange(4)))(batch)
  np.testing.assert_allclose(lrs[1], 2 * LRS[:4], rtol=1e-6)
  with pytest.raises(ValueError, match=r'Tabulated\.lrs must be a known list'):
    lrsched.to_json(batch)


def test_piecewise_linear_is_numpys_interpolation():
  steps = np.asarray([3, 10, 11, 500, 900])
  lrs = np.asarray([1e-4, 1e-3, 0.0, 5e-4, 1e-5])
  line = lrsched.PiecewiseLinear(steps=steps, lrs=lrs)
  t = np.arange(1000)
  np.testing.assert_allclose(
    line(t), np.interp(t, steps, lrs), rtol=1e-5, atol=1e-10
  )
  np.testing.assert_array_equal(line(steps), np.float32(lrs))  # exact at knots


def test_lines_are_exact_far_beyond_float32():
  """A float32 step would be off by 64 at 2^30."""
  line = lrsched.PiecewiseLinear(
    steps=(2**30, 2**30 + 100, 2**31 - 1), lrs=(0.0, 1.0, 0.0)
  )
  assert float(line(2**30 + 50)) == 0.5
  assert float(line(2**30 + 75)) == 0.75


BAD = [
  (((5, 5), (1, 1)), r'steps\[1\] must be > steps\[0\]=5, got 5'),
  (((0, 5, 9), (1, 1)), 'lrs must be as many as its steps, got 2 for 3'),
  (((0,), (1,)), 'steps must be a list of at least 2'),
  (((0.0, 1.0), (1, 1)), r'steps\[0\] must be a whole number'),
  (((0, 2**31), (1, 1)), r'steps\[1\] must be a whole number'),
  (((0, 1), (1, -1)), r'lrs\[1\] must be a finite real number >= 0, got -1'),
  (((0, 1), np.ones((2, 2))), 'lrs must be a list of at least 2'),
]


@pytest.mark.parametrize(('case', 'message'), BAD)
def test_bad_knots_are_refused(case, message):
  steps, lrs = case
  with pytest.raises(ValueError, match=rf'PiecewiseLinear\.{message}'):
    lrsched.PiecewiseLinear(steps=steps, lrs=lrs)


def test_a_short_table_prints_as_python_and_a_long_one_its_hash():
  short = lrsched.Tabulated(lrs=(0.5, 1))
  assert repr(short) == 'Tabulated(lrs=(0.5, 1.0))'
  long = repr(lrsched.Tabulated(lrs=LRS))
  assert long.startswith('Tabulated(lrs=<1000 values, sha256 ')
  changed = dataclasses.replace(short, lrs=LRS + 1e-12)
  assert repr(changed) != long


@pytest.mark.parametrize(
  'remake', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_is_as_fixed_and_as_checked(remake):
  table = lrsched.Tabulated(lrs=LRS)
  again = remake(table)
  assert again == table
  with pytest.raises(ValueError, match='read-only'):
    again.lrs[0] = 7
  with pytest.raises(ValueError, match='the lengths must sum to'):
    lrsched.Warmup(schedule=again, warmup_steps=2**31 - 1)


ODD = [
  ([np.asarray([1.0])], r'lrs\[0\] must be a finite'),
  (np.asarray(['a', 'b'], object), r"lrs\[0\] must be a finite .* got 'a'"),
  (np.ma.masked_array([1.0, 2.0], [0, 1]), r'lrs'),
  (np.asarray([1 + 1j]), r'lrs\[0\] must be a finite'),
]


@pytest.mark.parametrize(('lrs', 'message'), ODD)
def test_odd_arrays_are_refused_by_name(lrs, message):
  with pytest.raises(ValueError, match=message):
    lrsched.Tabulated(lrs=lrs)


def test_a_list_of_traced_lrs_is_a_table():
  lr = jax.jit(lambda a: lrsched.Tabulated(lrs=[a, 2 * a])(1))(0.5)
  assert float(lr) == 1.0


def test_traced_knots_that_do_not_rise_stay_finite():
  line = jax.jit(
    lambda s: lrsched.PiecewiseLinear(steps=s, lrs=(1.0, 2.0))(jnp.arange(4))
  )
  assert np.isfinite(line(jnp.asarray([2, 2]))).all()
