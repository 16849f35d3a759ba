"""The training loop: every side effect of a run is here.

All that can be checked is checked first: the devices, the batch, the corpus,
the folder, the checkpoint. Then the folder is written, then the step compiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lrsched
from lrsched import laws
from trainers import checkpoint
from trainers.config import ForecastConfig
from trainers.config import RunConfig
from trainers.corpus import Corpus
from trainers.corpus import materialise
from trainers.data import eval_batches
from trainers.data import next_batch
from trainers.data import train_iterator
from trainers.data import windows_per_epoch
from trainers.evaluate import EvalResult
from trainers.evaluate import evaluate
from trainers.evaluate import make_eval_step
from trainers.evaluate import place_eval_batches
from trainers.evaluate import summarise
from trainers.fields import to_dict
from trainers.forecaster import Forecaster
from trainers.log import Log
from trainers.log import eval_file
from trainers.optimizer import Muon
from trainers.optimizer import schedules_of
from trainers.sharding import check_batch
from trainers.sharding import check_processes
from trainers.sharding import make_mesh
from trainers.start import Start
from trainers.start import checkpoints_of
from trainers.start import plan_start
from trainers.start import read_lineage
from trainers.train_step import TrainState
from trainers.train_step import abstract_state
from trainers.train_step import init_state
from trainers.train_step import place_batch
from trainers.train_step import schedule_arrays
from trainers.train_step import train_step_for

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'grain')


def run(
  config: RunConfig,
  workdir: pathlib.Path,
  *,
  branch_from: str | None = None,
  restore: Literal['resume', 'replace'] | None = None,
) -> EvalResult:
  """Trains to `config.total_steps`, from wherever the run stands.

  Args:
    config: the run.
    workdir: its folder; see `trainers.start.plan_start` for what it may hold.
    branch_from: `DIR@STEP`, to start as a branch of that checkpoint.
    restore: demands that `workdir` holds a run, and says what may differ.

  Returns:
    The evaluation after the last update.

  Raises:
    ValueError: if anything does not fit; no file was changed.
    FloatingPointError: if the loss is no longer finite; the last checkpoint is
      from before.
  """
  mesh = make_mesh(config.mesh)
  for batch_size in config.data.batch_sizes():
    check_batch('data', batch_size, config.accum_steps, mesh)
  check_batch('eval', config.eval.batch_size, 1, mesh)
  check_processes(mesh)
  abstract = abstract_state(config, mesh)
  corpus = materialise(config.data.source, config.data.cache_dir)
  batches = _check_corpus(config, corpus)
  resolved = to_dict(config) | {
    'corpus': {'hash': corpus.hash, 'train_tokens': corpus.train_tokens}
  }
  schedules = schedules_of(config.optimizer)
  start = plan_start(resolved, schedules, workdir, branch_from, restore)
  forecaster = _forecaster(config, start)
  if start.step == config.total_steps:
    print(f'{workdir}: already at step {start.step}', file=sys.stderr)
    return summarise(_last_losses(workdir, start.step))
  data = train_iterator(
    corpus,
    config.data,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  state = None
  if start.root is not None:
    saved_data = data if start.same_data else None
    state = _load(config, mesh, abstract, start.root, start.step, saved_data)
  if jax.process_count() > 1:
    # All have read the folder before the first of them writes to it.
    multihost_utils.sync_global_devices('planned')
  is_writer = jax.process_index() == 0
  with _locked(workdir) if is_writer else contextlib.nullcontext():
    if is_writer:
      _write_folder(workdir, resolved, start)
    for name, spec in schedules.items():
      text = _lr_lines(spec, start.step, config.total_steps)
      print(f'{workdir}: {name}: {text}', file=sys.stderr)
    with jax.set_mesh(mesh):
      if state is None:
        # One program: eager initialisation would compile dozens of small ones.
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        init = lambda seed: init_state(config, seed)
        state = jax.jit(init, out_shardings=shardings)(np.uint32(config.seed))
      return _train_from(
        config,
        workdir,
        resolved,
        mesh,
        corpus,
        batches,
        start,
        state,
        data,
        forecaster,
      )


def _forecaster(config: RunConfig, start: Start) -> Forecaster | None:
  """What follows the run; goes on from what the checkpoint recorded."""
  if config.forecast is None:
    return None
  saved = None
  if start.root is not None:
    saved = checkpoint.load_metadata(start.root, start.step).get('forecast')
  schedule = config.optimizer.schedule
  return Forecaster(config.forecast, schedule, config.total_steps, saved)


def _load(
  config: RunConfig,
  mesh: Mesh,
  abstract: TrainState,
  root: pathlib.Path,
  step: int,
  data: Any,
) -> TrainState:
  """The saved state; if other groups made it, its record of LRs begins anew.

  Whether a law follows the run is no matter of the state either: a track of the
  LR that is not there is made from the saved schedule.
  """
  trained = checkpoint.load_metadata(root, step)['config']
  if bool(trained.get('forecast')) != bool(config.forecast):
    forecast = ForecastConfig() if trained.get('forecast') else None
    as_saved = dataclasses.replace(config, forecast=forecast)
    state = _load(
      as_saved, mesh, abstract_state(as_saved, mesh), root, step, data
    )
    track = _track_of(trained, step, mesh) if config.forecast else None
    return state._replace(track=track)
  saved = trained['optimizer']
  patterns = saved.get('groups', {}).keys()
  if isinstance(config.optimizer, Muon) or (
    patterns == config.optimizer.groups.keys()
  ):
    return checkpoint.load(root, step, abstract, data)
  # Which groups are frozen, and what schedules others have, is not in the tree.
  groups = dict.fromkeys(patterns)
  optimizer = dataclasses.replace(config.optimizer, groups=groups)
  config = dataclasses.replace(config, optimizer=optimizer)
  state = checkpoint.load(root, step, abstract_state(config, mesh), data)
  *before, (*links, old) = state.opt_state
  record = jax.tree.map(
    lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding),
    abstract.opt_state[-1][-1],
  )
  record = record._replace(step=old.step)
  return state._replace(opt_state=(*before, (*links, record)))


def _track_of(trained: dict[str, Any], step: int, mesh: Mesh) -> laws.Track:
  """The track of a run that had none, up to a checkpoint."""
  spec = lrsched.from_dict(
    trained['optimizer']['schedule'], 'optimizer.schedule'
  )
  lrs, warmup_steps = laws.lr_of_updates(spec, step)

  @jax.jit
  def follow(lrs: jax.Array) -> laws.Track:
    add = lambda track, lr: (laws.tracked(track, lr, warmup_steps), None)
    return jax.lax.scan(add, laws.init_track(), lrs)[0]

  track = follow(np.asarray(lrs, np.float32))
  return jax.device_put(track, NamedSharding(mesh, P()))


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
  with (workdir / 'lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ValueError(
        f'another process is training in {workdir}; wait for it, or stop it'
      ) from error
    yield


def _check_corpus(config: RunConfig, corpus: Corpus) -> list[np.ndarray]:
  """The evaluation batches; raises ValueError if the corpus does not fit."""
  if corpus.vocab_size > config.model.vocab_size:
    raise ValueError(
      f'model.vocab_size must be at least {corpus.vocab_size}, the ids in the '
      f'corpus, got {config.model.vocab_size}'
    )
  windows_per_epoch(corpus, config.data.seq_len)
  return eval_batches(
    corpus,
    config.data.seq_len,
    config.eval.n_sequences,
    config.eval.batch_size,
  )


def _write_folder(
  workdir: pathlib.Path, resolved: dict[str, Any], start: Start
) -> None:
  """Records the run's config and lineage, and says what is new in it."""
  recorded = workdir / 'lineage.json'
  n_old = len(read_lineage(workdir).events) if recorded.exists() else 0
  for event in start.lineage.events[n_old:]:
    for line in event.note:
      print(f'{workdir}: {event.kind} at {event.step}: {line}', file=sys.stderr)
  lineage = json.dumps(start.lineage.to_dict(), indent=2)
  checkpoint.write_durably(recorded, lineage)
  # A folder with a config is a run: whatever follows can be done again.
  text = json.dumps(resolved, indent=2)
  checkpoint.write_durably(workdir / 'config.json', text)
  for folder in (checkpoints_of(workdir), workdir / 'evals'):
    folder.mkdir(exist_ok=True)


def _is_due(step: int, every: int, keep: tuple[int, ...], last: int) -> bool:
  return step % every == 0 or step in keep or step == last


def _train_from(
  config: RunConfig,
  workdir: pathlib.Path,
  resolved: dict[str, Any],
  mesh: Mesh,
  corpus: Corpus,
  eval_tokens: list[np.ndarray],
  start: Start,
  state: TrainState,
  data: Any,
  forecaster: Forecaster | None,
) -> EvalResult:
  metadata = {
    'config': resolved,
    'lineage': start.lineage.to_dict(),
    'versions': {'lrsched': lrsched.__version__}
    | {name: importlib.metadata.version(name) for name in PACKAGES},
  }
  parent = start.lineage.parent
  first = 0 if parent is None else parent.step
  with contextlib.ExitStack() as stack:
    saver = stack.enter_context(
      checkpoint.Saver(
        checkpoints_of(workdir),
        config.checkpoint.keep_last,
        (first, *config.checkpoint.keep_steps),
      )
    )
    if forecaster is not None:
      stack.callback(forecaster.close)
    if start.root != checkpoints_of(workdir):
      # Durable before the first compilation: a run that starts can restart.
      saver.save(start.step, state, data, _recorded(metadata, forecaster))
      saver.wait()
    log = stack.enter_context(
      Log(config, workdir, resolved, corpus, start.step)
    )
    return _loop(
      config,
      mesh,
      eval_tokens,
      metadata,
      start.step,
      state,
      data,
      saver,
      log,
      forecaster,
    )


def _recorded(
  metadata: dict[str, Any], forecaster: Forecaster | None
) -> dict[str, Any]:
  """The metadata of a checkpoint, with what the forecaster must know again."""
  if forecaster is None:
    return metadata
  return metadata | {'forecast': forecaster.record()}


def _loop(
  config: RunConfig,
  mesh: Mesh,
  eval_tokens: list[np.ndarray],
  metadata: dict[str, Any],
  first_step: int,
  state: TrainState,
  data: Any,
  saver: checkpoint.Saver,
  log: Log,
  forecaster: Forecaster | None,
) -> EvalResult:
  schedules = schedule_arrays(schedules_of(config.optimizer))
  train_step = train_step_for(
    config, mesh, forecaster.law if forecaster is not None else None
  )
  eval_step = make_eval_step(config.model, mesh)
  eval_batches = place_eval_batches(eval_tokens, mesh)
  last, keep = config.total_steps, config.checkpoint.keep_steps
  for step in range(first_step, last):
    batch = next_batch(data, config.data, step)
    tokens = place_batch(batch, config.accum_steps, mesh)
    if forecaster is None:
      state, metrics = train_step(state, tokens, schedules)
    else:
      outlook = forecaster.outlook
      state, metrics = train_step(state, tokens, schedules, outlook)
      metrics = forecaster.said(step, metrics)
    log.train(step, metrics)
    done = step + 1
    if _is_due(done, config.eval.every_steps, keep, last):
      result = evaluate(eval_step, state.params, eval_batches)
      ema = state.ema and evaluate(eval_step, state.ema, eval_batches)
      expected = {}
      if forecaster is not None:
        loss, track = result.mean, jax.device_get(state.track)
        expected = forecaster.evaluated(done, loss, metrics, track)
      log.evaluation(done, result, ema, expected)
    if _is_due(done, config.checkpoint.every_steps, keep, last):
      log.flush(done)
      saver.save(done, state, data, _recorded(metadata, forecaster))
  saver.wait()
  log.close(result)
  return result
