"""Merging the checkpoints of a real run, and beginning from the result."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import lrsched
from experiments.merge import coefficients_of
from experiments.merge import evaluator_of
from experiments.merge import merged
from experiments.merge import write_weights
from experiments.saved_weights import load_params
from experiments.saved_weights import read_saved
from tests.integration.tiny_run import environment
from tests.integration.tiny_run import get_config
from tests.integration.tiny_run import state_of
from tests.integration.tiny_run import write_text
from tests.tiny import assert_same_bits
from trainers.averaging import Lawa
from trainers.checkpoint import path_of
from trainers.config import CheckpointConfig
from trainers.config import EvalConfig
from trainers.log import eval_file
from trainers.metrics import read_metrics
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.sources import Docstrings
from trainers.sources import TextFolder
from trainers.start import checkpoints_of
from trainers.train import run

STEPS = (10, 20, 30)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Thirty updates at a high LR, with the mean of steps 10, 20 and 30."""
  folder = tmp_path_factory.mktemp('merge')
  write_text(folder)
  tiny = get_config()
  data = dataclasses.replace(
    tiny.data,
    source=TextFolder(path=str(folder / 'text')),
    cache_dir=str(folder / 'cache'),
  )
  schedule = lrsched.Constant(lr=3e-2)
  return dataclasses.replace(
    tiny,
    data=data,
    optimizer=dataclasses.replace(tiny.optimizer, schedule=schedule),
    total_steps=30,
    lawa=Lawa(every_steps=10, window=3),
    eval=EvalConfig(every_steps=15, n_sequences=16, batch_size=8),
    checkpoint=CheckpointConfig(every_steps=30, keep_steps=(10, 20)),
  )


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'a'
  run(config, workdir)
  return workdir


def program(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.merge', *flags],
    env=environment(),
    capture_output=True,
    text=True,
    check=False,
  )


def params_of(workdir, step):
  """The weights of a checkpoint by path, read without the program's code."""
  saved = state_of(workdir, step)
  return {k: v for k, v in saved.items() if k.startswith("['params']")}


def test_the_merge_is_the_weighted_mean_of_the_checkpoints(trained):
  saved = read_saved(trained, STEPS)
  coefficients = [0.5, 0.2, 0.3]
  found = merged(saved, STEPS, coefficients)
  trees = [params_of(trained, step) for step in STEPS]
  assert len(trees[0]) == len(jax.tree.leaves(found)) > 5
  for name, x in zip(trees[0], jax.tree.leaves(found), strict=True):
    exact = sum(
      c * np.float64(t[name]) for c, t in zip(coefficients, trees, strict=True)
    )
    np.testing.assert_array_equal(x, np.float32(exact), err_msg=name)


def test_weights_are_evaluated_as_the_run_did(trained):
  saved = read_saved(trained, STEPS)
  again = evaluator_of(saved)(load_params(saved, 30))
  np.testing.assert_array_equal(again.losses, np.load(eval_file(trained, 30)))


def test_an_equal_mean_is_what_lawa_reports(trained):
  saved = read_saved(trained, STEPS)
  mean = evaluator_of(saved)(merged(saved, STEPS, [1 / 3] * 3)).mean
  [*_, row] = read_metrics(trained)[1]
  # The same weights but for one rounding to float32; losses are about 3.
  assert row['lawa_eval_loss'] == pytest.approx(mean, abs=1e-5)
  assert abs(row['lawa_eval_loss'] - row['eval_loss']) > 1e-3


@pytest.mark.slow
def test_the_program_writes_what_a_run_begins_from(trained, config, tmp_path):
  out = tmp_path / 'merged.npz'
  done = program(
    f'--workdir={trained}',
    '--steps=10,20,30',
    '--decay=LinearDecay',
    '--final_frac=0.5',
    f'--out={out}',
    '--evaluate',
  )
  assert done.returncode == 0, done.stderr
  first, second, *rest = done.stdout.splitlines()
  said = f'{trained}@10,20,30 with coefficients 0.125, 0.25, 0.625'
  assert first == f'{out}: {said}'
  with np.load(out) as file:
    arrays = dict(file)
  origin = json.loads(str(arrays.pop('_origin')))
  assert origin == {
    'run_id': json.loads((trained / 'lineage.json').read_text())['run_id'],
    'workdir': str(trained),
    'steps': [10, 20, 30],
    'coefficients': pytest.approx([0.125, 0.25, 0.625], abs=1e-6),
    'decay': {'kind': 'LinearDecay'},
    'final_frac': 0.5,
  }
  assert 'blocks/0/attention/query/kernel' in arrays
  # A run that begins from the file has these weights, and goes on.
  fresh = tmp_path / 'b'
  run(dataclasses.replace(config, lawa=None), fresh, init_from=str(out))
  saved = read_saved(fresh, [0])
  params = load_params(saved, 0)
  assert_same_bits(jax.tree.leaves(params), list(arrays.values()))
  # And the losses that were printed.
  result = evaluator_of(saved)(params)
  assert second.startswith(f'merged: validation loss {result.mean:.4f} +- ')
  assert [line.split(':')[0] for line in rest] == [f'step {s}' for s in STEPS]
  theirs = np.load(eval_file(trained, 30)).astype(float)
  gap = result.losses - theirs
  error = gap.std(ddof=1) / len(gap) ** 0.5
  assert rest[-1].endswith(
    f'merged less this: {gap.mean():+.4f} +- {error:.4f} (paired)'
  )


def test_the_same_merge_is_the_same_file(trained, tmp_path):
  saved = read_saved(trained, STEPS)
  params = merged(saved, STEPS, [1 / 3] * 3)
  paths = [tmp_path / 'a.npz', tmp_path / 'b.npz']
  for path in paths:
    write_weights(path, params, {'steps': STEPS})
  assert paths[0].read_bytes() == paths[1].read_bytes()
  assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize(
  ('steps', 'said'),
  [
    ('10,25', 'has no checkpoint of step 25; it has [0, 10, 20, 30]'),
    ('10,2x', "--steps must be whole numbers >= 0, got '2x'"),
  ],
)
def test_the_program_says_what_it_cannot_merge(trained, tmp_path, steps, said):
  out = tmp_path / 'merged.npz'
  done = program(
    f'--workdir={trained}', f'--out={out}', f'--steps={steps}', '--uniform'
  )
  assert done.returncode == 1
  assert done.stderr.startswith('error: --steps')
  assert said in done.stderr
  assert not out.exists()


@pytest.mark.parametrize(
  ('steps', 'decay', 'said'),
  [
    ([20], None, 'must be two or more, from early to late, got 20$'),
    ([30, 10], None, 'must be two or more, from early to late, got 30,10$'),
    (
      [0, 10, 30],
      lrsched.LinearDecay(),
      r'at equal distances to stand for a decay, got distances 10,20; choose',
    ),
    (
      [10, 20, 30],
      lrsched.InverseDecay(),
      r'final_frac must be > 0 with InverseDecay\(\)',
    ),
  ],
)
def test_steps_that_stand_for_no_decay(steps, decay, said):
  with pytest.raises(ValueError, match=said):
    coefficients_of(steps, decay, 0.0)


def test_a_damaged_checkpoint_is_not_merged(trained, tmp_path):
  copy = tmp_path / 'a'
  shutil.copytree(trained, copy)
  folder = path_of(checkpoints_of(copy), 20)
  files = [p for p in folder.rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  with pytest.raises(ValueError, match='is damaged'):
    read_saved(copy, STEPS)


def test_coefficients_of_no_decay_are_equal():
  assert coefficients_of([3, 4, 9], None, 0.0) == [1 / 3] * 3


def with_source(saved, source):
  """The same run, of another text."""
  data = dataclasses.replace(saved.config.data, source=source)
  return saved._replace(config=dataclasses.replace(saved.config, data=data))


def test_a_corpus_that_is_gone_or_another_is_named(trained, tmp_path):
  saved = read_saved(trained, STEPS)
  source = saved.config.data.source
  gone = dataclasses.replace(source, path=str(tmp_path / 'gone'))
  with pytest.raises(ValueError, match=r'TextFolder\.path'):
    evaluator_of(with_source(saved, gone))
  fewer = dataclasses.replace(source, pattern='1*.txt', valid_percent=30)
  with pytest.raises(ValueError, match='must be the text that the run was'):
    evaluator_of(with_source(saved, fewer))


def test_the_main_source_of_a_mixture_is_evaluated(trained):
  saved = read_saved(trained, STEPS)
  domains = {
    'old': Domain(source=Docstrings(), share=0.25),
    'new': Domain(source=saved.config.data.source),
  }
  mixed = with_source(saved, Mixture(domains=domains))
  mixed = mixed._replace(hashes={'new': saved.hashes['textfolder']})
  params = load_params(saved, 30)
  np.testing.assert_array_equal(
    evaluator_of(mixed)(params).losses, evaluator_of(saved)(params).losses
  )
