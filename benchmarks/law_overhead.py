"""What a loss law in the training step costs.

  python -m benchmarks.law_overhead

Times the trainer's step at the demo's size (model '0.3m', 8 sequences of 128
bytes), with a law that follows the run and without, in pairs of alternating
order, as `step_overhead` does. Pairs of the plain step and a second compilation
of it, timed in between, show what this machine can resolve.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app
from absl import flags

import lrsched
from benchmarks.step_overhead import machine
from benchmarks.step_overhead import median_ratio
from benchmarks.step_overhead import write_record
from lrsched import laws
from trainers.config import DataConfig
from trainers.config import ForecastConfig
from trainers.config import MeshConfig
from trainers.config import RunConfig
from trainers.model import PRESETS
from trainers.optimizer import AdamW
from trainers.optimizer import schedules_of
from trainers.sharding import make_mesh
from trainers.train_step import init_state
from trainers.train_step import make_train_step
from trainers.train_step import place_batch
from trainers.train_step import schedule_arrays

WARMUP_CALLS = 5
MOST_MEDIAN = 1.01
# Of `auto` on curves of the size of the demo; the cost does not depend on them.
PARAMS = {
  'L0': 1.3,
  'A': 0.5,
  'a': 0.3,
  'K': 0.3,
  'w': 0.7,
  'C': 1000.0,
  'b': 0.4,
  'g': 0.0,
  'q': 0.7,
}


def config_of(n: int, *, is_followed: bool) -> RunConfig:
  spec = lrsched.WSD(
    peak_lr=1e-3,
    warmup_steps=n // 10,
    stable_steps=n - n // 10 - n // 5,
    decay_steps=n // 5,
  )
  return RunConfig(
    model=PRESETS['0.3m'],
    data=DataConfig(seq_len=128, batch_size=8),
    optimizer=AdamW(schedule=spec),
    total_steps=n,
    mesh=MeshConfig(data=1),
    forecast=ForecastConfig() if is_followed else None,
  )


def timed(n: int, *, is_followed: bool) -> Callable[[], float]:
  """A function that makes one update and returns its seconds."""
  config = config_of(n, is_followed=is_followed)
  mesh = make_mesh(config.mesh)
  law = laws.Concave() if is_followed else None
  step = make_train_step(config, mesh, law)
  extra: tuple[laws.Outlook, ...] = ()
  if is_followed:
    fit = laws.Fit.given(laws.Concave(), PARAMS, peak_lr=1e-3)
    lrs, warmup_steps = laws.lr_of_updates(config.optimizer.schedule)
    extra = (laws.outlook_of(fit, lrs, warmup_steps),)
  schedules = schedule_arrays(schedules_of(config.optimizer))
  rows = np.random.default_rng(0).integers(0, 256, (8, 129), np.int32)
  with jax.set_mesh(mesh):
    state = jax.jit(lambda: init_state(config, 0))()
    tokens = place_batch(rows, 1, mesh)

  def run() -> float:
    nonlocal state
    with jax.set_mesh(mesh):
      began = time.perf_counter()
      out = jax.block_until_ready(step(state, tokens, schedules, *extra))
    seconds = time.perf_counter() - began
    state = out[0]
    return seconds

  return run


def measure(n: int) -> dict[str, Any]:
  """The record: machine, times and ratios."""
  load, total = os.getloadavg()[0], n + WARMUP_CALLS
  plain = timed(total, is_followed=False)
  pairs = (
    (timed(total, is_followed=True), plain),
    (timed(total, is_followed=False), timed(total, is_followed=False)),
  )
  for pair in pairs:
    for run in pair:
      for _ in range(WARMUP_CALLS):
        run()
  seconds = np.empty((len(pairs), n, 2))
  gc.disable()
  for i in range(n):
    for kind, pair in enumerate(pairs):
      for k in (0, 1) if i % 2 == 0 else (1, 0):
        seconds[kind, i, k] = pair[k]()
  gc.enable()
  followed, control = map(median_ratio, seconds)
  return {
    'benchmark': 'law_overhead',
    'date': datetime.date.today().isoformat(),
    'machine': machine(load),
    'pairs': n,
    'step_ms': [round(1e3 * float(x), 3) for x in np.median(seconds[0], 0)],
    'with_law_over_without': followed._asdict(),
    'control': control._asdict(),
    'most_median': MOST_MEDIAN,
  }


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  record = measure(flags.FLAGS.pairs)
  print(json.dumps(record, indent=1))
  if flags.FLAGS.out is not None:
    write_record(record, 'law_overhead', flags.FLAGS.out)


if __name__ == '__main__':
  flags.DEFINE_integer('pairs', 300, 'Pairs of steps of each kind.', 1)
  flags.DEFINE_string('out', None, 'Folder for the record.')
  app.run(main)
