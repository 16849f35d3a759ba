"""The law of repeated data: the paper's values, limits, and a fit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from lrsched.laws.data_constrained import MUENNIGHOFF
from lrsched.laws.data_constrained import DataConstrained

# N, D, U and the loss by the paper's code.
PUBLISHED = [
  (6.34e9, 242e9, 25e9, 2.2256440889984477),
  (8.67e9, 178e9, 25e9, 2.2269634075087867),
]


@pytest.mark.parametrize(('n', 'd', 'u', 'loss'), PUBLISHED)
def test_published_values(n, d, u, loss):
  with jax.enable_x64(True):
    got = float(MUENNIGHOFF(n_params=n, n_tokens=d, unique_tokens=u))
  # Two last digits, for another libm.
  assert got == pytest.approx(loss, rel=4e-16)


def test_one_epoch_of_no_more_than_optimal_size_is_the_base():
  d = np.array([1e9, 1e11])
  with jax.enable_x64(True):
    n = 0.5 * MUENNIGHOFF.base.optimal_params(d)
    for unique in (d, 10 * d):  # what is not seen does not count
      got = MUENNIGHOFF(n_params=n, n_tokens=d, unique_tokens=unique)
      want = MUENNIGHOFF.base(n_params=n, n_tokens=d)
      np.testing.assert_allclose(got, want, rtol=1e-15)


def test_repetition_is_worth_less_and_less_up_to_a_limit():
  epochs = np.array([1.0, 2.0, 5.0, 20.0, 100.0, 1e4])
  u = 1e10
  with jax.enable_x64(True):
    worth = np.asarray(
      MUENNIGHOFF.effective_tokens(n_tokens=epochs * u, unique_tokens=u)
    )
  star = MUENNIGHOFF.R_D_star
  want = 1 + star * (1 - np.exp(-(epochs - 1) / star))
  np.testing.assert_allclose(worth / u, want, rtol=1e-13)
  per_epoch = np.diff(worth / u) / np.diff(epochs)
  assert np.all(np.diff(per_epoch) < 0)
  assert per_epoch[0] == pytest.approx(1, abs=0.04)  # 1/(2 star)
  assert worth[-1] / u == pytest.approx(1 + star, rel=1e-12)


def test_endless_constants_make_a_repetition_as_good_as_new():
  law = DataConstrained(base=MUENNIGHOFF.base, R_D_star=1e12, R_N_star=1e12)
  sizes = {'n_params': 8e9, 'n_tokens': 2e11}
  with jax.enable_x64(True):
    got = law(**sizes, unique_tokens=1e10)
    assert float(got) == pytest.approx(float(law.base(**sizes)), rel=1e-10)


def runs():
  n, d, u = np.meshgrid([1e8, 1e9, 8e9], [2e9, 2e10, 2e11], [1e9, 5e9, 4e10])
  return {
    'n_params': n.ravel(),
    'n_tokens': d.ravel(),
    'unique_tokens': u.ravel(),
  }


def test_a_fit_recovers_the_constants():
  law = DataConstrained(base=MUENNIGHOFF.base, R_D_star=12.0, R_N_star=3.0)
  with jax.enable_x64(True):
    losses = np.asarray(law(**runs()))
  exact = DataConstrained.fit(base=law.base, **runs(), losses=losses)
  assert exact.base == law.base
  assert exact.R_D_star == pytest.approx(12.0, rel=1e-5)
  assert exact.R_N_star == pytest.approx(3.0, rel=1e-5)
  noise = np.random.default_rng(0).normal(0, 0.002, len(losses))
  noisy = DataConstrained.fit(
    base=law.base, **runs(), losses=losses * np.exp(noise)
  )
  # 27 runs of 0.2 % noise tell either to some percent.
  assert noisy.R_D_star == pytest.approx(12.0, rel=0.1)
  assert noisy.R_N_star == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'unique_tokens': np.full(27, 1e12)}, 'n_tokens > unique_tokens'),
    ({'n_params': np.full(27, 1e5)}, 'n_params above base.optimal_params'),
    ({'n_params': np.full(26, 1e9)}, 'lengths must be equal'),
  ],
)
def test_a_fit_says_what_is_wrong(changes, said):
  sizes = runs() | changes
  with pytest.raises(ValueError, match=said):
    DataConstrained.fit(base=MUENNIGHOFF.base, **sizes, losses=np.full(27, 2.5))
