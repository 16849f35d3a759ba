"""The tree of the runs in a folder, and what they cost together.

  python -m experiments.lineage --workdir=DIR

prints each run below the run it left, with its schedule, data, losses and
events, and then the updates of all: those that branches share are counted once.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import rich.console
import rich.table
import rich.text
import rich.tree
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.run_words import branch_words
from experiments.run_words import corpus_words
from experiments.run_words import data_words
from experiments.run_words import event_words
from experiments.run_words import schedule_words
from experiments.runs import Run
from experiments.runs import forest_of
from experiments.runs import load_runs


def tree_of(runs: Sequence[Run], title: str) -> rich.tree.Tree:
  """The runs to print, below a title."""
  by_workdir = {run.workdir: run for run in runs}
  corpora = corpus_words(runs)

  def add(
    node: lrsched.Node, above: rich.tree.Tree, parent: Run | None
  ) -> None:
    run = by_workdir[node.workdir]
    below = above.add(_label(run, parent, corpora[run.workdir]))
    for child in node.children:
      add(child, below, run)

  tree = rich.tree.Tree(title, guide_style='dim')
  for root in forest_of(runs).roots:
    add(root, tree, None)
  return tree


def _label(run: Run, parent: Run | None, corpus: str) -> rich.text.Text:
  """Two lines, or three of a run with events: what it is, what it came to."""
  label = rich.text.Text(run.name, 'bold')
  if branch := branch_words(run, parent):
    label.append(f'  {branch}', 'not bold cyan')
  label.append(f'  {_updates(run)}', 'not bold')
  label.append(f'  {_losses(run, corpus)}', 'not bold green')
  schedule = schedule_words(run, parent)
  same = parent is not None and data_words(parent) == data_words(run)
  data = '' if same else f'; {data_words(run)}'
  label.append(f'\n{schedule}{data}', 'not bold dim')
  if events := event_words(run):
    label.append(f'\n{events}', 'not bold yellow')
  return label


def _updates(run: Run) -> str:
  """Updates of its own, and how far the run should have gone if it did not."""
  done = f'{run.end_step - run.start_step:,} updates'
  asked = run.total_steps
  return (
    done
    if run.end_step >= asked
    else f'{done}, at {run.end_step:,} of {asked:,}'
  )


def _losses(run: Run, corpus: str) -> str:
  """The last evaluation, of each corpus if there are several."""
  if not run.evaluations:
    return 'not evaluated'
  last = run.evaluations[-1]
  text = f'loss {last["eval_loss"]:.4f}'
  if 'eval_bits_per_byte' in last:
    text += f' = {last["eval_bits_per_byte"]:.4f} bits/byte'
  text += corpus and f' on {corpus}'
  domains = [
    f'{name.removeprefix("eval_loss/")} {value:.4f}'
    for name, value in last.items()
    if name.startswith('eval_loss/')
  ]
  return text + (f' ({", ".join(domains)})' if domains else '')


def cost_table(runs: Sequence[Run]) -> rich.table.Table:
  """What the runs cost, with shared updates once, against each alone."""
  by_workdir = {run.workdir: run for run in runs}

  def tokens(stretch: lrsched.Stretch) -> int:
    run = by_workdir[stretch.workdir]
    return run.tokens_in(stretch.start_step, stretch.end_step)

  table = rich.table.Table(box=None, pad_edge=False, header_style='dim')
  for name in ('', 'computed, each once', 'every result alone', 'saved'):
    table.add_column(name, justify='right' if name else 'left')
  tree = forest_of(runs)
  for unit, cost in (('updates', lrsched.updates_in), ('tokens', tokens)):
    spent = lrsched.compute_of(tree, cost)
    alone = sum(spent.alone.values())
    saved = f'{spent.saved / alone:.0%}' if alone else '-'
    table.add_row(unit, f'{spent.total:,}', f'{alone:,}', saved)
  return table


def remarks_of(runs: Sequence[Run]) -> list[str]:
  """What the records leave open, with the runs' names for their folders."""
  remarks = []
  for remark in forest_of(runs).remarks:
    for run in runs:
      remark = remark.replace(repr(run.workdir), run.name)
    remarks.append(remark)
  return remarks


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  try:
    runs = load_runs(pathlib.Path(flags.FLAGS.workdir))
    tree = tree_of(runs, pathlib.Path(flags.FLAGS.workdir).resolve().name)
    table, remarks = cost_table(runs), remarks_of(runs)
  except ValueError as error:
    sys.exit(f'error: {error}')
  console = rich.console.Console(highlight=False)
  console.print(tree)
  console.print()
  console.print(table)
  for remark in remarks:
    console.print(remark, style='yellow')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A run folder, or a folder of them.')
  flags.mark_flag_as_required('workdir')
  app.run(main)
