"""Laws against their formulas, summed update by update in numpy."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest

import lrsched
from lrsched import laws
from lrsched.laws.path import path_of

WARMUP, TOTAL, PEAK = 20, 400, 1e-3
AT = np.asarray([25, 100, 199, 200, 201, 300, 399])

PARAMS = {
  'Annealing': dict(L0=2.5, A=0.3, alpha=0.5, C=6.0, lam=0.98),
  'MultiPower': dict(
    L0=2.5, A=0.3, alpha=0.5, B=200.0, C=0.02, beta=0.6, gamma=0.6
  ),
  'Functional': dict(
    L0=2.5, A=0.3, alpha=0.5, c2=80.0, c3=0.7, c4=30.0, gamma=0.5
  ),
  'LossDrop': dict(L0=2.5, A=0.3, alpha=0.5, B=200.0),
  'Concave': dict(
    L0=2.5, A=0.1, a=0.4, K=0.2, w=0.7, C=900.0, b=0.4, g=0.1, q=0.7
  ),
}
LAWS = {name: getattr(laws, name)() for name in PARAMS}
every = pytest.mark.parametrize('name', PARAMS)


def lrs_of(kind, total=TOTAL):
  t = np.arange(total)
  warm = np.minimum((t + 1) / WARMUP, 1)
  down = {
    'constant': np.ones(total),
    'linear': np.clip((total - t) / (total / 2), 0, 1),
    'cosine': 0.05 + 0.95 * (1 + np.cos(np.pi * t / total)) / 2,
    'stair': np.where(t < 200, 1.0, 0.3),
  }[kind]
  return PEAK * warm * down


def as_printed(name, p, lrs, t, warmup):
  """The loss after update t, by the sum over updates that the paper prints."""
  unit = PEAK if name == 'Concave' else 1.0
  e = lrs / unit
  if warmup == 'at_peak':
    e = np.where(np.arange(len(e)) < WARMUP, e[WARMUP], e)
  s = np.cumsum(e)
  ks = range(1 if warmup == 'whole' else WARMUP, t + 1)
  drop = 0.0
  for k in ks:
    d, since = e[k - 1] - e[k], s[t] - s[k - 1]
    if d == 0:
      continue
    if name == 'Annealing':
      drop += p['C'] * d * (1 - p['lam'] ** (t - k + 1)) / (1 - p['lam'])
    elif name == 'MultiPower':
      x = p['C'] * max(e[k], 1e-10) ** -p['gamma'] * since
      drop += p['B'] * d * (1 - (1 + x) ** -p['beta'])
    elif name == 'Functional':
      x = p['c4'] * (s[t] - s[k])
      source = p['c3'] + s[k] ** -p['alpha']
      drop += p['c2'] * d * source * (1 - (1 + x) ** -p['gamma'])
    elif name == 'LossDrop':
      drop += p['B'] * d
    else:
      x = p['C'] / 1e4 * max(e[k], 1e-9) ** -p['g'] * since
      middle = 0.5 * (s[k - 1] + s[k - 1]) / 1e4
      source = p['w'] + (1 - p['w']) * middle ** -p['a']
      d = e[k - 1] ** p['q'] - e[k] ** p['q']
      drop += p['K'] * d * source * (1 - (1 + x) ** -p['b'])
  power = p['a'] if name == 'Concave' else p['alpha']
  total = s[t] / 1e4 if name == 'Concave' else s[t]
  return p['L0'] + p['A'] * total**-power - drop


@every
@pytest.mark.parametrize('kind', ['constant', 'linear', 'cosine', 'stair'])
@pytest.mark.parametrize('warmup', ['true_sum', 'whole', 'at_peak'])
def test_the_sum_over_updates(name, kind, warmup):
  lrs = lrs_of(kind)
  predicted = LAWS[name].predict(
    PARAMS[name], lrs, AT, warmup_steps=WARMUP, warmup=warmup, peak_lr=PEAK
  )
  expected = [as_printed(name, PARAMS[name], lrs, t, warmup) for t in AT]
  np.testing.assert_allclose(predicted, expected, rtol=1e-9)


@every
@pytest.mark.parametrize('kind', ['linear', 'cosine', 'stair'])
def test_stretches_are_nearly_exact(name, kind):
  """What fits use: joined changes, to 1e-4 nats of every change by itself."""
  law, lrs = LAWS[name], lrs_of(kind, 4000)
  at = np.arange(100, 4000, 100)
  unit = PEAK if law.relative else 1.0
  path = lambda tolerance: path_of(
    lrs,
    at,
    warmup_steps=WARMUP,
    reference_lr=unit,
    tolerance=tolerance * PEAK / unit,
  )
  joined, exact = path(2e-3), path(0.0)
  if kind == 'cosine':
    assert len(joined.before) < 0.2 * len(exact.before)
  params = {k: float(v) for k, v in PARAMS[name].items()}
  with jax.enable_x64(True):
    a, b = (np.asarray(law.at(params, p)) for p in (joined, exact))
  np.testing.assert_allclose(a, b, atol=1e-4)


@every
def test_a_constant_lr_drops_nothing(name):
  params, lrs = PARAMS[name], lrs_of('constant')
  law = LAWS[name]
  scale = {'Annealing': 'C', 'MultiPower': 'B', 'Functional': 'c2'}
  without = {**params, scale.get(name, 'K' if name == 'Concave' else 'B'): 1e-9}
  at = dict(warmup_steps=WARMUP, peak_lr=PEAK)
  np.testing.assert_allclose(
    law.predict(params, lrs, AT, **at), law.predict(without, lrs, AT, **at)
  )


@every
def test_updates_at_a_rate_of_0_change_nothing_but_under_annealing(name):
  """The kernel of Annealing counts steps, those of the others LR."""
  lrs = np.concatenate([lrs_of('linear'), np.zeros(200)])
  at = np.asarray([400, 450, 599])
  values = LAWS[name].predict(
    PARAMS[name], lrs, at, warmup_steps=WARMUP, peak_lr=PEAK
  )
  if name == 'Annealing':
    assert np.all(np.diff(values) < -1e-6)
  else:
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_half_the_lr_for_twice_the_steps_is_the_same_to_functional_alone():
  params = PARAMS['Functional']
  lrs = lrs_of('stair')
  predict = lambda name, params, lrs, at, w: LAWS[name].predict(
    params, lrs, at, warmup_steps=w
  )
  slow = np.repeat(lrs / 2, 2)
  fast_loss = predict('Functional', params, lrs, [399], WARMUP)
  slow_loss = predict(
    'Functional', {**params, 'c2': 2 * params['c2']}, slow, [799], 2 * WARMUP
  )
  # c2 is per unit of LR drop, which has halved. S(k) includes update k, which
  # is half as much: a part in 10^4 here.
  np.testing.assert_allclose(slow_loss, fast_loss, rtol=1e-4)


def test_parameters_and_arguments_are_checked():
  law, lrs = LAWS['LossDrop'], lrs_of('constant')
  with pytest.raises(
    ValueError, match='LossDrop: params must be L0, A, alpha, B'
  ):
    law.predict(dict(L0=1.0), lrs, [5])
  with pytest.raises(ValueError, match='LossDrop: A must be finite, got nan'):
    law.predict({**PARAMS['LossDrop'], 'A': np.nan}, lrs, [5])
  with pytest.raises(ValueError, match=r'at_steps must be in 0\.\.399'):
    law.predict(PARAMS['LossDrop'], lrs, np.asarray([400]))
  with pytest.raises(ValueError, match='peak_lr must be given to Concave'):
    LAWS['Concave'].predict(PARAMS['Concave'], lrs, [5])


CURVES = os.environ.get('LRSCHED_CURVES')
# L0, A, alpha, B, C, beta, gamma, and mean R2, MAE, RMSE, PredE, WorstE over
# the six test curves, as the authors' code and its README have them.
PUBLISHED = {
  'mpl_25M': (
    (
      *(3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812),
      *(0.58279013, 0.64142257),
    ),
    (0.9988, 0.00376, 0.00465, 0.00110, 0.00409),
  ),
  'mpl_100M': (
    (
      *(2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612),
      *(0.59785199, 0.65523644),
    ),
    (0.9983, 0.00435, 0.00592, 0.00142, 0.00583),
  ),
}


@pytest.mark.skipif(not CURVES, reason='LRSCHED_CURVES names no curves')
@pytest.mark.parametrize('group', PUBLISHED)
def test_published_multi_power_parameters_give_the_published_metrics(group):
  """With the warmup as there, `linspace(0, peak, 2160)`, and counted whole."""
  values, published = PUBLISHED[group]
  folder = pathlib.Path(CURVES)
  tests = json.loads((folder / 'protocol.json').read_text())
  found = []
  for path in tests['groups'][group]['test']:
    curve = laws.Curve.from_csv((folder / path).read_text(), name=path)
    lrs = curve.lr_of_updates()
    lrs[:2160] = np.linspace(0, curve.peak_lr, 2160)
    y = curve.losses[curve.measured]
    law = laws.MultiPower()
    predicted = law.predict(
      dict(zip(law.names(), values, strict=True)),
      lrs,
      curve.steps[curve.measured],
      warmup_steps=2160,
      warmup='whole',
    )
    e = y - predicted
    r2 = 1 - np.sum(e**2) / np.sum((y - y.mean()) ** 2)
    relative = np.abs(e) / y
    row = (r2, np.abs(e).mean(), np.sqrt(np.mean(e**2)))
    found.append((*row, relative.mean(), relative.max()))
  np.testing.assert_allclose(np.mean(found, 0), published, atol=5.1e-6 * 10)
  np.testing.assert_allclose(np.mean(found, 0)[1:], published[1:], atol=5.1e-6)


def test_a_schedule_is_a_curve_of_lrs():
  spec = lrsched.WSD(
    peak_lr=PEAK, warmup_steps=WARMUP, stable_steps=180, decay_steps=200
  )
  law, params = LAWS['LossDrop'], PARAMS['LossDrop']
  lrs = np.asarray(spec(np.arange(TOTAL)), np.float64)
  end = law.predict(params, lrs, [399], warmup_steps=WARMUP)
  stable = law.predict(params, lrs, [199], warmup_steps=WARMUP)
  assert end < stable


def test_the_annealing_law_of_all_sizes_is_that_of_each():
  """The law of Tissue et al. with their fitted numbers, N in millions."""
  law = laws.AnnealingOfSize()
  params = {
    'L0': 1.504,
    'A': 0.440,
    'alpha': 0.546,
    'B': 3.067,
    'beta': 0.158,
    'C': 0.273,
    'gamma': 0.052,
    'lam': 0.999,
  }
  lrs = 2e-4 * np.r_[np.ones(2000), np.linspace(1, 0.1, 1000)]
  at = [1999, 2500, 2999]
  found = law.predict(params, lrs, at, n_params=594.0)
  momentum, total, s2 = 0.0, 0.0, []
  for drop in np.r_[0.0, lrs[:-1] - lrs[1:]]:
    momentum = 0.999 * momentum + drop
    total += momentum
    s2.append(total)
  s1 = np.cumsum(lrs)[at]
  expected = 1.504 + 0.440 * s1**-0.546 + 3.067 * 594**-0.158
  expected -= 0.273 * 594**0.052 * np.asarray(s2)[at]
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  one = laws.Annealing().predict(law.at_size(params, 594.0), lrs, at)
  np.testing.assert_allclose(one, expected, rtol=1e-9)
  with pytest.raises(ValueError, match='n_params must be given'):
    law.predict(params, lrs, at)


def test_a_fit_over_sizes_forecasts_another_size():
  law = laws.AnnealingOfSize()
  params = {
    'L0': 1.6,
    'A': 0.4,
    'alpha': 0.5,
    'B': 3.0,
    'beta': 0.16,
    'C': 0.3,
    'gamma': 0.05,
    'lam': 0.998,
  }
  n = 3000
  shapes = {
    'constant': np.full(n, 1e-3),
    'linear': 1e-3 * np.r_[np.ones(2000), np.linspace(1, 0, 1000)],
  }
  at = np.arange(199, n, 100)

  def curve(shape, size):
    lrs = shapes[shape]
    losses = np.full(n, np.nan)
    losses[at] = law.predict(params, lrs, at, n_params=size)
    return laws.Curve(
      steps=np.arange(n),
      lrs=lrs,
      losses=losses,
      warmup_steps=0,
      name=f'{shape} {size}',
      n_params=size,
    )

  sizes = (25.0, 50.0, 100.0, 200.0)
  fit = laws.fit(law, [curve(s, x) for s in shapes for x in sizes])
  unseen = curve('linear', 400.0)
  forecast = fit.forecast(unseen)
  truth = unseen.losses[unseen.measured]
  # The size terms are extrapolated by a factor of 2 from exact curves.
  np.testing.assert_allclose(forecast.mean, truth, rtol=2e-3)
  assert laws.Fit.from_dict(fit.to_dict()).params == fit.params
