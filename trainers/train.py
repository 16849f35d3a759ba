"""The training loop: every side effect of a run is here.

All that can be checked is checked first: the devices, the batch, the corpus,
the folder, the checkpoint. Then the folder is written, then the step compiles.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import lrsched
from trainers import checkpoint
from trainers.config import RunConfig
from trainers.corpora import GERE
from trainers.corpora import check_corpora
from trainers.corpora import corpora_of
from trainers.corpora import resolved_of
from trainers.data import Batches
from trainers.data import streams_of
from trainers.decided import as_decided
from trainers.evaluate import EvalResult
from trainers.evaluate import summarise
from trainers.finish import Pace
from trainers.finish import check_left
from trainers.fixed_set import fixed_set
from trainers.forecaster import Forecaster
from trainers.log import Log
from trainers.log import eval_file
from trainers.loop import Parts
from trainers.loop import is_due
from trainers.loop import metadata_of
from trainers.loop import train
from trainers.loop import write_lineage
from trainers.metrics import read_metrics
from trainers.optimizer import schedules_of
from trainers.orders import Orders
from trainers.outline import event_lines
from trainers.outline import outline
from trainers.plan import plan_start
from trainers.restored import first_params
from trainers.restored import new_state
from trainers.restored import restored_state
from trainers.restored import state_from_file
from trainers.sharding import check_batch
from trainers.sharding import check_processes
from trainers.sharding import make_mesh
from trainers.start import Start
from trainers.start import checkpoints_of
from trainers.start import read_lineage
from trainers.train_step import TrainState
from trainers.train_step import abstract_state

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'grain')


def run(
  config: RunConfig,
  workdir: pathlib.Path,
  *,
  branch_from: str | None = None,
  carry: lrsched.Carry = 'all',
  init_from: str | None = None,
  restore: Literal['resume', 'replace'] | None = None,
) -> EvalResult:
  """Trains to `config.total_steps`, from wherever the run stands.

  Args:
    config: the run.
    workdir: its folder; see `trainers.plan.plan_start` for what it may hold.
    branch_from: `DIR@STEP`, to start as a branch of that checkpoint.
    carry: what a branch takes along; see `lrsched.plan_restore`.
    init_from: an .npz file of weights to start with; see
      `trainers.restored.state_from_file`.
    restore: demands that `workdir` holds a run, and says what may differ.

  Returns:
    The evaluation of the main corpus after the last update.

  Raises:
    ValueError: if anything does not fit; no file was changed.
    Stopped: if it was told to stop by SIGTERM; where it stands is saved.
    FloatingPointError: if the loss is no longer finite; the last checkpoint is
      from before.
  """
  mesh = make_mesh(config.mesh)
  _check_batches(config, mesh)
  abstract = abstract_state(config, mesh)  # raises if a weight does not divide
  corpora = corpora_of(config)
  eval_tokens = check_corpora(config, corpora)
  resolved = resolved_of(config, corpora)
  streams = streams_of(config.data, corpora)
  is_writer = jax.process_index() == 0
  is_run = (workdir / 'config.json').exists()
  with contextlib.ExitStack() as stack:
    if is_writer and is_run:
      # Before anything is planned on what another process still writes.
      stack.enter_context(_locked(workdir))
    start = plan_start(
      resolved,
      streams,
      workdir,
      branch_from=branch_from,
      carry=carry,
      init_from=init_from,
      restore=restore,
    )
    config = as_decided(config, start.lineage)
    if start.step == config.total_steps:
      print(f'{workdir}: already at step {start.step}', file=sys.stderr)
      return summarise(_last_losses(workdir, start.step))
    _check_start(config, start, init_from)
    forecaster = _forecaster(config, resolved, start)
    batches = Batches(
      {name: corpora[name] for name in streams},
      config.data,
      start.position,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    state = None
    if start.metadata is not None:
      state = restored_state(config, mesh, start)
    elif init_from is not None:
      state = state_from_file(config, mesh, init_from)
    teacher = _teacher(config, mesh, start)
    evaluated = _is_evaluated(config, workdir, start)
    if jax.process_count() > 1:
      # All have read the folder before the first of them writes to it.
      multihost_utils.sync_global_devices('planned')
    if is_writer and not is_run:
      stack.enter_context(_locked(workdir))
      if (workdir / 'config.json').exists():
        raise ValueError(
          f'another process began a run in {workdir} meanwhile; launch again'
        )
    if is_writer:
      _write_folder(workdir, resolved, start)
      _announce(workdir, config, start.step, batches, abstract, mesh)
    stack.enter_context(jax.set_mesh(mesh))
    if state is None:
      state = new_state(config, mesh)
    saver = checkpoint.Saver(
      checkpoints_of(workdir),
      config.checkpoint.keep_last,
      (start.lineage.start_step, *config.checkpoint.keep_steps),
    )
    log = Log(
      config,
      workdir,
      resolved,
      {name: corpora[name].bytes_per_token for name in eval_tokens},
      start.lineage.start_step,
      start.step,
    )
    if forecaster is not None:
      stack.callback(forecaster.close)
    replay_set = None
    if config.gere is not None:
      # The teacher is the run's first weights.
      first = state.params if teacher is None else teacher
      replay_set = fixed_set(config, first, mesh, corpora[GERE])
      del first
    del teacher
    parts = Parts(
      workdir=workdir,
      mesh=mesh,
      metadata=_metadata(resolved),
      batches=batches,
      eval_tokens=eval_tokens,
      evaluated=evaluated,
      replay_set=replay_set,
      forecaster=forecaster,
      saver=stack.enter_context(saver),
      log=stack.enter_context(log),
      orders=stack.enter_context(Orders(workdir, config.log.every_steps)),
      pace=Pace(_device_seconds_before(start), jax.device_count()),
    )
    if start.root != checkpoints_of(workdir):
      # Durable before the first compilation: what starts can restart.
      saver.save(start.step, state, metadata_of(parts, start.lineage))
      saver.wait()
    return train(config, parts, start.lineage, start.step, state)


def _check_batches(config: RunConfig, mesh: Mesh) -> None:
  """Raises ValueError unless every batch divides over the devices."""
  views = config.data.views.n if config.data.views else 1
  for batch_size in config.data.batch_sizes():
    check_batch('data', batch_size // views, config.accum_steps, mesh)
  check_batch('eval', config.eval.batch_size, 1, mesh)
  if config.gere is not None:
    check_batch('gere', config.gere.batch_size, 1, mesh)
  check_processes(mesh)


def _check_start(
  config: RunConfig, start: Start, init_from: str | None
) -> None:
  """Raises ValueError if what the config asks for does not fit the start."""
  if config.gere is not None and start.metadata is None and init_from is None:
    raise ValueError(
      'RunConfig.gere needs weights that know what it replays, got new ones: '
      'they would be the teacher; use --branch_from or --init_from'
    )
  if start.lineage.begun_decay is None:
    begins = start.step == start.lineage.start_step
    check_left(config.finish, start.step, config.data.tokens_at, begins)


def _forecaster(
  config: RunConfig, resolved: dict[str, Any], start: Start
) -> Forecaster | None:
  """What follows the run; goes on from what the checkpoint recorded."""
  if config.forecast is None:
    return None
  saved = None
  if start.metadata is not None and start.carry != 'weights':
    if _main_hash(resolved) != _main_hash(start.metadata['config']):
      raise ValueError(
        'RunConfig.forecast follows one loss from its first update on, but '
        "this branch's main corpus is not its parent's; use forecast=None, or "
        '--carry=weights to count from here'
      )
    saved = start.metadata.get('forecast')
  schedule = config.optimizer.schedule
  return Forecaster(config.forecast, schedule, config.total_steps, saved)


def _main_hash(resolved: dict[str, Any]) -> str:
  """Of the corpus that `eval_loss` is of."""
  source = resolved['data']['source']
  domains = source.get('domains', {}).items()
  rest = [name for name, domain in domains if domain['share'] is None]
  [name] = rest or [source['kind'].lower()]
  return resolved['corpora'][name]['hash']


def _is_evaluated(
  config: RunConfig, workdir: pathlib.Path, start: Start
) -> bool:
  """Whether the first step needs no evaluation before the first update.

  What a run begins with is evaluated, unless it is new weights; and so is a
  checkpoint whose evaluation a signal cut off.
  """
  lineage = start.lineage
  begins = start.step == lineage.start_step
  has_origin = lineage.parent is not None or bool(lineage.events[0].note)
  if not (has_origin if begins else is_due(config, start.step)):
    return True
  if not (workdir / 'metrics.jsonl').exists():
    return False
  _, evaluations = read_metrics(workdir)
  return any(row['step'] == start.step for row in evaluations)


def _metadata(resolved: dict[str, Any]) -> dict[str, Any]:
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {
    'config': resolved,
    'versions': {'lrsched': lrsched.__version__} | versions,
  }


def _device_seconds_before(start: Start) -> float:
  """What earlier launches of the run trained; a branch begins its own count."""
  if start.metadata is None or start.is_branch:
    return 0.0
  return start.metadata['device_seconds']


def _teacher(config: RunConfig, mesh: Mesh, start: Start) -> Any:
  """The run's first weights for GeRe, if it does not stand there now."""
  first = start.lineage.start_step
  if config.gere is None or start.root is None or start.is_branch:
    return None
  if start.step == first:
    return None
  return first_params(config, mesh, start.root, first)


def _announce(
  workdir: pathlib.Path,
  config: RunConfig,
  step: int,
  batches: Batches,
  abstract: TrainState,
  mesh: Mesh,
) -> None:
  """Prints what the run is about to do, and its next LRs."""
  lines = outline(
    config, step, batches.epochs(), batches.windows(), abstract, mesh
  )
  for name, spec in schedules_of(config.optimizer).items():
    lines.append(f'{name}: {_lr_lines(spec, step, config.total_steps)}')
  print(f'{workdir}: ' + '\n  '.join(lines), file=sys.stderr)


def _lr_lines(spec: lrsched.Schedule, step: int, total_steps: int) -> str:
  """The next LR; the last one too, if the run ends before its schedule."""
  text = f'LR of update {step} is {lrsched.lr_at(spec, step):.4g}'
  if spec.end_step is None or spec.end_step == total_steps:
    return text
  last = lrsched.lr_at(spec, total_steps - 1)
  return (
    f'{text}; the run ends at step {total_steps}, before the schedule does at '
    f'{spec.end_step}, with a last LR of {last:.4g}'
  )


def _last_losses(workdir: pathlib.Path, step: int) -> np.ndarray:
  path = eval_file(workdir, step)
  if not path.exists():
    raise ValueError(f'workdir {workdir} is complete, but {path} is missing')
  return np.load(path)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds the folder for this process; the lock ends with the process."""
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / 'lock').open('a') as file:  # it is not written to
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ValueError(
        f'another process is training in {workdir}; wait for it, or stop it'
      ) from error
    yield


def _write_folder(
  workdir: pathlib.Path, resolved: dict[str, Any], start: Start
) -> None:
  """Records the run's config and lineage, and says what is new in it."""
  recorded = workdir / 'lineage.json'
  n_old = len(read_lineage(workdir).events) if recorded.exists() else 0
  for event in start.lineage.events[n_old:]:
    if event.note or event.kind != 'start':
      text = '\n'.join(event_lines(event))
      print(f'{workdir}: {text}', file=sys.stderr)
  write_lineage(workdir, start.lineage)
  # A folder with a config is a run: whatever follows can be done again.
  text = json.dumps(resolved, indent=2)
  checkpoint.write_durably(workdir / 'config.json', text)
  for folder in (checkpoints_of(workdir), workdir / 'evals'):
    folder.mkdir(exist_ok=True)
