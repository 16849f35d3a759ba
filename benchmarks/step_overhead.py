"""What our learning rate costs a training step, against optax's own.

  python -m benchmarks.step_overhead

Times the trainer's step (model '0.3m', AdamW, donated state) with its LR from
`lrsched.scale_by_lr`, the spec an argument, and with the same LR from optax,
the schedule closed over. One step of each makes a pair, in alternating order;
the result is the median ratio of the pairs, which a busy machine widens but
does not shift. Pairs of optax's step and a copy of it, timed in between, show
what this machine can resolve. Then both sweep peaks and decay starts, and the
programs that this compiles are counted.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app
from absl import flags
from flax import nnx

import lrsched
from trainers.config import ModelConfig
from trainers.model import PRESETS
from trainers.model import Decoder
from trainers.model import next_token_loss
from trainers.optimizer import AdamW
from trainers.optimizer import decays
from trainers.optimizer import make_optimizer
from trainers.train_step import graph_of

# A short step: what the two differ in is a large part of it, and on a busy
# machine more of the pairs run undisturbed.
BATCH_SIZE, SEQ_LEN = 1, 128
WARMUP_CALLS = 5
RESAMPLES = 10_000
MOST_MEDIAN, MOST_HIGH = 1.01, 1.02
SWEEP_PEAKS, SWEEP_DECAY_STARTS = (5e-4, 1e-3, 2e-3), (600, 700, 800)
SWEEP_MODEL = ModelConfig(d_model=32, n_layers=1, n_heads=2, d_ff=64)
COMPILED = '/jax/core/compile/backend_compile_duration'


class Ratio(NamedTuple):
  """Median of the ratios in pairs, and its 95 % bootstrap interval."""

  median: float
  low: float
  high: float

  def __str__(self) -> str:
    return f'{self.median:.4f} [{self.low:.4f}, {self.high:.4f}]'


class Arm(NamedTuple):
  """One way to set the LR.

  Attributes:
    tx_of: makes the optax chain from the schedules below.
    schedules: those that are arguments of the step.
  """

  tx_of: Callable[..., optax.GradientTransformation]
  schedules: tuple[lrsched.Schedule, ...]


def wsd(peak_lr: float, decay_start: int, total_steps: int) -> lrsched.WSD:
  warmup_steps = total_steps // 10
  return lrsched.WSD(
    peak_lr=peak_lr,
    warmup_steps=warmup_steps,
    stable_steps=decay_start - warmup_steps,
    decay_steps=total_steps - decay_start,
  )


def optax_wsd(spec: lrsched.WSD) -> optax.Schedule:
  """The LRs of `spec`, made of optax's schedules.

  Raises:
    ValueError: if they are not the same to 1e-6 of the peak at every step.
  """
  peak_lr, warmup_steps = spec.peak_lr, spec.warmup_steps
  schedule = optax.join_schedules(
    [
      optax.linear_schedule(peak_lr / warmup_steps, peak_lr, warmup_steps - 1),
      optax.constant_schedule(peak_lr),
      optax.linear_schedule(peak_lr, spec.final_lr, spec.decay_steps),
    ],
    [warmup_steps, warmup_steps + spec.stable_steps],
  )
  steps = jnp.arange(warmup_steps + spec.stable_steps + spec.decay_steps + 1)
  difference = jax.vmap(spec)(steps) - jax.vmap(schedule)(steps)
  if (worst := float(jnp.max(jnp.abs(difference)))) > 1e-6 * peak_lr:
    raise ValueError(f'the LRs to compare must agree, got {worst:.2g} apart')
  return schedule


def ours(spec: lrsched.WSD) -> Arm:
  """The trainer's AdamW; the spec is an argument of the step."""
  config = AdamW(schedule=spec)
  return Arm(
    lambda spec: make_optimizer(config, {'schedule': spec}),
    (lrsched.as_arrays(spec),),
  )


def theirs(spec: lrsched.WSD) -> Arm:
  """The same chain by optax alone; its schedule is closed over."""
  config = AdamW(schedule=spec)
  adamw = optax.adamw(
    optax_wsd(spec),
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    weight_decay=config.weight_decay,
    mask=decays,
  )
  tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
  return Arm(lambda: tx, ())


def make_step(arm: Arm, graph: nnx.GraphDef) -> Callable:
  """The compiled `((params, opt_state), tokens, *schedules) -> (.., metrics)`.

  The metrics are the trainer's; the LR, one output more, only where our state
  has it.
  """

  def loss_of(params: Any, tokens_BxL: jax.Array) -> jax.Array:
    return next_token_loss(nnx.merge(graph, params), tokens_BxL)[0]

  def step(
    state: tuple, tokens_BxL: jax.Array, *schedules: lrsched.Schedule
  ) -> tuple[tuple, dict[str, jax.Array]]:
    params, opt_state = state
    loss, grads = jax.value_and_grad(loss_of)(params, tokens_BxL)
    tx = arm.tx_of(*schedules)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    metrics = {
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      'update_ratio': optax.tree.norm(updates) / optax.tree.norm(params),
    }
    if schedules:
      metrics['lr'] = lrsched.applied_lr(opt_state)
    return (params, opt_state), metrics

  return jax.jit(step, donate_argnums=0)


def start(
  arm: Arm, model: ModelConfig
) -> tuple[nnx.GraphDef, tuple, jax.Array]:
  """The structure of a new network, the state and the tokens to train it on."""

  def init() -> tuple:
    params = nnx.to_pure_dict(nnx.state(Decoder(model, rngs=nnx.Rngs(0))))
    return params, arm.tx_of(*arm.schedules).init(params)

  shape = (BATCH_SIZE, SEQ_LEN + 1)
  tokens = jax.random.randint(jax.random.key(0), shape, 0, model.vocab_size)
  # One program: eager initialisation would compile dozens of small ones.
  return graph_of(model), jax.jit(init)(), tokens


def timed(arm: Arm) -> Callable[[], tuple[float, float]]:
  """A function that makes one update and returns its (seconds, loss)."""
  graph, state, tokens = start(arm, PRESETS['0.3m'])
  step = make_step(arm, graph)

  def run() -> tuple[float, float]:
    nonlocal state
    began = time.perf_counter()
    out = jax.block_until_ready(step(state, tokens, *arm.schedules))
    seconds = time.perf_counter() - began
    state, metrics = out
    return seconds, float(metrics['loss'])

  return run


def time_pairs(arms: list[tuple[Arm, Arm]], n: int) -> np.ndarray:
  """Seconds of every step, [len(arms), n, 2]; kinds of pairs take turns."""
  pairs = [(timed(a), timed(b)) for a, b in arms]
  for pair in pairs:
    a, b = ([run()[1] for _ in range(WARMUP_CALLS)] for run in pair)
    if not np.allclose(a, b, rtol=1e-4):
      raise ValueError(f'the arms must train alike, got losses {a} and {b}')
  seconds = np.empty((len(pairs), n, 2))
  gc.disable()
  for i in range(n):
    for kind, pair in enumerate(pairs):
      for k in (0, 1) if i % 2 == 0 else (1, 0):
        seconds[kind, i, k] = pair[k]()[0]
  gc.enable()
  return seconds


def median_ratio(seconds: np.ndarray) -> Ratio:
  """Of the first column to the second of [pairs, 2]; pairs are resampled."""
  ratios = seconds[:, 0] / seconds[:, 1]
  rng = np.random.default_rng(0)
  drawn = rng.choice(ratios, size=(RESAMPLES, len(ratios)))
  low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
  return Ratio(float(np.median(ratios)), float(low), float(high))


def programs_of_sweep(arm_of: Callable[[lrsched.WSD], Arm]) -> int:
  """Programs compiled by one update under each schedule of the sweep."""
  arms = [
    arm_of(wsd(peak_lr, decay_start, total_steps=1000))
    for peak_lr in SWEEP_PEAKS
    for decay_start in SWEEP_DECAY_STARTS
  ]
  graph, state, tokens = start(arms[0], SWEEP_MODEL)
  shared = make_step(arms[0], graph)
  programs = 0

  def count(event: str, duration_secs: float, **details: Any) -> None:
    nonlocal programs
    programs += event == COMPILED

  jax.monitoring.register_event_duration_secs_listener(count)
  for arm in arms:
    # A closed-over schedule is a part of the program, which needs its own step.
    step = shared if arm.schedules else make_step(arm, graph)
    state, metrics = step(state, tokens, *arm.schedules)
    jax.block_until_ready(metrics)
  return programs


def machine(load: float) -> dict[str, Any]:
  """What ratios were measured on; `load` is the load average before."""
  return {
    'device': jax.devices()[0].device_kind,
    'cores': os.cpu_count(),
    'load_average': [round(load, 2), round(os.getloadavg()[0], 2)],
    'python': platform.python_version(),
    'jax': jax.__version__,
    'optax': optax.__version__,
  }


def measure(n: int) -> dict[str, Any]:
  """The record: machine, times, ratios and compile counts."""
  load, total_steps = os.getloadavg()[0], n + WARMUP_CALLS
  spec = wsd(1e-3, decay_start=total_steps // 2, total_steps=total_steps)
  seconds = time_pairs(
    [(ours(spec), theirs(spec)), (theirs(spec), theirs(spec))], n
  )
  ms = 1e3 * np.median(seconds, axis=1)
  return {
    'date': datetime.date.today().isoformat(),
    'command': f'python -m benchmarks.step_overhead --pairs={n}',
    **machine(load),
    'pairs': n,
    'median_ms': {'ours': round(ms[0, 0], 3), 'optax': round(ms[0, 1], 3)},
    'ours_over_optax': median_ratio(seconds[0]),
    'optax_over_optax': median_ratio(seconds[1]),
    'programs_of_sweep': {
      'schedules': len(SWEEP_PEAKS) * len(SWEEP_DECAY_STARTS),
      'ours': programs_of_sweep(ours),
      'optax': programs_of_sweep(theirs),
    },
  }


def summary(record: dict[str, Any]) -> str:
  ratio, control = record['ours_over_optax'], record['optax_over_optax']
  met = ratio.median <= MOST_MEDIAN and ratio.high <= MOST_HIGH
  ms, programs = record['median_ms'], record['programs_of_sweep']
  facts = ('date', 'device', 'cores', 'load_average', 'python', 'jax', 'optax')
  lines = [
    ', '.join(f'{name} {record[name]}' for name in facts),
    f'step: {ms["ours"]} ms with ours, {ms["optax"]} ms with optax (medians)',
    f'ours / optax: {ratio}, median of {record["pairs"]} pairs and its 95 % '
    'bootstrap interval',
    f'optax / optax: {control}, what this machine resolves',
    f'target, median <= {MOST_MEDIAN} and upper end <= {MOST_HIGH}: '
    + ('met' if met else 'missed'),
    f'programs compiled in a sweep of {programs["schedules"]} schedules: '
    f'{programs["ours"]} with ours, {programs["optax"]} with optax',
  ]
  if max(1 - control.low, control.high - 1) > MOST_HIGH - 1:
    lines.append('noisy machine: the copy differs as much as the target allows')
  return '\n'.join(lines)


def write_record(record: dict[str, Any], name: str, out: str) -> None:
  """Writes a record into a folder, by its date and the benchmark's name."""
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'{record["date"]}_{name}.json'
  path.write_text(json.dumps(record, indent=2) + '\n')
  print(f'written: {path}')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  record = measure(flags.FLAGS.pairs)
  print(summary(record))
  if flags.FLAGS.out is not None:
    for name in ('ours_over_optax', 'optax_over_optax'):
      record[name] = record[name]._asdict()
    write_record(record, 'step_overhead', flags.FLAGS.out)


if __name__ == '__main__':
  flags.DEFINE_integer('pairs', 800, 'Timed pairs.', lower_bound=200)
  flags.DEFINE_string('out', None, 'Folder to write a record to, if any.')
  app.run(main)
