r"""Forecasts losses: of a protocol's test curves, or of a schedule of yours.

  .venv/bin/python -m experiments.forecast --curves=a.csv,b.csv \
    --schedule=spec.json --plot=forecast.png

fits the curves (`step,lr,loss`, any framework) and prints what the schedule
would come to, with a 90 % interval.

  .venv/bin/python -m experiments.forecast --protocol=CURVES/protocol.json \
    --exclude_source=each --out=forecast.json

fits every law to each group of a protocol and judges its forecasts of the test
curves. `--exclude_source` pools the prior again without a source; `each` leaves
out that of the group at hand, which is what other people's curves are like.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app
from absl import flags
from rich.console import Console
from rich.table import Table

import lrsched
from experiments.protocol import Group
from experiments.protocol import data_sets
from experiments.protocol import metrics
from experiments.protocol import read_curve
from experiments.protocol import read_groups
from lrsched import laws

PROTOCOL = flags.DEFINE_string(
  'protocol', None, 'Protocol JSON to judge laws by.'
)
OUT = flags.DEFINE_string('out', None, 'File for the result, as JSON.')
CURVES = flags.DEFINE_list('curves', [], 'CSV files to fit.')
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
  ['auto', 'annealing', 'multi_power', 'functional', 'loss_drop', 'concave'],
  'Law to forecast a schedule with.',
)
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
PLOT = flags.DEFINE_string('plot', None, 'Picture of the fit and the forecast.')

PUBLISHED = {
  'annealing': laws.Annealing(),
  'multi_power': laws.MultiPower(),
  'functional': laws.Functional(),
  'loss_drop': laws.LossDrop(),
  'concave': laws.Concave(),
}
METRICS = ('R2', 'MAE', 'RMSE', 'PredE', 'WorstE', 'FinalE')


def pooled_knowledge(priors: str) -> laws.Pooled | None:
  """What `--priors` names; None for no prior.

  Raises:
    ValueError: if a file does not hold pooled knowledge.
  """
  if priors == 'shipped':
    return laws.SHIPPED
  if priors == 'none':
    return None
  try:
    return laws.Pooled(**json.loads(pathlib.Path(priors).read_text()))
  except (OSError, TypeError, ValueError) as error:
    raise ValueError(
      f'--priors must be shipped, none or a JSON file of pooled knowledge, got '
      f'{priors!r} ({error})'
    ) from error


def fit_named(
  name: str, curves: Sequence[laws.Curve], pooled: laws.Pooled | None
) -> laws.Fit:
  """A fit of the law of that name; `auto` is `concave` without a prior."""
  if name == 'auto' and pooled is not None:
    return laws.auto(curves, pooled)
  return laws.fit(PUBLISHED['concave' if name == 'auto' else name], curves)


def judge(
  name: str, group: Group, pooled: laws.Pooled | None
) -> dict[str, Any]:
  """Metrics of one law on one group, with those of each test curve."""
  began = time.perf_counter()
  fitted = fit_named(name, group.fit, pooled)
  fit_seconds = time.perf_counter() - began
  per_curve: dict[str, dict[str, Any]] = {}
  for curve in group.test:
    forecast = fitted.forecast(curve)
    y = curve.losses[curve.measured]
    inside = (forecast.low <= y) & (y <= forecast.high)
    per_curve[curve.name] = {
      **metrics(curve, forecast.mean),
      'coverage90': float(inside.mean()),
      'end': {
        'predicted': float(forecast.mean[-1]),
        'low': float(forecast.low[-1]),
        'high': float(forecast.high[-1]),
        'measured': float(y[-1]),
        'inside': bool(inside[-1]),
      },
    }
  mean = lambda key: float(np.mean([c[key] for c in per_curve.values()]))
  return {
    **{key: mean(key) for key in (*METRICS, 'coverage90')},
    'end_coverage90': float(
      np.mean([c['end']['inside'] for c in per_curve.values()])
    ),
    'fit_seconds': fit_seconds,
    'params': fitted.params,
    'verdict': list(fitted.verdict),
    'per_curve': per_curve,
  }


def judge_all(
  protocol: pathlib.Path, priors: str, exclude_source: str | None
) -> dict[str, Any]:
  """The result of a protocol: every law on every group."""

  @functools.cache
  def pooled_without(source: str) -> laws.Pooled:
    return laws.pool(data_sets(protocol.parent, source))

  shipped = pooled_knowledge(priors)
  groups: dict[str, Any] = {}
  for group in read_groups(protocol):
    without = group.source if exclude_source == 'each' else exclude_source
    pooled = pooled_without(without) if without else shipped
    names = (*PUBLISHED, 'auto')
    groups[group.name] = {name: judge(name, group, pooled) for name in names}
    print(f'{group.name}: done', file=sys.stderr)
  return {
    'priors': f'pooled without {exclude_source}' if exclude_source else priors,
    'groups': groups,
  }


def summary(result: dict[str, Any]) -> Table:
  """Means over the groups, a row for each law."""
  table = Table(caption='means over groups of means over test curves, in nats')
  table.add_column('law')
  columns = ('FinalE', 'MAE', 'R2', 'coverage90', 'end_coverage90')
  for name in (*columns, 'fit_seconds'):
    table.add_column(name, justify='right')
  for law in next(iter(result['groups'].values())):
    of = lambda key, law=law: np.mean(
      [group[law][key] for group in result['groups'].values()]
    )
    seconds = sum(g[law]['fit_seconds'] for g in result['groups'].values())
    cells = [f'{of(name):.4f}' for name in columns]
    table.add_row(law, *cells, f'{seconds:.1f}')
  return table


def forecast_schedule() -> None:
  """Fits `--curves` and prints the forecast of `--schedule`."""
  curves = [
    read_curve(pathlib.Path(path), WARMUP_STEPS.value) for path in CURVES.value
  ]
  if SCHEDULE.value is None:
    raise ValueError('--schedule must name a spec to forecast')
  spec = lrsched.from_json(pathlib.Path(SCHEDULE.value).read_text())
  fitted = fit_named(LAW.value, curves, pooled_knowledge(PRIORS.value))
  forecast = fitted.forecast(spec, total_steps=TOTAL_STEPS.value)
  for line in fitted.verdict:
    print(f'note: {line}')
  params = ', '.join(f'{k} {v:.4g}' for k, v in fitted.params.items())
  print(f'law: {type(fitted.law).__name__}: {params}')
  print(
    f'loss after update {forecast.steps[-1]}: {forecast.mean[-1]:.4f} nats, '
    f'90 % [{forecast.low[-1]:.4f}, {forecast.high[-1]:.4f}]'
  )
  if PLOT.value is not None:
    _plot(curves, fitted, forecast, pathlib.Path(PLOT.value))


def _plot(
  curves: Sequence[laws.Curve],
  fitted: laws.Fit,
  forecast: laws.Forecast,
  path: pathlib.Path,
) -> None:
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 3.6), layout='constrained')
  ax = figure.subplots()
  for i, curve in enumerate(curves):
    rows = curve.measured[curve.steps[curve.measured] >= curve.warmup_steps]
    ax.plot(curve.steps[rows], curve.losses[rows], '.', ms=3, color=f'C{i + 1}')
    own = fitted.forecast(curve, curve.steps[rows])
    ax.plot(own.steps, own.mean, lw=1, color=f'C{i + 1}', label=curve.name)
  ax.plot(forecast.steps, forecast.mean, color='C0', label='forecast, 90 %')
  ax.fill_between(
    forecast.steps, forecast.low, forecast.high, color='C0', alpha=0.2, lw=0
  )
  late = max(1, len(forecast.mean) // 10)
  low = min([forecast.low.min(), *(np.nanmin(c.losses) for c in curves)])
  ax.set_ylim(low - 0.05, forecast.mean[late] + 0.3)
  ax.set(xlabel='update', ylabel='loss, nats')
  ax.legend(frameon=False)
  figure.savefig(path, dpi=150)
  print(f'picture: {path}')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  try:
    if bool(CURVES.value) == bool(PROTOCOL.value):
      raise ValueError('give either --protocol or --curves')
    if CURVES.value:
      forecast_schedule()
      return
    if OUT.value is None or PROTOCOL.value is None:
      raise ValueError('--out must name a file for the result')
    result = judge_all(
      pathlib.Path(PROTOCOL.value), PRIORS.value, EXCLUDE_SOURCE.value
    )
    pathlib.Path(OUT.value).write_text(json.dumps(result, indent=1) + '\n')
    Console(width=100).print(summary(result))
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  app.run(main)
