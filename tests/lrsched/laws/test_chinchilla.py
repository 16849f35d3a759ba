"""Chinchilla's law: published values, the best split, and what a fit finds."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from lrsched.laws.chinchilla import BESIROGLU
from lrsched.laws.chinchilla import HOFFMANN
from lrsched.laws.chinchilla import Chinchilla
from lrsched.laws.scaling import huber_sum


def runs(law, seed=0, noise=0.0, count=240):
  """Sizes like those of the paper's runs, and a law's losses with noise."""
  rng = np.random.default_rng(seed)
  n_params = 10 ** rng.uniform(7.6, 10.2, count)
  n_tokens = 10 ** rng.uniform(18.5, 21.5, count) / 6 / n_params
  sizes = {'n_params': n_params, 'n_tokens': n_tokens}
  return sizes, exact(law, sizes) * np.exp(rng.normal(0, noise, count))


def exact(law, sizes):
  """The equation in float64 numpy."""
  model = law.A / sizes['n_params'] ** law.alpha
  return law.E + model + law.B / sizes['n_tokens'] ** law.beta


@pytest.mark.parametrize(
  ('law', 'values'),
  [
    (HOFFMANN, (1.69, 406.4, 0.34, 410.7, 0.28)),
    (BESIROGLU, (1.8172, 477.83, 0.34731, 2143.4, 0.36717)),
  ],
)
def test_published_fits(law, values):
  E, A, alpha, B, beta = values
  assert dataclasses.astuple(law) == values
  n = np.array([4.4e7, 1e9, 7e10, 2.8e11])
  d = np.array([1e9, 2e10, 1.4e12, 3e11])
  want = E + A / n**alpha + B / d**beta
  with jax.enable_x64(True):
    np.testing.assert_allclose(law(n_params=n, n_tokens=d), want, rtol=1e-13)


@pytest.mark.parametrize('law', [HOFFMANN, BESIROGLU])
def test_no_other_split_of_the_budget_is_better(law):
  flops = np.array([1e18, 5.76e23])
  with jax.enable_x64(True):
    best = law.compute_optimal(flops)
    np.testing.assert_allclose(6 * best.n_params * best.n_tokens, flops, 1e-12)
    shift = np.geomspace(0.5, 2, 2001)[:, None]
    n, d = np.asarray(best.n_params), np.asarray(best.n_tokens)
    losses = law(n_params=n * shift, n_tokens=d / shift)
    np.testing.assert_array_equal(np.argmin(losses, 0), [1000, 1000])
    np.testing.assert_allclose(best.loss, losses[1000], 1e-14)
    back = law.optimal_params(best.n_tokens)
    np.testing.assert_allclose(back, best.n_params, 1e-11)


@pytest.mark.parametrize('law', [HOFFMANN, BESIROGLU])
def test_a_fit_to_exact_losses_is_the_law(law):
  sizes, losses = runs(law)
  found = Chinchilla.fit(**sizes, losses=losses)
  # In units of the Huber loss squared, the fit stops where the sum moves by
  # 1e-13: log losses then are within 1e-3 * sqrt(1e-13).
  for got, want in zip(
    dataclasses.astuple(found), dataclasses.astuple(law), strict=True
  ):
    assert got == pytest.approx(want, rel=1e-4)


def test_a_fit_to_noisy_losses_is_near_and_nothing_is_lower():
  sizes, losses = runs(BESIROGLU, noise=0.003)
  losses[:3] *= 1.05  # outliers count by their size, not its square
  found = Chinchilla.fit(**sizes, losses=losses)
  # Six times the spread of the bootstrap below.
  assert found.alpha == pytest.approx(BESIROGLU.alpha, abs=0.02)
  assert found.beta == pytest.approx(BESIROGLU.beta, abs=0.02)
  assert pytest.approx(BESIROGLU.E, abs=0.03) == found.E
  least = huber_sum(exact(found, sizes), losses)
  assert least < huber_sum(exact(BESIROGLU, sizes), losses)
  values = dataclasses.asdict(found)
  for name, value in values.items():
    for factor in (1 - 1e-5, 1 + 1e-5):
      near = Chinchilla(**(values | {name: value * factor}))
      assert huber_sum(exact(near, sizes), losses) > least


def test_the_number_of_runs_does_not_stop_a_fit_early():
  # With a mean for the sum, more runs would not help, and both would stop at
  # the same distance; repeated runs must give the same fit, converged.
  sizes, losses = runs(HOFFMANN, noise=0.003, count=60)
  once = Chinchilla.fit(**sizes, losses=losses)
  tiled = {name: np.tile(x, 4) for name, x in sizes.items()}
  four = Chinchilla.fit(**tiled, losses=np.tile(losses, 4))
  for a, b in zip(
    dataclasses.astuple(once), dataclasses.astuple(four), strict=True
  ):
    assert a == pytest.approx(b, rel=1e-4)


def test_bootstrap_spreads_about_the_fit():
  sizes, losses = runs(BESIROGLU, noise=0.003)
  found = Chinchilla.fit(**sizes, losses=losses)
  laws = found.bootstrap(**sizes, losses=losses, resamples=12, seed=1)
  assert len(laws) == 12
  betas = np.array([law.beta for law in laws])
  assert 1e-4 < betas.std() < 0.02
  assert betas.min() < found.beta < betas.max()
  again = found.bootstrap(**sizes, losses=losses, resamples=2, seed=1)
  assert again == laws[:2]


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'n_params': np.full(6, 1e9)}, 'n_params must differ between runs'),
    ({'n_tokens': np.full(6, 1e9)}, 'n_tokens must differ between runs'),
    ({'losses': np.ones(5)}, 'lengths must be equal'),
    ({'losses': np.array([2, 2, -1, 2, 2, 2.0])}, r'losses\[2\] must be'),
    # Losses that rise with size have no positive exponents.
    (
      {'losses': np.array([2.0, 2.5, 2.2, 2.7, 2.6, 3.0])},
      'the best fit has alpha=',
    ),
  ],
)
def test_a_fit_says_what_is_wrong(changes, said):
  sizes = {'n_params': np.geomspace(1e7, 1e9, 6)}
  sizes['n_tokens'] = np.array([1e9, 3e9, 2e9, 8e9, 5e9, 2e10])
  with pytest.raises(ValueError, match=said):
    Chinchilla.fit(**(sizes | {'losses': exact(HOFFMANN, sizes)} | changes))


def test_a_bootstrap_needs_a_resample():
  with pytest.raises(ValueError, match='resamples must be >= 1, got 0'):
    HOFFMANN.bootstrap(
      n_params=[1e9], n_tokens=[1e9], losses=[3.0], resamples=0
    )
