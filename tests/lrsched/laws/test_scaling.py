"""What the laws of size and data share: checks, pytrees, the summed Huber."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from lrsched.laws.chinchilla import BESIROGLU
from lrsched.laws.chinchilla import HOFFMANN
from lrsched.laws.chinchilla import Chinchilla
from lrsched.laws.data_constrained import MUENNIGHOFF
from lrsched.laws.data_constrained import DataConstrained
from lrsched.laws.kaplan import KAPLAN
from lrsched.laws.kaplan_steps import KAPLAN_STEPS
from lrsched.laws.learning_trend import LearningTrend
from lrsched.laws.scaling import DELTA
from lrsched.laws.scaling import as_points
from lrsched.laws.scaling import huber_sum

TREND = LearningTrend(c=2.0, a=0.5, b=0.5, x_last=1e4)
SIZES = {'n_params': 1e9, 'n_tokens': 2e10}
# Each law, what it is called with, and the sign of the slope in each argument.
LAWS = [
  (HOFFMANN, SIZES),
  (BESIROGLU, SIZES),
  (MUENNIGHOFF, SIZES | {'unique_tokens': 5e9}),
  (KAPLAN, SIZES),
  (KAPLAN_STEPS, {'n_params': 1e9, 'steps': 1e5, 'batch_tokens': 5e5}),
  (TREND, {'x': 3e4}),
]


def named(law):
  return type(law[0]).__name__ if isinstance(law, tuple) else None


@pytest.mark.parametrize('case', LAWS, ids=named)
def test_a_law_is_float32_and_float64_under_x64(case):
  law, at = case
  single = law(**at)
  with jax.enable_x64(True):
    double = law(**at)
  assert single.dtype == np.float32
  assert double.dtype == np.float64
  # A few roundings of powers of numbers up to e^30: 30 times float32's.
  assert float(single) == pytest.approx(float(double), rel=4e-6)


@pytest.mark.parametrize('case', LAWS, ids=named)
def test_more_of_anything_lowers_the_loss_and_gradients_are_finite(case):
  law, at = case
  grads = jax.grad(lambda at: law(**at))(at)
  assert all(np.isfinite(g) and g < 0 for g in grads.values())
  of_law = jax.grad(lambda law: law(**at))(law)
  assert type(of_law) is type(law)
  assert all(np.isfinite(g) for g in jax.tree.leaves(of_law))


@pytest.mark.parametrize('case', LAWS, ids=named)
def test_the_gradient_in_parameters_is_the_slope(case):
  law, at = case
  with jax.enable_x64(True):
    leaves, treedef = jax.tree.flatten(law)
    grads = jax.tree.leaves(jax.grad(lambda law: law(**at))(law))
    for i, value in enumerate(leaves):
      h = 1e-5 * value
      ends = []
      for moved in (value + h, value - h):
        changed = [*leaves[:i], moved, *leaves[i + 1 :]]
        ends.append(float(treedef.unflatten(changed)(**at)))
      # Central differences: 1e-10 of curvature, 1e-11 of rounding over h.
      slope = (ends[0] - ends[1]) / (2 * h)
      assert float(grads[i]) == pytest.approx(slope, rel=1e-5, abs=1e-9 / value)


@pytest.mark.parametrize('case', LAWS, ids=named)
def test_laws_of_one_kind_share_a_compiled_program(case):
  law, at = case
  traces = []

  @jax.jit
  def loss(law, at):
    traces.append(1)
    return law(**at)

  first = loss(law, at)
  second = loss(jax.tree.map(lambda p: p * 1.01, law), at)
  assert len(traces) == 1
  assert first != second


@pytest.mark.parametrize('case', LAWS, ids=named)
def test_arguments_broadcast_and_must_be_positive(case):
  law, at = case
  name, value = next(iter(at.items()))
  others = {key: np.full(4, x) for key, x in at.items() if key != name}
  broad = law(**{name: np.full((3, 1), value)}, **others)
  assert broad.shape == ((3, 4) if others else (3, 1))
  for bad in (0, -1.0, np.nan, np.inf, True, '1'):
    with pytest.raises(ValueError, match=f'{name} must be a finite real'):
      law(**(at | {name: bad}))


def test_whole_numbers_may_be_large():
  law = BESIROGLU(n_params=70 * 10**9, n_tokens=np.int64(14 * 10**11))
  assert float(law) == pytest.approx(1.97335, abs=1e-5)


@pytest.mark.parametrize('bad', [0.0, -1.0, np.nan, np.inf, '1', None])
def test_a_parameter_must_be_positive(bad):
  with pytest.raises(ValueError, match=r'Chinchilla\.A must be a finite real'):
    Chinchilla(E=1.7, A=bad, alpha=0.3, B=400.0, beta=0.3)


def test_a_base_must_be_a_law():
  with pytest.raises(ValueError, match=r'base must be a Chinchilla'):
    DataConstrained(base=KAPLAN, R_D_star=15.0, R_N_star=5.0)


def test_a_law_is_frozen():
  with pytest.raises(AttributeError):
    HOFFMANN.A = 1.0  # type: ignore[misc]


def test_huber_is_a_sum_and_not_a_mean():
  p, y = np.array([2.0, 3.0, 2.5]), np.array([2.001, 3.2, 2.5])
  r = np.abs(np.log(p) - np.log(y))
  once = r[0] ** 2 / 2 + DELTA * (r[1] - DELTA / 2)
  assert r[0] < DELTA < r[1]
  assert huber_sum(p, y) == pytest.approx(once, rel=1e-12)
  twice = huber_sum(np.tile(p, 2), np.tile(y, 2))
  assert twice == pytest.approx(2 * once, rel=1e-12)


@pytest.mark.parametrize(
  ('columns', 'said'),
  [
    ({'x': [1.0], 'y': [1.0, 2.0]}, 'lengths must be equal, got x: 1, y: 2'),
    ({'x': [[1.0]]}, r'x must be a list of at least 1, got shape \(1, 1\)'),
    ({'x': []}, 'x must be a list of at least 1'),
    ({'x': [1.0, np.nan]}, r'x\[1\] must be finite and > 0, got nan'),
    ({'x': [0.0, 1.0]}, r'x\[0\] must be finite and > 0, got 0'),
  ],
)
def test_points_are_checked(columns, said):
  with pytest.raises(ValueError, match=said):
    as_points(columns)
