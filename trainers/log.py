"""What a run reports: rows of metrics, a late step behind the device."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from trainers.config import RunConfig
from trainers.evaluate import EvalResult
from trainers.evaluate import summarise
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


def eval_file(
  workdir: pathlib.Path, step: int, name: str | None = None
) -> pathlib.Path:
  """Where the losses per sequence after `step` updates are.

  Of the main corpus, or of any by name if the run is evaluated on several.
  """
  folder = workdir / 'evals'
  return (folder if name is None else folder / name) / f'{step}.npy'


class Log:
  """Takes metrics off the device a step late, and writes what is due.

  Only process 0 writes; every process notices a loss that is not finite.
  """

  def __init__(
    self,
    config: RunConfig,
    workdir: pathlib.Path,
    resolved: dict[str, Any],
    bytes_per_token: Mapping[str, float | None],
    first_step: int,
    start_step: int,
  ):
    """Opens the files of a run.

    Args:
      config: of the run.
      workdir: its folder.
      resolved: the config as JSON values.
      bytes_per_token: of each corpus that is evaluated, the main one first;
        None where only a tokenizer would know.
      first_step: where the run began: what is forgotten counts from there.
      start_step: where this launch goes on.
    """
    self._config, self._workdir = config, workdir
    self._bytes_per_token, self._first_step = bytes_per_token, first_step
    self._first_losses: dict[str, float] = {}
    self._ends_at = config.total_steps
    self._flops_per_token = flops_per_token(config.model, config.data.seq_len)
    kind = jax.devices()[0].device_kind
    known = (flops for name, flops in PEAK_FLOPS.items() if name in kind)
    self._peak_flops = config.log.peak_flops_per_device or next(known, None)
    self._late: tuple[int, dict[str, jax.Array]] | None = None
    # Updates done, and seconds trained, at the last row; none before the first,
    # which waits for the compilation.
    self._since: tuple[int, float] | None = None
    self._paused_s = 0.0
    self._writer = self._progress = None
    self._stack = contextlib.ExitStack()
    if jax.process_index() == 0:
      writer = MetricWriter(
        workdir,
        hparams=_hparams(resolved),
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

  @contextlib.contextmanager
  def pause(self, done: int) -> Iterator[None]:
    """Around an evaluation or a save: its time is not in tokens/s.

    First it writes what is due of `done` updates, for which it waits until the
    devices have made the last of them.
    """
    self.flush(done)
    began = time.monotonic()
    yield
    self._paused_s += time.monotonic() - began

  def flush(self, done: int) -> None:
    """Writes what is due before a checkpoint of `done` updates is saved."""
    if self._late is None:
      return
    late, self._late = self._late, None
    if (done - 1) % self._config.log.every_steps == 0:
      self._write_train(*late)
    else:
      _check_finite(late[0], jax.device_get(late[1]))

  @property
  def total_steps(self) -> int:
    """Where the run ends."""
    return self._ends_at

  @total_steps.setter
  def total_steps(self, total_steps: int) -> None:
    self._ends_at = total_steps
    if self._progress is not None:
      self._progress.ends_at(total_steps)

  def evaluation(
    self,
    done: int,
    results: Mapping[str, EvalResult],
    averages: Mapping[str, EvalResult],
    expected: Mapping[str, float],
    epochs: Mapping[str, float],
  ) -> None:
    """Writes an evaluation; it was made inside `pause`.

    Args:
      done: updates done.
      results: by corpus, the main one first.
      averages: of the main corpus, by kind of average of the weights.
      expected: what a law has to say.
      epochs: passes over each corpus that is trained on.
    """
    self.flush(done)
    main = next(iter(results))
    row = self._row_of(main, results[main], '')
    row['epochs'] = epochs[main]
    if len(results) > 1:
      for name, result in results.items():
        row |= self._row_of(name, result, f'/{name}')
        self._save(eval_file(self._workdir, done, name), result)
        first = self._first_loss(done, name, result)
        if first is not None:
          row[f'forgetting/{name}'] = result.mean - first
    if len(epochs) > 1:
      row |= {f'epochs/{name}': value for name, value in epochs.items()}
    row |= {f'{kind}_eval_loss': r.mean for kind, r in averages.items()}
    row |= expected
    self._save(eval_file(self._workdir, done), results[main])
    self._write(done, row)
    _check_finite(done, row)

  def _row_of(
    self, name: str, result: EvalResult, suffix: str
  ) -> dict[str, float]:
    row = {
      f'eval_loss{suffix}': result.mean,
      f'eval_se{suffix}': result.standard_error,
    }
    bytes_per_token = self._bytes_per_token[name]
    if bytes_per_token is not None:
      bits = result.mean / bytes_per_token / math.log(2)
      row[f'eval_bits_per_byte{suffix}'] = bits
    return row

  def _first_loss(
    self, done: int, name: str, result: EvalResult
  ) -> float | None:
    """The loss that the run began with; None if it began with new weights."""
    if name not in self._first_losses:
      path = eval_file(self._workdir, self._first_step, name)
      if done == self._first_step:
        self._first_losses[name] = result.mean
      elif path.exists():
        self._first_losses[name] = summarise(np.load(path)).mean
    return self._first_losses.get(name)

  def _save(self, path: pathlib.Path, result: EvalResult) -> None:
    if jax.process_index() == 0:
      path.parent.mkdir(exist_ok=True)
      temporary = path.with_suffix('.tmp.npy')
      np.save(temporary, result.losses)
      temporary.replace(path)

  def close(self, done: int, result: EvalResult) -> None:
    """Records the outcome of a run that came to its end."""
    if self._writer is not None:
      self._writer.close(done, {'eval_loss': result.mean})

  def _write_train(self, step: int, metrics: dict[str, jax.Array]) -> None:
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    # A jitted function returns its dict sorted; the loss reads better first.
    row = {'loss': values.pop('loss'), **values}
    _check_finite(step, row)
    trained_s = time.monotonic() - self._paused_s
    since, self._since = self._since, (step + 1, trained_s)
    if since is not None:
      data = self._config.data
      sequences = data.samples_at(step + 1) - data.samples_at(since[0])
      tokens_per_s = sequences * data.seq_len / (trained_s - since[1])
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
