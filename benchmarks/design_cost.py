"""What it costs to design a schedule by a loss law, against the law itself.

  python -m benchmarks.design_cost

Designs a schedule of 24,000 updates under each law: with its programs to be
compiled, and again. The ratio is to one prediction of the loss at the end with
every change of the LR counted, in pairs: how many such predictions a design
costs. A descent in the LR of every update, the published method, takes at least
one of them, and its gradient, for each of 10,000 steps and more.
"""

from __future__ import annotations

import datetime
import gc
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app
from absl import flags

from benchmarks.step_overhead import Ratio
from benchmarks.step_overhead import machine
from benchmarks.step_overhead import median_ratio
from benchmarks.step_overhead import write_record
from lrsched import laws

TOTAL_STEPS, WARMUP_STEPS, PEAK_LR = 24_000, 2_160, 3e-4
MOST_SECONDS = 5.0  # of a design with its compilation, on 2 idle cores
# Of the size of public ones.
PARAMS: dict[str, dict[str, float]] = {
  'Concave': dict(
    L0=2.65, A=0.35, a=0.45, K=0.2, w=0.725, C=1012.0, b=0.4, g=0.0, q=0.66
  ),
  'Functional': dict(
    L0=2.65, A=0.6, alpha=0.45, c2=300.0, c3=1.5, c4=20.0, gamma=0.6
  ),
  'MultiPower': dict(
    L0=2.65, A=0.6, alpha=0.45, B=438.0, C=2.13, beta=0.6, gamma=0.655
  ),
}


def fit_of(name: str) -> laws.Fit:
  law = getattr(laws, name)()
  return laws.Fit.given(law, PARAMS[name], peak_lr=PEAK_LR)


def design(fit: laws.Fit) -> laws.Design:
  return laws.optimize_schedule(
    fit, TOTAL_STEPS, PEAK_LR, warmup_steps=WARMUP_STEPS
  )


def prediction(fit: laws.Fit, lrs: np.ndarray) -> float:
  """The loss after the last update, every change counted."""
  losses = fit.law.predict(
    fit.params,
    lrs,
    np.asarray([TOTAL_STEPS - 1]),
    warmup_steps=WARMUP_STEPS,
    peak_lr=PEAK_LR,
  )
  return float(losses[0])


def seconds_of(run: Callable[[], Any]) -> tuple[float, float]:
  """Of the clock, and of all cores together, which others do not lengthen."""
  gc.collect()
  began, cpu_began = time.perf_counter(), time.process_time()
  run()
  return time.perf_counter() - began, time.process_time() - cpu_began


def costs(fit: laws.Fit, n: int) -> dict[str, Any]:
  """Medians of `n` designs compiled anew, and of `n` pairs once compiled."""
  cold = []
  for _ in range(n):
    jax.clear_caches()
    cold.append(seconds_of(lambda: design(fit)))
  lrs = np.asarray(design(fit).schedule.lrs)
  prediction(fit, lrs)
  pairs = np.asarray(
    [
      (
        seconds_of(lambda: design(fit))[0],
        seconds_of(lambda: prediction(fit, lrs))[0],
      )
      for _ in range(n)
    ]
  )
  ratio: Ratio = median_ratio(pairs)
  return {
    'first_seconds': round(float(np.median([x[0] for x in cold])), 3),
    'first_cpu_seconds': round(float(np.median([x[1] for x in cold])), 3),
    'again_seconds': round(float(np.median(pairs[:, 0])), 3),
    'prediction_ms': round(1e3 * float(np.median(pairs[:, 1])), 3),
    'predictions_in_a_design': ratio._asdict(),
  }


def measure(n: int) -> dict[str, Any]:
  """The record: machine, and the costs under each law."""
  load = os.getloadavg()[0]
  found = {name: costs(fit_of(name), n) for name in PARAMS}
  return {
    'date': datetime.date.today().isoformat(),
    'command': f'python -m benchmarks.design_cost --designs={n}',
    **machine(load),
    'designs': n,
    'total_steps': TOTAL_STEPS,
    'costs': found,
  }


def summary(record: dict[str, Any]) -> str:
  facts = ('date', 'device', 'cores', 'load_average', 'python', 'jax')
  lines = [
    ', '.join(f'{name} {record[name]}' for name in facts),
    f'designs of {record["total_steps"]:,} updates, medians of '
    f'{record["designs"]}; ratio of pairs with its 95 % bootstrap interval',
    f'{"":12}{"compiled first":>24}{"again":>10}   predictions in a design',
  ]
  for name, row in record['costs'].items():
    ratio = '{median:.0f} [{low:.0f}, {high:.0f}]'.format(
      **row['predictions_in_a_design']
    )
    first = f'{row["first_seconds"]} s (CPU {row["first_cpu_seconds"]} s)'
    again = f'{row["again_seconds"]} s'
    lines.append(f'{name:12}{first:>24}{again:>10}   {ratio}')
  worst = max(row['first_seconds'] for row in record['costs'].values())
  lines.append(
    f'target, a first design under {MOST_SECONDS} s on 2 idle cores: '
    + ('met' if worst < MOST_SECONDS else 'missed')
  )
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  record = measure(flags.FLAGS.designs)
  print(summary(record))
  if flags.FLAGS.out is not None:
    write_record(record, 'design_cost', flags.FLAGS.out)


if __name__ == '__main__':
  flags.DEFINE_integer('designs', 5, 'Timed designs of each.', lower_bound=3)
  flags.DEFINE_string('out', None, 'Folder to write a record to, if any.')
  app.run(main)
