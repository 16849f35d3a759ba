"""What fits and forecasts of a protocol cost, by law.

  python -m benchmarks.forecast_cost --protocol=CURVES/protocol.json

Every law is fitted to each group, and forecasts the test curves, twice in one
process: the first pass compiles, the second has only the work itself. Seconds
are of the clock; the dearest fit of the second pass is given by itself.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import app
from absl import flags

from benchmarks.step_overhead import machine
from benchmarks.step_overhead import write_record
from experiments.judging import PUBLISHED
from experiments.judging import fit_named
from experiments.protocol import Group
from experiments.protocol import read_groups
from lrsched import laws

PASSES = ('first', 'second')


class Seconds(NamedTuple):
  """Of one law in one group."""

  fit: float
  forecasts: float


def seconds(law: str, group: Group) -> Seconds:
  began = time.perf_counter()
  fitted = fit_named(law, group.fit, laws.SHIPPED)
  fit_ended = time.perf_counter()
  for curve in group.test:
    fitted.forecast(curve)
  return Seconds(fit_ended - began, time.perf_counter() - fit_ended)


def measure(groups: Sequence[Group]) -> dict[str, Any]:
  """The record: machine, and seconds of each law in both passes."""
  load, names = os.getloadavg()[0], (*PUBLISHED, 'auto')
  found: dict[str, dict[str, Any]] = {name: {} for name in names}
  for one_pass in PASSES:
    for name in names:
      by_group = {group.name: seconds(name, group) for group in groups}
      dearest = max(by_group, key=lambda g: by_group[g].fit)
      found[name][one_pass] = {
        'fits': round(sum(s.fit for s in by_group.values()), 3),
        'forecasts': round(sum(s.forecasts for s in by_group.values()), 3),
        'dearest_fit': round(by_group[dearest].fit, 3),
        'dearest_group': dearest,
      }
  return {
    'date': datetime.date.today().isoformat(),
    'command': 'python -m benchmarks.forecast_cost',
    **machine(load),
    'groups': len(groups),
    'forecast_curves': sum(len(group.test) for group in groups),
    'seconds': found,
  }


def summary(record: dict[str, Any]) -> str:
  facts = ('date', 'device', 'cores', 'load_average', 'python', 'jax')
  lines = [
    ', '.join(f'{name} {record[name]}' for name in facts),
    f'seconds for {record["groups"]} groups, {record["forecast_curves"]} '
    'forecast curves; the first pass compiles',
    f'{"":13}{"first pass":>17}{"second pass":>19}',
    f'{"":13}{"fits":>7}{"forecasts":>11}{"fits":>7}{"forecasts":>11}'
    '   dearest fit',
  ]
  total = dict.fromkeys(PASSES, 0.0)
  for name, row in record['seconds'].items():
    cells = ''
    for one_pass in PASSES:
      fits, forecasts = row[one_pass]['fits'], row[one_pass]['forecasts']
      cells += f'{fits:7.2f}{forecasts:11.2f}'
      total[one_pass] += fits + forecasts
    second = row['second']
    dearest = f'{second["dearest_fit"]:.2f}, {second["dearest_group"]}'
    lines.append(f'{name:13}{cells}   {dearest}')
  sums = ''.join(f'{total[one_pass]:18.1f}' for one_pass in PASSES)
  lines.append(f'{"in all":13}{sums}')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  try:
    groups = read_groups(pathlib.Path(flags.FLAGS.protocol))
  except ValueError as error:
    sys.exit(f'error: {error}')
  record = measure(groups)
  print(summary(record))
  if flags.FLAGS.out is not None:
    write_record(record, 'forecast_cost', flags.FLAGS.out)


if __name__ == '__main__':
  flags.DEFINE_string('protocol', None, 'Protocol JSON.', required=True)
  flags.DEFINE_string('out', None, 'Folder to write a record to, if any.')
  app.run(main)
