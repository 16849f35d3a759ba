"""Tunes the peak LR of each schedule of the WSD-S experiment, once.

  python -m experiments.tune --out=experiments/wen2024_wsds_tuning.json

Every schedule gets the same grid of peaks, the same seeds (which the experiment
does not use) and the same budget; the peak with the lowest mean validation loss
wins. WSD is tuned without branches: at one budget a branch is the same run.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import tempfile
from collections.abc import Sequence

from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments import wen2024_wsds as experiment
from experiments.compiles import CompileCount
from trainers.train import run

PEAKS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SEEDS = (101, 102)
BUDGET = 600  # WSD-S decays at half of it too

OUT = flags.DEFINE_string('out', None, 'File to write.', required=True)
CACHE = flags.DEFINE_string('compile_cache', 'compile-cache', 'Programs.')


def schedules_at(peak_lr: float) -> dict[str, lrsched.Schedule]:
  return {
    'WSD-S': experiment.wsds(peak_lr, (BUDGET // 2, BUDGET)),
    'WSD': experiment.wsd(peak_lr, BUDGET),
    'cosine': experiment.cosine(peak_lr, BUDGET),
  }


def losses_of(peak_lr: float, name: str, workdir: pathlib.Path) -> list[float]:
  """Final validation losses over the seeds; infinite if a run diverged."""
  losses = []
  for seed in SEEDS:
    schedule = schedules_at(peak_lr)[name]
    config = experiment.config_of(schedule, BUDGET, seed=seed)
    folder = workdir / f'{name}_{peak_lr:g}_{seed}'
    try:
      losses.append(run(config, folder).mean)
    except FloatingPointError:
      losses.append(float('inf'))
  return losses


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  CompileCount(CACHE.value)
  losses: dict[str, dict[str, list[float]]] = {}
  with tempfile.TemporaryDirectory() as folder:
    for name in experiment.SCHEDULES:
      losses[name] = {
        f'{peak:g}': losses_of(peak, name, pathlib.Path(folder))
        for peak in PEAKS
      }
  best = {
    name: float(min(table, key=lambda peak: statistics.mean(table[peak])))
    for name, table in losses.items()
  }
  for name, peak_lr in best.items():
    if peak_lr in (PEAKS[0], PEAKS[-1]):
      raise ValueError(f'{name}: the best peak {peak_lr} is an end of the grid')
  record = {
    'command': f'python -m experiments.tune --out={OUT.value}',
    'budget': BUDGET,
    'seeds': SEEDS,
    'validation_loss': losses,
    'peak_lr': best,
  }
  pathlib.Path(OUT.value).write_text(json.dumps(record, indent=2) + '\n')
  print(json.dumps(best))


if __name__ == '__main__':
  app.run(main)
