"""Shows schedules: a summary of each, and a picture or a table.

  python -m experiments.plot --spec=docs/gallery/specs/wsd.json --out=wsd.png

A spec is a file with what `lrsched.to_json` wrote, or a run's config.json,
whose `optimizer.schedule` is then shown over the steps of that run. Several
`--spec=` go into one picture. The suffix of --out says what to write: .png or
.svg for a picture, .csv or .json for a table of step and LR.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.drawing import Shown
from experiments.drawing import phases_shown
from experiments.drawing import picture
from experiments.drawing import save
from experiments.runs import read_json
from lrsched import interop

PICTURES = ('.png', '.svg')
TABLES = {'.csv': interop.to_csv, '.json': interop.to_table_json}
MAX_STEPS = 2**31 - 1  # as everywhere in lrsched
CHUNK_STEPS = 2**20  # LRs computed at once: long schedules fit any memory


def load(path: pathlib.Path, total_steps: int | None = None) -> Shown:
  """The schedule in a spec file or a run's config.json.

  Args:
    path: the file.
    total_steps: steps to show; None for all of a run, or up to the end of the
      schedule.

  Raises:
    ValueError: naming the file, if it holds no valid schedule or there is no
      telling how many steps to show.
    OSError: if it cannot be read.
  """
  try:
    data = read_json(path)
  except RecursionError as error:
    raise ValueError(f'{path}: JSON is nested too deeply') from error
  try:
    if isinstance(data, dict) and 'optimizer' in data:
      schedule = _of_config(data)
      run_steps = _run_steps(data)
    else:
      schedule = lrsched.from_json(path.read_text(encoding='utf-8'))
      run_steps = None
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if total_steps is None:
    total_steps = schedule.end_step if run_steps is None else run_steps
  if total_steps is None:
    raise ValueError(
      f'{path}: {kind_of(lrsched.to_dict(schedule))} has no end; say how many '
      'steps to show, with --total_steps=N'
    )
  # One that is at its final LR from step 0 on has no steps before that.
  return Shown(str(path), schedule, max(total_steps, 1))


def _run_steps(config: dict[str, Any]) -> int:
  steps = config.get('total_steps')
  if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
    raise ValueError(
      f'total_steps must be in 1..2^31-1, as in the config.json of a run, got '
      f'{steps!r}'
    )
  return steps


def _of_config(config: dict[str, Any]) -> lrsched.Schedule:
  optimizer = config['optimizer']
  if not isinstance(optimizer, dict) or 'schedule' not in optimizer:
    raise ValueError(
      'optimizer.schedule is missing, where the config.json of a run has its '
      'schedule'
    )
  return lrsched.from_dict(optimizer['schedule'], 'optimizer.schedule')


def kind_of(spec: dict[str, Any]) -> str:
  """The kinds in what `lrsched.to_dict` gave: `Warmup(Cosine)`."""
  items = [
    item
    for value in spec.values()
    for item in (value if isinstance(value, list) else [value])
  ]
  inside = [kind_of(item) for item in items if isinstance(item, dict)]
  return spec['kind'] + (f'({", ".join(inside)})' if inside else '')


def summary(shown: Shown) -> str:
  """What a terminal shows: kind, end, mean LR, and the LRs of each phase."""
  schedule, total_steps = shown.schedule, shown.total_steps
  end_step = schedule.end_step
  rows: list[tuple[str, ...]] = [('phase', 'steps', 'first LR', 'last LR')]
  for name, start, end in phases_shown(shown):
    lrs = [f'{float(schedule(t)):.6g}' for t in (start, end - 1)]
    rows.append((name, f'{start}..{end - 1}', *lrs))
  if end_step is not None and end_step <= total_steps:
    lr = f'{float(schedule(end_step)):.6g}'
    rows.append(('end', f'from {end_step} on', lr, lr))
  widths = [max(len(row[i]) for row in rows) for i in range(4)]
  table = [
    '  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
    for row in rows
  ]
  ends = 'no end' if end_step is None else f'end_step {end_step}'
  return '\n  '.join(
    [
      f'{shown.label}: {kind_of(lrsched.to_dict(schedule))}, {ends}',
      f'mean LR of steps 0..{total_steps - 1}: {mean_lr(shown):.6g}',
      *(line.rstrip() for line in table),
    ]
  )


def mean_lr(shown: Shown) -> float:
  """The mean LR over the steps shown, summed in float64."""
  spec = lrsched.as_arrays(shown.schedule)
  lrs_of = jax.jit(lambda spec, steps: spec(steps))
  total = 0.0
  for start in range(0, shown.total_steps, CHUNK_STEPS):
    end = min(start + CHUNK_STEPS, shown.total_steps)
    lrs = lrs_of(spec, np.arange(start, end, dtype=np.int32))
    total += float(np.asarray(lrs, np.float64).sum())
  return total / shown.total_steps


def write_table(shown: Shown, path: pathlib.Path) -> None:
  """Writes the LR of every step shown."""
  to_text = TABLES[path.suffix]
  text = to_text(shown.schedule, shown.total_steps)
  path.write_text(text, encoding='utf-8')


def show(
  specs: Sequence[pathlib.Path],
  total_steps: int | None = None,
  out: pathlib.Path | None = None,
) -> str:
  """The summaries; writes a picture or a table if `out` names one.

  Raises:
    ValueError: if an argument or a spec is wrong; nothing is written then.
    OSError: if a file cannot be read or written.
  """
  if total_steps is not None and not 1 <= total_steps <= MAX_STEPS:
    raise ValueError(f'--total_steps must be in 1..2^31-1, got {total_steps}')
  if out:
    _check_out(out, specs)
  shown = _labelled([load(spec, total_steps) for spec in specs])
  text = '\n'.join(summary(one) for one in shown)
  if out and out.suffix in PICTURES:
    save(picture(shown), out)
  elif out:
    write_table(shown[0], out)
  note = out or 'A picture or a table: --out=FILE.png, .svg, .csv or .json'
  return f'{text}\n{note}'


def _check_out(out: pathlib.Path, specs: Sequence[pathlib.Path]) -> None:
  if out.suffix not in (*PICTURES, *TABLES):
    raise ValueError(
      f'--out must end in {", ".join((*PICTURES, *TABLES))}, got {out}'
    )
  if out.suffix in TABLES and len(specs) > 1:
    raise ValueError(
      f'--out: {out} would be a table, which is of one schedule; give one '
      '--spec, or a picture'
    )
  if not out.parent.is_dir():
    raise ValueError(f'--out: there is no folder {out.parent}; make it first')
  if any(out.resolve() == spec.resolve() for spec in specs):
    raise ValueError(f'--out: {out} is a spec given, and would be lost')


def _labelled(shown: Sequence[Shown]) -> list[Shown]:
  """Labels are the names of the files, or their paths if some are alike."""
  names = [pathlib.Path(one.label).name for one in shown]
  if len(set(names)) < len(names):
    return list(shown)
  return [
    one._replace(label=name) for one, name in zip(shown, names, strict=True)
  ]


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  specs = [pathlib.Path(spec) for spec in given.spec]
  out = pathlib.Path(given.out) if given.out else None
  try:
    text = show(specs, given.total_steps, out)
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
  print(text)


if __name__ == '__main__':
  flags.DEFINE_multi_string('spec', None, 'Spec, or config.json of a run.')
  flags.DEFINE_integer('total_steps', None, 'Steps to show.')
  flags.DEFINE_string('out', None, 'Picture or table to write.')
  flags.mark_flag_as_required('spec')
  app.run(main)
