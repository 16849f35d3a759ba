"""Every way to go on from a checkpoint, run for real: three updates each side.

  python -m tests.integration.restore_cells FOLDER [PORT RANK]

trains the trunks and goes on from them in every way, in steps and in tokens,
and prints what came of it as JSON; with a port and a rank, as one of two
processes. `CELLS` says what each is to do, from the plan alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

import lrsched
from tests.tiny import tiny_run
from trainers.checkpoint import load
from trainers.checkpoint import manifest_of
from trainers.checkpoint import path_of
from trainers.config import CheckpointConfig
from trainers.config import EvalConfig
from trainers.config import RunConfig
from trainers.horizon import BatchRamp
from trainers.optimizer import AdamW
from trainers.optimizer import Optax
from trainers.sharding import make_mesh
from trainers.sources import TokenFile
from trainers.start import checkpoints_of
from trainers.train import run
from trainers.train_step import abstract_state

SAVED = 6  # the step of the checkpoint that every cell goes on from
LAST = 9
PEAK = 1e-2

# It never stands still, so a wrong position shows.
FALLING = lrsched.Warmup(
  schedule=lrsched.Linear(peak_lr=PEAK, total_steps=38), warmup_steps=2
)
WSD = lrsched.WSD(peak_lr=PEAK, warmup_steps=2, stable_steps=30, decay_steps=8)
INFINITE = lrsched.Infinite(
  peak_lr=PEAK,
  const_lr=PEAK / 2,
  final_lr=PEAK / 10,
  warmup_steps=1,
  cooldown_steps=3,
  const_steps=30,
  anneal_steps=4,
)
# In tokens: two updates of half a batch, so that update t >= 2 stands at
# t - 1 full batches.
RAMP = BatchRamp(boundaries=(2,), batch_sizes=(4, 8))
LAG = {'steps': 0, 'tokens': 1}


class Cell(NamedTuple):
  """A way to go on.

  Attributes:
    trunk: the schedule of the trunk, in updates of the full batch.
    asked: of what follows, a function of where the checkpoint stands.
    policy: of `plan_restore`; None for weights that come from a file.
    carry: what is taken along.
    batch_size: of what follows, if another.
    optimizer: the name of another one, in optax.
  """

  trunk: lrsched.Schedule
  asked: Callable[[int], lrsched.Schedule]
  policy: str | None
  carry: str = 'all'
  batch_size: int = 8
  optimizer: str | None = None


def _same(at: int) -> lrsched.Schedule:
  del at
  return FALLING


def _linear(peak_lr: float, total_steps: int) -> lrsched.Warmup:
  linear = lrsched.Linear(peak_lr=peak_lr, total_steps=total_steps)
  return lrsched.Warmup(schedule=linear, warmup_steps=2)


def _rewarmed(at: int) -> lrsched.Schedule:
  after = lrsched.Linear(peak_lr=2 * PEAK, total_steps=20)
  return lrsched.Rewarm(
    before=FALLING, rewarm_step=at, warmup_steps=2, after=after
  )


CELLS = {
  'same': Cell(FALLING, _same, 'resume'),
  'longer horizon': Cell(FALLING, lambda at: _linear(PEAK, 58), 'replace'),
  'new peak': Cell(FALLING, lambda at: _linear(PEAK / 4, 38), 'replace'),
  'decay branch': Cell(WSD, lambda at: WSD.decay_from(at, 3), 'branch'),
  're-warm': Cell(FALLING, _rewarmed, 'branch'),
  'annealing branch': Cell(
    INFINITE, lambda at: INFINITE.anneal_from(at, 3), 'branch'
  ),
  'other batch size': Cell(FALLING, _same, 'branch', batch_size=4),
  'changed optimizer tree': Cell(
    FALLING, _same, 'branch', 'no_optimizer', optimizer='lion'
  ),
  'optimizer reset': Cell(FALLING, _same, 'branch', 'no_optimizer'),
  'weights only': Cell(FALLING, _same, 'branch', 'weights'),
  'foreign weights': Cell(FALLING, _same, None, 'weights'),
}
UNITS = ('steps', 'tokens')


def spec_in(
  units: str, schedule: lrsched.Schedule, ramp: BatchRamp = RAMP
) -> lrsched.Schedule:
  """A schedule in updates of the full batch, as the run counts."""
  return schedule if units == 'steps' else ramp.schedule(schedule)


def ramp_of(cell: Cell) -> BatchRamp:
  """The batch sizes of a run in tokens, from its first update on."""
  if cell.batch_size == 8:
    return RAMP
  return BatchRamp(boundaries=(2, SAVED), batch_sizes=(4, 8, cell.batch_size))


def asked_spec(cell: Cell, units: str) -> lrsched.Schedule:
  """What a cell asks to run."""
  schedule = cell.asked(SAVED - LAG[units])
  if units == 'tokens' and cell.batch_size != 8:
    # In updates of the new full batch: twice as many of half the size.
    schedule = lrsched.Stretched(schedule=schedule, from_steps=1, to_steps=2)
  return spec_in(units, schedule, ramp_of(cell))


def config_of(
  folder: pathlib.Path,
  units: str,
  spec: lrsched.Schedule,
  cell: Cell,
  ramp: BatchRamp,
) -> RunConfig:
  source = TokenFile(
    train_path=str(folder / 'train.bin'), valid_path=str(folder / 'valid.bin')
  )
  config = tiny_run(source)
  data = dataclasses.replace(
    config.data,
    batch_size=ramp.batch_sizes[-1] if units == 'tokens' else cell.batch_size,
    ramp=ramp if units == 'tokens' else None,
  )
  optimizer: Any = AdamW(schedule=spec)
  if cell.optimizer is not None:
    optimizer = Optax(name=cell.optimizer, schedule=spec)
  return dataclasses.replace(
    config,
    data=data,
    optimizer=optimizer,
    total_steps=LAST,
    eval=EvalConfig(every_steps=3, n_sequences=16, batch_size=16),
    checkpoint=CheckpointConfig(every_steps=3, keep_last=9),
  )


def write_tokens(folder: pathlib.Path) -> None:
  """Two token files, the same on every machine."""
  for name, n in (('train.bin', 4000), ('valid.bin', 600)):
    rng = np.random.default_rng(n)
    rng.integers(0, 64, n).astype(np.uint16).tofile(folder / name)


def _cut(trunk: pathlib.Path, workdir: pathlib.Path) -> None:
  """A copy of a run as if it had been killed after its checkpoint of SAVED."""
  shutil.copytree(trunk, workdir)
  root = checkpoints_of(workdir)
  manifest_of(root, LAST).unlink()
  shutil.rmtree(path_of(root, LAST))


def _export(config: RunConfig, trunk: pathlib.Path, path: pathlib.Path) -> None:
  """The weights of the checkpoint, as a file without anything else."""
  mesh = make_mesh(config.mesh)
  abstract = abstract_state(config, mesh).params
  params = load(checkpoints_of(trunk), SAVED, {'params': abstract})['params']
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  named = {
    jax.tree_util.keystr(where, simple=True, separator='/'): np.asarray(leaf)
    for where, leaf in leaves
  }
  if jax.process_index() == 0:
    np.savez(path, **named)


def run_cell(folder: pathlib.Path, name: str, units: str) -> dict[str, Any]:
  """Goes on from the trunk in one way; what was said, and where it lies."""
  cell = CELLS[name]
  kind = type(cell.trunk).__name__
  trunk = folder / f'trunk_{kind}_{units}'
  plain = Cell(cell.trunk, cell.asked, None)
  config = config_of(folder, units, spec_in(units, cell.trunk), plain, RAMP)
  if not (trunk / 'evals' / f'{LAST}.npy').exists():
    run(config, trunk)
  _meet()
  workdir = folder / f'{name.replace(" ", "_")}_{units}'
  asked = config_of(folder, units, asked_spec(cell, units), cell, ramp_of(cell))
  how: dict[str, Any] = {}
  if cell.policy in ('resume', 'replace'):
    if jax.process_index() == 0:
      _cut(trunk, workdir)
    how = {'restore': cell.policy}
  elif cell.policy == 'branch':
    how = {'branch_from': f'{trunk}@{SAVED}', 'carry': cell.carry}
  else:
    _export(config, trunk, folder / f'weights_{units}.npz')
    how = {'init_from': str(folder / f'weights_{units}.npz')}
  _meet()
  if cell.carry == 'weights':
    # In tokens, three updates end in the warmup, and would be refused.
    asked = dataclasses.replace(asked, total_steps=4)
  said = io.StringIO()
  with contextlib.redirect_stderr(said):
    run(asked, workdir, **how)
  _meet()
  return {'said': said.getvalue(), 'workdir': str(workdir), 'trunk': str(trunk)}


def _meet() -> None:
  """All processes see what the first has written."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('cell')


def main() -> None:
  folder = pathlib.Path(sys.argv[1])
  if len(sys.argv) > 2:
    address = f'127.0.0.1:{sys.argv[2]}'
    jax.distributed.initialize(address, 2, int(sys.argv[3]))
  found = {
    f'{name}, {units}': run_cell(folder, name, units)
    for units in UNITS
    for name in CELLS
  }
  if jax.process_index() == 0:
    print(json.dumps(found))


if __name__ == '__main__':
  main()
