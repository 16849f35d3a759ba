"""WSD-S against cosine and WSD (Wen et al. 2024, arXiv:2410.05192).

Claim: one WSD-S run, which decays at every budget and goes on from the decayed
weights at the peak LR, gives at each budget a model about as good as a cosine
run made for that budget alone, and no worse than WSD with branched decays.

  python -m experiments.wen2024_wsds --workdir=runs/demo

trains all arms on the docstring corpus with the same data order and budgets:

- WSD-S: one run of the largest budget;
- cosine: a run of its own for each budget, warmup included;
- WSD: one trunk, with a decay branched off it for each smaller budget.

Every decay is 10 % of all steps so far and ends at 0.1 of the peak; WSD decays
in the shape of WSD-S. Each schedule has its own peak LR, from TUNING, which
names the command that made it. As a config file, this is the WSD-S run.
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.table
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.compiles import CompileCount
from experiments.lineage import cost_table
from experiments.lineage import tree_of
from experiments.report import write_report
from experiments.runs import load_runs
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import RunConfig
from trainers.evaluate import EvalResult
from trainers.evaluate import paired_standard_error
from trainers.evaluate import summarise
from trainers.log import eval_file
from trainers.model import PRESETS
from trainers.optimizer import AdamW
from trainers.train import run

BUDGETS = (300, 600, 1200)
WARMUP_STEPS = 30
DECAY_FRAC = 0.1
FINAL_FRAC = 0.1
TUNING = pathlib.Path(__file__).with_name('wen2024_wsds_tuning.json')
SCHEDULES = ('WSD-S', 'WSD', 'cosine')


def tuned_peak_lr(name: str) -> float:
  """The peak LR that tuning chose for a schedule."""
  return json.loads(TUNING.read_text())['peak_lr'][name]


def wsds(peak_lr: float, budgets: tuple[int, ...]) -> lrsched.WSDS:
  return lrsched.WSDS.of_total(
    peak_lr=peak_lr,
    final_lr=FINAL_FRAC * peak_lr,
    warmup_steps=WARMUP_STEPS,
    cycle_ends=budgets,
    decay_frac=DECAY_FRAC,
  )


def wsd(peak_lr: float, budget: int) -> lrsched.WSD:
  decay_steps = round(DECAY_FRAC * budget)
  return lrsched.WSD(
    peak_lr=peak_lr,
    final_lr=FINAL_FRAC * peak_lr,
    warmup_steps=WARMUP_STEPS,
    stable_steps=budget - WARMUP_STEPS - decay_steps,
    decay_steps=decay_steps,
    decay=lrsched.InverseDecay(),
  )


def cosine(peak_lr: float, budget: int) -> lrsched.Warmup:
  return lrsched.Warmup(
    schedule=lrsched.Cosine(
      peak_lr=peak_lr,
      final_lr=FINAL_FRAC * peak_lr,
      total_steps=budget - WARMUP_STEPS,
    ),
    warmup_steps=WARMUP_STEPS,
  )


def config_of(
  schedule: lrsched.Schedule,
  total_steps: int,
  keep_steps: tuple[int, ...] = (),
  seed: int = 0,
) -> RunConfig:
  """A run of the demo's size; `seed` gives weights and data order."""
  return RunConfig(
    model=PRESETS['0.3m'],
    data=DataConfig(seq_len=128, batch_size=8, seed=seed),
    optimizer=AdamW(schedule=schedule),
    total_steps=total_steps,
    seed=seed,
    eval=EvalConfig(every_steps=150, n_sequences=512, batch_size=64),
    checkpoint=CheckpointConfig(every_steps=300, keep_steps=keep_steps),
    log=LogConfig(every_steps=5),
  )


def get_config() -> RunConfig:
  spec = wsds(tuned_peak_lr('WSD-S'), BUDGETS)
  return config_of(spec, BUDGETS[-1], keep_steps=BUDGETS)


class Arm(NamedTuple):
  """Outcome of one schedule at one budget.

  Attributes:
    budget: updates of the model that was evaluated.
    schedule: name of the schedule.
    spent_steps: updates the arm had computed for all budgets so far.
    result: its evaluation.
  """

  budget: int
  schedule: str
  spent_steps: int
  result: EvalResult


def run_arms(workdir: pathlib.Path) -> list[Arm]:
  """Trains every arm, resuming what an earlier call left unfinished."""
  arms = [*_run_wsds(workdir), *_run_wsd(workdir), *_run_cosine(workdir)]
  return sorted(arms, key=lambda arm: (arm.budget, SCHEDULES.index(arm[1])))


def _run_wsds(workdir: pathlib.Path) -> list[Arm]:
  folder = workdir / 'wsds'
  run(get_config(), folder)
  return [Arm(b, 'WSD-S', b, _evaluation(folder, b)) for b in BUDGETS]


def _run_wsd(workdir: pathlib.Path) -> list[Arm]:
  trunk, longest = workdir / 'wsd', wsd(tuned_peak_lr('WSD'), BUDGETS[-1])
  starts = [b - round(DECAY_FRAC * b) for b in BUDGETS]
  config = config_of(longest, BUDGETS[-1], keep_steps=tuple(starts))
  run(config, trunk)
  arms, branched_steps = [], 0
  for budget, start in zip(BUDGETS[:-1], starts, strict=False):
    folder = workdir / f'wsd_decay_{budget}'
    branch = longest.decay_from(start, budget - start)
    run(config_of(branch, budget), folder, branch_from=f'{trunk}@{start}')
    branched_steps += budget - start
    spent_steps = start + branched_steps
    arms.append(Arm(budget, 'WSD', spent_steps, _evaluation(folder, budget)))
  last = _evaluation(trunk, BUDGETS[-1])
  arms.append(Arm(BUDGETS[-1], 'WSD', BUDGETS[-1] + branched_steps, last))
  return arms


def _run_cosine(workdir: pathlib.Path) -> list[Arm]:
  arms, spent_steps = [], 0
  for budget in BUDGETS:
    folder = workdir / f'cosine_{budget}'
    run(config_of(cosine(tuned_peak_lr('cosine'), budget), budget), folder)
    spent_steps += budget
    arms.append(Arm(budget, 'cosine', spent_steps, _evaluation(folder, budget)))
  return arms


def _evaluation(folder: pathlib.Path, step: int) -> EvalResult:
  return summarise(np.load(eval_file(folder, step)))


COLUMNS = (
  'budget',
  'schedule',
  'updates',
  'loss',
  'bits/byte',
  'vs cosine',
  'paired s.e.',
)


def table(arms: list[Arm]) -> dict[str, Any]:
  """The result as text cells, for the terminal and the report."""
  rows = []
  for arm in arms:
    [base] = [a for a in arms if a[:2] == (arm.budget, 'cosine')]
    difference = arm.result.mean - base.result.mean
    error = paired_standard_error(arm.result.losses, base.result.losses)
    is_base = arm.schedule == 'cosine'
    rows.append(
      [
        f'{arm.budget}',
        arm.schedule,
        f'{arm.spent_steps}',
        f'{arm.result.mean:.4f}',
        f'{arm.result.mean / math.log(2):.4f}',
        '-' if is_base else f'{difference:+.4f}',
        '-' if is_base else f'{error:.4f}',
      ]
    )
  tuning = json.loads(TUNING.read_text())
  peaks = ', '.join(f'{n} {p:g}' for n, p in tuning['peak_lr'].items())
  notes = [
    'budget: updates of the model evaluated; updates: computed for this and '
    'all smaller budgets; loss: validation, nats per byte.',
    'paired s.e.: standard error of the difference from cosine over the '
    f'{len(arms[0].result.losses)} evaluation sequences, not over seeds; one '
    'seed was run.',
    f'Peak LRs: {peaks}; tuned by `{tuning["command"]}`.',
  ]
  return {'columns': list(COLUMNS), 'rows': rows, 'notes': notes}


def show(result: dict[str, Any]) -> None:
  """Prints the table."""
  shown = rich.table.Table(
    caption='\n'.join(result['notes']), caption_justify='left'
  )
  for i, column in enumerate(result['columns']):
    shown.add_column(column, justify='left' if i == 1 else 'right')
  for i, row in enumerate(result['rows']):
    last = i + 1 == len(result['rows']) or result['rows'][i + 1][0] != row[0]
    shown.add_row(*row, end_section=last)
  rich.console.Console().print(shown)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  workdir = pathlib.Path(flags.FLAGS.workdir)
  compiles = CompileCount(flags.FLAGS.compile_cache)
  try:
    result = table(run_arms(workdir))
  except (ValueError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  (workdir / 'table.json').write_text(json.dumps(result, indent=2))
  report = write_report(workdir)
  show(result)
  runs = load_runs(workdir)
  console = rich.console.Console(highlight=False)
  console.print(tree_of(runs, 'lineage'))
  console.print(cost_table(runs))
  print(f'{compiles}')
  print(f'report:      {report}')
  print(f'TensorBoard: .venv/bin/tensorboard --logdir {workdir}')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/demo', 'Folder of the runs.')
  flags.DEFINE_string('compile_cache', 'compile-cache', 'Compiled programs.')
  app.run(main)
