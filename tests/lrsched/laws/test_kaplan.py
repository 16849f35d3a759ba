"""Kaplan's laws: their limits, the batch-size algebra, the root, and fits."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from lrsched.laws.kaplan import KAPLAN
from lrsched.laws.kaplan import Kaplan
from lrsched.laws.kaplan_steps import KAPLAN_STEPS
from lrsched.laws.kaplan_steps import KaplanSteps

N, S, B = (
  x.ravel()
  for x in np.meshgrid(
    [1e6, 1e8, 1e10], [1e3, 1e5, 1e7], [2.0**14, 2.0**19, 2.0**24]
  )
)
RUNS = {'n_params': N, 'steps': S, 'batch_tokens': B}


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def test_loss_by_size_and_data():
  n, d = np.array([1e6, 1e9, 1e11]), np.array([1e8, 2e10, 1e9])
  want = ((6.4e13 / n) ** (0.076 / 0.103) + 1.8e13 / d) ** 0.103
  np.testing.assert_allclose(KAPLAN(n_params=n, n_tokens=d), want, rtol=1e-13)


def test_limits_of_size_and_data():
  # What the other term leaves of 1e-13 and less.
  of_size = KAPLAN(n_params=1e6, n_tokens=1e30)
  assert float(of_size) == pytest.approx((6.4e13 / 1e6) ** 0.076, rel=1e-12)
  of_data = KAPLAN(n_params=1e37, n_tokens=1e6)
  assert float(of_data) == pytest.approx((1.8e13 / 1e6) ** 0.103, rel=1e-12)


def test_the_gap_is_exact_where_a_difference_is_not():
  near = KAPLAN.data_gap(n_params=1e6, n_tokens=1e8)
  ends = [float(KAPLAN(n_params=1e6, n_tokens=d)) for d in (1e8, 1e36)]
  assert float(near) == pytest.approx(ends[0] - ends[1], rel=1e-12)
  # Far out it goes as 1/D; a difference of losses would be 0 there.
  far = [float(KAPLAN.data_gap(n_params=1e6, n_tokens=d)) for d in (1e24, 1e25)]
  assert far[0] == pytest.approx(10 * far[1], rel=1e-12)
  assert far[1] > 0


def test_steps_and_tokens_trade_on_a_hyperbola():
  loss = np.geomspace(2.0, 6.0, len(N))
  s_min = KAPLAN_STEPS.min_steps(steps=S, batch_tokens=B, loss=loss)
  e_min = KAPLAN_STEPS.min_flops(flops=B * S, batch_tokens=B, loss=loss)
  product = (S / s_min - 1) * (B * S / e_min - 1)
  np.testing.assert_allclose(product, 1, rtol=1e-9)
  b_crit = KAPLAN_STEPS.critical_batch_tokens(loss)
  np.testing.assert_allclose(e_min / s_min, b_crit, rtol=1e-12)
  np.testing.assert_allclose(b_crit, 2.1e8 / loss ** (1 / 0.21), rtol=1e-12)


def test_the_critical_batch_costs_twice_the_least_of_both():
  b = KAPLAN_STEPS.critical_batch_tokens(3.0)
  s_min = KAPLAN_STEPS.min_steps(steps=1e5, batch_tokens=b, loss=3.0)
  c_min = KAPLAN_STEPS.min_flops(flops=1e20, batch_tokens=b, loss=3.0)
  assert float(s_min) == pytest.approx(1e5 / 2, rel=1e-14)
  assert float(c_min) == pytest.approx(1e20 / 2, rel=1e-14)


def test_the_loss_solves_its_equation():
  loss = np.asarray(KAPLAN_STEPS(**RUNS))
  s_min = S / (1 + 2.1e8 / loss ** (1 / 0.21) / B)
  right = (6.5e13 / N) ** 0.077 + (2.1e3 / s_min) ** 0.76
  np.testing.assert_allclose(loss, right, rtol=1e-14)


def test_no_second_solution():
  # Left less right side changes sign once over eight decades of loss.
  loss = np.geomspace(1e-2, 1e6, 4001)[:, None]
  s_min = S / (1 + 2.1e8 / loss ** (1 / 0.21) / B)
  excess = loss - (6.5e13 / N) ** 0.077 - (2.1e3 / s_min) ** 0.76
  assert np.all(np.sum(np.diff(np.sign(excess), axis=0) != 0, axis=0) == 1)
  at = np.argmax(excess > 0, axis=0)
  root = np.asarray(KAPLAN_STEPS(**RUNS))
  assert np.all((loss[at - 1, 0] <= root) & (root <= loss[at, 0]))


def test_limits_of_steps_and_batch():
  # B_crit is below 1e8 here, so its share at B = 1e22 is below 1e-14.
  huge = KAPLAN_STEPS(n_params=1e8, steps=1e4, batch_tokens=1e22)
  want = KAPLAN_STEPS.at_min_steps(n_params=1e8, min_steps=1e4)
  assert float(huge) == pytest.approx(float(want), rel=1e-13)
  # 1e18 steps leave (2.1e-15)^0.76 of 6e-12 nats.
  long = KAPLAN_STEPS(n_params=1e8, steps=1e18, batch_tokens=1e6)
  assert float(long) == pytest.approx((6.5e13 / 1e8) ** 0.077, rel=1e-10)
  # Far below B_crit only the tokens count.
  split = [
    float(KAPLAN_STEPS(n_params=1e8, steps=1e10 / b, batch_tokens=b))
    for b in (1.0, 10.0)
  ]
  assert split[0] == pytest.approx(split[1], rel=1e-5)


def test_a_sweep_is_one_program_and_maps_like_one_by_one():
  law = jax.jit(
    lambda *run: KAPLAN_STEPS(
      n_params=run[0], steps=run[1], batch_tokens=run[2]
    )
  )
  mapped = jax.vmap(law)(N, S, B)
  one_by_one = [float(law(*run)) for run in zip(N, S, B, strict=True)]
  np.testing.assert_allclose(mapped, one_by_one, rtol=1e-14)


def test_the_gradient_in_a_run_is_the_slope():
  at = {'n_params': 1e8, 'steps': 1e4, 'batch_tokens': 2.0**17}
  grads = jax.grad(lambda at: KAPLAN_STEPS(**at))(at)
  for name, value in at.items():
    h = 1e-5 * value
    high, low = (at | {name: x} for x in (value + h, value - h))
    # Central differences: rounding of 1e-16 over 1e-5.
    slope = float(KAPLAN_STEPS(**high) - KAPLAN_STEPS(**low)) / (2 * h)
    assert float(grads[name]) == pytest.approx(slope, rel=1e-8)


def test_it_is_finite_in_float32_at_extremes():
  with jax.enable_x64(False):
    for run in ((1.0, 1.0, 1.0), (1e13, 1e9, 1e9), (1e3, 1.0, 1e9)):
      at = dict(zip(('n_params', 'steps', 'batch_tokens'), run, strict=True))
      loss, grads = jax.value_and_grad(lambda at: KAPLAN_STEPS(**at))(at)
      assert np.isfinite(loss)
      assert all(np.isfinite(g) for g in grads.values())


def test_early_stopping_is_where_learning_on_costs_as_much_as_the_gap():
  gap = KAPLAN.data_gap(n_params=1e8, n_tokens=1e9)
  s_stop = KAPLAN_STEPS.early_stop_steps(gap)
  left = (2.1e3 / float(s_stop)) ** 0.76
  assert left == pytest.approx(float(gap), rel=1e-13)
  more = KAPLAN.data_gap(n_params=1e8, n_tokens=1e10)
  assert float(KAPLAN_STEPS.early_stop_steps(more)) > float(s_stop)


@pytest.mark.parametrize(('noise', 'exponents'), [(0.0, 1e-5), (0.003, 0.05)])
def test_fits_recover_the_laws(noise, exponents):
  # Noise of 0.3 % moves an exponent by up to some percent.
  rng = np.random.default_rng(0)
  n, d = (
    x.ravel()
    for x in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 5))
  )
  losses = np.asarray(KAPLAN(n_params=n, n_tokens=d))
  losses = losses * np.exp(rng.normal(0, noise, len(n)))
  found = Kaplan.fit(n_params=n, n_tokens=d, losses=losses)
  of_steps = np.asarray(KAPLAN_STEPS(**RUNS))
  of_steps = of_steps * np.exp(rng.normal(0, noise, len(N)))
  found_steps = KaplanSteps.fit(**RUNS, losses=of_steps)
  for got, want in ((found, KAPLAN), (found_steps, KAPLAN_STEPS)):
    values = dataclasses.asdict(got)
    for name, value in dataclasses.asdict(want).items():
      if name.startswith('alpha'):
        assert values[name] == pytest.approx(value, rel=exponents)


def test_a_fit_needs_runs_that_differ():
  with pytest.raises(ValueError, match='batch_tokens must differ'):
    KaplanSteps.fit(**(RUNS | {'batch_tokens': np.full(27, 1e6)}), losses=N)
  with pytest.raises(ValueError, match='n_tokens must differ'):
    Kaplan.fit(n_params=N, n_tokens=np.full(27, 1e9), losses=N)
