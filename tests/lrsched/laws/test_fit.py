"""Fits: known curves are forecast, parameters found again, the rest refused."""

import dataclasses

import numpy as np
import pytest

import lrsched
from lrsched import laws

PEAK, WARMUP = 1e-3, 100
TRUE = {
  'Annealing': dict(L0=2.6, A=0.35, alpha=0.5, C=0.6, lam=0.998),
  'MultiPower': dict(
    L0=2.6, A=0.35, alpha=0.5, B=250.0, C=0.008, beta=0.5, gamma=0.5
  ),
  'Functional': dict(
    L0=2.6, A=0.35, alpha=0.5, c2=100.0, c3=0.8, c4=40.0, gamma=0.6
  ),
  'LossDrop': dict(L0=2.6, A=0.35, alpha=0.5, B=250.0),
  'Concave': dict(
    L0=2.6, A=0.1, a=0.45, K=0.25, w=0.75, C=800.0, b=0.4, g=0.0, q=0.7
  ),
}


def schedule(kind, total):
  decay = {
    'constant': lrsched.Constant(lr=PEAK),
    'cosine': lrsched.Cosine(
      peak_lr=PEAK, final_lr=PEAK / 10, total_steps=total - WARMUP
    ),
    'linear': lrsched.WSD(
      peak_lr=PEAK,
      warmup_steps=0,
      stable_steps=total - WARMUP - total // 5,
      decay_steps=total // 5,
    ),
    'stair': lrsched.Step(
      peak_lr=PEAK, boundaries=(total // 2,), factors=(0.3,)
    ),
  }[kind]
  return lrsched.Warmup(schedule=decay, warmup_steps=WARMUP)


def curve(law, params, kind, total, noise=0.0, seed=0):
  lrs = np.asarray(schedule(kind, total)(np.arange(total)), np.float64)
  at = np.arange(199, total, 100)
  losses = law.predict(params, lrs, at, warmup_steps=WARMUP, peak_lr=PEAK)
  losses *= np.exp(noise * np.random.default_rng(seed).normal(size=len(at)))
  column = np.full(total, np.nan)
  column[at] = losses
  return laws.Curve(
    steps=np.arange(total),
    lrs=lrs,
    losses=column,
    warmup_steps=WARMUP,
    name=kind,
  )


KINDS = (('constant', 6000), ('cosine', 4000), ('stair', 4000))


@pytest.mark.parametrize('name', TRUE)
def test_a_forecast_from_exact_curves_is_exact(name):
  """Of a schedule and a length that were not fitted, to 2e-3 nats.

  The parameters themselves need not be found again: kernels have valleys.
  """
  law = getattr(laws, name)()
  fitted = laws.fit(law, [curve(law, TRUE[name], *k) for k in KINDS])
  unseen = curve(law, TRUE[name], 'linear', 8000)
  forecast = fitted.forecast(unseen)
  np.testing.assert_allclose(
    forecast.mean, unseen.losses[unseen.measured], atol=2e-3
  )
  assert fitted.params['L0'] == pytest.approx(2.6, abs=0.03)


def test_identified_parameters_are_found_again():
  law = laws.LossDrop()
  fitted = laws.fit(law, [curve(law, TRUE['LossDrop'], *k) for k in KINDS])
  for name, value in TRUE['LossDrop'].items():
    assert fitted.params[name] == pytest.approx(value, rel=1e-3), name
  assert fitted.verdict == ()


def test_an_interval_covers_what_noise_does():
  """0.88 was measured; 8 fits x 59 points that share a fit give it +- 0.05."""
  law, params = laws.LossDrop(), TRUE['LossDrop']
  noisy = lambda kind, seed: curve(law, params, *kind, noise=2e-3, seed=seed)
  inside = []
  for seed in range(8):
    curves = [noisy(k, 10 * seed + i) for i, k in enumerate(KINDS)]
    fitted = laws.fit(law, curves)
    unseen = noisy(('linear', 6000), 100 + seed)
    y, f = unseen.losses[unseen.measured], fitted.forecast(unseen)
    inside.append(np.mean((f.low <= y) & (y <= f.high)))
  assert 0.8 <= np.mean(inside) <= 0.96


def test_auto_forecasts_from_one_constant_curve_and_says_what_it_is_worth():
  law, params = laws.Concave(), TRUE['Concave']
  alone = laws.auto([curve(law, params, 'constant', 6000)])
  assert any('prior alone' in line for line in alone.verdict)
  two = laws.auto([curve(law, params, *k) for k in KINDS[:2]])
  unseen = curve(law, params, 'linear', 6000)
  width = lambda f: float(f.high[-1] - f.low[-1])
  wide, narrow = alone.forecast(unseen), two.forecast(unseen)
  assert width(wide) > 1.5 * width(narrow)
  end = unseen.losses[unseen.measured][-1]
  assert wide.low[-1] <= end <= wide.high[-1]
  assert narrow.mean[-1] == pytest.approx(end, abs=6e-3)


def test_a_schedule_is_forecast_to_its_end():
  law, params = laws.LossDrop(), TRUE['LossDrop']
  fitted = laws.fit(law, [curve(law, params, *k) for k in KINDS])
  spec = schedule('linear', 5000)
  forecast = fitted.forecast(spec)
  assert forecast.steps[-1] == 4999
  direct = fitted.forecast(np.asarray(spec(np.arange(5000)), np.float64))
  np.testing.assert_allclose(forecast.mean[-1], direct.mean[-1], rtol=1e-6)
  with pytest.raises(ValueError, match='total_steps must be given: Warmup'):
    fitted.forecast(schedule('constant', 5000))


def refused():
  law, params = laws.LossDrop(), TRUE['LossDrop']
  good = [curve(law, params, *k) for k in KINDS]
  other_peak = laws.Curve(
    steps=good[0].steps,
    lrs=2 * good[0].lrs,
    losses=good[0].losses,
    warmup_steps=WARMUP,
    name='twice',
  )
  other_model = laws.Curve(
    steps=good[1].steps,
    lrs=good[1].lrs,
    losses=good[1].losses * 1.3,
    warmup_steps=WARMUP,
    name='other',
  )
  short = laws.Curve(
    steps=good[0].steps[:400],
    lrs=good[0].lrs[:400],
    losses=good[0].losses[:400],
    warmup_steps=WARMUP,
    name='short',
  )
  return [
    ([], 'curves must hold at least one'),
    ([good[0], other_peak], 'curves must have one peak LR, got 0.001 in'),
    ([good[0]], 'no curve decays its LR'),
    ([short], 'LossDrop needs 6 losses after the warmup'),
    ([good[0], other_model], 'they contradict each other'),
  ]


@pytest.mark.parametrize('case', range(5))
def test_curves_that_cannot_be_fitted_are_refused(case):
  curves, message = refused()[case]
  with pytest.raises(ValueError, match=message):
    laws.fit(laws.LossDrop(), curves)


def test_forecasts_outside_the_evidence_are_refused():
  law, params = laws.LossDrop(), TRUE['LossDrop']
  fitted = laws.fit(law, [curve(law, params, *k) for k in KINDS])
  lrs = np.asarray(schedule('linear', 5000)(np.arange(5000)), np.float64)
  with pytest.raises(
    ValueError, match=r'peak LR must be .* 0\.001, got 0\.002'
  ):
    fitted.forecast(2 * lrs)
  halves = np.where(np.arange(len(lrs)) < 2000, 0.5, 1.0) * lrs[WARMUP]
  with pytest.raises(ValueError, match=r'rise above 0\.0005, .* update 2000'):
    fitted.forecast(halves, warmup_steps=WARMUP)


def test_a_rise_that_no_fitted_curve_has_widens_the_interval():
  law, params = laws.LossDrop(), TRUE['LossDrop']
  curves = [curve(law, params, *k) for k in KINDS]
  fitted = laws.fit(law, curves)
  lrs = np.asarray(schedule('linear', 5000)(np.arange(5000)), np.float64)
  rewarmed, at = np.concatenate([lrs, lrs]), np.asarray([4999, 9000])
  forecast = fitted.forecast(rewarmed, at, warmup_steps=WARMUP)
  width = np.log(forecast.high / forecast.low)
  assert width[0] < 0.01 < 2 * 1.64 * 0.01 < width[1]
  known = dataclasses.replace(fitted, has_rises=True)
  forecast = known.forecast(rewarmed, at, warmup_steps=WARMUP)
  assert np.log(forecast.high / forecast.low)[1] < 0.01


def test_pooling_finds_the_shared_kernel():
  """Two data sets of one kernel and their own L0, A, a and K."""
  law, kernel = laws.Concave(), TRUE['Concave']
  other = {**kernel, 'L0': 3.0, 'A': 0.2, 'a': 0.5, 'K': 0.2}
  kinds = (*KINDS, ('linear', 5000))
  sets = {
    name: [curve(law, params, *k, noise=1e-4) for k in kinds]
    for name, params in (('a', kernel), ('b', other))
  }
  pooled = laws.pool(sets)
  found = dict(zip(('w', 'C', 'b', 'g', 'q'), pooled.kernel, strict=True))
  assert found['q'] == pytest.approx(0.7, abs=0.03)
  assert found['w'] == pytest.approx(0.75, abs=0.05)
  assert pooled.model_error < 1e-3
  assert pooled.sources == ('a', 'b')
  with pytest.raises(ValueError, match='pool needs two data sets'):
    laws.pool({'a': sets['a']})
