"""What runs on new data did to what they had learnt, in tables.

  python -m experiments.forgetting --workdir=DIR

DIR holds run folders. Of every run that is evaluated on several corpora it
prints the loss on each along the run: the stability gap (arXiv:2205.13452), and
what is forgotten at the end. Where runs that branch off each other train on one
corpus after the other, each is a task, and two tables have the metrics of tasks
in sequence (arXiv:2205.13452, 2301.07799): how they were kept, and how learnt,
also against runs that learnt one alone. `experiments.report` shows the same.
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
from absl import logging

from experiments.experts import SATURATION_EVALS
from experiments.experts import against_experts
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
TEXTS = ('corpus', 'role', 'task')  # columns that are not of numbers

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
KEPT_COLUMNS = (
  *('task', 'ACC', 'min-ACC', 'WC-ACC', f'WF-{WINDOW}', 'MRTLP', 'MRLEP'),
  'backward',
)
KEPT_NOTES = (
  'A task is what a run mainly trains on. Performance is −loss in nats per '
  'token: higher is better. ACC: at the end. min-ACC: worst while later tasks '
  'were trained. WC-ACC: the last task at its end, the others at their worst. '
  f'WF: largest fall within {WINDOW} evaluations.',
  'MRTLP, MRLEP: performance maintenance, the mean difference from the end of '
  "the task's own training (the last tenth, or the last evaluation). backward: "
  'transfer from other tasks after its own training, (b − a) / (b + a) of '
  'exp(−loss) after and before theirs: above 0 they help.',
)
LEARNT_COLUMNS = ('task', f'WP-{WINDOW}', 'LCA', 'forward', 'RP', 'SE')
LEARNT_NOTES = (
  f'WP: largest rise of −loss within {WINDOW} evaluations. LCA: mean of its '
  f'first evaluations, as many as every task has, at most {BETA}. forward: '
  'transfer from other tasks before its own training, as backward.',
  'RP, SE: of exp(−loss), against an expert: a run here that learnt the task '
  'alone from new weights, if there is just one. Both curves are of the '
  'evaluations after as many updates on the task, in all its phases, as far as '
  'both go, without that before the first update. RP: sum over sum. SE: '
  f"highest mean of {SATURATION_EVALS} evaluations over the expert's, times "
  'how much sooner it is reached; 0 if below a fifth, or if the curve falls. '
  'Above 1 the other tasks paid off.',
)


def continual_tables(runs: Sequence[Run]) -> list[dict[str, Any]]:
  """The tables of a folder's runs, as JSON values; none if nothing is to show.

  Each has "title", "columns", "rows" of texts, and "notes". The first is of the
  losses on every corpus, the others of tasks in sequence. What is first in a
  row, the run or the runs, is the same in neighbours that belong together.
  """
  found = chains(runs)[0]
  losses = [[run.name, *row] for run in runs for row in loss_rows(run)]
  kept = [[chain.name, *row] for chain in found for row in kept_rows(chain)]
  learnt = [
    [chain.name, *row] for chain in found for row in learnt_rows(chain, runs)
  ]
  tables = (
    ('Losses on every corpus', 'run', LOSS_COLUMNS, losses, LOSS_NOTES),
    ('Tasks in sequence: kept', 'runs', KEPT_COLUMNS, kept, KEPT_NOTES),
    ('Tasks in sequence: learnt', 'runs', LEARNT_COLUMNS, learnt, LEARNT_NOTES),
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


def kept_rows(chain: Chain) -> list[list[str]]:
  """What became of every task after its training, and the mean."""
  stream = chain.performance, chain.task_of_evaluation
  nothing = np.full(len(chain.tasks), math.nan)
  worst = float(diagnostics.worst_case_acc(*stream)[-1])
  kept = diagnostics.performance_maintenance(*stream)
  moved = diagnostics.transfer(np.exp(stream[0]), stream[1])
  return _rows(
    chain,
    (diagnostics.final_acc(*stream), '-'),
    (diagnostics.min_acc(*stream), '-'),
    (diagnostics.PerTask(worst, nothing), '-'),
    (diagnostics.windowed_forgetting(*stream, WINDOW), '-'),
    (kept.mrtlp, '+'),
    (kept.mrlep, '+'),
    (_onto_each(moved.backward), '+'),
  )


def learnt_rows(chain: Chain, runs: Sequence[Run]) -> list[list[str]]:
  """How well every task was learnt, and the mean; experts are among `runs`."""
  stream = chain.performance, chain.task_of_evaluation
  lengths: dict[int, int] = {}
  for task, group in itertools.groupby(chain.task_of_evaluation):
    lengths.setdefault(int(task), len(list(group)))
  beta = min(BETA, *(n for task, n in lengths.items() if task >= 0))
  moved = diagnostics.transfer(np.exp(stream[0]), stream[1])
  relative, efficiency = zip(*against_experts(chain, runs)[0], strict=True)
  return _rows(
    chain,
    (diagnostics.windowed_plasticity(*stream, WINDOW), '-'),
    (diagnostics.learning_curve_area(*stream, beta), '-'),
    (_onto_each(moved.forward), '+'),
    (diagnostics.PerTask.of(relative), '-'),
    (diagnostics.PerTask.of(efficiency), '-'),
  )


def _rows(
  chain: Chain, *metrics: tuple[diagnostics.PerTask, str]
) -> list[list[str]]:
  """A row for every task, and one for their mean, of metrics with a sign."""
  return [
    [name, *(_number([*m.of_task, m.mean][i], sign) for m, sign in metrics)]
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
  found, broken = chains(runs)
  experts = [line for c in found for line in against_experts(c, runs)[1]]
  # Sequences off one root say the same of it.
  return lines + broken + list(dict.fromkeys(experts))


def _number(value: float, sign: str) -> str:
  """Four decimals, or a dash if there is no such number."""
  return NONE if math.isnan(value) else f'{value:{sign}.4f}'


def _role(run: Run, name: str) -> str:
  if name == main_of(run):
    return 'main'
  domains = run.config['data']['source'].get('domains', {})
  return 'replayed' if name in domains else 'watched'


def show(tables: Sequence[dict[str, Any]]) -> None:
  """Prints each table in parts, one for each run or sequence of runs."""
  console = rich.console.Console(width=120)
  for table in tables:
    console.print(table['title'], style='bold')
    for name, rows in itertools.groupby(table['rows'], lambda row: row[0]):
      part = rich.table.Table(title=name, title_justify='left')
      for column in table['columns'][1:]:
        part.add_column(column, justify='left' if column in TEXTS else 'right')
      for row in rows:
        part.add_row(*row[1:])
      console.print(part)
    for note in table['notes']:
      console.print(note, highlight=False)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  workdir = pathlib.Path(flags.FLAGS.workdir)
  try:
    runs = load_runs(workdir)
  except ValueError as error:
    sys.exit(f'error: {error}')
  for line in skipped(runs):
    print(line)
  tables = continual_tables(runs)
  if not tables:
    sys.exit(f'error: no run in {workdir} is evaluated on several corpora')
  show(tables)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A run folder, or a folder of them.')
  flags.mark_flag_as_required('workdir')
  app.run(main)
