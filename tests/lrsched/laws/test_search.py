"""The loss at the end of a run by nodes, and its slope in the LR curve."""

import jax
import numpy as np
import pytest

import lrsched
from lrsched import laws
from lrsched.laws.ends import end_loss
from lrsched.laws.ends import onward
from lrsched.laws.ends import start_of
from lrsched.laws.ends import warmed_up
from lrsched.laws.path import WARMUPS
from lrsched.laws.search import Search
from lrsched.laws.search import grid_of
from lrsched.laws.search import loss_and_slope
from lrsched.laws.search import shares_of
from lrsched.laws.search import variables_of
from tests.lrsched.laws.given_fits import PEAK
from tests.lrsched.laws.given_fits import every_law
from tests.lrsched.laws.given_fits import given


@every_law
@pytest.mark.parametrize('warmup', WARMUPS)
@pytest.mark.parametrize('warmup_steps', [0, 50])
def test_a_path_by_nodes_is_the_path(name, warmup, warmup_steps):
  """With every update a node, all but the joined warmup is exact."""
  fit = given(name, warmup)
  cosine = lrsched.Cosine(peak_lr=PEAK, total_steps=400)
  spec = lrsched.Warmup(schedule=cosine, warmup_steps=warmup_steps)
  lrs, _ = laws.lr_of_updates(spec)
  steps = np.arange(warmup_steps, len(lrs)).astype(float)
  with jax.enable_x64(True):
    path = onward(
      start_of(fit, lrs[: warmup_steps + 1]),
      steps,
      lrs[warmup_steps:] / fit.law.unit(PEAK),
    )
    loss = float(fit.law.at(fit.params, path)[0])
  whole = warmup == 'whole' and warmup_steps
  assert loss == pytest.approx(
    end_loss(fit, lrs, warmup_steps), rel=1e-4 if whole else 1e-12
  )


@every_law
def test_the_slope_is_that_of_finite_differences(name):
  fit = given(name)
  unit = fit.law.unit(PEAK)
  search = Search(
    fit=fit,
    start=start_of(fit, warmed_up(3000, PEAK, 100)),
    grid=grid_of(100, 3000),
    peak_lr=PEAK / unit,
    final_lr=0.1 * PEAK / unit,
  )
  rng = np.random.default_rng(0)
  z = rng.uniform(0.01, 0.05, len(search.grid.knots) - 1)
  _, slope = loss_and_slope(search, z)
  for i in (
    0,
    5,
    len(z) // 2,
    len(z) - 22,
    len(z) - 20,
    len(z) - 3,
    len(z) - 1,
  ):
    moved = []
    for by in (-1e-5, 1e-5):
      there = z.copy()
      there[i] += by
      moved.append(loss_and_slope(search, there)[0])
    expected = (moved[1] - moved[0]) / 2e-5
    assert slope[i] == pytest.approx(expected, rel=1e-4, abs=1e-9), i
  assert search.grid.is_tail.sum() == 20


@pytest.mark.parametrize('total', [100, 700, 3000, 24000, 10**6])
def test_a_start_is_found_again(total):
  """A log-concave LR is what the variables stand for, at every knot."""
  fit = given('Functional')
  grid = grid_of(0, total)
  start = start_of(fit, warmed_up(total, PEAK, 0))
  search = Search(fit, start, grid, PEAK, 0.0)
  assert grid.knots[0] == 0
  assert grid.knots[-1] == total - 1
  assert set(grid.knots) <= set(grid.nodes)
  shares = ((total - grid.knots) / total) ** 0.5
  z = variables_of(search, shares)
  assert np.all(z >= 0)
  np.testing.assert_allclose(shares_of(search, z), shares, rtol=1e-9)
