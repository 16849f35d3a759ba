"""An experiment of a paper, small enough to be trained by a test."""

import dataclasses
import json

import numpy as np
import pytest

import lrsched
from experiments import reproduce
from experiments.arms import Arm
from experiments.arms import at_step
from experiments.arms import highest
from experiments.arms import train
from experiments.claims import Claim
from tests.tiny import VOCAB_SIZE
from tests.tiny import tiny_run
from trainers.config import CheckpointConfig
from trainers.config import EvalConfig
from trainers.optimizer import AdamW
from trainers.sources import TokenFile

TOTAL_STEPS = 20


@pytest.fixture
def config(tmp_path):
  """Of a run on ids that count up by one, which are soon learnt."""
  for name, n in {'train': 6000, 'valid': 3000}.items():
    ids = np.arange(n, dtype='uint16') % VOCAB_SIZE
    ids.tofile(tmp_path / f'{name}.bin')
  source = TokenFile(
    train_path=str(tmp_path / 'train.bin'),
    valid_path=str(tmp_path / 'valid.bin'),
  )

  def make(lr, seed, total_steps=TOTAL_STEPS):
    return tiny_run(
      source,
      optimizer=AdamW(schedule=lrsched.Constant(lr=lr)),
      total_steps=total_steps,
      seed=seed,
      ema_decay=None,
      eval=EvalConfig(every_steps=5, n_sequences=16, batch_size=16),
      checkpoint=CheckpointConfig(every_steps=total_steps),
    )

  return make


@pytest.fixture
def experiment(config):
  """Does a run that goes on end lower than where it began?"""

  def arms_of(peaks, seed):
    on = config(peaks['on'], seed, 2 * TOTAL_STEPS)
    first = Arm('tuned', config(peaks['tuned'], seed))
    return [first, Arm('on', on, 'tuned', TOTAL_STEPS)]

  def measures(rows):
    return {name: {'loss': r[-1]['eval_loss']} for name, r in rows.items()}

  return reproduce.Experiment(
    name='tiny',
    about='Ids that count up.',
    claims=(
      Claim('0', 'it goes on falling', 'on', 'tuned', 'loss', margin=0.5),
      Claim('0', 'it rises', 'tuned', 'on', 'loss'),
    ),
    seeds=(0, 1, 2),
    tuned=('on',),
    grid=(1e-6, 1e-2, 1.0),
    tuning_seeds=(7,),
    score=lambda name, rows: rows[name][-1]['eval_loss'],
    arms=lambda preset, peaks, seed: arms_of(peaks, seed),
    measures=measures,
    given=lambda preset: {'tuned': 1e-2},
  )


@pytest.mark.slow
def test_an_experiment_is_tuned_trained_judged_and_recorded(
  experiment, tmp_path
):
  workdir = tmp_path / 'runs'
  narrow = experiment._replace(grid=(1e-6, 1e-2))
  with pytest.raises(ValueError, match=r'on: the best peak 0\.01 is an end'):
    reproduce.tune(narrow, 'cpu', workdir)
  # A wider grid goes on with what is there.
  tuning = reproduce.tune(experiment, 'cpu', workdir)
  assert tuning['peak_lr'] == {'tuned': 1e-2, 'on': 1e-2}
  assert {*tuning['score']['on']} == {'1e-06', '0.01', '1'}
  # The parent of the trials is trained once.
  trials = {path.name for path in (workdir / 'tuning' / 'seed7').iterdir()}
  assert trials == {'tuned', 'on_1e-06', 'on_0.01', 'on_1'}

  record = reproduce.record(experiment, 'cpu', workdir, tuning['peak_lr'])
  outcomes = [claim['outcome'] for claim in record['claims']]
  assert outcomes == ['held', 'did not hold']
  assert record['runs'] == record['trained_in_this_call'] == 6
  assert record['command'] == 'python -m experiments.tiny --workdir=runs/tiny'
  assert str(tmp_path) not in json.dumps(record)
  table = json.loads((workdir / 'seed1' / 'table.json').read_text())
  assert [row[0] for row in table['rows']] == ['tuned', 'on']

  again = reproduce.record(experiment, 'cpu', workdir, tuning['peak_lr'])
  assert again['trained_in_this_call'] == 0
  assert again['arms'] == record['arms']


def test_tuning_seeds_are_apart_from_test_seeds(experiment, tmp_path):
  with pytest.raises(ValueError, match=r'got \{2\} in both'):
    reproduce.tune(
      experiment._replace(tuning_seeds=(2, 7)), 'cpu', tmp_path / 'runs'
    )


def test_a_branch_has_its_own_rows_and_goes_on_from_its_parent(
  config, tmp_path
):
  arms = [
    Arm('a', config(1e-2, 0)),
    Arm('b', config(1e-2, 0, 2 * TOTAL_STEPS), 'a', TOTAL_STEPS),
  ]
  trained = train(arms, tmp_path / 'runs')
  assert trained.n_new == 2
  a, b = trained.rows['a'], trained.rows['b']
  # A branch is evaluated before its first update: that is where `a` ended.
  assert b[0]['step'] == TOTAL_STEPS
  assert b[0]['eval_loss'] == pytest.approx(a[-1]['eval_loss'], rel=1e-6)
  assert at_step(b, 30, 'eval_loss') == b[2]['eval_loss']
  assert highest(a, 'eval_loss') == a[0]['eval_loss'] > a[-1]['eval_loss']
  with pytest.raises(ValueError, match='no evaluation after 31'):
    at_step(b, 31, 'eval_loss')


def test_arms_are_checked_before_any_is_trained(config, tmp_path):
  one = Arm('a', config(1e-2, 0))
  with pytest.raises(ValueError, match="'a' twice"):
    train([one, one], tmp_path / 'runs')
  with pytest.raises(ValueError, match="parent 'c' must be an arm before it"):
    train([one, one._replace(name='b', parent='c')], tmp_path / 'runs')
  assert not (tmp_path / 'runs').exists()


def test_a_trial_that_diverges_is_the_worst(experiment, config, tmp_path):
  """A loss that is not finite stops a run; tuning goes on."""
  diverging = lambda *given: [
    Arm(
      'tuned',
      dataclasses.replace(
        config(1e-2, 7),
        optimizer=AdamW(schedule=lrsched.Constant(lr=1e38)),
      ),
    )
  ]
  wild = experiment._replace(trial=diverging, tuned=('tuned',))
  found = reproduce._score(wild, 'cpu', {}, 'tuned', 1.0, 7, tmp_path / 'runs')
  assert found == float('inf')
