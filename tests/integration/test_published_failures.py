"""Failures of restores that users of other systems reported, one test each.

A name is the project and the number of its issue. Each test does what the
reporter did, in a plain optax loop with a state saved in the middle.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched

PARAMS = {'w': jnp.array([1.0, -2.0, 3.0]), 'bias': jnp.array([0.5])}
WSD = lrsched.WSD(
  peak_lr=3e-4, final_lr=3e-5, warmup_steps=4, stable_steps=20, decay_steps=6
)


def chain(schedule):
  return optax.chain(
    optax.scale_by_adam(),
    optax.add_decayed_weights(0.1),
    lrsched.scale_by_lr(schedule),
  )


def gradient(params):
  return jax.tree.map(lambda x: 2 * x, params)


def train(tx, params, state, n_steps):
  """Updates, and the LR of each, read from the state."""
  lrs = []
  for _ in range(n_steps):
    updates, state = tx.update(gradient(params), state, params)
    params = optax.apply_updates(params, updates)
    lrs.append(float(lrsched.applied_lr(state)))
  return params, state, lrs


@pytest.fixture(scope='module')
def saved():
  """Weights and optimizer state after 10 updates of WSD, as in a file."""
  tx = chain(WSD)
  params, state, _ = train(tx, PARAMS, tx.init(PARAMS), 10)
  return jax.tree.map(np.asarray, (params, state))


def restored(saved, schedule, n_steps=5):
  """What a restore into a loop with another schedule applies."""
  params, state = jax.tree.map(jnp.asarray, saved)
  return train(chain(schedule), params, state, n_steps)


def lrs_of(schedule, steps):
  return [float(schedule(t)) for t in steps]


def test_megatron_963_a_new_peak_is_what_runs(saved):
  asked = dataclasses.replace(WSD, peak_lr=1e-4)
  plan = lrsched.plan_restore(WSD, 10, asked, 'replace')
  assert 'schedule.peak_lr: 0.0003 -> 0.0001' in plan.diff
  _, _, lrs = restored(saved, plan.spec)
  assert lrs == pytest.approx([1e-4] * 5)


def test_megatron_1138_groups_bring_no_old_bounds_back():
  def grouped(peak_lr):
    base = dataclasses.replace(WSD, peak_lr=peak_lr)
    fast = lrsched.Scaled(schedule=base, factor=2.0)
    return lrsched.scale_by_group_lr({'bias': fast, '.*': base})

  tx = grouped(3e-4)
  state = tx.init(PARAMS)
  for _ in range(10):
    _, state = tx.update(PARAMS, state)
  _, state = grouped(1e-4).update(PARAMS, state)
  lrs = {p: float(lr) for p, lr in lrsched.applied_lrs(state).items()}
  assert lrs == pytest.approx({'bias': 2e-4, '.*': 1e-4})


def test_megatron_1284_old_and_new_values_are_not_mixed(saved):
  asked = lrsched.Cosine(peak_lr=1e-3, final_lr=1e-5, total_steps=40)
  _, _, lrs = restored(saved, asked)
  # Not the old peak with the new end, or the new shape from the old value.
  t = np.arange(10, 15)
  cosine = 1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * t / 40)) / 2
  assert lrs == pytest.approx(cosine, rel=1e-5)


def test_megatron_1533_without_the_optimizer_the_lr_does_not_restart(saved):
  params = jax.tree.map(jnp.asarray, saved[0])
  plan = lrsched.plan_restore(WSD, 10, WSD, 'branch', 'no_optimizer')
  tx = chain(plan.spec)
  state = lrsched.at_step(tx.init(params), plan.step)
  _, state, lrs = train(tx, params, state, 3)
  assert lrs == pytest.approx([3e-4] * 3)
  assert int(lrsched.steps_done(state)) == 13
  assert any('begins anew' in line for line in plan.diff)
  # Without a warmup that is risky for a cold optimizer, and it is said.
  assert any('without a warmup' in line for line in plan.diff)


def test_megatron_7173_an_override_leaves_other_groups_alone():
  head = lrsched.Constant(lr=7e-4)
  for base in (WSD, dataclasses.replace(WSD, peak_lr=5e-5)):
    tx = lrsched.scale_by_group_lr({'bias': head, '.*': base})
    _, state = tx.update(PARAMS, lrsched.at_step(tx.init(PARAMS), 10))
    assert float(lrsched.applied_lrs(state)['bias']) == pytest.approx(7e-4)


def test_megatron_7468_the_first_update_has_the_right_weight_decay(saved):
  tx = chain(WSD)
  whole, _, _ = train(tx, PARAMS, tx.init(PARAMS), 11)
  first, _, _ = restored(saved, WSD, n_steps=1)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(first), strict=True):
    np.testing.assert_array_equal(a, b)


def test_megatron_bridge_2609_a_ramp_finishes_its_decay():
  ramped = lrsched.Ramped(schedule=WSD, boundaries=(8,), batch_sizes=(4, 8))
  # Four full batches take eight updates; the last LR is that of the schedule.
  assert ramped.end_step == 34
  assert float(ramped(33)) == pytest.approx(float(WSD(29)), rel=1e-6)
  assert float(ramped(34)) == pytest.approx(3e-5, rel=1e-6)


@pytest.mark.parametrize('number', [27749, 34053, 9099])
def test_transformers_the_lr_goes_on_where_it_was(saved, number):
  del number  # one failure, reported three times
  _, _, lrs = restored(saved, WSD, n_steps=20)
  assert lrs == pytest.approx(lrs_of(WSD, range(10, 30)), rel=1e-6)


def test_transformers_23099_another_lr_can_be_asked_for_and_is_shown(saved):
  asked = lrsched.Constant(lr=5e-5)
  with pytest.raises(ValueError, match="use 'replace' to change it") as error:
    lrsched.plan_restore(WSD, 10, asked, 'resume')
  assert 'LR of update 10: 0.0003 -> 5e-05' in str(error.value)
  plan = lrsched.plan_restore(WSD, 10, asked, 'replace')
  assert restored(saved, plan.spec)[2] == pytest.approx([5e-5] * 5)


def test_transformers_33336_the_lr_is_not_stuck_at_zero():
  ended = lrsched.Linear(peak_lr=1e-3, total_steps=10)
  shorter = dataclasses.replace(ended, total_steps=8)
  with pytest.raises(ValueError, match='ends at step 8, but the checkpoint'):
    lrsched.plan_restore(ended, 10, shorter, 'replace')
  longer = dataclasses.replace(ended, total_steps=20)
  plan = lrsched.plan_restore(ended, 10, longer, 'replace')
  assert float(plan.spec(plan.step)) == pytest.approx(5e-4)


@pytest.mark.parametrize('last_epoch', [0, 3, 4, 5, 11])
def test_torch_162591_a_sequence_is_right_from_any_step(last_epoch):
  sequence = lrsched.Sequence(
    schedules=(
      lrsched.Linear(peak_lr=1.0, final_lr=0.5, total_steps=4),
      lrsched.Linear(peak_lr=0.5, total_steps=10),
    ),
    boundaries=(4,),
  )
  tx = lrsched.scale_by_lr(sequence)
  state = lrsched.at_step(tx.init(PARAMS), last_epoch)
  _, state = tx.update(PARAMS, state)
  if last_epoch < 4:
    expected = 1 - last_epoch / 8
  else:
    expected = 0.5 - (last_epoch - 4) / 20
  assert float(lrsched.applied_lr(state)) == pytest.approx(expected, rel=1e-6)


def test_torch_171515_a_milestone_at_0_is_an_error_that_says_so():
  constant = lrsched.Constant(lr=1.0)
  with pytest.raises(ValueError, match=r'Sequence.boundaries.*0'):
    lrsched.Sequence(schedules=(constant, constant), boundaries=(0,))


def test_torch_185872_a_sequence_in_a_sequence_keeps_its_place(saved):
  inner = lrsched.Sequence(
    schedules=(lrsched.Constant(lr=1e-3), lrsched.Constant(lr=2e-3)),
    boundaries=(6,),
  )
  outer = lrsched.Sequence(
    schedules=(lrsched.Constant(lr=5e-4), inner), boundaries=(6,)
  )
  _, _, lrs = restored(saved, outer)
  assert lrs == pytest.approx([1e-3, 1e-3, 2e-3, 2e-3, 2e-3])


def test_pith_train_55_another_list_of_phases_is_refused_with_the_diff():
  two = lrsched.Sequence(
    schedules=(lrsched.Constant(lr=1e-3), lrsched.Constant(lr=1e-4)),
    boundaries=(8,),
  )
  three = lrsched.Sequence(
    schedules=(*two.schedules, lrsched.Constant(lr=1e-5)), boundaries=(8, 20)
  )
  with pytest.raises(ValueError, match='differs from the checkpoint') as error:
    lrsched.plan_restore(two, 10, three, 'resume')
  assert 'boundaries' in str(error.value)


def test_slime_1775_the_schedule_is_not_moved_on_twice(saved):
  plan = lrsched.plan_restore(WSD, 10, WSD, 'resume')
  _, state, lrs = restored(saved, plan.spec, n_steps=1)
  assert (plan.step, int(lrsched.steps_done(state))) == (10, 11)
  assert lrs == pytest.approx(lrs_of(WSD, [10]))


def test_verl_7953_the_warmup_is_not_run_again(saved):
  _, _, lrs = restored(saved, WSD, n_steps=1)
  assert lrs[0] == pytest.approx(3e-4)
  assert lrs[0] > float(WSD(0))


def test_nanotron_233_the_peak_is_not_the_last_lr_of_the_old_run():
  decayed = WSD.decay_from(4, 6)
  rewarmed = lrsched.Rewarm(
    before=decayed,
    rewarm_step=10,
    warmup_steps=2,
    after=lrsched.Linear(peak_lr=3e-4, total_steps=10),
  )
  plan = lrsched.plan_restore(decayed, 10, rewarmed, 'branch')
  assert lrs_of(plan.spec, (9, 10, 11, 12)) == pytest.approx(
    [float(decayed(9)), 3e-5 + 2.7e-4 / 2, 3e-4, 3e-4], rel=1e-5
  )


def test_kohya_1653_a_decay_goes_on_from_its_lr(saved):
  decaying = WSD.decay_from(6, 12)
  _, _, lrs = restored(saved, decaying)
  expected = 3e-4 - (3e-4 - 3e-5) * (np.arange(10, 15) - 6) / 12
  assert lrs == pytest.approx(expected, rel=1e-5)


def test_composer_1384_a_finished_run_can_be_made_longer(saved):
  done = lrsched.Cosine(peak_lr=1e-3, total_steps=10)
  assert float(done(10)) == 0
  longer = dataclasses.replace(done, total_steps=20)
  plan = lrsched.plan_restore(done, 10, longer, 'replace')
  assert 'schedule ends: at step 10 -> at step 20' in plan.diff
  _, _, lrs = restored(saved, plan.spec)
  assert min(lrs) > 0


def test_optax_1036_the_step_is_in_the_state(saved):
  _, state = saved
  assert int(lrsched.steps_done(state)) == 10
  with pytest.raises(ValueError, match='end the optax chain with one'):
    lrsched.steps_done(optax.adam(1e-3).init(PARAMS))


def test_marin_1922_a_reset_state_fits_whatever_the_optimizer_was(saved):
  params = jax.tree.map(jnp.asarray, saved[0])
  tx = optax.chain(optax.scale_by_lion(), lrsched.scale_by_lr(WSD))
  state = lrsched.at_step(tx.init(params), 10)
  _, _, lrs = train(tx, params, state, 2)
  assert lrs == pytest.approx([3e-4] * 2)
