"""The library in somebody else's trainer: the how-to's plain optax loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched

TRUNK = lrsched.WSD(
  peak_lr=0.1, warmup_steps=5, stable_steps=35, decay_steps=10
)


def train(params, state, schedule, start, stop):
  """Minimises |params - target_t|^2 with Adam; returns the LRs it applied."""
  tx = optax.chain(optax.scale_by_adam(), lrsched.scale_by_lr(schedule))
  state = tx.init(params) if state is None else state
  lrs = []
  for t in range(start, stop):
    grads = params - jnp.sin(jnp.arange(3.0) + t)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    lrs.append(float(lrsched.applied_lr(state)))
  return params, state, lrs


def test_a_branched_decay_is_the_run_that_had_it_from_the_start():
  params, state, _ = train(jnp.zeros(3), None, TRUNK, 0, 20)
  saved = lrsched.to_json(TRUNK)
  plan = lrsched.plan_restore(
    lrsched.from_json(saved), 20, TRUNK.decay_from(20, 8), 'branch'
  )
  assert plan.diff == (
    'schedule.stable_steps: 35 -> 15',
    'schedule.decay_steps: 10 -> 8',
    'LR of update 20: 0.1 -> 0.1',
    'phase of update 20: stable -> decay',
    'schedule ends: at step 50 -> at step 28',
  )
  branched, _, lrs = train(params, state, plan.spec, plan.step, 28)
  whole, _, all_lrs = train(jnp.zeros(3), None, TRUNK.decay_from(20, 8), 0, 28)
  np.testing.assert_array_equal(branched, whole)
  assert lrs == all_lrs[20:]
  assert lrs[-1] == pytest.approx(0.1 / 8)


def test_a_restored_state_cannot_bring_an_old_peak_back():
  """With optax.inject_hyperparams the LR of the checkpoint would be used."""
  params, state, _ = train(jnp.zeros(3), None, TRUNK, 0, 20)
  lower = dataclasses.replace(TRUNK, peak_lr=0.01)
  plan = lrsched.plan_restore(TRUNK, 20, lower, 'replace')
  _, _, lrs = train(params, state, plan.spec, plan.step, 22)
  np.testing.assert_allclose(lrs, [0.01, 0.01], rtol=1e-6)


def test_a_lr_curve_survives_a_restart():
  _, _, whole = train(jnp.zeros(3), None, TRUNK, 0, 50)
  params, state, first = train(jnp.zeros(3), None, TRUNK, 0, 42)
  restored = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state)
  _, _, second = train(params, restored, TRUNK, 42, 50)
  assert first + second == whole
