"""plan_restore: nothing about the LR changes without a line, or an error."""

import dataclasses

import pytest

import lrsched
from tests.registry import WSD

POLICIES = ['resume', 'replace', 'branch']


@pytest.mark.parametrize('policy', POLICIES)
def test_an_equal_schedule_goes_on(policy):
  plan = lrsched.plan_restore(WSD, 40, dataclasses.replace(WSD), policy)
  assert plan == ((), WSD, 40)


@pytest.mark.parametrize('policy', ['replace', 'branch'])
def test_a_changed_schedule_is_shown_with_its_lrs(policy):
  asked = dataclasses.replace(WSD, peak_lr=5e-4, stable_steps=100)
  plan = lrsched.plan_restore(WSD, 40, asked, policy)
  assert plan.diff == (
    'schedule.peak_lr: 0.001 -> 0.0005',
    'schedule.stable_steps: 70 -> 100',
    'LR of update 40: 0.001 -> 0.0005',
    'schedule ends: at step 100 -> at step 130',
  )
  assert plan.spec == asked
  assert plan.step == 40


def test_a_moved_phase_is_shown():
  """A longer horizon can put a decaying run back into its stable phase."""
  longer = dataclasses.replace(WSD, stable_steps=100)
  plan = lrsched.plan_restore(WSD, 90, longer, 'replace')
  assert plan.diff[-2:] == (
    'phase of update 90: decay -> stable',
    'schedule ends: at step 100 -> at step 130',
  )
  for_ever = lrsched.plan_restore(WSD, 90, lrsched.Constant(lr=1), 'replace')
  assert for_ever.diff[-1] == 'schedule ends: at step 100 -> never'


def test_a_long_table_is_one_line():
  saved = lrsched.Tabulated(lrs=[0.1] * 1000)
  asked = lrsched.Tabulated(lrs=[0.1] * 500 + [0.2] * 500)
  longer = lrsched.Tabulated(lrs=[0.1] * 2000)
  plan = lrsched.plan_restore(saved, 40, asked, 'replace')
  assert plan.diff[0] == (
    'schedule.lrs: 500 of 1000 values differ, the first at [500]: 0.1 -> 0.2'
  )
  short = lrsched.plan_restore(
    saved, 1, lrsched.Tabulated(lrs=[1] * 3), 'branch'
  )
  assert all(len(line) < 100 for line in short.diff)
  plan = lrsched.plan_restore(saved, 40, longer, 'replace')
  assert plan.diff[0] == (
    'schedule.lrs: 1000 values -> 2000 values, the first 1000 equal'
  )


def test_resume_refuses_a_change_and_shows_it():
  asked = dataclasses.replace(WSD, peak_lr=5e-4)
  with pytest.raises(ValueError, match=r'peak_lr: 0.001 -> 0.0005') as error:
    lrsched.plan_restore(WSD, 40, asked, 'resume')
  assert "use 'replace'" in str(error.value)


def test_another_kind_is_a_change():
  asked = lrsched.Constant(lr=1e-3)
  plan = lrsched.plan_restore(WSD, 40, asked, 'branch')
  assert plan.diff[0] == 'schedule.kind: WSD -> Constant'


@pytest.mark.parametrize('policy', ['replace', 'branch'])
def test_a_schedule_that_is_over_is_refused(policy):
  with pytest.raises(ValueError, match='ends at step 50, but the checkpoint'):
    lrsched.plan_restore(WSD, 50, WSD.decay_from(40, 10), policy)


def test_a_finished_run_resumes_as_it_is():
  assert lrsched.plan_restore(WSD, 100, WSD, 'resume').step == 100


@pytest.mark.parametrize('policy', ['Resume', '', None])
def test_policy_must_be_known(policy):
  with pytest.raises(ValueError, match='policy must be one of'):
    lrsched.plan_restore(WSD, 0, WSD, policy)


@pytest.mark.parametrize('step', [-1, 1.0, '3', 2**31])
def test_step_must_be_a_count(step):
  with pytest.raises(ValueError, match='saved_step must be an integer in'):
    lrsched.plan_restore(WSD, step, WSD, 'resume')
