"""One HTML page about the runs in a folder: table, curves, lineage, configs.

  python -m experiments.report --workdir=DIR

writes DIR/report.html, which needs no other file. DIR is one run's folder or
holds several, at any depth. A `table.json` in DIR, with "columns", "rows" and
"notes", is the page's first table: the result of the experiment that made the
runs.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jinja2
from absl import app
from absl import flags
from absl import logging

from experiments.figures import curves_svg
from experiments.forgetting import continual_tables
from experiments.law_figures import followed
from experiments.law_figures import forecasts_svg
from experiments.lineage_figure import lineage_svg
from experiments.run_words import corpus_words
from experiments.runs import Run
from experiments.runs import load_runs
from experiments.runs import parents_of
from experiments.runs import read_json

NUMBERLESS = ('-', '–', 'never')  # what a column of numbers may hold
TEMPLATE = pathlib.Path(__file__).with_name('report.html.jinja')


def write_report(workdir: pathlib.Path) -> pathlib.Path:
  """Writes `report.html` into a folder of runs.

  Args:
    workdir: a run folder, or a folder of run folders.

  Returns:
    The path of the page.

  Raises:
    ValueError: if there is no run, or a file is not what it should be.
  """
  runs = load_runs(workdir)
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATE.parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  parents, corpora = parents_of(runs), corpus_words(runs)
  page = environment.get_template(TEMPLATE.name).render(
    title=workdir.resolve().name,
    table=_headline(workdir / 'table.json'),
    curves=curves_svg(runs),
    lineage=lineage_svg(runs),
    forecasts=forecasts_svg(followed(runs)) if followed(runs) else None,
    continual=[
      {'title': t['title'], **_shown(t)} for t in continual_tables(runs)
    ],
    runs=[
      _describe(run, parents.get(run.workdir), corpora[run.workdir])
      for run in runs
    ],
  )
  path = workdir / 'report.html'
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(page, encoding='utf-8')
  os.replace(temporary, path)
  return path


def _headline(path: pathlib.Path) -> dict[str, Any] | None:
  """The table of an experiment, checked; None if it wrote none."""
  if not path.exists():
    return None
  table = read_json(path)
  if not isinstance(table, dict) or {*table} != {'columns', 'rows', 'notes'}:
    raise ValueError(f'{path} must hold exactly "columns", "rows" and "notes"')
  for i, row in enumerate(table['rows']):
    if len(row) != len(table['columns']):
      raise ValueError(
        f'{path}: rows[{i}] must have {len(table["columns"])} cells, one for '
        f'each column, got {len(row)}'
      )
  return _shown(table)


def _shown(table: dict[str, Any]) -> dict[str, Any]:
  """A table as the page shows it.

  Neighbours with the same first cell are a group, if there are any: a line
  before the first of it, and the first cell of the next ones is faint.
  """
  firsts = [str(row[0]) for row in table['rows'] if row]
  same = [a == b for a, b in itertools.pairwise(firsts)]
  places = ['', *('next' if s else 'first' if any(same) else '' for s in same)]
  return {
    'columns': table['columns'],
    'rows': [
      {'cells': [_cell(value) for value in row], 'place': place}
      for row, place in zip(table['rows'], places, strict=False)
    ],
    'notes': table['notes'],
  }


def _cell(value: Any) -> dict[str, Any]:
  """The text of a table cell, and whether it is a number."""
  if value is None:
    return {'text': '–', 'is_number': True}
  if isinstance(value, float):
    return {'text': f'{value:.4f}', 'is_number': True}
  text = str(value)
  try:
    float(text)
  except ValueError:
    return {'text': text, 'is_number': text in NUMBERLESS}
  return {'text': text, 'is_number': True}


def _describe(run: Run, parent: Run | None, corpus: str) -> dict[str, Any]:
  """What the page says of a run; `parent` is None if it is not known."""
  left = run.lineage.parent
  last = run.evaluations[-1] if run.evaluations else {}
  schedules = run.schedules
  return {
    'name': run.name,
    'run_id': run.lineage.run_id,
    'parent': parent.name if parent else left and left.run_id,
    'parent_known': parent is not None,
    'branch_step': left and left.step,
    'end_step': run.end_step,
    'total_steps': run.total_steps,
    'schedules': [
      {'field': field, 'text': repr(schedule)}
      for field, schedule in schedules.items()
    ],
    'eval_loss': last.get('eval_loss'),
    'corpus': corpus,
    'eval_se': last.get('eval_se'),
    'bits_per_byte': last.get('eval_bits_per_byte'),
    'events': run.lineage.events,
    'config': json.dumps(run.config, indent=2),
  }


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  try:
    path = write_report(pathlib.Path(flags.FLAGS.workdir))
  except ValueError as error:
    sys.exit(f'error: {error}')
  print(path)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A run folder, or a folder of them.')
  flags.mark_flag_as_required('workdir')
  app.run(main)
