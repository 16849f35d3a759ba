"""What each kind of schedule costs, against optax's cosine.

  python -m benchmarks.schedule_cost

Two figures for every kind, each the median ratio of interleaved pairs: the LRs
of a million steps in one call, which is the arithmetic alone, and one update of
a small vector of parameters, which is the schedule inside a step as short as a
step can be. Our spec is an argument of the program; optax's schedule is a part
of it. Pairs of optax's cosine and a copy of it, the first row, show what this
machine can resolve.
"""

from __future__ import annotations

import datetime
import gc
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app
from absl import flags

import lrsched
from benchmarks.step_overhead import Ratio
from benchmarks.step_overhead import machine
from benchmarks.step_overhead import median_ratio
from benchmarks.step_overhead import write_record

TOTAL_STEPS = 1_000_000
N_PARAMS = 256
CALLS = 20  # updates in one timing: a single one is too short for the clock
WARMUP_CALLS = 5
PEAK_LR = 1e-3
OPTAX_COSINE = 'optax cosine'


class Cost(NamedTuple):
  """What a call takes, and how much more than with optax's cosine.

  Attributes:
    seconds: median of one call.
    more_seconds: median difference to its pair.
    ratio: median ratio to its pair.
  """

  seconds: float
  more_seconds: float
  ratio: Ratio


def kinds(total_steps: int) -> list[lrsched.Schedule]:
  """Every public kind once; `total_steps` is at least 100."""
  peak_lr, low_lr, tenth = PEAK_LR, 0.1 * PEAK_LR, total_steps // 10
  cosine = lrsched.Cosine(peak_lr=peak_lr, total_steps=total_steps)
  constant = lrsched.Constant(lr=peak_lr)
  linear = lrsched.Linear(peak_lr=peak_lr, total_steps=total_steps)
  trunk: dict[str, Any] = {
    'peak_lr': peak_lr,
    'warmup_steps': tenth,
    'stable_steps': 7 * tenth,
    'decay_steps': 2 * tenth,
  }
  ends = tuple(range(2 * tenth, total_steps + 1, 2 * tenth))
  return [
    constant,
    linear,
    cosine,
    lrsched.Polynomial(peak_lr=peak_lr, total_steps=total_steps, power=1.5),
    lrsched.REX(peak_lr=peak_lr, total_steps=total_steps),
    lrsched.Exponential(
      peak_lr=peak_lr, final_lr=low_lr, factor=0.5, every_steps=tenth
    ),
    lrsched.InverseSqrt(peak_lr=peak_lr, timescale_steps=tenth),
    lrsched.InverseTime(peak_lr=peak_lr, timescale_steps=tenth),
    lrsched.Power(
      peak_lr=0.02,
      batch_size=128,
      tokens_per_step=524_288,
      warmup_steps=tenth,
      stable_steps=7 * tenth,
      decay_steps=2 * tenth,
    ),
    lrsched.WSD(**trunk),
    lrsched.WSDC(const_lr=low_lr, **trunk),
    lrsched.WSDS.of_cycle(
      peak_lr=peak_lr,
      final_lr=low_lr,
      warmup_steps=0,
      cycle_ends=ends,
      decay_frac=0.1,
    ),
    lrsched.Infinite(
      peak_lr=peak_lr,
      const_lr=0.5 * peak_lr,
      final_lr=low_lr,
      warmup_steps=tenth,
      cooldown_steps=4 * tenth,
      const_steps=3 * tenth,
      anneal_steps=2 * tenth,
    ),
    lrsched.CosineRestarts(peak_lr=peak_lr, cycle_ends=ends),
    lrsched.OneCycle.of_torch(max_lr=peak_lr, total_steps=total_steps),
    lrsched.Triangular(
      low_lr=low_lr, peak_lr=peak_lr, up_steps=tenth, down_steps=tenth
    ),
    lrsched.Step.of_30_60_90(peak_lr=peak_lr, total_steps=total_steps),
    lrsched.Warmup(schedule=cosine, warmup_steps=tenth),
    lrsched.Sequence(schedules=(cosine, linear), boundaries=(5 * tenth,)),
    lrsched.Chained(schedules=(cosine, linear), boundaries=(5 * tenth,)),
    lrsched.Rewarm(
      before=cosine, rewarm_step=5 * tenth, warmup_steps=tenth, after=linear
    ),
    lrsched.Tabulated(lrs=np.linspace(peak_lr, low_lr, total_steps)),
    lrsched.PiecewiseLinear(
      steps=tenth * np.arange(11), lrs=np.linspace(peak_lr, 0.0, 11)
    ),
    lrsched.Scaled(schedule=cosine, factor=0.5),
    lrsched.Clipped(schedule=cosine, low_lr=low_lr),
    lrsched.Stretched(
      schedule=cosine, from_steps=total_steps, to_steps=2 * total_steps
    ),
    lrsched.Shifted(schedule=cosine, by_steps=total_steps // 10),
    lrsched.Sampled(schedule=cosine, every_steps=100),
    lrsched.Product(schedules=(cosine, linear)),
    lrsched.Tied(
      schedule=cosine, low_lr=0.0, high_lr=peak_lr, at_low=0.0, at_high=0.1
    ),
    lrsched.Ramped(
      schedule=cosine, boundaries=(tenth, 2 * tenth), batch_sizes=(64, 128, 256)
    ),
  ]


def optax_cosine(total_steps: int) -> optax.Schedule:
  return optax.cosine_decay_schedule(PEAK_LR, total_steps)


def our_lrs(
  spec: lrsched.Schedule, total_steps: int
) -> Callable[[], jax.Array]:
  """A function that evaluates every step in one call."""
  lrs_of = jax.jit(lambda spec, steps: spec(steps))
  spec, steps = lrsched.as_arrays(spec), jnp.arange(total_steps)
  return lambda: lrs_of(spec, steps)


def optax_lrs(total_steps: int) -> Callable[[], jax.Array]:
  lrs_of = jax.jit(jax.vmap(optax_cosine(total_steps)))
  steps = jnp.arange(total_steps)
  return lambda: lrs_of(steps)


def our_updates(spec: lrsched.Schedule) -> Callable[[], jax.Array]:
  """A function that makes `CALLS` updates of momentum SGD, one a call."""

  def tx_of(spec: lrsched.Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.trace(decay=0.9), lrsched.scale_by_lr(spec))

  return _updates(tx_of, lrsched.as_arrays(spec))


def optax_updates(total_steps: int) -> Callable[[], jax.Array]:
  """The same by optax alone; its schedule is closed over."""
  tx = optax.sgd(optax_cosine(total_steps), momentum=0.9)
  return _updates(lambda: tx)


def _updates(
  tx_of: Callable[..., optax.GradientTransformation],
  *specs: lrsched.Schedule,
) -> Callable[[], jax.Array]:
  def step(state: tuple, grads: jax.Array, *specs: lrsched.Schedule) -> tuple:
    params, opt_state = state
    updates, opt_state = tx_of(*specs).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  params, grads = jnp.zeros(N_PARAMS), jnp.ones(N_PARAMS)
  state = params, tx_of(*specs).init(params)
  step = jax.jit(step, donate_argnums=0)

  def run() -> jax.Array:
    nonlocal state
    for _ in range(CALLS):
      state = step(state, grads, *specs)
    return state[0]

  return run


def time_pairs(
  ours: Callable[[], jax.Array], theirs: Callable[[], jax.Array], n: int
) -> np.ndarray:
  """Seconds of each run, [n, 2]; which of the two goes first alternates."""
  runs = (ours, theirs)
  for run in runs:
    for _ in range(WARMUP_CALLS):
      jax.block_until_ready(run())
  seconds = np.empty((n, 2))
  gc.disable()
  for i in range(n):
    for k in (0, 1) if i % 2 == 0 else (1, 0):
      began = time.perf_counter()
      jax.block_until_ready(runs[k]())
      seconds[i, k] = time.perf_counter() - began
  gc.enable()
  return seconds


def cost(seconds: np.ndarray, calls: int) -> Cost:
  """Of seconds [pairs, 2], ours and optax's, that `calls` calls took each."""
  more = seconds[:, 0] - seconds[:, 1]
  return Cost(
    float(np.median(seconds[:, 0])) / calls,
    float(np.median(more)) / calls,
    median_ratio(seconds),
  )


def costs(
  spec: lrsched.Schedule | None, total_steps: int, pairs: int
) -> tuple[Cost, Cost]:
  """Of all steps in one call and of one update; None is optax's cosine."""
  lrs, updates = optax_lrs(total_steps), optax_updates(total_steps)
  if spec is not None:
    lrs, updates = our_lrs(spec, total_steps), our_updates(spec)
  return (
    cost(time_pairs(lrs, optax_lrs(total_steps), pairs), 1),
    cost(time_pairs(updates, optax_updates(total_steps), pairs), CALLS),
  )


def measure(
  specs: list[lrsched.Schedule], total_steps: int, pairs: int
) -> dict[str, Any]:
  """The record: machine, and both costs of optax's cosine and of each spec."""
  load = os.getloadavg()[0]
  found = {OPTAX_COSINE: costs(None, total_steps, pairs)}
  for spec in specs:
    found[type(spec).__name__] = costs(spec, total_steps, pairs)
  return {
    'date': datetime.date.today().isoformat(),
    'command': f'python -m benchmarks.schedule_cost --pairs={pairs}',
    **machine(load),
    'pairs': pairs,
    'total_steps': total_steps,
    'n_params': N_PARAMS,
    'costs': {
      name: {
        'all_steps_ms': round(1e3 * all_steps.seconds, 3),
        'all_steps_ratio': all_steps.ratio._asdict(),
        'update_us': round(1e6 * update.seconds, 2),
        'update_more_us': round(1e6 * update.more_seconds, 2),
        'update_ratio': update.ratio._asdict(),
      }
      for name, (all_steps, update) in found.items()
    },
  }


def summary(record: dict[str, Any]) -> str:
  facts = ('date', 'device', 'cores', 'load_average', 'python', 'jax', 'optax')
  n_steps, n_params = record['total_steps'], record['n_params']
  lines = [
    ', '.join(f'{name} {record[name]}' for name in facts),
    f'ratios to optax cosine: median of {record["pairs"]} pairs and its 95 % '
    'bootstrap interval',
    f'{"":19}{f"{n_steps:,} steps in one call":34}'
    f'an update of {n_params} parameters',
  ]
  for name, row in record['costs'].items():
    all_steps, update = (
      '{median:5.2f} [{low:.2f}, {high:.2f}]'.format(**row[key])
      for key in ('all_steps_ratio', 'update_ratio')
    )
    lines.append(
      f'{name:16}  {all_steps:20}{row["all_steps_ms"]:7.2f} ms   {update:20}'
      f'{row["update_us"]:6.1f} us ({row["update_more_us"]:+.1f})'
    )
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  record = measure(kinds(TOTAL_STEPS), TOTAL_STEPS, flags.FLAGS.pairs)
  print(summary(record))
  if flags.FLAGS.out is not None:
    write_record(record, 'schedule_cost', flags.FLAGS.out)


if __name__ == '__main__':
  flags.DEFINE_integer('pairs', 100, 'Timed pairs of each.', lower_bound=30)
  flags.DEFINE_string('out', None, 'Folder to write a record to, if any.')
  app.run(main)
