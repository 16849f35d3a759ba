"""Decays off a trunk: each is the trunk until it leaves, then its own decay."""

import math

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import lrsched

WSD = lrsched.WSD(
  peak_lr=1.0,
  final_lr=0.1,
  warmup_steps=4,
  stable_steps=40,
  decay_steps=6,
  decay=lrsched.OneMinusSqrt(),
)
INFINITE = lrsched.Infinite(
  peak_lr=1.0,
  const_lr=0.5,
  final_lr=0.1,
  warmup_steps=4,
  cooldown_steps=6,
  const_steps=34,
  anneal_steps=6,
)
REWARM = lrsched.Rewarm(
  before=lrsched.Linear(peak_lr=1.0, total_steps=4),
  rewarm_step=4,
  warmup_steps=3,
  after=lrsched.WSD(
    peak_lr=1.0, warmup_steps=0, stable_steps=37, decay_steps=6
  ),
)
lrs_of = jax.jit(lambda spec: spec(np.arange(70)))
TRUNKS = {'WSD': WSD, 'Infinite': INFINITE, 'Rewarm': REWARM}


@pytest.mark.parametrize('name', TRUNKS)
@hypothesis.settings(max_examples=25)
@hypothesis.given(
  st.lists(st.integers(10, 44), min_size=1, max_size=3, unique=True),
  st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True),
)
def test_a_branch_is_the_trunk_and_then_its_decay(name, steps, lengths):
  trunk = TRUNKS[name]
  of_trunk = lrs_of(lrsched.as_arrays(trunk))
  plan = lrsched.decay_branches(trunk, steps, lengths)
  asked = [(step, length) for step in steps for length in lengths]
  assert [(b.start_step, b.end_step - b.start_step) for b in plan.branches] == (
    asked
  )
  for branch in plan.branches:
    lrs = lrs_of(lrsched.as_arrays(branch.spec))
    start = branch.start_step
    np.testing.assert_array_equal(lrs[:start], of_trunk[:start])
    assert branch.spec.end_step == branch.end_step
    falls = np.diff(lrs[start : branch.end_step + 1])
    assert (falls < 0).all()
    # The trunk's own structure, so its compiled step.
    assert jax.tree.structure(branch.spec) == jax.tree.structure(trunk)
  assert plan.branch_updates == sum(length for _, length in asked)
  assert plan.total_updates == max(steps) + plan.branch_updates
  assert plan.alone_updates == sum(map(sum, asked))


@pytest.mark.parametrize('name', TRUNKS)
@pytest.mark.parametrize('step', [2, 45])
def test_a_decay_starts_neither_in_the_rise_nor_in_the_decay(name, step):
  with pytest.raises(ValueError, match=r'step must be [<>]= '):
    lrsched.decay_branches(TRUNKS[name], (20, step), (5,))


def test_the_steps_of_a_second_phase_are_told_apart():
  with pytest.raises(ValueError, match='>= 7, where the re-warming is over'):
    lrsched.decay_branches(REWARM, (6,), (5,))
  with pytest.raises(
    ValueError, match='after, from step 7 on: step must be <='
  ):
    lrsched.decay_branches(REWARM, (45,), (5,))


@pytest.mark.parametrize(
  'spec',
  [
    lrsched.Constant(lr=1.0),
    lrsched.Cosine(peak_lr=1.0, total_steps=50),
    lrsched.WSDS.of_steps(
      peak_lr=1.0,
      final_lr=0.1,
      warmup_steps=4,
      cycle_ends=(20, 40),
      decay_steps=5,
    ),
  ],
)
def test_other_schedules_say_what_can_be_done(spec):
  name = type(spec).__name__
  with pytest.raises(ValueError, match=f'got {name}; branch with a schedule'):
    lrsched.decay_branches(spec, (10,), (5,))


@pytest.mark.parametrize(
  ('steps', 'lengths', 'message'),
  [
    ((), (5,), r'steps must be one or more, each once, got \(\)'),
    ((10, 10), (5,), 'steps must be one or more'),
    ((10,), (), 'decay_steps must be one or more'),
    ((10,), (5, 5), 'decay_steps must be one or more'),
    ((10,), (0,), 'decay_steps must be'),
  ],
)
def test_bad_steps_and_lengths(steps, lengths, message):
  with pytest.raises(ValueError, match=message):
    lrsched.decay_branches(WSD, steps, lengths)


@pytest.mark.parametrize(
  ('step', 'length'), [(8, 10), (9, 10), (9, 4), (30, 7)]
)
def test_a_ramped_trunk_decays_by_whole_batches(step, length):
  """Four sequences in the first eight updates, then eight."""
  trunk = lrsched.WSD(
    peak_lr=1.0, warmup_steps=2, stable_steps=60, decay_steps=10
  )
  ramp = {'boundaries': (9,), 'batch_sizes': (4, 8)}
  spec = lrsched.Ramped(schedule=trunk, **ramp)
  [branch] = lrsched.decay_branches(spec, (step,), (length,)).branches
  # 9 updates are 4.5 full batches: a decay from there begins at the fifth.
  seen = lrsched.samples_at(step, **ramp) / 8
  end = lrsched.samples_at(step + length, **ramp) / 8
  begin, whole = math.ceil(seen), math.floor(end) - math.ceil(seen)
  expected = trunk.decay_from(begin, whole)
  assert branch.spec == lrsched.Ramped(schedule=expected, **ramp)
  assert step + length - 1 <= branch.end_step <= step + length
  for t in range(step):
    assert float(branch.spec(t)) == float(spec(t))
  assert float(branch.spec(branch.end_step)) == 0


def test_a_decay_of_less_than_a_full_batch_is_refused():
  trunk = lrsched.WSD(
    peak_lr=1.0, warmup_steps=2, stable_steps=60, decay_steps=10
  )
  spec = lrsched.Ramped(schedule=trunk, boundaries=(9,), batch_sizes=(4, 8))
  with pytest.raises(ValueError, match='must hold a full batch of 8, got 1'):
    lrsched.decay_branches(spec, (5,), (1,))
