r"""Forecasts losses: of a schedule of yours, or of a protocol's test curves.

  .venv/bin/python -m experiments.forecast --curves=a.csv,b.csv \
    --schedule=spec.json --plot=forecast.png --save=fit.json
  .venv/bin/python -m experiments.forecast --fit=fit.json --schedule=other.json

fits the curves and prints what the schedule would come to, with a 90 %
interval; a saved fit forecasts further schedules without fitting again. Curves
are anything that `experiments.curve_files` reads: CSV (`step,lr,loss`), run
folders, W&B exports, TensorBoard events, `trainer_state.json`, plain logs.

  .venv/bin/python -m experiments.forecast --protocol=CURVES/protocol.json \
    --exclude_source=each --out=forecast.json --plot=forecast.png

fits every law to each group of a protocol and judges its forecasts of the test
curves: errors, intervals, and the schedules one would pick by them
(`experiments.decisions`). `--exclude_source` pools the prior again without a
source; `each` leaves out that of the group at hand, which is what other
people's curves are like.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app
from absl import flags
from absl import logging
from rich.console import Console
from rich.table import Table

import lrsched
from experiments.curve_files import FORMATS
from experiments.curve_files import read_curves
from experiments.forecast_plot import plot_forecast
from experiments.forecast_plot import plot_protocol
from experiments.judging import PUBLISHED
from experiments.judging import Judged
from experiments.judging import fit_named
from experiments.judging import judge_all
from experiments.judging import pooled_knowledge
from experiments.logged import Reading
from experiments.saved_fits import saved_fit
from lrsched import laws

PROTOCOL = flags.DEFINE_string(
  'protocol', None, 'Protocol JSON to judge laws by.'
)
OUT = flags.DEFINE_string('out', None, 'File for the result, as JSON.')
CURVES = flags.DEFINE_list('curves', [], 'Files or folders of curves to fit.')
FORMAT = flags.DEFINE_enum('format', None, list(FORMATS), 'Of the curves.')
LR = flags.DEFINE_string('lr', None, 'Column, tag or metric of the LR.')
LOSS = flags.DEFINE_string('loss', None, 'Column, tag or metric of the loss.')
PATTERN = flags.DEFINE_string(
  'pattern', None, 'Regular expression for a plain log.'
)
SCHEDULE = flags.DEFINE_string('schedule', None, 'Spec JSON to forecast.')
TOTAL_STEPS = flags.DEFINE_integer(
  'total_steps',
  None,
  'Length of the forecast; the end of the schedule if not given.',
)
WARMUP_STEPS = flags.DEFINE_integer(
  'warmup_steps', None, 'Warmup of the curves; their initial rise if not given.'
)
LAW = flags.DEFINE_enum(
  'law',
  'auto',
  [*PUBLISHED, 'auto'],
  'Law to forecast a schedule with, or to plot of a protocol.',
)
SAVE = flags.DEFINE_string('save', None, 'File for the fit, as JSON.')
FIT = flags.DEFINE_string('fit', None, 'A saved fit, to forecast with.')
PRIORS = flags.DEFINE_string(
  'priors',
  'shipped',
  'Of auto: shipped, none, or a JSON file of pooled knowledge.',
)
EXCLUDE_SOURCE = flags.DEFINE_string(
  'exclude_source',
  None,
  "Pool the prior without a source; 'each': the group's.",
)
PLOT = flags.DEFINE_string('plot', None, 'Picture of the forecasts.')

ERRORS = ('FinalE', 'SmoothFinalE', 'MAE', 'R2', 'fit_seconds')
DECISIONS = ('regret', 'tau', 'pair_accuracy')
INTERVALS = ('coverage90', 'end_coverage90', 'end_interval_score90')


def summary(
  judged: Sequence[Judged], columns: Sequence[str], caption: str
) -> Table:
  """Means over the groups that have a figure, a row for each law."""
  table = Table(caption=caption)
  table.add_column('law')
  for name in columns:
    table.add_column(name, justify='right')
  for law in judged[0].results:
    cells = []
    for name in columns:
      values = [one.results[law][name] for one in judged]
      known = [value for value in values if value is not None]
      if name == 'fit_seconds':
        cells.append(f'{sum(known):.1f}')
      else:
        cells.append(f'{np.mean(known):.4f}' if known else '-')
    table.add_row(law, *cells)
  return table


def judge_protocol(protocol: pathlib.Path, out: pathlib.Path) -> None:
  """Writes the result of a protocol, and prints its summary."""
  judged = judge_all(protocol, PRIORS.value, EXCLUDE_SOURCE.value)
  excluded = EXCLUDE_SOURCE.value
  result: dict[str, Any] = {
    'priors': f'pooled without {excluded}' if excluded else PRIORS.value,
    'groups': {one.group.name: one.results for one in judged},
  }
  out.write_text(json.dumps(result, indent=1) + '\n')
  console = Console(width=100)
  means = 'means over groups of means over'
  console.print(summary(judged, ERRORS, f'{means} test curves, in nats'))
  console.print(summary(judged, INTERVALS, f'{means} test curves'))
  console.print(summary(judged, DECISIONS, f'{means} choice sets'))
  if PLOT.value is not None:
    plot_protocol(judged, LAW.value, pathlib.Path(PLOT.value))
    print(f'picture: {PLOT.value}')


def own_curves() -> list[laws.Curve]:
  """The curves of `--curves`."""
  reading = Reading(
    format=FORMAT.value, lr=LR.value, loss=LOSS.value, pattern=PATTERN.value
  )
  return [
    curve
    for path in CURVES.value
    for curve in read_curves(
      pathlib.Path(path), reading, warmup_steps=WARMUP_STEPS.value
    )
  ]


def forecast_schedule() -> None:
  """Prints a forecast of `--schedule`, by a fit of `--curves` or by `--fit`."""
  curves, spec = own_curves(), None
  if SCHEDULE.value is not None:
    spec = lrsched.from_json(pathlib.Path(SCHEDULE.value).read_text())
  elif SAVE.value is None:
    raise ValueError('--schedule must name a spec to forecast')
  if FIT.value is not None:
    fitted = saved_fit(FIT.value)
  else:
    fitted = fit_named(LAW.value, curves, pooled_knowledge(PRIORS.value))
  for line in fitted.verdict:
    print(f'note: {line}')
  params = ', '.join(f'{k} {v:.4g}' for k, v in fitted.params.items())
  print(f'law: {type(fitted.law).__name__}: {params}')
  if SAVE.value is not None:
    text = json.dumps(fitted.to_dict(), indent=1)
    pathlib.Path(SAVE.value).write_text(text + '\n')
    print(f'fit: {SAVE.value}')
  if spec is None:
    return
  forecast = fitted.forecast(spec, total_steps=TOTAL_STEPS.value)
  print(
    f'loss after update {forecast.steps[-1]}: {forecast.mean[-1]:.4f} nats, '
    f'90 % [{forecast.low[-1]:.4f}, {forecast.high[-1]:.4f}]'
  )
  if PLOT.value is not None:
    plot_forecast(curves, fitted, forecast, pathlib.Path(PLOT.value))
    print(f'picture: {PLOT.value}')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  try:
    own = bool(CURVES.value or FIT.value)
    if own == bool(PROTOCOL.value):
      raise ValueError('give either --protocol or --curves, or a saved --fit')
    for flag in (OUT, SAVE, PLOT):
      if flag.value and not pathlib.Path(flag.value).parent.is_dir():
        raise ValueError(f'--{flag.name}: there is no folder for {flag.value}')
    if own:
      forecast_schedule()
      return
    if OUT.value is None or PROTOCOL.value is None:
      raise ValueError('--out must name a file for the result')
    judge_protocol(pathlib.Path(PROTOCOL.value), pathlib.Path(OUT.value))
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  app.run(main)
