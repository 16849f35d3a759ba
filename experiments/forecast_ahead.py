r"""Forecasts runs before they are trained, trains them, and shows both.

  .venv/bin/python -m experiments.forecast_ahead --workdir=runs/ahead

trains two runs of `experiments.record_curves` (a constant LR, and a cosine of
half the length), fits `auto` to their evaluations, writes what it expects of
other schedules to `forecast.json` in the workdir, and only then trains those.
A call that was interrupted goes on; a forecast that is written is not made
again.
"""

from __future__ import annotations

import json
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

from experiments.record_curves import ALL
from experiments.record_curves import EVAL_STEPS
from experiments.record_curves import WARMUP_STEPS
from experiments.record_curves import record
from lrsched import laws

FITTED = ('constant', 'cosine_short')
AHEAD = ('wsd_long', 'cosine_long', 'wsds')
LAST = 3  # evaluations that the outcome is the mean of


def _curve(name: str, seed: int, workdir: pathlib.Path) -> laws.Curve:
  text = record(name, seed, workdir)
  return laws.Curve.from_csv(text, name=name, warmup_steps=WARMUP_STEPS)


def expected(seed: int, workdir: pathlib.Path) -> dict[str, Any]:
  """The forecasts, from the file or from runs that are trained for them."""
  path = workdir / 'forecast.json'
  if path.exists():
    return json.loads(path.read_text())
  fit = laws.auto([_curve(name, seed, workdir) for name in FITTED])
  forecasts = {}
  for name in AHEAD:
    schedule, total_steps = ALL[name]
    at_steps = total_steps - 1 - EVAL_STEPS * np.arange(LAST)[::-1]
    found = fit.forecast(schedule, at_steps, total_steps=total_steps)
    forecasts[name] = {
      'mean': float(found.mean.mean()),
      'low': float(found.low.mean()),
      'high': float(found.high.mean()),
    }
  path.write_text(json.dumps(forecasts, indent=1) + '\n')
  return forecasts


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  workdir, seed = pathlib.Path(flags.FLAGS.workdir), flags.FLAGS.seed
  workdir.mkdir(parents=True, exist_ok=True)
  table = rich.table.Table(
    caption=f'mean of the last {LAST} evaluations, nats per byte; seed {seed}; '
    'expected before the run',
    caption_justify='left',
  )
  for column in ('schedule', 'expected', '90 % interval', 'came to', 'error'):
    table.add_column(column, justify='right')
  try:
    for name, forecast in expected(seed, workdir).items():
      print(f'{name}: {forecast["mean"]:.4f} nats expected', file=sys.stderr)
      curve = _curve(name, seed, workdir)
      outcome = float(curve.losses[curve.measured][-LAST:].mean())
      table.add_row(
        name,
        f'{forecast["mean"]:.4f}',
        f'[{forecast["low"]:.4f}, {forecast["high"]:.4f}]',
        f'{outcome:.4f}',
        f'{outcome - forecast["mean"]:+.4f}',
      )
  except (ValueError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  rich.console.Console().print(table)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/ahead', 'Folder of the runs.')
  flags.DEFINE_integer('seed', 3, 'Of the weights and the order of the data.')
  app.run(main)
