"""What must not change a loss, what must, and which laws are cases of others.

That a constant LR has no drop, updates at a rate of 0 none further, and joined
changes 1e-4 nats at most, in `predict`: see test_published.
"""

import numpy as np
import pytest

from lrsched import laws
from tests.lrsched.laws.test_fit import KINDS
from tests.lrsched.laws.test_fit import TRUE
from tests.lrsched.laws.test_fit import curve
from tests.lrsched.laws.test_published import LAWS
from tests.lrsched.laws.test_published import PARAMS
from tests.lrsched.laws.test_published import PEAK
from tests.lrsched.laws.test_published import WARMUP
from tests.lrsched.laws.test_published import every
from tests.lrsched.laws.test_published import lrs_of

TOTAL = 4000
AT = np.arange(200, TOTAL, 200)
SCALE = {  # of the drop
  'Annealing': 'C',
  'MultiPower': 'B',
  'Functional': 'c2',
  'LossDrop': 'B',
  'Concave': 'K',
}


def predict(name, lrs, at=AT, params=None, warmup_steps=WARMUP, **others):
  return LAWS[name].predict(
    PARAMS[name] if params is None else params,
    lrs,
    at,
    warmup_steps=warmup_steps,
    peak_lr=PEAK,
    **others,
  )


@every
@pytest.mark.parametrize('warmup', ['true_sum', 'at_peak'])
def test_a_constant_lr_is_the_power_law(name, warmup):
  lrs = lrs_of('constant', TOTAL)
  without = {**PARAMS[name], SCALE[name]: 0.0}
  np.testing.assert_array_equal(
    predict(name, lrs, warmup=warmup),
    predict(name, lrs, params=without, warmup=warmup),
  )


@every
def test_the_future_changes_nothing(name):
  """Losses up to update 2000 are the same whatever comes then."""
  lrs = lrs_of('cosine', TOTAL)
  other = np.where(np.arange(TOTAL) <= 2000, lrs, 0.1 * PEAK)
  a, b = predict(name, lrs), predict(name, other)
  np.testing.assert_allclose(b[AT <= 2000], a[AT <= 2000], rtol=1e-14)
  assert np.abs(b - a)[AT > 2000].max() > 1e-3


@every
def test_forecasts_after_a_decay_to_0_are_level_but_under_annealing(name):
  """With joined changes, as fits and forecasts have them."""
  lrs = np.concatenate([lrs_of('linear', TOTAL), np.zeros(1000)])
  fitted = laws.Fit.given(LAWS[name], PARAMS[name], peak_lr=PEAK)
  at = np.asarray([TOTAL, TOTAL + 100, TOTAL + 999])
  mean = fitted.forecast(lrs, at, warmup_steps=WARMUP).mean
  if name == 'Annealing':
    assert (np.diff(mean) < -1e-6).all()
  else:
    np.testing.assert_allclose(mean, mean[0], rtol=1e-12)


# Law, parameters, and by how much a run of half the LR and twice the updates
# may differ, or must, in nats, if a drop of half the LR counts twice.
HALVED = [
  ('LossDrop', {}, 0.0, 1e-12),
  # The kernel counts update k or not, and it is half as much: a fiftieth of
  # the LR sum since the change at the first point.
  ('Functional', {}, 0.0, 1e-3),
  ('MultiPower', {'gamma': 0.0, 'C': 50.0}, 0.0, 1e-3),
  ('MultiPower', {}, 1e-2, 1.0),
  ('Annealing', {}, 1e-2, 1.0),
]


@pytest.mark.parametrize(('name', 'params', 'at_least', 'at_most'), HALVED)
def test_half_the_lr_for_twice_the_updates(name, params, at_least, at_most):
  """Kernels of LR sums are blind to it; of steps, or with LR^-gamma, not."""
  params = {**PARAMS[name], **params}
  lrs, at = lrs_of('stair', TOTAL), np.asarray([250, 500, 1000, 3000])
  twice = {**params, SCALE[name]: 2 * params[SCALE[name]]}
  slow = predict(
    name, np.repeat(lrs / 2, 2), 2 * at + 1, twice, warmup_steps=2 * WARMUP
  )
  fast = predict(name, lrs, at, params)
  assert at_least <= np.abs(slow - fast).max() <= at_most


UNIT = 1e4 * PEAK  # of the LR sum in Concave


def as_multi_power(p):
  """Parameters of Concave with w = q = 1, for raw LRs."""
  return dict(
    L0=p['L0'],
    A=p['A'] * UNIT ** p['a'],
    alpha=p['a'],
    B=p['K'] / PEAK,
    C=p['C'] / 1e4 * PEAK ** (p['g'] - 1),
    beta=p['b'],
    gamma=p['g'],
  )


def as_functional(p):
  """Parameters of Concave with g = 0 and q = 1, for raw LRs."""
  source = (1 - p['w']) * UNIT ** p['a']
  return dict(
    L0=p['L0'],
    A=p['A'] * UNIT ** p['a'],
    alpha=p['a'],
    c2=p['K'] / PEAK * source,
    c3=p['w'] / source,
    c4=p['C'] / UNIT,
    gamma=p['b'],
  )


@pytest.mark.parametrize('kind', ['linear', 'cosine', 'stair'])
def test_concave_with_w_and_q_of_1_is_multi_power(kind):
  lrs = np.maximum(lrs_of(kind, TOTAL), 1e-3 * PEAK)  # below, floors differ
  p = {**PARAMS['Concave'], 'w': 1.0, 'q': 1.0}
  np.testing.assert_allclose(
    predict('Concave', lrs, params=p),
    predict('MultiPower', lrs, params=as_multi_power(p)),
    rtol=1e-12,
  )


@pytest.mark.parametrize('kind', ['linear', 'cosine', 'stair'])
def test_concave_with_g_of_0_and_q_of_1_is_functional(kind):
  """But for the update of the change itself, which S(k) counts there."""
  lrs, p = lrs_of(kind, TOTAL), {**PARAMS['Concave'], 'g': 0.0, 'q': 1.0}
  # Mid-drop an update is a part in 10^3 of a drop of 0.1 nats.
  at = AT if kind != 'stair' else AT[(AT < 200) | (AT > 600)]
  functional = predict('Functional', lrs, at, params=as_functional(p))
  np.testing.assert_allclose(
    predict('Concave', lrs, at, params=p), functional, atol=5e-4
  )
  q = {**p, 'q': 0.7}
  assert np.abs(predict('Concave', lrs, at, params=q) - functional).max() > 5e-3


def test_multi_power_ends_in_loss_drop():
  """With a kernel that is at once at 1."""
  p = {**PARAMS['MultiPower'], 'C': 1e30}
  lrs = lrs_of('cosine', TOTAL)
  drop = {k: p[k] for k in ('L0', 'A', 'alpha', 'B')}
  np.testing.assert_allclose(
    predict('MultiPower', lrs, params=p),
    predict('LossDrop', lrs, params=drop),
    rtol=1e-9,
  )


def test_a_law_fits_no_worse_than_what_it_contains():
  """The ladder, on curves of the richest law; each step is a real one.

  Concave holds MultiPower (gamma <= 1) and Functional within its bounds, these
  hold LossDrop.
  """
  law = LAWS['Concave']
  curves = [
    curve(law, TRUE['Concave'], *kind, noise=5e-4, seed=i)
    for i, kind in enumerate(KINDS)
  ]
  cost = {
    name: laws.fit(LAWS[name], curves).cost
    for name in ('LossDrop', 'Functional', 'MultiPower', 'Concave')
  }
  assert cost['Concave'] < 0.9 * min(cost['MultiPower'], cost['Functional'])
  assert max(cost['MultiPower'], cost['Functional']) < 0.9 * cost['LossDrop']
