"""What runs on new data did to what they had learnt, in tables.

  python -m experiments.forgetting --workdir=DIR

DIR holds run folders. Of every run that is evaluated on several corpora it
prints the loss on each along the run: the stability gap (arXiv:2205.13452), and
what is forgotten at the end. Where runs that branch off each other train on one
corpus after the other, each is a task, and a second table has the metrics of
tasks in sequence (arXiv:2205.13452, 2301.07799). `experiments.report` shows
the same.
"""

from __future__ import annotations

import itertools
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.console
import rich.table
from absl import app
from absl import flags

from experiments.runs import Run
from experiments.runs import load_runs
from experiments.task_chains import PREFIX
from experiments.task_chains import Chain
from experiments.task_chains import chains
from experiments.task_chains import corpora_of
from experiments.task_chains import main_of
from lrsched import diagnostics

# Nats per token above the loss at the start that still count as recovered.
TOLERANCE = 0.01
WINDOW = 10  # evaluations, of windowed forgetting and plasticity
BETA = 10  # evaluations at most, of the learning curve area
NONE, NEVER = '–', 'never'

LOSS_COLUMNS = (
  *('corpus', 'role', 'start', 'worst', 'gap', 'peak at', 'back at'),
  *('end', 'forgotten', 'bits/byte'),
)
LOSS_NOTES = (
  'Losses in nats per token. start: before the first update of a branch; the '
  'first evaluation of a run that is none. gap: worst less start. back at: '
  f'first step from the peak on within {TOLERANCE:g} of the start. forgotten: '
  'end less start, below 0 a gain. bits/byte: at the end.',
)
TASK_COLUMNS = (
  *('task', 'ACC', 'min-ACC', 'WC-ACC', f'WF-{WINDOW}', f'WP-{WINDOW}', 'LCA'),
  *('MRTLP', 'MRLEP', 'forward', 'backward'),
)
TASK_NOTES = (
  'A task is what a run mainly trains on. Performance is −loss in nats per '
  'token: higher is better. ACC: at the end. min-ACC: worst while later tasks '
  'were trained. WC-ACC: the last task at its end, the others at their worst. '
  f'WF, WP: largest fall and rise within {WINDOW} evaluations. LCA: mean of '
  f'the first evaluations, as many as every task has, at most {BETA}.',
  'MRTLP, MRLEP: performance maintenance, the mean difference from the end of '
  "the task's own training (the last tenth, or the last evaluation). forward, "
  'backward: transfer from other tasks before and after its own training, '
  '(b − a) / (b + a) of exp(−loss) after and before theirs: above 0 they help.',
)


def continual_tables(runs: Sequence[Run]) -> list[dict[str, Any]]:
  """The tables of a folder's runs, as JSON values; none if nothing is to show.

  Each has "title", "columns", "rows" of texts, and "notes". The first is of the
  losses on every corpus, the others of tasks in sequence.
  """
  losses = [[run.name, *row] for run in runs for row in loss_rows(run)]
  tasks = [
    [' → '.join(chain.runs), *row]
    for chain in chains(runs)[0]
    for row in task_rows(chain)
  ]
  tables = (
    ('Losses on every corpus', 'run', LOSS_COLUMNS, losses, LOSS_NOTES),
    ('Tasks in sequence', 'runs', TASK_COLUMNS, tasks, TASK_NOTES),
  )
  return [
    {
      'title': title,
      'columns': [first, *columns],
      'rows': rows,
      'notes': list(notes),
    }
    for title, first, columns, rows, notes in tables
    if rows
  ]


def loss_rows(run: Run) -> list[list[str]]:
  """A row for every corpus of a run that is evaluated on several."""
  rows = []
  for name in corpora_of(run):
    found = [
      row
      for row in run.evaluations
      if math.isfinite(row.get(PREFIX + name, math.nan))
    ]
    if not found:
      continue
    losses = [row[PREFIX + name] for row in found]
    gap = diagnostics.stability_gap(
      [row['step'] for row in found], losses, TOLERANCE
    )
    recovery = NEVER if gap.recovery_step is None else str(gap.recovery_step)
    bits = found[-1].get(f'eval_bits_per_byte/{name}')
    rows.append(
      [
        name,
        _role(run, name),
        f'{losses[0]:.4f}',
        f'{max(losses):.4f}',
        f'{gap.depth:.4f}',
        str(gap.peak_step) if gap.depth > 0 else NONE,
        recovery if gap.depth > 0 else NONE,
        f'{losses[-1]:.4f}',
        f'{gap.forgetting:+.4f}',
        NONE if bits is None else f'{bits:.4f}',
      ]
    )
  return rows


def task_rows(chain: Chain) -> list[list[str]]:
  """A row for every task, and one for their mean."""
  stream = chain.performance, chain.task_of_evaluation
  lengths: dict[int, int] = {}
  for task, group in itertools.groupby(chain.task_of_evaluation):
    lengths.setdefault(int(task), len(list(group)))
  beta = min(BETA, *(n for task, n in lengths.items() if task >= 0))
  kept = diagnostics.performance_maintenance(*stream)
  moved = diagnostics.transfer(np.exp(stream[0]), stream[1])
  nothing = np.full(len(chain.tasks), math.nan)
  worst = float(diagnostics.worst_case_acc(*stream)[-1])
  plain = (
    diagnostics.final_acc(*stream),
    diagnostics.min_acc(*stream),
    diagnostics.PerTask(worst, nothing),
    diagnostics.windowed_forgetting(*stream, WINDOW),
    diagnostics.windowed_plasticity(*stream, WINDOW),
    diagnostics.learning_curve_area(*stream, beta),
  )
  signed = (kept.mrtlp, kept.mrlep, *map(_onto_each, moved))
  return [
    [
      name,
      *(_number([*m.of_task, m.mean][i]) for m in plain),
      *(_number([*m.of_task, m.mean][i], '+') for m in signed),
    ]
    for i, name in enumerate([*chain.tasks, 'mean'])
  ]


def _onto_each(moved: np.ndarray) -> diagnostics.PerTask:
  """The mean transfer onto each task, from those that have one."""
  return diagnostics.PerTask.of(
    [diagnostics.PerTask.of(onto).mean for onto in moved.T]
  )


def skipped(runs: Sequence[Run]) -> list[str]:
  """A line for every run, or sequence of runs, that the tables leave out."""
  lines = []
  for run in runs:
    if not run.evaluations:
      lines.append(f'{run.name}: left out, it has no evaluation yet')
    elif not corpora_of(run):
      lines.append(
        f'{run.name}: left out, it is evaluated on one corpus only; name '
        'others in eval.sources'
      )
  return lines + chains(runs)[1]


def _number(value: float, sign: str = '-') -> str:
  """Four decimals, or a dash if there is no such number."""
  return NONE if math.isnan(value) else f'{value:{sign}.4f}'


def _role(run: Run, name: str) -> str:
  if name == main_of(run):
    return 'main'
  domains = run.config['data']['source'].get('domains', {})
  return 'replayed' if name in domains else 'watched'


def show(runs: Sequence[Run]) -> None:
  """Prints a table of the losses of each run, and one of each sequence."""
  console = rich.console.Console(width=120)
  losses = [(run.name, loss_rows(run)) for run in runs if corpora_of(run)]
  tasks = [(' → '.join(c.runs), task_rows(c)) for c in chains(runs)[0]]
  for found, columns, n_text, notes in (
    (losses, LOSS_COLUMNS, 2, LOSS_NOTES),
    (tasks, TASK_COLUMNS, 1, TASK_NOTES),
  ):
    for title, rows in found:
      table = rich.table.Table(title=title, title_justify='left')
      for i, column in enumerate(columns):
        table.add_column(column, justify='left' if i < n_text else 'right')
      for row in rows:
        table.add_row(*row)
      console.print(table)
    for note in notes if found else ():
      console.print(note, highlight=False)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  workdir = pathlib.Path(flags.FLAGS.workdir)
  try:
    runs = load_runs(workdir)
  except ValueError as error:
    sys.exit(f'error: {error}')
  for line in skipped(runs):
    print(line)
  if not continual_tables(runs):
    sys.exit(f'error: no run in {workdir} is evaluated on several corpora')
  show(runs)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A run folder, or a folder of them.')
  flags.mark_flag_as_required('workdir')
  app.run(main)
