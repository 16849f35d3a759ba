"""The benchmark covers every kind and compares what it says."""

from __future__ import annotations

import json
import time

import jax
import jax.numpy as jnp
import numpy as np

import lrsched
from benchmarks import schedule_cost


def test_every_public_kind_is_measured_once():
  public = [
    name
    for name, found in vars(lrsched).items()
    if isinstance(found, type)
    and issubclass(found, lrsched.Schedule)
    and found is not lrsched.Schedule
  ]
  measured = [type(s).__name__ for s in schedule_cost.kinds(1000)]
  assert sorted(measured) == sorted(public)


def test_the_kinds_are_those_of_a_run_of_that_length():
  for spec in schedule_cost.kinds(100):
    lrs = np.asarray(schedule_cost.our_lrs(spec, 100)())
    assert np.isfinite(lrs).all()
    assert lrs.max() > 0


def test_both_arms_compute_the_same():
  spec = lrsched.Cosine(peak_lr=schedule_cost.PEAK_LR, total_steps=100)
  ours = schedule_cost.our_lrs(spec, 100)()
  theirs = schedule_cost.optax_lrs(100)()
  # optax's cosine has rounding errors of float32 at 1, ours of each LR.
  atol = 1e-6 * schedule_cost.PEAK_LR
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
  ours, theirs = (
    np.asarray(updates())
    for updates in (
      schedule_cost.our_updates(spec),
      schedule_cost.optax_updates(100),
    )
  )
  assert (ours < 0).all()  # the gradient is 1
  # Rounding makes 1e-7; one update more or less 1e-1.
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_pairs_are_ours_and_theirs_in_alternating_order():
  order = []

  def run(name: str, seconds: float) -> jax.Array:
    order.append(name)
    time.sleep(seconds)
    return jnp.zeros(())

  seconds = schedule_cost.time_pairs(
    lambda: run('ours', 0.01), lambda: run('theirs', 0.0), 4
  )
  assert order[2 * schedule_cost.WARMUP_CALLS :] == [
    *('ours', 'theirs', 'theirs', 'ours'),
    *('ours', 'theirs', 'theirs', 'ours'),
  ]
  assert seconds.shape == (4, 2)
  assert seconds[:, 0].min() >= 0.01 > seconds[:, 1].min()


def test_a_cost_is_of_one_call_and_relative_to_its_pair():
  seconds = np.array([[2.0, 1.0], [6.0, 3.0], [3.0, 1.0]])
  cost = schedule_cost.cost(seconds, calls=10)
  assert cost.seconds == 0.3
  assert cost.more_seconds == 0.2
  assert (cost.ratio.median, cost.ratio.low, cost.ratio.high) == (2, 2, 3)


def test_the_record_has_both_costs_of_every_kind():
  specs = schedule_cost.kinds(100)[:3]
  record = schedule_cost.measure(specs, total_steps=100, pairs=3)
  assert json.loads(json.dumps(record)) == record
  names = ['Constant', 'Linear', 'Cosine']
  assert [*record['costs']] == [schedule_cost.OPTAX_COSINE, *names]
  for row in record['costs'].values():
    for name in ('all_steps_ratio', 'update_ratio'):
      assert 0 < row[name]['low'] <= row[name]['median'] <= row[name]['high']
    assert row['update_us'] > 0
  table = schedule_cost.summary(record).splitlines()
  assert [line.split('  ')[0] for line in table[-4:]] == [*record['costs']]
