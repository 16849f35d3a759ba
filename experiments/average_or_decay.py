r"""How well averages of a run's weights foretell the loss after a decay.

  .venv/bin/python -m experiments.average_or_decay --workdir=runs/averages \
    --out=experiments/records/average_or_decay.json

Trunks at a constant LR, for each of PEAK_LRS and each seed. At each of
END_STEPS the trunk's averages over its last DECAY_STEPS updates are compared
with a branch that decayed linearly to 0 over just those updates:

- last: the trunk's weights as they are;
- ema: `RunConfig.ema_decay`, as old on average as a mean of the window;
- lawa: `RunConfig.lawa`, five snapshots of the window;
- merged: the six checkpoints that bound its fifths, with the coefficients of a
  linear decay.

For each: its loss less the decayed one, over all runs and ends; the rank
correlation with the decayed loss over the runs of an end, averaged over ends;
and for how many pairs of a seed and an end it is least at the peak LR where the
decayed loss is. The table is printed, and everything is written to `--out`.
Runs that are complete in the workdir are not trained again.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
import rich.table
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.merge import coefficients_of
from experiments.merge import evaluator_of
from experiments.merge import merged
from experiments.saved_weights import read_saved
from trainers.averaging import Lawa
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.metrics import read_metrics
from trainers.optimizer import AdamW
from trainers.train import run

PEAK_LRS = (1e-3, 3e-3, 1e-2)
WARMUP_STEPS = 100
END_STEPS = (1000, 1600, 2000)
DECAY_STEPS = 200  # 20, 12.5 and 10 % of the updates so far
GAP_STEPS = DECAY_STEPS // 5  # divides END_STEPS, where LAWA takes snapshots
PREDICTORS = ('last', 'ema', 'lawa', 'merged')


class Point(NamedTuple):
  """One end of one trunk.

  Attributes:
    peak_lr: of the trunk.
    seed: of weights and data order.
    end_step: updates made.
    loss: validation loss, nats per byte, of the decayed branch ('decayed') and
      of each of PREDICTORS.
  """

  peak_lr: float
  seed: int
  end_step: int
  loss: dict[str, float]


def trunk_of(peak_lr: float) -> lrsched.WSD:
  """A trunk that decays after the last end; the run stops before."""
  return lrsched.WSD(
    peak_lr=peak_lr,
    warmup_steps=WARMUP_STEPS,
    stable_steps=END_STEPS[-1] - WARMUP_STEPS,
    decay_steps=DECAY_STEPS,
  )


def merged_steps(end_step: int) -> list[int]:
  """The checkpoints that are merged at an end."""
  return list(range(end_step - DECAY_STEPS, end_step + 1, GAP_STEPS))


def config_of(
  schedule: lrsched.WSD,
  total_steps: int,
  seed: int,
  keep_steps: tuple[int, ...] = (),
) -> RunConfig:
  """A run of a trunk or a branch: one program for all of them."""
  return RunConfig(
    model=ModelConfig(d_model=64, n_layers=2, n_heads=4, d_ff=160),
    data=DataConfig(seq_len=64, batch_size=8, seed=seed),
    optimizer=AdamW(schedule=schedule),
    total_steps=total_steps,
    seed=seed,
    ema_decay=lrsched.ema_decay_of(DECAY_STEPS),
    lawa=Lawa(every_steps=GAP_STEPS, window=DECAY_STEPS // GAP_STEPS),
    eval=EvalConfig(every_steps=total_steps, n_sequences=512, batch_size=64),
    checkpoint=CheckpointConfig(
      every_steps=total_steps, keep_last=1, keep_steps=keep_steps
    ),
  )


def points_of(peak_lr: float, seed: int, workdir: pathlib.Path) -> list[Point]:
  """Trains a trunk and its branches, unless they are complete."""
  trunk, schedule = workdir / f'trunk_{peak_lr:g}_{seed}', trunk_of(peak_lr)
  keep = itertools.chain(*(merged_steps(end) for end in END_STEPS))
  run(config_of(schedule, END_STEPS[-1], seed, tuple(sorted({*keep}))), trunk)
  rows = {row['step']: row for row in read_metrics(trunk)[1]}
  points = []
  for end in END_STEPS:
    start = end - DECAY_STEPS
    branch = workdir / f'decay_{peak_lr:g}_{seed}_{end}'
    config = config_of(schedule.decay_from(start, DECAY_STEPS), end, seed)
    decayed = run(config, branch, branch_from=f'{trunk}@{start}')
    steps = merged_steps(end)
    saved = read_saved(trunk, steps)
    coefficients = coefficients_of(steps, lrsched.LinearDecay(), 0.0)
    merge = evaluator_of(saved)(merged(saved, steps, coefficients))
    loss = {
      'decayed': decayed.mean,
      'last': rows[end]['eval_loss'],
      'ema': rows[end]['ema_eval_loss'],
      'lawa': rows[end]['lawa_eval_loss'],
      'merged': merge.mean,
    }
    points.append(Point(peak_lr, seed, end, loss))
  return points


def summary(points: Sequence[Point]) -> dict[str, dict[str, float]]:
  """By predictor: what it is off by, and how it ranks the runs.

  Returns:
    `bias` and `spread` (mean and standard deviation, nats per byte) of its loss
    less the decayed one; `rank`, Spearman's correlation over the runs of an
    end, averaged over ends; `picks`, the share of seeds and ends where it is
    least at the peak LR that is best after the decay.
  """
  value = lambda name, chosen: np.asarray([p.loss[name] for p in chosen])
  ends = _grouped(points, lambda p: p.end_step)
  choices = _grouped(points, lambda p: (p.end_step, p.seed))
  found = {}
  for name in PREDICTORS:
    off = value(name, points) - value('decayed', points)
    ranks = [_spearman(value(name, g), value('decayed', g)) for g in ends]
    picks = [
      value(name, g).argmin() == value('decayed', g).argmin() for g in choices
    ]
    found[name] = {
      'bias': float(off.mean()),
      'spread': float(off.std(ddof=1)),
      'rank': float(np.mean(ranks)),
      'picks': float(np.mean(picks)),
    }
  return found


def _grouped(points: Sequence[Point], key: Any) -> list[list[Point]]:
  """Points of equal key; each group in the order of PEAK_LRS and seeds."""
  ordered = sorted(points, key=lambda p: (key(p), p.peak_lr, p.seed))
  return [list(group) for _, group in itertools.groupby(ordered, key)]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
  """Rank correlation of numbers without ties."""
  rank_of = lambda x: np.argsort(np.argsort(x))
  return float(np.corrcoef(rank_of(a), rank_of(b))[0, 1])


def show(points: Sequence[Point], found: dict[str, dict[str, float]]) -> None:
  """Prints the losses by end and peak LR, and how each predictor does."""
  columns = ('decayed', *PREDICTORS)
  losses = rich.table.Table('updates', 'peak LR', *columns)
  for group in _grouped(points, lambda p: (p.end_step, p.peak_lr)):
    means = [np.mean([p.loss[name] for p in group]) for name in columns]
    end, peak_lr = group[0].end_step, group[0].peak_lr
    losses.add_row(f'{end}', f'{peak_lr:g}', *(f'{x:.4f}' for x in means))
  verdict = rich.table.Table('', 'less decayed', 's.d.', 'rank', 'picks')
  for name, x in found.items():
    verdict.add_row(
      name,
      f'{x["bias"]:+.4f}',
      f'{x["spread"]:.4f}',
      f'{x["rank"]:.2f}',
      f'{x["picks"]:.0%}',
    )
  console = rich.console.Console()
  console.print(losses)
  console.print(verdict)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  seeds = [int(seed) for seed in flags.FLAGS.seeds]
  workdir = pathlib.Path(flags.FLAGS.workdir)
  began, points = time.monotonic(), []
  try:
    for seed, peak_lr in itertools.product(seeds, PEAK_LRS):
      points += points_of(peak_lr, seed, workdir)
  except (ValueError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  found = summary(points)
  record = {
    'command': 'python -m experiments.average_or_decay --seeds='
    + ','.join(map(str, seeds)),
    'lrsched': lrsched.__version__,
    'jax': jax.__version__,
    'device': jax.devices()[0].device_kind,
    'cores': os.cpu_count(),
    'call_seconds': round(time.monotonic() - began),
    'summary': found,
    'points': [point._asdict() for point in points],
  }
  pathlib.Path(flags.FLAGS.out).write_text(json.dumps(record, indent=1) + '\n')
  show(points, found)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'Folder of the runs.', required=True)
  flags.DEFINE_string('out', None, 'JSON file to write.', required=True)
  flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds of weights and data.')
  app.run(main)
