r"""Designs a schedule by a fitted loss law, and says what it would gain.

  .venv/bin/python -m experiments.forecast --curves=a.csv,b.csv --save=fit.json
  .venv/bin/python -m experiments.design --fit=fit.json --total_steps=24000 \
    --warmup_steps=2000 --out=designed.json --plot=designed.png

writes the schedule as a spec, for a config file or `experiments.forecast`.
With `--budgets=6000,12000,24000` it says instead where one stable run should be
left by a decay for each budget.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import rich.console
import rich.table
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.saved_fits import saved_fit
from lrsched import laws


def show_design(design: laws.Design) -> None:
  """Prints what a design is expected to come to, and to gain."""
  for line in design.verdict:
    print(f'note: {line}')
  print(
    f'falls over the last {design.decay_steps} updates; expected at the end: '
    f'{design.loss:.4f} nats, 90 % [{design.low:.4f}, {design.high:.4f}]'
  )
  for gain in (design.gain_over_cosine, design.gain_over_wsd):
    print(
      f'{gain.nats:.4f} nats below {_described(gain.over)}, 90 % '
      f'[{gain.low:.4f}, {gain.high:.4f}]'
    )


def _described(over: lrsched.Schedule) -> str:
  """A cosine or WSD, as a design is compared with, in words."""
  if isinstance(over, lrsched.WSD):
    return f'WSD with its best linear decay, of {over.decay_steps} updates'
  assert isinstance(over, lrsched.Warmup)
  final_lr = lrsched.lr_at(over.schedule, over.schedule.end_step or 0)
  return f'a cosine to {final_lr:.4g}'


def show_branches(branches: laws.Branches) -> None:
  """Prints where to leave the trunk, and what that costs."""
  for line in branches.decays[-1].verdict:
    print(f'note: {line}')
  table = rich.table.Table(
    caption=f'{branches.n_updates} updates in all; '
    f'{branches.n_separate_updates} by a run for each budget',
    caption_justify='left',
  )
  columns = ('budget', 'decay begins', 'decay', 'as good to .001', 'expected')
  for column in columns:
    table.add_column(column, justify='right')
  for start, decay in zip(branches.start_steps, branches.decays, strict=True):
    table.add_row(
      f'{decay.schedule.end_step}',
      f'{start}',
      f'{decay.schedule.decay_steps}',
      f'{decay.shortest_steps} to {decay.longest_steps}',
      f'{decay.loss:.4f}',
    )
  rich.console.Console().print(table)


def plot(design: laws.Design, path: pathlib.Path) -> None:
  """The designed LR over those that it is compared with."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 3.2), layout='constrained')
  axes = figure.subplots()
  for gain in (design.gain_over_cosine, design.gain_over_wsd):
    lrs, _ = laws.lr_of_updates(gain.over)
    axes.plot(lrs, lw=1, label=_described(gain.over))
  axes.plot(np.asarray(design.schedule.lrs), lw=1.8, label='designed')
  axes.set(xlabel='update', ylabel='LR')
  axes.set_ylim(bottom=0)
  axes.legend(frameon=False)
  figure.savefig(path, dpi=150)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  asked = flags.FLAGS
  try:
    fit = saved_fit(asked.fit)
    peak_lr = asked.peak_lr or fit.peak_lr
    if asked.budgets:
      budgets = sorted(int(budget) for budget in asked.budgets)
      show_branches(
        laws.branch_points(
          fit, budgets, peak_lr, warmup_steps=asked.warmup_steps
        )
      )
      return
    if asked.total_steps is None:
      raise ValueError('--total_steps must be given, or --budgets')
    design = laws.optimize_schedule(
      fit, asked.total_steps, peak_lr, warmup_steps=asked.warmup_steps
    )
    show_design(design)
    if asked.out is not None:
      text = lrsched.to_json(design.schedule)
      pathlib.Path(asked.out).write_text(text + '\n')
      print(f'spec: {asked.out}')
    if asked.plot is not None:
      plot(design, pathlib.Path(asked.plot))
      print(f'picture: {asked.plot}')
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.DEFINE_string(
    'fit', None, 'A fit that experiments.forecast --save wrote.', required=True
  )
  flags.DEFINE_integer('total_steps', None, 'Updates, with the warmup.')
  flags.DEFINE_integer('warmup_steps', 0, 'Updates of the warmup.')
  flags.DEFINE_float('peak_lr', None, 'Peak LR; that of the fit if not given.')
  flags.DEFINE_list('budgets', [], 'Updates of models wanted from one run.')
  flags.DEFINE_string('out', None, 'File for the spec, as JSON.')
  flags.DEFINE_string('plot', None, 'Picture of the schedule.')
  app.run(main)
