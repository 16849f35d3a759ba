"""Metrics on the host: a JSON Lines file, TensorBoard events, the terminal.

A row is a dict of named numbers at a step. There are two kinds. A training row
belongs to update `step`, counted from 0: it holds the loss and the LR of that
update. An evaluation row is one that has `eval_loss`; its `step` is the number
of updates done. A name is the same in the training state, in `metrics.jsonl`
and in TensorBoard.

Only one process may write to a run folder; the caller sees to that.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import struct
import sys
import time
import types
from collections.abc import Mapping
from typing import Any, TextIO

import rich.console
import rich.progress
import tensorboardX.summary
from rich.table import Column
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2
from tensorboardX.record_writer import masked_crc32c

Row = dict[str, Any]

_FILE = 'metrics.jsonl'
LINE_EVERY_S = 5.0

# Charts of TensorBoard's Custom Scalars tab: names are regular expressions, and
# one that no run has written draws nothing.
_LAYOUT = {
  'Loss': {
    'train and evaluation': ['Multiline', ['^loss$', '^eval_loss$']],
    'averages of the weights': ['Multiline', ['^(ema_|lawa_)?eval_loss$']],
    'bits per byte': ['Multiline', ['^eval_bits_per_byte$']],
    'replay': ['Multiline', ['^(replay|gere|views)_loss$', '^views_kl$']],
  },
  'Domains': {
    'loss by domain': ['Multiline', ['^eval_loss/']],
    'bits per byte by domain': ['Multiline', ['^eval_bits_per_byte/']],
    'loss since the run began': ['Multiline', ['^forgetting/']],
    'epochs': ['Multiline', ['^epochs']],
  },
  'Loss law': {
    'forecast of the end': [
      'Multiline',
      ['^eval_loss$', '^law_(final|decay_now)_loss$', '^law_final_(low|high)$'],
    ],
    'residual': ['Multiline', ['^law_(eval_)?residual$']],
  },
  'Learning rate': {'as applied': ['Multiline', ['^lr([_/].*)?$']]},
  'Gradients': {
    'gradient norm': ['Multiline', ['^grad_norm']],
    'update / parameter ratio': ['Multiline', ['^update_ratio$']],
  },
  'Throughput': {
    'tokens per second': ['Multiline', ['^tokens_per_s$']],
    'model FLOP/s utilisation': ['Multiline', ['^mfu$']],
  },
}


def is_evaluation(row: Mapping[str, Any]) -> bool:
  """Whether a row is an evaluation; otherwise it is a training row."""
  return 'eval_loss' in row


def read_metrics(
  workdir: str | os.PathLike[str],
) -> tuple[list[Row], list[Row]]:
  """Reads what `MetricWriter` wrote.

  Args:
    workdir: a run folder.

  Returns:
    Training rows and evaluation rows, in the order written. `step` is an int,
    every other value a float, bit for bit as written; non-finite ones too.

  Raises:
    FileNotFoundError: the run has no `metrics.jsonl`.
    ValueError: a line other than the last is not a row. A last line that a
      killed process left unfinished is ignored.
  """
  rows = _read_rows(pathlib.Path(workdir) / _FILE)
  train = [row for row in rows if not is_evaluation(row)]
  return train, [row for row in rows if is_evaluation(row)]


class MetricWriter:
  """Appends rows to `metrics.jsonl` and to TensorBoard events in `tb/`.

  Each row reaches the operating system before `write` returns, so a killed
  process loses none. In the JSON, floats are written so that they read back
  exactly; JSON has no non-finite numbers, so they are the strings "nan", "inf"
  and "-inf", which `read_metrics` turns back.

  Rows are written on the calling thread, all scalars of a row as one event:
  0.11 ms for both files with six scalars on one CPU core. Six calls of
  tensorboardX's `add_scalar`, which has a queue and a thread, took 1.0 ms of
  the calling thread, and a kill loses what is in the queue.

  Hyperparameters belong to the run itself, not to a sub-run: the final metrics
  are scalars `final/<name>` beside the others.

  Use it as a context manager: a run that fails leaves its files closed and its
  session in TensorBoard unfinished.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    hparams: Mapping[str, str | int | float],
    start_step: int,
    description: str,
  ):
    """Opens both files, first removing what a resumed run will write again.

    Args:
      workdir: the run folder; it exists.
      hparams: what TensorBoard's HParams tab lists for this run. TensorBoard
        keeps the first that a folder was given.
      start_step: updates done so far: 0, the step of the restored checkpoint,
        or the branch step. Training rows at or beyond it and evaluation rows
        beyond it are dropped from `metrics.jsonl` and hidden in TensorBoard.
      description: shown in TensorBoard's Text tab as it is; the schedule spec.

    Raises:
      ValueError: `metrics.jsonl` has a damaged line before its last.
    """
    self._path = pathlib.Path(workdir) / _FILE
    kept = _drop_from(self._path, start_step)
    folder = pathlib.Path(workdir) / 'tb'
    folder.mkdir(exist_ok=True)
    # TensorBoard reads a folder's files by name: ten digits of seconds sort by
    # time, and the fraction keeps a quick restart from reusing a name.
    name = f'events.out.tfevents.{time.time():.6f}.{os.getpid()}'
    # Unbuffered, for one system call per event. No fsync: it guards against a
    # power cut, not a kill, and can take longer than a training step.
    self._events = open(folder / name, 'xb', buffering=0)  # noqa: SIM115
    self._add_event(file_version='brain.Event:2')
    restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add_event(step=start_step, session_log=restart)
    # A restart hides everything at its step, including a kept evaluation there.
    for row in kept:
      if row['step'] == start_step and is_evaluation(row):
        self._add_scalars(start_step, _values(row))
    _, session_start, self._session_end = tensorboardX.summary.hparams(
      dict(hparams), {}
    )
    # Without an experiment event TensorBoard takes the union over the runs it
    # shows; with one it would take the columns of whichever run it read first.
    code = '\n'.join('    ' + line for line in description.splitlines())
    for summary in (
      session_start,
      tensorboardX.summary.custom_scalars(_LAYOUT),
      tensorboardX.summary.text('schedule', code),
    ):
      self._add_event(step=start_step, summary=summary)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one row; see the module's docstring for what `step` counts."""
    values = {name: float(value) for name, value in values.items()}
    with open(self._path, 'a', encoding='utf-8') as file:
      file.write(_dump({'step': int(step)} | values))
    self._add_scalars(step, values)

  def close(self, step: int, final: Mapping[str, float]) -> None:
    """Writes the final metrics, marks the run as finished, closes the files."""
    values = {f'final/{name}': float(value) for name, value in final.items()}
    self._add_scalars(step, values)
    self._add_event(step=step, summary=self._session_end)
    self._events.close()

  def __enter__(self) -> MetricWriter:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    self._events.close()

  def _add_scalars(self, step: int, values: Mapping[str, float]) -> None:
    # simple_value, not a tensor: only these are scalars to EventAccumulator.
    scalars = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in values.items()
    ]
    self._add_event(step=step, summary=summary_pb2.Summary(value=scalars))

  def _add_event(self, **fields: Any) -> None:
    data = event_pb2.Event(wall_time=time.time(), **fields).SerializeToString()
    # The TFRecord frame: length, its checksum, data, its checksum.
    length = struct.pack('<Q', len(data))
    self._events.write(
      length
      + struct.pack('<I', masked_crc32c(length))
      + data
      + struct.pack('<I', masked_crc32c(data))
    )


class Progress:
  """Shows a run's progress: a bar on a terminal, lines elsewhere.

  Elsewhere a training row is a line if none was shown for `LINE_EVERY_S`
  seconds, so that the log of a long run stays short. Evaluations are lines in
  both. Use it as a context manager, which gives the terminal back at the end.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    start_step: int,
    name: str,
    stream: TextIO | None = None,
  ):
    """Shows the bar, if there is one.

    Args:
      total_steps: updates of the whole run.
      start_step: updates done before this process.
      name: what to call the run.
      stream: where to show it; standard error unless given.
    """
    self._total_steps, self._name = total_steps, name
    # The clock of the time left: started by the first row, so that it does not
    # count the compilation.
    self._since: tuple[int, float] | None = None
    self._shown_at = -math.inf  # when the last line was
    self._stream = sys.stderr if stream is None else stream
    self._bar: rich.progress.Progress | None = None
    # Asked of the stream, as rich also calls a pipe a terminal where the
    # environment forces colour, and would fill a log with control codes.
    if self._stream.isatty() and os.environ.get('TERM') != 'dumb':
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}', markup=False),
        # The bar takes what the numbers leave, in a narrow terminal nothing.
        rich.progress.BarColumn(None, table_column=Column(ratio=1)),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn('{task.fields[shown]}', markup=False),
        console=rich.console.Console(file=self._stream),
        refresh_per_second=4,
        expand=True,
      )
      self._task = self._bar.add_task(
        name, total=total_steps, completed=start_step, shown='compiling'
      )
      self._bar.start()

  def ends_at(self, total_steps: int) -> None:
    """Takes another length of the run."""
    self._total_steps = total_steps
    if self._bar is not None:
      self._bar.update(self._task, total=total_steps)

  def show(self, step: int, values: Mapping[str, float]) -> None:
    """Shows a row, with the arguments of `MetricWriter.write`."""
    if is_evaluation(values):
      self._line(f'{self._count(step)}  {_evaluation_text(values)}')
      return
    done = step + 1
    shown = '  '.join(
      text.format(values[key]) for key, text in _SHOWN.items() if key in values
    )
    shown += self._eta(done)
    if self._bar is None:
      if time.monotonic() - self._shown_at >= LINE_EVERY_S:
        self._shown_at = time.monotonic()
        self._line(f'{self._count(done)}  {shown}')
    else:
      self._bar.update(self._task, completed=done, shown=shown)

  def __enter__(self) -> Progress:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    if self._bar is not None:
      self._bar.stop()

  def _line(self, text: str) -> None:
    if self._bar is None:
      print(f'{self._name}  {text}', file=self._stream, flush=True)
    else:
      self._bar.console.print(
        f'{self._name}  {text}', markup=False, highlight=False
      )

  def _count(self, done: int) -> str:
    return f'{done:>{len(str(self._total_steps))}}/{self._total_steps}'

  def _eta(self, done: int) -> str:
    """The time left, evaluations and checkpoints included; '' at first."""
    now = time.monotonic()
    if self._since is None:
      self._since = (done, now)
    first, began = self._since
    if done == first:
      return ''
    seconds_per_update = (now - began) / (done - first)
    left = round(seconds_per_update * (self._total_steps - done))
    minutes, seconds = divmod(left, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
      return f'  eta {hours}:{minutes:02}:{seconds:02}'
    return f'  eta {minutes}:{seconds:02}'


_SHOWN = {
  'loss': 'loss {:.4f}',
  'lr': 'lr {:.2e}',
  'tokens_per_s': '{:,.0f} tok/s',
}


def _evaluation_text(values: Mapping[str, float]) -> str:
  """The main corpus with its averages, then the others."""
  losses = {
    name.removeprefix('eval_loss/'): value
    for name, value in values.items()
    if name.startswith('eval_loss/')
  }
  main = next(iter(losses), None)  # named only if there are several
  text = 'eval loss' if main is None else f'eval loss ({main})'
  text += f' {values["eval_loss"]:.4f}'
  if 'eval_se' in values:
    text += f' ± {values["eval_se"]:.4f}'
  if 'eval_bits_per_byte' in values:
    text += f', {values["eval_bits_per_byte"]:.4f} bits/byte'
  for name, value in values.items():
    if name.endswith('_eval_loss'):
      text += f', {name.removesuffix("_eval_loss")} {value:.4f}'
  others = [f'{n} {value:.4f}' for n, value in losses.items() if n != main]
  return '; '.join([text, ', '.join(others)] if others else [text])


def _values(row: Row) -> dict[str, float]:
  return {name: value for name, value in row.items() if name != 'step'}


def _read_rows(path: pathlib.Path) -> list[Row]:
  lines = path.read_bytes().splitlines()
  rows = []
  for i, line in enumerate(lines):
    try:
      row = dict(json.loads(line))
      values = {name: float(x) for name, x in row.items() if name != 'step'}
      rows.append({'step': int(row['step'])} | values)
    except (ValueError, TypeError, KeyError) as error:
      if i == len(lines) - 1:
        break
      raise ValueError(
        f'{path}, line {i + 1}: every line must be a JSON object of "step" and '
        f'numbers, got {line[:80]!r}; remove the line to go on without it'
      ) from error
  return rows


def _drop_from(path: pathlib.Path, start_step: int) -> list[Row]:
  """Leaves only rows before the resume point in the file; returns them."""
  rows = _read_rows(path) if path.exists() else []
  kept = [
    row
    for row in rows
    if row['step'] < start_step
    or (row['step'] == start_step and is_evaluation(row))
  ]
  text = ''.join(_dump(row) for row in kept)
  # Into place in one move, so that a kill here leaves the old file or the new.
  temporary = path.with_name(path.name + '.tmp')
  with open(temporary, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
  return kept


def _dump(row: Row) -> str:
  """One line of the file."""
  values = {
    name: value if math.isfinite(value) else str(value)
    for name, value in row.items()
  }
  return json.dumps(values) + '\n'
