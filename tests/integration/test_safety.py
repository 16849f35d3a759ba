"""What must not be lost, and must not happen twice."""

import dataclasses
import fcntl
import json
import pathlib

import numpy as np
import pytest

import lrsched
from experiments.flags import load_config
from experiments.flags import override
from tests.integration import tiny_run
from trainers import checkpoint
from trainers.gere import GeRe
from trainers.optimizer import AdamW
from trainers.sources import TextFolder
from trainers.start import checkpoints_of
from trainers.train import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
  tiny_run.write_text(tmp_path)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def eight_steps(*settings):
  return override(tiny_run.override_for_eight_steps(), list(settings))


def events_of(workdir):
  events = json.loads((workdir / 'lineage.json').read_text())['events']
  return [(event['kind'], event['step']) for event in events]


def test_weights_that_are_not_finite_are_never_saved(folder):
  """The first update breaks them; the loss shows it only one update later."""
  broken = AdamW(schedule=lrsched.Constant(lr=1e38), clip_norm=None)
  config = dataclasses.replace(
    eight_steps('checkpoint.every_steps=1', 'log.every_steps=4'),
    optimizer=broken,
  )
  for _ in range(2):  # and a relaunch finds a good checkpoint
    with pytest.raises(FloatingPointError, match='last checkpoint is from'):
      run(config, pathlib.Path('run'))
    step, damaged = checkpoint.last_good(folder / 'run' / 'checkpoints')
    assert damaged == ()
    for leaf in tiny_run.state_of(folder / 'run', step).values():
      assert np.isfinite(leaf).all()


def test_a_run_without_its_checkpoints_is_not_started_over(folder):
  workdir = pathlib.Path('run')
  run(eight_steps(), workdir)
  logged = (workdir / 'metrics.jsonl').read_bytes()
  for path in checkpoints_of(workdir).iterdir():
    path.rename(folder / path.name)
  with pytest.raises(ValueError, match='has trained, but its checkpoints are'):
    run(eight_steps(), workdir)
  assert (workdir / 'metrics.jsonl').read_bytes() == logged


def test_a_fallback_below_a_replace_says_that_the_lr_differs(folder):
  """Checkpoints 4 and 8; replaced at 8, which is then damaged."""
  workdir = pathlib.Path('run')
  often = ('checkpoint.every_steps=4', 'checkpoint.keep_last=3')
  run(eight_steps(*often), workdir)
  lower = (
    *often,
    'optimizer.schedule.peak_lr=5e-4',
    'total_steps=12',
  )
  run(eight_steps(*lower), workdir, restore='replace')
  for step in (8, 12):
    checkpoint.manifest_of(checkpoints_of(workdir), step).write_text('')
  run(eight_steps(*lower), workdir)
  assert events_of(workdir) == [
    ('start', 0),
    ('replace', 8),
    ('fallback', 4),
    ('resume', 4),
  ]
  record = json.loads((workdir / 'lineage.json').read_text())
  assert 'LR of update 4: 0.001 -> 0.0005' in record['events'][-1]['note']


def test_two_processes_do_not_train_in_one_folder(folder):
  workdir = pathlib.Path('run')
  workdir.mkdir()
  with (workdir / 'lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match='another process is training in run'):
      run(eight_steps(), workdir)
  assert [p.name for p in workdir.iterdir()] == ['lock']
  run(eight_steps(), workdir)  # the lock is gone with its holder


def test_nothing_is_planned_on_what_another_process_still_writes(folder):
  workdir = pathlib.Path('run')
  run(eight_steps(), workdir)
  with (workdir / 'lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    # Another config would be refused, if it were looked at.
    with pytest.raises(ValueError, match='another process is training in run'):
      run(eight_steps('seed=1'), workdir)


def test_gere_needs_a_teacher_and_a_name_of_its_own(folder):
  gere = GeRe(source=TextFolder(path='text'), n_sequences=8, batch_size=4)
  config = dataclasses.replace(eight_steps(), gere=gere)
  with pytest.raises(ValueError, match='gere needs weights that know'):
    run(config, pathlib.Path('run'))
  other = TextFolder(path='text', valid_percent=20)
  watched = dataclasses.replace(config.eval, sources={'gere': other})
  with pytest.raises(ValueError, match="the name 'gere' is that of what GeRe"):
    run(dataclasses.replace(config, eval=watched), pathlib.Path('run'))
  assert not pathlib.Path('run').exists()


def test_another_data_cache_is_the_same_data(folder):
  trunk = eight_steps('checkpoint.keep_steps=(4,)')
  run(trunk, pathlib.Path('trunk'))
  moved = eight_steps('data.cache_dir="elsewhere"', 'seed=1')
  run(moved, pathlib.Path('branch'), branch_from='trunk@4')
  losses = lambda name: [
    r['loss'] for r in tiny_run.rows_of(folder / name) if 'loss' in r
  ]
  assert losses('branch') == losses('trunk')[4:]


def test_other_data_is_said_to_begin_anew(folder, capsys):
  run(eight_steps('checkpoint.keep_steps=(4,)'), pathlib.Path('trunk'))
  other = eight_steps('data.seed=5')
  run(other, pathlib.Path('branch'), branch_from='trunk@4')
  assert 'data: textfolder from its beginning' in capsys.readouterr().err


def test_a_renamed_checkpoint_is_not_another_step(folder):
  workdir = pathlib.Path('run')
  run(eight_steps(), workdir)
  root = checkpoints_of(workdir)
  checkpoint.path_of(root, 8).rename(checkpoint.path_of(root, 6))
  checkpoint.manifest_of(root, 8).rename(checkpoint.manifest_of(root, 6))
  with pytest.raises(checkpoint.DamagedCheckpoint, match='checkpoint of 8'):
    checkpoint.verify(root, 6)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('return RunConfig(totl_steps=4)', r'line 6: TypeError: .*totl_steps'),
    ('return 1 / 0', r'line 6: ZeroDivisionError'),
    ('return 3', 'must return a RunConfig, got int'),
  ],
)
def test_a_mistake_in_a_config_file_is_placed(tmp_path, line, message):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from __future__ import annotations\n'
    'from trainers.config import RunConfig\n'
    '\n'
    '\n'
    f'def get_config():\n  {line}\n'
  )
  with pytest.raises(ValueError, match=message):
    load_config(str(path))


def test_a_config_file_may_define_its_own_schedule(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text(
    'from __future__ import annotations\n'
    'import lrsched\n'
    'from tests.integration import tiny_run\n'
    '@lrsched.schedule\n'
    'class OwnSchedule(lrsched.Schedule):\n'
    '  lr: lrsched.LR\n'
    '  def __call__(self, step):\n'
    '    return lrsched.Constant(lr=self.lr)(step)\n'
    '  def phases(self):\n'
    "    return (lrsched.Phase('own', 0, None),)\n"
    'def get_config():\n'
    '  OwnSchedule(lr=1.0)\n'
    '  return tiny_run.get_config()\n'
  )
  assert load_config(str(path)) == tiny_run.get_config()


def test_seeds_are_checked_before_anything_is_written():
  with pytest.raises(ValueError, match=r'RunConfig\.seed must be in 0'):
    eight_steps('seed=-1')
