"""Bad input: one clear message, before anything is compiled or changed."""

import dataclasses
import pathlib

import numpy as np
import pytest

import lrsched
from experiments.flags import load_config
from experiments.flags import override
from tests.integration import tiny_run
from tests.tiny import compilations
from tests.tiny import fingerprint
from trainers.optimizer import AdamW
from trainers.sources import TokenFile
from trainers.train import run

SHORT = (
  'total_steps=8',
  'optimizer.schedule.warmup_steps=2',
  'checkpoint.keep_steps=()',
  'checkpoint.every_steps=4',
  'eval.every_steps=4',
)
WRONG_TYPE_OF_FILE = """
import lrsched
from tests.integration import tiny_run

def get_config():
  return tiny_run.get_config
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A folder with text and a trained run `a`, in which tests change nothing."""
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    run(override(tiny_run.get_config(), list(SHORT)), pathlib.Path('a'))
  (folder / 'thesis').mkdir()
  (folder / 'thesis' / 'chapter.tex').write_text('draft')
  (folder / 'a file').write_text('text')
  (folder / 'nothing.py').write_text('x = 1\n')
  (folder / 'wrong.py').write_text(WRONG_TYPE_OF_FILE)
  # Root reads what it has no right to, but not what is not there.
  (folder / 'gone').mkdir()
  for i in range(40):
    (folder / 'gone' / f'{i}.txt').symlink_to(folder / f'{i}.missing')
  tokens = np.arange(600, dtype=np.uint16) % 300
  tokens.tofile(folder / 'train.bin')
  tokens[::-1].tofile(folder / 'valid.bin')
  (folder / 'train.bin.d').mkdir()
  return folder


@pytest.fixture
def unchanged(trained, monkeypatch):
  """Fails the test if any file or folder changed, or anything was compiled."""
  monkeypatch.chdir(trained)
  before = fingerprint(trained)
  with compilations() as compiled:
    yield trained
  assert compiled == []
  assert fingerprint(trained) == before


def launched(settings, *, config=None, workdir='new', **how):
  """What `experiments.launch` does between its flags and its last line."""
  path = config or tiny_run.__file__
  by_path = {s.partition('=')[0]: s for s in [*SHORT, *settings]}
  chosen = override(load_config(path), list(by_path.values()))
  return run(chosen, pathlib.Path(workdir), **how)


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    (['model.d_modle=32'], '--set=model.d_modle: there is no such field'),
    (['optimizer.schedule.peek_lr=1e-3'], 'peek_lr: there is no such field'),
    (['model.d_model=wide'], "ModelConfig.d_model must be int, got 'wide'"),
    (['data.seq_len=16.0'], 'DataConfig.seq_len must be int, got 16.0'),
    (['optimizer.schedule.peak_lr=high'], r"WSD.peak_lr must be .*'high'"),
    (['ema_decay=1'], r'RunConfig.ema_decay must be in \(0, 1\)'),
    (['log.peak_flops_per_device=inf'], 'must be a finite number or None'),
    (
      ['optimizer.schedule.warmup_steps=8'],
      'warmup_steps must be less than total_steps=8, got 8: the run would end',
    ),
    (
      ['optimizer.schedule.decay_steps=271'],
      'decay_steps must be at most stable_steps=270, got 271',
    ),
    (['data.source.path=nowhere'], "must be an existing folder, got 'nowhere'"),
    (['data.source.path=gone'], r'gone/\d+.txt cannot be read \(No such file'),
    (['data.source.pattern=*.md'], "matches none in 'text'"),
    (['data.cache_dir=a file'], 'cache_dir must be a folder that can be wri'),
    (['data.seq_len=100000'], r'seq_len must be < the \d+ tokens'),
    (['eval.n_sequences=8000'], r'n_sequences must be <= \d+, the windows'),
    (['accum_steps=3'], 'divide data.batch_size=8, got 3'),
    (['mesh.tensor=3'], 'does not use all of the 1 devices'),
    (['model.vocab_size=255'], 'vocab_size must be at least 256'),
    (['model.n_heads=3'], r'd_model must be a multiple of 2 \* n_heads = 6'),
  ],
)
def test_a_bad_setting(unchanged, settings, said):
  with pytest.raises(ValueError, match=said):
    launched(settings)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      {'train_path': 'none.bin'},
      "train_path must be an existing file, got 'no",
    ),
    (
      {'train_path': 'train.bin.d'},
      "must be an existing file, got 'train.bin.d",
    ),
    (
      {'train_path': 'a file', 'dtype': 'uint32'},
      'ids in the corpus tokenfile, got 256',
    ),
    ({'train_path': 'a/lock'}, 'must hold whole tokens of 2 bytes, at least'),
    ({'valid_path': 'train.bin'}, 'must hold other tokens than train_path'),
    (
      {},
      'vocab_size must be at least 300, the ids in the corpus tokenfile, got',
    ),
  ],
)
def test_bad_token_files(unchanged, changes, said):
  source = TokenFile(train_path='train.bin', valid_path='valid.bin')
  source = dataclasses.replace(source, **changes)
  config = override(tiny_run.get_config(), list(SHORT))
  data = dataclasses.replace(config.data, source=source)
  config = dataclasses.replace(config, data=data)
  with pytest.raises(ValueError, match=said):
    run(config, pathlib.Path('new'))


@pytest.mark.parametrize(
  ('workdir', 'said'),
  [
    ('thesis', r'holds files that are not a run \(chapter.tex, ...\)'),
    ('a file', 'workdir a file is a file; name a folder'),
    ('.', 'holds files that are not a run'),
  ],
)
def test_a_workdir_that_is_something_else(unchanged, workdir, said):
  with pytest.raises(ValueError, match=said):
    launched([], workdir=workdir)


@pytest.mark.parametrize(
  ('settings', 'how', 'said'),
  [
    (['seed=1'], {}, 'config.seed: 0 -> 1'),
    (['optimizer.schedule.peak_lr=2e-3'], {}, r'peak_lr: 0.001 -> 0.002'),
    (['seed=1'], {'restore': 'replace'}, 'branch into a new workdir'),
    (['model.d_model=32'], {'restore': 'replace'}, 'config.model.d_model: 16'),
    ([], {'branch_from': 'a@4'}, 'holds a run without a parent'),
  ],
)
def test_a_workdir_that_holds_another_run(unchanged, settings, how, said):
  with pytest.raises(ValueError, match=said):
    launched(settings, workdir='a', **how)


@pytest.mark.parametrize(
  ('branch_from', 'settings', 'said'),
  [
    ('a', [], 'branch_from must be DIR@STEP'),
    ('a@last', [], 'branch_from must be DIR@STEP'),
    ('b@4', [], 'there is no run in b'),
    ('thesis@4', [], 'there is no run in thesis'),
    ('a@3', [], r'a has no checkpoint of step 3; it has \[0, 4, 8\]'),
    ('a@8', [], 'total_steps must be greater than the restored step 8, got 8'),
    (
      'a@4',
      ['model.d_model=32'],
      r'another tree .*\n.*/kernel: float32\[16, 16\] -> float32\[32, ',
    ),
  ],
)
def test_a_branch_that_cannot_be(unchanged, branch_from, settings, said):
  with pytest.raises(ValueError, match=said):
    launched(settings, branch_from=branch_from)


def test_a_schedule_that_is_over_before_the_branch(unchanged):
  config = override(tiny_run.get_config(), list(SHORT))
  over = dataclasses.replace(
    config,
    total_steps=3,
    optimizer=AdamW(schedule=lrsched.Linear(peak_lr=1e-3, total_steps=3)),
  )
  with pytest.raises(ValueError, match='greater than the restored step 4'):
    run(over, pathlib.Path('new'), branch_from='a@4')


@pytest.mark.parametrize(
  ('config', 'said'),
  [
    ('nothing.py', "no attribute 'get_config'"),
    ('wrong.py', 'must return a RunConfig, got function'),
    ('none.py', 'there is no file none.py'),
    ('thesis/chapter.tex', 'must be a Python file'),
  ],
)
def test_a_config_file_that_is_none(unchanged, config, said):
  with pytest.raises(ValueError, match=said):
    launched([], config=config)


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['--wrokdir=b'], "Unknown command line flag 'wrokdir'"),
    (['set=seed=1'], "unknown arguments ['set=seed=1']; settings need --set="),
    (['--restore=again'], 'should be one of <resume|replace>'),
    (
      ['--set=seed=one'],
      'error: --set=seed=one: RunConfig.seed must be int, got',
    ),
    (
      [
        '--branch_from=a@4',
        '--set=model.d_model=32',
        *(f'--set={setting}' for setting in SHORT),
      ],
      'holds another tree',
    ),
  ],
)
def test_the_program_says_it_on_stderr_and_exits(unchanged, flags, said):
  done = tiny_run.launch(unchanged, 'new', *flags)
  assert done.returncode == 1
  assert said in done.stderr
  assert 'Traceback' not in done.stderr
  assert 'compiled' not in done.stdout
