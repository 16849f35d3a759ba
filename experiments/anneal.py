"""Decay branches off one trunk, ranked: several lengths, steps and mixtures.

  python -m experiments.anneal --branch_from=runs/trunk@900,1800 \
    --decay_steps=50,100 --mixtures=mixtures.py --workdir=runs/anneals

branches once for each step, length and mixture. The trunk's config is read from
its checkpoint; `--set` changes it for all branches. A mixtures file is Python:

  def get_mixtures():
    return {
      'web': Mixture(domains={'web': Domain(source=TextFolder(path='web'))}),
      'code': Mixture(domains={
        'web': Domain(source=TextFolder(path='web'), share=0.5),
        'code': Domain(source=PythonSource()),
      }),
    }

Without one, the trunk's own data goes on. What the branches will cost is shown
before the first begins. They run one after another in this process, in one
compiled program; the same command again goes on where it was stopped. At the
end every branch is evaluated on every corpus of any mixture and of the trunk,
and ranked: the table is printed and written to `table.json` and `report.html`.
"""

from __future__ import annotations

import json
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

import lrsched
from experiments.anneal_plan import Anneal
from experiments.anneal_plan import load_mixtures
from experiments.anneal_plan import parse_branches
from experiments.anneal_plan import parse_lengths
from experiments.anneal_plan import plan_anneals
from experiments.anneal_plan import tokens_of
from experiments.compiles import CompileCount
from experiments.flags import override
from experiments.ranking import ranked
from experiments.report import write_report
from experiments.saved_config import config_at
from trainers.checkpoint import path_of
from trainers.config import RunConfig
from trainers.data import domains_of
from trainers.log import eval_file
from trainers.metrics import read_metrics
from trainers.orders import STOP
from trainers.orders import Stopped
from trainers.start import checkpoints_of
from trainers.train import run

COLUMNS = (
  *('corpus', 'branch', 'mixture', 'rank', 'loss', 'before'),
  'vs best, 95 %',
)


def trunk_configs(
  folder: pathlib.Path, steps: Sequence[int]
) -> dict[int, RunConfig]:
  """The trunk's config at each step to branch from.

  Raises:
    ValueError: if there is no run, or no whole checkpoint of a step.
  """
  if not (folder / 'config.json').exists():
    raise ValueError(f'--branch_from: there is no run in {folder}')
  try:
    return {step: config_at(folder, step) for step in steps}
  except ValueError as error:
    raise ValueError(f'--branch_from: {error}') from error


def show_plan(
  anneals: Sequence[Anneal],
  trunk: pathlib.Path,
  workdir: pathlib.Path,
  console: rich.console.Console,
) -> None:
  """Prints the branches and what they will cost."""
  shown = rich.table.Table(title='Branches', title_justify='left')
  for name in ('branch', 'from', 'decay', 'corpora', 'done'):
    is_number = name in ('from', 'decay')
    shown.add_column(name, justify='right' if is_number else 'left')
  left = []
  for anneal in anneals:
    is_done = losses_file(workdir, anneal, anneal.config.total_steps).exists()
    left += [] if is_done else [anneal]
    shown.add_row(
      anneal.name,
      f'{anneal.start_step}',
      f'{anneal.decay_steps}',
      ', '.join(domains_of(anneal.config.data)),
      'yes' if is_done else '',
    )
  console.print(shown)
  branches = lrsched.BranchPlan(
    tuple(
      lrsched.DecayBranch(
        a.start_step, a.config.optimizer.schedule, a.config.total_steps
      )
      for a in anneals
    )
  )
  console.print(
    f'{len(anneals)} branches: {branches.branch_updates:,} updates; with the '
    f'trunk, counted once, {branches.total_updates:,}; as runs of their own '
    f'{branches.alone_updates:,}'
  )
  if left:
    console.print(f'to do: {len(left)}; {_time_and_disk(left, trunk)}')


def _time_and_disk(anneals: Sequence[Anneal], trunk: pathlib.Path) -> str:
  """Estimates from what the trunk took."""
  folders = (path_of(checkpoints_of(trunk), a.start_step) for a in anneals)
  # Each keeps the checkpoint of its start and that of its end.
  disk = 2 * sum(
    file.stat().st_size
    for folder in folders
    for file in folder.rglob('*')
    if file.is_file()
  )
  rows, _ = read_metrics(trunk)
  speeds = [row['tokens_per_s'] for row in rows if 'tokens_per_s' in row]
  text = f'about {disk / 1e6:,.1f} MB of checkpoints'
  if not speeds:
    return f'{text}; the trunk logged no tokens/s to estimate the time from'
  seconds = sum(map(tokens_of, anneals)) / float(np.median(speeds))
  return (
    f"about {math.ceil(seconds / 60):,} min at the trunk's "
    f'{np.median(speeds):,.0f} tokens/s, without compiling; {text}'
  )


def losses_file(
  workdir: pathlib.Path, anneal: Anneal, step: int, corpus: str | None = None
) -> pathlib.Path:
  """Where a branch's losses on a corpus are; on its main one for None."""
  is_alone = len(anneal.config.eval.sources) == 1
  return eval_file(workdir / anneal.name, step, None if is_alone else corpus)


def table(anneals: Sequence[Anneal], workdir: pathlib.Path) -> dict[str, Any]:
  """Every branch on every corpus, as text cells.

  Several mixtures are ranked among those of the same step and length; without
  them, all branches are.
  """
  is_mixtures = len({anneal.mixture for anneal in anneals}) > 1
  groups: dict[Any, list[Anneal]] = {}
  for anneal in anneals:
    key = (anneal.start_step, anneal.decay_steps) if is_mixtures else None
    groups.setdefault(key, []).append(anneal)
  rows = []
  for corpus in anneals[0].config.eval.sources:
    for group in groups.values():
      rows += _rows(group, corpus, workdir)
  among = 'among the same step and length' if is_mixtures else 'among all'
  n_sequences = anneals[0].config.eval.n_sequences
  notes = [
    'branch: updates of the trunk + of the decay; loss: validation, nats per '
    'token, at the end; before: where the branch left.',
    f'rank: {among}; = where the interval of the difference from the best '
    'holds 0.',
    f"interval: paired over {n_sequences} sequences, Student's t with "
    f'{n_sequences - 1} degrees of freedom; of sequences, not of seeds, and '
    'the best was chosen on them too.',
  ]
  return {'columns': list(COLUMNS), 'rows': rows, 'notes': notes}


def _rows(
  group: Sequence[Anneal], corpus: str, workdir: pathlib.Path
) -> list[list[str]]:
  by_name = {anneal.name: anneal for anneal in group}
  losses = {
    name: np.load(losses_file(workdir, a, a.config.total_steps, corpus))
    for name, a in by_name.items()
  }
  rows = []
  for place in ranked(losses):
    anneal = by_name[place.name]
    before = np.load(losses_file(workdir, anneal, anneal.start_step, corpus))
    is_best = place.rank == 1
    rows.append(
      [
        corpus,
        f'{anneal.start_step}+{anneal.decay_steps}',
        anneal.mixture,
        f'{place.rank}' + ('=' if place.is_tie and not is_best else ''),
        f'{place.mean:.4f}',
        f'{before.mean():.4f}',
        '-' if is_best else f'{place.difference:+.4f} ± {place.half:.4f}',
      ]
    )
  return rows


def show(result: dict[str, Any], console: rich.console.Console) -> None:
  """Prints the table."""
  shown = rich.table.Table(
    caption='\n'.join(result['notes']), caption_justify='left'
  )
  for name in result['columns']:
    is_text = name in ('corpus', 'mixture')
    shown.add_column(name, justify='left' if is_text else 'right')
  rows = result['rows']
  for i, row in enumerate(rows):
    is_last = i + 1 == len(rows) or rows[i + 1][:2] != row[:2]
    shown.add_row(*row, end_section=is_last)
  console.print(shown)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; settings need --set=')
  logging.set_verbosity(logging.ERROR)
  args = flags.FLAGS
  workdir, console = pathlib.Path(args.workdir), rich.console.Console()
  compiles = CompileCount(args.compile_cache)
  try:
    folder, steps = parse_branches(args.branch_from)
    trunks = {
      step: override(config, args.set)
      for step, config in trunk_configs(folder, steps).items()
    }
    mixtures = load_mixtures(args.mixtures) if args.mixtures else None
    lengths = parse_lengths(args.decay_steps)
    anneals = plan_anneals(trunks, lengths, mixtures)
    show_plan(anneals, folder, workdir, console)
    if args.plan_only:
      return
    for anneal in anneals:
      source = f'{folder}@{anneal.start_step}'
      run(anneal.config, workdir / anneal.name, branch_from=source)
    result = table(anneals, workdir)
    (workdir / 'table.json').write_text(json.dumps(result, indent=2))
    report = write_report(workdir)
  except (ValueError, OSError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  except Stopped as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(128 + STOP)  # as of a process that the signal ended
  show(result, console)
  print(f'{compiles}')
  print(f'report: {report}')


if __name__ == '__main__':
  flags.DEFINE_string('branch_from', None, 'DIR@STEP[,STEP...] of the trunk.')
  flags.DEFINE_list('decay_steps', None, 'Lengths of the decays, in updates.')
  flags.DEFINE_string('mixtures', None, 'Python file with get_mixtures().')
  flags.DEFINE_string('workdir', None, 'Folder of the branches.')
  flags.DEFINE_multi_string('set', [], 'Override, path.to.field=value.')
  flags.DEFINE_bool('plan_only', False, 'Show what it will cost, and end.')
  flags.DEFINE_string('compile_cache', 'compile-cache', 'Compiled programs.')
  flags.mark_flags_as_required(['branch_from', 'decay_steps', 'workdir'])
  app.run(main)
