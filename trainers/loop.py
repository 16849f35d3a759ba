"""The loop of a run: update, evaluate, save, and what is ordered meanwhile."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

import lrsched
from trainers import checkpoint
from trainers.config import RunConfig
from trainers.data import Batches
from trainers.decided import as_decided
from trainers.evaluate import EvalResult
from trainers.evaluate import averages_of
from trainers.evaluate import evaluate
from trainers.evaluate import make_eval_step
from trainers.evaluate import place_eval_batches
from trainers.finish import Pace
from trainers.fixed_set import ReplaySet
from trainers.fixed_set import replay_batch
from trainers.forecaster import Forecaster
from trainers.log import Log
from trainers.optimizer import schedules_of
from trainers.orders import Orders
from trainers.orders import Stopped
from trainers.outline import event_lines
from trainers.train_step import TrainState
from trainers.train_step import place_batch
from trainers.train_step import schedule_arrays
from trainers.train_step import train_step_for
from trainers.views import Draw


class Parts(NamedTuple):
  """What the loop works with; nothing in it decides anything.

  Attributes:
    workdir: the run's folder.
    mesh: the devices.
    metadata: of every checkpoint, but for what changes from one to the next.
    batches: the data.
    eval_tokens: evaluation batches by corpus; the main one is first.
    evaluated: whether the first step has been evaluated, or need not be.
    replay_set: what GeRe replays, or None.
    forecaster: the loss law that follows the run, or None.
    saver: of checkpoints.
    log: of metrics.
    orders: from outside.
    pace: time so far.
  """

  workdir: pathlib.Path
  mesh: Mesh
  metadata: dict[str, Any]
  batches: Batches
  eval_tokens: Mapping[str, list[np.ndarray]]
  evaluated: bool
  replay_set: ReplaySet | None
  forecaster: Forecaster | None
  saver: checkpoint.Saver
  log: Log
  orders: Orders
  pace: Pace


def train(
  config: RunConfig,
  parts: Parts,
  lineage: lrsched.Lineage,
  first_step: int,
  state: TrainState,
) -> EvalResult:
  """Trains to the end of the run.

  Returns:
    The evaluation of the main corpus after the last update.

  Raises:
    Stopped: if the run was told to stop; where it stands is saved.
    FloatingPointError: if a number is no longer finite.
  """
  law = parts.forecaster.law if parts.forecaster else None
  train_step = train_step_for(config, parts.mesh, law)
  evaluation = _evaluation(config, parts)
  schedules = schedule_arrays(schedules_of(config.optimizer))
  is_decaying = lineage.begun_decay is not None
  tokens_at = config.data.tokens_at
  is_over = config.finish.is_over(config.total_steps, tokens_at)
  if is_decaying:
    parts.orders.follow()  # killed between the record and this
  result, done = None, first_step
  parts.saver.last_step = first_step  # saved, or what the run goes on from
  if not parts.evaluated:
    with parts.log.pause(done):
      result = evaluation(done, state)
    if result is None:
      _stop(parts, lineage, done, state)
  while done < config.total_steps:
    is_late = not is_decaying and config.finish.is_late_by_clock(
      done, parts.pace, parts.orders.every_steps
    )
    order = parts.orders.poll(done, is_late)
    if not is_decaying and (
      order.decay or (is_over and config.finish.is_last_chance(done, tokens_at))
    ):
      begun = _begin_decay(config, parts, lineage, done, order.decay_steps)
      if begun is not None:
        config, lineage = begun
        schedules = schedule_arrays(schedules_of(config.optimizer))
        is_decaying = True
    if order.stop:
      # After the decay is recorded: a stop must not lose the other order.
      _stop(parts, lineage, done, state)
    batch = parts.batches.next(done)
    tokens = place_batch(batch, config.accum_steps, parts.mesh)
    extras = _extras(config, parts, done)
    state, metrics = train_step(state, tokens, schedules, **extras)
    if parts.forecaster is not None:
      metrics = parts.forecaster.said(done, metrics)
    parts.log.train(done, metrics)
    done += 1
    parts.pace.mark(done)
    if _is_due(config, done, config.eval.every_steps):
      with parts.log.pause(done):
        result = evaluation(done, state)
      if result is None:
        _stop(parts, lineage, done, state)
    if _is_due(config, done, config.checkpoint.every_steps):
      _save(parts, lineage, done, state)
  parts.saver.wait()
  assert result is not None
  parts.log.close(done, result)
  return result


def is_due(config: RunConfig, step: int) -> bool:
  """Whether a run is evaluated after `step` updates."""
  return _is_due(config, step, config.eval.every_steps)


def _is_due(config: RunConfig, step: int, every: int) -> bool:
  keep, last = config.checkpoint.keep_steps, config.total_steps
  return step % every == 0 or step in keep or step == last


def _extras(config: RunConfig, parts: Parts, step: int) -> dict[str, Any]:
  """The arguments of the step that only some configs have."""
  extras: dict[str, Any] = {}
  if parts.forecaster is not None:
    extras['outlook'] = parts.forecaster.outlook
  if parts.replay_set is not None:
    extras['replay'] = replay_batch(parts.replay_set, step)
  if config.data.views is not None:
    extras['draw'] = Draw(np.uint32(config.data.seed), np.int32(step))
  return extras


def _evaluation(
  config: RunConfig, parts: Parts
) -> Callable[[int, TrainState], EvalResult | None]:
  """What evaluates a state on every corpus, and reports it."""
  eval_step = make_eval_step(config.model, parts.mesh)
  batches = {
    name: place_eval_batches(tokens, parts.mesh)
    for name, tokens in parts.eval_tokens.items()
  }
  main = next(iter(batches))

  def evaluation(done: int, state: TrainState) -> EvalResult | None:
    """The main corpus's result; None if the run was told to stop meanwhile."""

    def is_stopping() -> bool:
      # The last one is seen through: a run saved at its end is complete.
      return done < parts.log.total_steps and parts.orders.is_stopping()

    results: dict[str, EvalResult] = {}
    for name in batches:
      whole = evaluate(eval_step, state.params, batches[name], is_stopping)
      if whole is None:
        return None
      results[name] = whole
    averages: dict[str, EvalResult] = {}
    for name, params in averages_of(state):
      whole = evaluate(eval_step, params, batches[main], is_stopping)
      if whole is None:
        return None
      averages[name] = whole
    expected = {}
    if parts.forecaster is not None:
      expected = parts.forecaster.evaluated(
        done, results[main].mean, jax.device_get(state.track)
      )
    epochs = parts.batches.epochs()
    parts.log.evaluation(done, results, averages, expected, epochs)
    return results[main]

  return evaluation


def _save(
  parts: Parts, lineage: lrsched.Lineage, done: int, state: TrainState
) -> None:
  with parts.log.pause(done):
    parts.saver.save(done, state, metadata_of(parts, lineage))


def metadata_of(parts: Parts, lineage: lrsched.Lineage) -> dict[str, Any]:
  """The metadata of a checkpoint that is saved now."""
  metadata = parts.metadata | {
    'lineage': lineage.to_dict(),
    'data': parts.batches.position(),
    'device_seconds': parts.pace.device_seconds(),
  }
  if parts.forecaster is not None:
    metadata['forecast'] = parts.forecaster.record()
  return metadata


def _stop(
  parts: Parts, lineage: lrsched.Lineage, done: int, state: TrainState
) -> None:
  """Saves where the run stands, and ends it."""
  if parts.saver.last_step != done:
    _save(parts, lineage, done, state)
  parts.saver.wait()
  parts.orders.keep()
  lineage = lineage.recorded(done, 'stop', ('SIGTERM',))
  write_lineage(parts.workdir, lineage)
  raise Stopped(parts.workdir, done)


def write_lineage(workdir: pathlib.Path, lineage: lrsched.Lineage) -> None:
  """Writes the lineage record of a run folder, from the first process."""
  if jax.process_index() == 0:
    text = json.dumps(lineage.to_dict(), indent=2)
    checkpoint.write_durably(workdir / 'lineage.json', text)


def _begin_decay(
  config: RunConfig,
  parts: Parts,
  lineage: lrsched.Lineage,
  step: int,
  decay_steps: int | None,
) -> tuple[RunConfig, lrsched.Lineage] | None:
  """The run with a decay from `step` on; None, with the reason, if it cannot.

  The record is durable before the first update that follows it, so a run that
  is killed later decays again from the same update on.
  """
  old, tokens_at = config.optimizer.schedule, config.data.tokens_at
  length = decay_steps or config.finish.decay_steps_at(step, tokens_at)
  try:
    [branch] = lrsched.decay_branches(old, (step,), (length,)).branches
    plan = lrsched.plan_restore(old, step, branch.spec, 'replace')
    # What it takes depends on the machine, so it is not part of the record.
    spec = lrsched.to_dict(branch.spec)
    lineage = lineage.recorded(step, 'decay', plan.diff, spec)
    changed = as_decided(config, lineage)
  except ValueError as error:
    why = f'{parts.workdir}: no decay at step {step} yet: {error}'
    parts.orders.refuse('decay', why)
    return None
  end_step = changed.total_steps
  tokens = tokens_at(end_step) - tokens_at(step)
  seconds = parts.pace.seconds_per_update
  cost = f'decay of {end_step - step} updates, {tokens} tokens'
  if seconds is not None:
    about = (end_step - step) * seconds
    cost += f', about {about:.0f} s at the pace so far'
  if jax.process_index() == 0:
    text = '\n'.join((*event_lines(lineage.events[-1]), f'  {cost}'))
    print(f'{parts.workdir}: {text}', file=sys.stderr)
  write_lineage(parts.workdir, lineage)
  parts.orders.follow()
  if parts.forecaster is not None:
    parts.forecaster.follow(branch.spec, end_step)
  parts.log.total_steps = end_step
  return changed, lineage
