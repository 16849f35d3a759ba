"""The logs of others: CSV, W&B exports, Hugging Face states, plain text."""

from __future__ import annotations

import csv
import pathlib
import re

from experiments.logged import Logged
from experiments.logged import Reading
from experiments.logged import choose
from experiments.logged import choose_series
from experiments.logged import logged
from experiments.logged import step_in
from experiments.logged import value_in
from experiments.runs import read_json

Pairs = list[tuple[int, float]]
WANDB_ENVELOPE = ('__MIN', '__MAX')


def table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
  """Header of a CSV, and its rows with their line numbers.

  Raises:
    ValueError: if a row has another number of cells, or a name comes twice.
  """
  with path.open(encoding='utf-8-sig', newline='') as file:
    reader = csv.reader(file)
    try:
      lines = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
      raise ValueError(f'{path} is not CSV: {error}') from error
  if len(lines) < 2:
    raise ValueError(f'{path}: there must be a header and a row under it')
  header = [name.strip() for name in lines[0][1]]
  for name in header:
    if header.count(name) > 1:
      raise ValueError(f'{path}: there are two columns {name!r}; rename one')
  for number, row in lines[1:]:
    if len(row) != len(header):
      raise ValueError(
        f'{path}, line {number}: there must be {len(header)} cells, as in the '
        f'header, got {len(row)}'
      )
  return header, lines[1:]


def read_csv(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  """A CSV with a header and columns of step, LR and loss; others are ignored.

  With the names `step`, `lr`, `loss` it is the project's own format: `step` is
  the update from 0, the LR is that of this update and the loss the one after
  it. An empty cell is a value that was not logged. With other names and
  conventions it is what most trainers write: say what differs with `step`,
  `lr`, `loss`, `first_step` and `next_lr`.
  """
  header, rows = table(path)
  at = header.index(choose(str(path), 'step', header, reading.step))
  columns = choose_series(str(path), header, reading, losses)
  return [_of_rows(path.stem, path, rows, at, columns, header, reading)]


def read_wandb(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  """What W&B exports of a chart: `Step`, then `RUN - METRIC` for each run.

  The chart must have both the LR and the loss; its envelope (`__MIN`, `__MAX`)
  is ignored. The first column is the step unless another is named. W&B's own
  `Step` counts calls of its log function: it is the update, from 0, if the
  trainer made one call for each update or gave the step; otherwise draw the
  chart over the trainer's step before exporting. LR and loss are taken as
  logged with the update of that step.
  """
  header, rows = table(path)
  where = str(path)
  step = reading.step or header[0]
  at = header.index(choose(where, 'step', header, step))
  runs: dict[str, dict[str, str]] = {}
  for column in header:
    run, dash, metric = column.rpartition(' - ')
    if dash and not metric.endswith(WANDB_ENVELOPE):
      runs.setdefault(run, {})[metric] = column
  if not runs:
    raise ValueError(f'{path}: no column is named RUN - METRIC')
  out = []
  for run, metrics in runs.items():
    chosen = choose_series(f'{where}, run {run}', metrics, reading, losses)
    columns = {what: metrics[name] for what, name in chosen.items()}
    out.append(_of_rows(run, path, rows, at, columns, header, reading))
  return out


def _of_rows(
  name: str,
  path: pathlib.Path,
  rows: list[tuple[int, list[str]]],
  step_at: int,
  columns: dict[str, str],
  header: list[str],
  reading: Reading,
) -> Logged:
  found: dict[str, Pairs] = {'lr': [], 'loss': []}
  file, at = str(path), {w: header.index(c) for w, c in columns.items()}
  for number, row in rows:
    where = f'{file}, line {number}'
    for what, i in at.items():
      value = value_in(where, what, row[i])
      if value is not None:
        found[what].append((step_in(where, row[step_at]), value))
  return logged(
    name, found['lr'], found['loss'], reading, first_step=0, restarts=False
  )


def read_hugging_face(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  """The `trainer_state.json` that transformers' Trainer saves.

  An entry of `log_history` has the `step` of updates done, so it belongs to
  update `step - 1`. Its `learning_rate` is the LR of that update since
  transformers 4.51; up to 4.50 the scheduler was stepped first, and it is the
  LR of the next update: read those with `next_lr`. The file does not say which
  version wrote it; `experiments.audit` with the schedule does.

  `loss` is the mean of the training losses since the entry before, rounded to
  four decimals; it is taken at the end of that stretch. `loss='eval_loss'` is
  the evaluation after `step` updates, exactly.
  """
  data = read_json(path)
  history = data.get('log_history') if isinstance(data, dict) else None
  if not isinstance(history, list):
    raise ValueError(f'{path}: there is no list log_history')
  names = {'lr': 'learning_rate'}
  if losses:
    names['loss'] = reading.loss or 'loss'
  found: dict[str, Pairs] = {'lr': [], 'loss': []}
  for i, entry in enumerate(history):
    where = f'{path}: log_history[{i}]'
    if not isinstance(entry, dict):
      raise ValueError(f'{where} must be an object, got {str(entry)[:30]}')
    for what, name in names.items():
      value = value_in(where, name, entry.get(name))
      if value is not None:
        found[what].append((step_in(where, entry.get('step')), value))
  name = path.resolve().parent.name
  return [
    logged(
      name, found['lr'], found['loss'], reading, first_step=1, restarts=False
    )
  ]


def read_text(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  """A plain log, by a regular expression that is searched in every line.

  Its groups are `(?P<step>...)`, `(?P<lr>...)` and `(?P<loss>...)`; of the last
  two one may be missing in a line, or altogether. LR and loss are taken as
  logged with update `step` from 0; `first_step=1` says that the log counts from
  1, or the updates done. A step at or before the last one is a restart, and
  replaces what the log said from there on; so of several processes that print
  the same step the last one counts.
  """
  if reading.pattern is None:
    raise ValueError(
      f'{path}: a plain log needs a pattern, such as '
      r"'step (?P<step>\d+).*lr (?P<lr>\S+).*loss (?P<loss>\S+)'"
    )
  try:
    pattern = re.compile(reading.pattern)
  except re.error as error:
    raise ValueError(f'pattern {reading.pattern!r}: {error}') from error
  groups = set(pattern.groupindex)
  needed = {'step', 'loss'} if losses else {'step', 'lr'}
  if not needed <= groups:
    raise ValueError(
      f'pattern {reading.pattern!r} must have groups '
      f'{" and ".join(sorted(needed))}, as in (?P<step>\\d+)'
    )
  found: dict[str, Pairs] = {'lr': [], 'loss': []}
  with path.open(encoding='utf-8', errors='replace') as file:
    for number, line in enumerate(file, start=1):
      if not (match := pattern.search(line)):
        continue
      where, given = f'{path}, line {number}', match.groupdict()
      for what in found:
        value = value_in(where, what, given.get(what))
        if value is not None:
          found[what].append((step_in(where, given['step']), value))
  if not any(found.values()):
    raise ValueError(f'{path}: no line matches {reading.pattern!r}')
  return [
    logged(
      path.stem,
      found['lr'],
      found['loss'],
      reading,
      first_step=0,
      restarts=True,
    )
  ]
