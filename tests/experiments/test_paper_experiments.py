"""Each paper's experiment fits together before anything is trained."""

import numpy as np
import pytest

from experiments import gere2025
from experiments import guo2024_stability_gap
from experiments import gupta2023_rewarm
from experiments import ibrahim2024_replay
from experiments import singh2025_infinite
from experiments import wen2024_seeds
from experiments.arms import Arm
from experiments.claims import MIN_SEEDS
from experiments.claims import judge
from experiments.reproduce import trial_arms
from trainers.mixture import Mixture

EXPERIMENTS = {
  module.__name__: module.EXPERIMENT
  for module in (
    gere2025,
    gupta2023_rewarm,
    guo2024_stability_gap,
    ibrahim2024_replay,
    singh2025_infinite,
    wen2024_seeds,
  )
}


def peaks_of(experiment):
  return dict.fromkeys(('trunk', *experiment.tuned), 2e-3)


def domains_of(config):
  """The names that a run's evaluations have losses of: none if only one."""
  source = config.data.source
  trained = source.domains if isinstance(source, Mixture) else ()
  names = {*trained, *config.eval.sources}
  return names if len(names) > 1 else set()


def rows_of(arm, first_step):
  """Evaluation rows as the trainer would write them, with made-up losses."""
  config = arm.config
  steps = {
    *range(first_step, config.total_steps + 1, config.eval.every_steps),
    *config.checkpoint.keep_steps,
    config.total_steps,
  }
  return [
    {'step': step, 'eval_loss': 2.0 - 1e-4 * step}
    | {f'eval_loss/{name}': 3.0 for name in domains_of(config)}
    for step in sorted(steps)
  ]


@pytest.fixture(params=['cpu', 'gpu'])
def preset(request):
  return request.param


@pytest.fixture(params=EXPERIMENTS.values(), ids=lambda found: found.name)
def experiment(request):
  return request.param


def check_forest(arms):
  """Every branch starts at a checkpoint that its parent keeps."""
  known: dict[str, Arm] = {}
  for arm in arms:
    if arm.parent is not None:
      parent = known[arm.parent].config
      kept = {parent.total_steps, *parent.checkpoint.keep_steps}
      assert arm.at_step in kept, arm.name
      assert arm.config.seed == parent.seed
    assert arm.name not in known
    known[arm.name] = arm


def test_branches_start_where_their_parents_keep_a_checkpoint(
  experiment, preset
):
  peaks = peaks_of(experiment)
  check_forest(experiment.arms(preset, peaks, 0))
  for i, name in enumerate(experiment.tuned):
    # As when it is tuned: of names after it there is no peak yet.
    known = dict.fromkeys(('trunk', *experiment.tuned[:i]), 2e-3) | {name: 1e-3}
    arms = trial_arms(experiment, preset, known, name, 101)
    check_forest(arms)
    assert {arm.config.seed for arm in arms} == {101}


def test_every_claim_is_about_something_that_is_measured(experiment, preset):
  assert len(experiment.seeds) >= MIN_SEEDS
  assert not {*experiment.seeds} & {*experiment.tuning_seeds}
  arms = experiment.arms(preset, peaks_of(experiment), 0)
  rows = {arm.name: rows_of(arm, arm.at_step) for arm in arms}
  outcomes = {
    name: {what: [value] * MIN_SEEDS for what, value in values.items()}
    for name, values in experiment.measures(rows).items()
  }
  for claim in experiment.claims:
    judge(claim, outcomes)


def test_every_trial_has_a_score_that_depends_on_nothing_else(
  experiment, preset
):
  for name in experiment.tuned:
    arms = trial_arms(experiment, preset, peaks_of(experiment), name, 101)
    rows = {arm.name: rows_of(arm, arm.at_step) for arm in arms}
    assert experiment.score(name, rows) > 0


def test_compared_arms_have_the_same_updates():
  """Replay takes the place of new data; it does not add updates."""
  for module in (ibrahim2024_replay, gere2025, guo2024_stability_gap):
    experiment = module.EXPERIMENT
    arms = experiment.arms('cpu', peaks_of(experiment), 0)
    lengths = {a.config.total_steps for a in arms if a.name != 'trunk'}
    assert len(lengths) == 1
    assert len({a.config.data.batch_size for a in arms}) == 1


def test_models_of_a_task_have_had_as_many_updates():
  experiment = singh2025_infinite.EXPERIMENT
  steps = {
    arm.name: arm.config.total_steps
    for arm in experiment.arms('cpu', peaks_of(experiment), 0)
  }
  for task in (1, 2, 3):
    assert steps[f'cosine_{task}'] == steps[f'annealed_{task}']
    assert steps[f'same_peak_{task}'] == steps[f'annealed_{task}']


def test_at_one_peak_only_the_kind_of_schedule_differs():
  peaks = {'cosine': 1e-3, 'infinite': 2e-3}
  arms = {
    arm.name: arm.config.optimizer.schedule
    for arm in singh2025_infinite.EXPERIMENT.arms('cpu', peaks, 0)
  }
  highest = lambda name: arms[name](np.arange(300)).max()
  assert highest('cosine_1') == pytest.approx(1e-3)
  assert highest('same_peak_1') == highest('infinite_1') == pytest.approx(2e-3)
  # Re-warmed to the peak, where the other stays at its constant LR.
  assert arms['same_peak_2'](303) == pytest.approx(2e-3)
  assert arms['infinite_2'](303) == pytest.approx(1.1e-3)
