"""What the interval of a gain is worth, on draws and on measured curves."""

import dataclasses
import itertools
import os
import pathlib

import jax
import numpy as np
import pytest

from experiments.protocol import read_groups
from lrsched import laws
from lrsched.laws.design import optimize_schedule
from lrsched.laws.ends import start_of
from lrsched.laws.ends import warmed_up
from lrsched.laws.fitted import Z90
from lrsched.laws.path import path_of
from lrsched.laws.problem import losses_and_slopes
from lrsched.laws.problem import to_params
from lrsched.laws.problem import to_z
from lrsched.laws.search import Search
from lrsched.laws.search import end_and_slopes
from lrsched.laws.search import grid_of

TOTAL, WARMUP, PEAK = 24000, 2160, 3e-4
PARAMS = dict(
  L0=2.65, A=0.35, a=0.45, K=0.2, w=0.725, C=1012.0, b=0.4, g=0.0, q=0.66
)


@pytest.mark.slow
def test_the_interval_of_a_gain_is_of_the_difference():
  """Truths drawn from the covariance are inside it, 90 in 100.

  1,000 draws give 0.90 +- 0.01; the law is nearly linear in such small errors.
  """
  law = laws.Concave()
  z = to_z(law, PARAMS)
  sd = 0.01 * np.asarray([1, 1, 0.5, 1, 1, 3, 1, 0, 1])
  fit = dataclasses.replace(
    laws.Fit.given(law, PARAMS, peak_lr=PEAK),
    covariance=np.diag(sd**2),
    model_error=0.0,
  )
  design = optimize_schedule(fit, TOTAL, PEAK, warmup_steps=WARMUP)
  search = Search(
    fit=fit,
    start=start_of(fit, warmed_up(TOTAL, PEAK, WARMUP)),
    grid=grid_of(WARMUP, TOTAL),
    peak_lr=1.0,
    final_lr=0.0,
  )
  nodes = search.grid.nodes.astype(int)
  end = lambda search, lrs: end_and_slopes(search, lrs[nodes] / PEAK)[0]
  rng = np.random.default_rng(0)
  lrs = np.asarray(design.schedule.lrs)
  for gain in (design.gain_over_cosine, design.gain_over_wsd):
    over, _ = laws.lr_of_updates(gain.over)
    inside = []
    for noise in rng.normal(size=(1000, len(z))):
      drawn = to_params(law, z + sd * noise)
      truth = search._replace(fit=dataclasses.replace(fit, params=drawn))
      nats = end(truth, over) - end(truth, lrs)
      inside.append(gain.low <= nats <= gain.high)
    assert 0.87 <= np.mean(inside) <= 0.93
    # The errors are shared: each loss alone is much less certain.
    assert gain.high - gain.low < 0.3 * (design.high - design.low)
  allowed = dataclasses.replace(fit, model_error=2e-3)
  wider = optimize_schedule(allowed, TOTAL, PEAK, warmup_steps=WARMUP)
  half = 0.5 * (wider.gain_over_wsd.high - wider.gain_over_wsd.low)
  half_before = 0.5 * (design.gain_over_wsd.high - design.gain_over_wsd.low)
  assert half**2 - half_before**2 == pytest.approx(
    (Z90 * 2e-3 * design.loss) ** 2, rel=1e-6
  )


CURVES = os.environ.get('LRSCHED_CURVES')


@pytest.mark.slow
@pytest.mark.skipif(not CURVES, reason='LRSCHED_CURVES names no curves')
def test_differences_of_measured_ends_are_inside():
  """Of curves of one length, with both their noises: 100 of 112 at least.

  108 are with priors from which the source of the curves is left out.
  """
  inside = []
  for group in read_groups(pathlib.Path(CURVES) / 'protocol.json'):
    fit = laws.auto(group.fit)
    errors, slopes = [], []
    for curve in group.test:
      last = curve.steps[curve.measured][-1:]
      z, unit = to_z(fit.law, fit.params), fit.peak_lr
      path = path_of(
        curve.lr_of_updates(),
        last,
        warmup_steps=curve.warmup_steps,
        reference_lr=unit,
        tolerance=1e-3,
      )
      with jax.enable_x64(True):
        mean, slope = losses_and_slopes(fit.law, z, path)
      errors.append(np.log(curve.losses[curve.measured][-1] / float(mean[0])))
      slopes.append(np.asarray(slope[0]) / float(mean[0]))
    for i, j in itertools.combinations(range(len(errors)), 2):
      ends = [group.test[k].steps[group.test[k].measured][-1] for k in (i, j)]
      if abs(ends[0] / ends[1] - 1) < 0.03:
        along = slopes[i] - slopes[j]
        variance = along @ fit.covariance @ along
        variance += fit.model_error**2 + 2 * fit.noise**2
        inside.append(abs(errors[i] - errors[j]) < Z90 * np.sqrt(variance))
  assert len(inside) == 112
  assert np.sum(inside) >= 100
