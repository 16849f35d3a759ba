"""A run of a few seconds, as a config file and as what tests compare of it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

import lrsched
from experiments.flags import override
from trainers.checkpoint import load_metadata
from trainers.checkpoint import path_of
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.metrics import read_metrics
from trainers.optimizer import AdamW
from trainers.sources import TextFolder

ROOT = pathlib.Path(__file__).parents[2]


def get_config() -> RunConfig:
  """As a config file: paths are relative to the folder it is launched in."""
  return RunConfig(
    model=ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=32),
    data=DataConfig(
      source=TextFolder(path='text'),
      seq_len=16,
      batch_size=8,
      cache_dir='cache',
    ),
    optimizer=AdamW(
      schedule=lrsched.WSD(
        peak_lr=1e-3, warmup_steps=10, stable_steps=270, decay_steps=20
      )
    ),
    total_steps=300,
    ema_decay=0.9,
    eval=EvalConfig(every_steps=50, n_sequences=16, batch_size=8),
    checkpoint=CheckpointConfig(every_steps=20, keep_steps=(200,)),
    log=LogConfig(every_steps=1),
  )


def write_text(folder: pathlib.Path) -> None:
  """Forty files of words in no order, the same on every machine."""
  words = np.array(['the', 'rate', 'of', 'a', 'step', 'decays', 'losses'])
  (folder / 'text').mkdir()
  for i in range(40):
    chosen = np.random.default_rng(i).choice(words, 200)
    (folder / 'text' / f'{i}.txt').write_text(' '.join(chosen))


def command(workdir: str, *flags: str) -> list[str]:
  config = f'--config={__file__}'
  launch = [sys.executable, '-m', 'experiments.launch', config]
  return [*launch, f'--workdir={workdir}', '--compile_cache=programs', *flags]


def environment(**extra: str) -> dict[str, str]:
  # One thread: these programs are too small for more.
  threads = '--xla_cpu_multi_thread_eigen=false'
  return {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    'XLA_FLAGS': threads,
    **extra,
  }


def launch(
  folder: pathlib.Path, workdir: str, *flags: str, **extra: str
) -> subprocess.CompletedProcess[str]:
  """Runs the launch program in `folder` to its end."""
  return subprocess.run(
    command(workdir, *flags),
    cwd=folder,
    env=environment(**extra),
    capture_output=True,
    text=True,
    check=False,
  )


def state_of(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """Every array of a checkpoint by path, and the position of the data."""
  root = workdir / 'checkpoints'
  folder = path_of(root, step)
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    ocp.metadata(folder, 'state').metadata,
  )
  saved = ocp.load_checkpointables(folder, {'state': abstract})['state']
  leaves = jax.tree_util.tree_flatten_with_path(saved)[0]
  arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
  position = load_metadata(root, step)['data']
  drawn = [n for _, n in sorted(position['drawn'].items())]
  owed = [float(Fraction(x)) for _, x in sorted(position['owed'].items())]
  return {**arrays, 'data': np.asarray(drawn), 'owed': np.asarray(owed)}


def rows_of(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Logged rows, without what depends on the clock."""
  train, evaluations = read_metrics(workdir)
  clock = ('tokens_per_s', 'mfu')
  rows = [*train, *evaluations]
  return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def assert_same_run(a: pathlib.Path, b: pathlib.Path, step: int) -> None:
  """Bit-identical states, logged rows and losses per sequence."""
  first, second = state_of(a, step), state_of(b, step)
  assert first.keys() == second.keys()
  for name in first:
    np.testing.assert_array_equal(first[name], second[name], err_msg=name)
  assert rows_of(a) == rows_of(b)
  files = [
    sorted(p.relative_to(run) for p in run.glob('evals/**/*.npy'))
    for run in (a, b)
  ]
  assert files[0] == files[1]
  for name in files[0]:
    np.testing.assert_array_equal(np.load(a / name), np.load(b / name))


def override_for_eight_steps() -> RunConfig:
  """The same run, eight updates long."""
  return override(
    get_config(),
    [
      'total_steps=8',
      'optimizer.schedule.warmup_steps=2',
      'checkpoint.keep_steps=()',
      'eval.every_steps=4',
    ],
  )
