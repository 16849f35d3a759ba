"""What a run reports: rows of metrics, a late step behind the device."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from trainers.config import RunConfig
from trainers.corpus import Corpus
from trainers.data import windows_per_epoch
from trainers.evaluate import EvalResult
from trainers.metrics import MetricWriter
from trainers.metrics import Progress
from trainers.model import flops_per_token

# Dense bfloat16 FLOP/s of one device, as its maker states them, by a part of
# the name jax gives it; the first match counts. MFU is relative to these even
# where a run computes in float32.
PEAK_FLOPS = {
  'B200': 2250e12,
  'H200': 989e12,
  'H100': 989e12,
  'A100': 312e12,
  'L4': 121e12,
  'TPU v6 lite': 918e12,
  'TPU v5p': 459e12,
  'TPU v5 lite': 197e12,
  'TPU v4': 275e12,
}


def eval_file(workdir: pathlib.Path, step: int) -> pathlib.Path:
  """Where the losses per sequence after `step` updates are."""
  return workdir / 'evals' / f'{step}.npy'


class Log:
  """Takes metrics off the device a step late, and writes what is due.

  Only process 0 writes; every process notices a loss that is not finite.
  """

  def __init__(
    self,
    config: RunConfig,
    workdir: pathlib.Path,
    resolved: dict[str, Any],
    corpus: Corpus,
    start_step: int,
  ):
    self._config, self._workdir, self._corpus = config, workdir, corpus
    self._flops_per_token = flops_per_token(config.model, config.data.seq_len)
    kind = jax.devices()[0].device_kind
    known = (flops for name, flops in PEAK_FLOPS.items() if name in kind)
    self._peak_flops = config.log.peak_flops_per_device or next(known, None)
    self._late: tuple[int, dict[str, jax.Array]] | None = None
    # Where the clock of tokens/s last started; not before the step is compiled.
    self._since: tuple[int, float] | None = None
    self._writer = self._progress = None
    self._stack = contextlib.ExitStack()
    if jax.process_index() == 0:
      writer = MetricWriter(
        workdir,
        hparams=_hparams(resolved),
        total_steps=config.total_steps,
        start_step=start_step,
        description=json.dumps(resolved['optimizer'], indent=2),
      )
      self._writer = self._stack.enter_context(writer)
      self._progress = self._stack.enter_context(
        Progress(
          total_steps=config.total_steps,
          start_step=start_step,
          name=workdir.name,
        )
      )

  def __enter__(self) -> Log:
    return self

  def __exit__(self, *error: Any) -> None:
    self._stack.__exit__(*error)

  def train(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of update `step`; writes those of an earlier one."""
    late, self._late = self._late, (step, metrics)
    if late is not None and late[0] % self._config.log.every_steps == 0:
      self._write_train(*late)

  def flush(self, done: int) -> None:
    """Writes what is due before a checkpoint of `done` updates is saved."""
    if self._late is None:
      return
    late, self._late = self._late, None
    if (done - 1) % self._config.log.every_steps == 0:
      self._write_train(*late)
    else:
      _check_finite(late[0], jax.device_get(late[1]))

  def evaluation(
    self,
    done: int,
    result: EvalResult,
    ema: EvalResult | None,
    expected: Mapping[str, float],
  ) -> None:
    """Writes an evaluation after `done` updates, and what a law expected."""
    self.flush(done)
    row = {
      'eval_loss': result.mean,
      'eval_se': result.standard_error,
      'epochs': self._config.data.samples_at(done) / self._windows(),
    }
    if self._corpus.bytes_per_token is not None:
      nats_per_byte = result.mean / self._corpus.bytes_per_token
      row['eval_bits_per_byte'] = nats_per_byte / math.log(2)
    if ema is not None:
      row['ema_eval_loss'] = ema.mean
    row |= expected
    if jax.process_index() == 0:
      path = eval_file(self._workdir, done)
      temporary = path.with_suffix('.tmp.npy')
      np.save(temporary, result.losses)
      temporary.replace(path)
    self._write(done, row)
    _check_finite(done, row)
    self._since = (done, time.monotonic())

  def close(self, result: EvalResult) -> None:
    """Records the outcome of a run that came to its end."""
    if self._writer is not None:
      self._writer.close({'eval_loss': result.mean})

  def _windows(self) -> int:
    return windows_per_epoch(self._corpus, self._config.data.seq_len)

  def _write_train(self, step: int, metrics: dict[str, jax.Array]) -> None:
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    # A jitted function returns its dict sorted; the loss reads better first.
    row = {'loss': values.pop('loss'), **values}
    _check_finite(step, row)
    since, self._since = self._since, (step + 1, time.monotonic())
    if since is not None and step + 1 > since[0]:
      data = self._config.data
      sequences = data.samples_at(step + 1) - data.samples_at(since[0])
      seconds = self._since[1] - since[1]
      tokens_per_s = sequences * data.seq_len / seconds
      row['tokens_per_s'] = tokens_per_s
      if self._peak_flops is not None:
        flops_per_s = tokens_per_s * self._flops_per_token
        row['mfu'] = flops_per_s / (self._peak_flops * jax.device_count())
    self._write(step, row)

  def _write(self, step: int, row: dict[str, float]) -> None:
    if self._writer is not None and self._progress is not None:
      self._writer.write(step, row)
      self._progress.show(step, row)


def _check_finite(step: int, row: Mapping[str, Any]) -> None:
  """Raises FloatingPointError before anything that is not finite is saved.

  The ratio of update to parameters is of the weights after the update, so it
  finds what the loss would show one step later.
  """
  for name, value in row.items():
    if not math.isfinite(value):
      raise FloatingPointError(
        f'{name} at step {step} is {float(value)}; the run stops, and its last '
        'checkpoint is from before; lower the peak LR or lengthen the warmup'
      )


def _hparams(resolved: dict[str, Any]) -> dict[str, str | int | float]:
  """The numbers a sweep is compared by: the optimizer's, seed and length."""
  out: dict[str, str | int | float] = {
    'seed': resolved['seed'],
    'total_steps': resolved['total_steps'],
    'batch_size': resolved['data']['batch_size'],
  }

  def add(prefix: str, value: Any) -> None:
    if isinstance(value, dict):
      for name, item in value.items():
        add(f'{prefix}.{name}', item)
    elif isinstance(value, (str, int, float)):
      out[prefix] = value

  add('optimizer', resolved['optimizer'])
  return out
