r"""Trains small runs under many schedules, and keeps their loss curves.

  .venv/bin/python -m experiments.record_curves --workdir=runs/curves \
    --out=experiments/curves

writes, for every schedule of SCHEDULES and every seed, `NAME_seedS.csv` (step,
LR, validation loss) and `NAME.json` (its spec), and a `protocol.json` with
groups for `experiments.forecast`: falls of the LR forecast from falls, and
rises (WSD-S, cyclic, re-warmed, stepped up) with and without a rise among the
fitted curves. A seed gives the weights and the order of the data. Runs that are
complete in the workdir are not trained again.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.curve_files import read_curves
from experiments.logged import Reading
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.optimizer import AdamW
from trainers.train import run

PEAK_LR = 3e-3
WARMUP_STEPS = 100
SHORT, LONG = 2000, 4000  # updates
EVAL_STEPS = 50
LR_TOLERANCE = 1e-4  # of the peak: how straight the LR is between kept rows


def _cosine(total_steps: int, from_lr: float = PEAK_LR) -> lrsched.Cosine:
  return lrsched.Cosine(
    peak_lr=from_lr, final_lr=0.1 * PEAK_LR, total_steps=total_steps
  )


def _wsd(
  total_steps: int, decay_steps: int, decay: lrsched.DecayShape
) -> lrsched.WSD:
  return lrsched.WSD(
    peak_lr=PEAK_LR,
    warmup_steps=WARMUP_STEPS,
    stable_steps=total_steps - WARMUP_STEPS - decay_steps,
    decay_steps=decay_steps,
    decay=decay,
  )


def _warm(schedule: lrsched.Schedule) -> lrsched.Warmup:
  return lrsched.Warmup(schedule=schedule, warmup_steps=WARMUP_STEPS)


def _steps(first: float, then: float) -> lrsched.Warmup:
  """Two constant LRs, in shares of the peak, halfway to LONG."""
  pieces = tuple(lrsched.Constant(lr=x * PEAK_LR) for x in (first, then))
  boundary = LONG // 2 - WARMUP_STEPS
  return _warm(lrsched.Sequence(schedules=pieces, boundaries=(boundary,)))


def _rewarmed(after: lrsched.Schedule) -> lrsched.Rewarm:
  """A cosine of SHORT updates, then a warmup to `after`."""
  return lrsched.Rewarm(
    before=_warm(_cosine(SHORT - WARMUP_STEPS)),
    rewarm_step=SHORT,
    warmup_steps=WARMUP_STEPS,
    after=after,
  )


# Name, schedule, updates.
FALLS: dict[str, tuple[lrsched.Schedule, int]] = {
  'constant': (_warm(lrsched.Constant(lr=PEAK_LR)), LONG),
  'cosine_short': (_warm(_cosine(SHORT - WARMUP_STEPS)), SHORT),
  'cosine_long': (_warm(_cosine(LONG - WARMUP_STEPS)), LONG),
  'wsd_short': (_wsd(SHORT, 400, lrsched.LinearDecay()), SHORT),
  'wsd_long': (_wsd(LONG, 800, lrsched.LinearDecay()), LONG),
  'wsd_sqrt': (_wsd(LONG, 800, lrsched.OneMinusSqrt()), LONG),
  'step_down': (_steps(1.0, 0.3), LONG),
}
RISES: dict[str, tuple[lrsched.Schedule, int]] = {
  'wsds': (
    lrsched.WSDS.of_total(
      peak_lr=PEAK_LR,
      final_lr=0.1 * PEAK_LR,
      warmup_steps=WARMUP_STEPS,
      cycle_ends=(1000, 2000, LONG),
      decay_frac=0.1,
    ),
    LONG,
  ),
  'cyclic': (
    _warm(
      lrsched.CosineRestarts(
        peak_lr=PEAK_LR,
        final_lr=0.1 * PEAK_LR,
        cycle_ends=(900, 1900, 2900, 3900),
      )
    ),
    LONG,
  ),
  'rewarm': (_rewarmed(_cosine(LONG - SHORT - WARMUP_STEPS)), LONG),
  'rewarm_half': (_rewarmed(lrsched.Constant(lr=0.5 * PEAK_LR)), LONG),
  'step_up': (_steps(0.3, 1.0), LONG),
}
ALL = FALLS | RISES

# A rise above all before is not in the groups: laws refuse it.
# Groups of the protocol, for each seed: fitted and forecast schedules.
GROUPS = {
  'own_falls': (
    ('constant', 'cosine_short'),
    ('cosine_long', 'wsd_short', 'wsd_long', 'wsd_sqrt', 'step_down'),
  ),
  'own_rises': (
    ('constant', 'cosine_short'),
    tuple(name for name in RISES if name != 'step_up'),
  ),
  'own_rises_from_a_rise': (
    ('constant', 'cosine_short', 'wsds'),
    tuple(name for name in RISES if name not in ('wsds', 'step_up')),
  ),
}


def config_of(name: str, seed: int) -> RunConfig:
  """A run small enough for one CPU core: some minute."""
  schedule, total_steps = ALL[name]
  return RunConfig(
    model=ModelConfig(d_model=64, n_layers=2, n_heads=4, d_ff=160),
    data=DataConfig(seq_len=64, batch_size=8, seed=seed),
    optimizer=AdamW(schedule=schedule),
    total_steps=total_steps,
    seed=seed,
    eval=EvalConfig(every_steps=EVAL_STEPS, n_sequences=512, batch_size=64),
    checkpoint=CheckpointConfig(every_steps=total_steps),
    log=LogConfig(every_steps=1),
  )


def protocol(seeds: Sequence[int]) -> dict[str, Any]:
  """The groups, as `experiments.forecast --protocol` reads them."""
  files = lambda names, seed: [f'{name}_seed{seed}.csv' for name in names]
  return {
    'about': 'Validation losses (nats per byte) of small runs of this trainer, '
    'by `python -m experiments.record_curves`; step is the update, lr its LR, '
    'loss the one after it; the LR is linear between rows.',
    'groups': {
      f'{group}_seed{seed}': {
        'source': 'lrsched',
        'warmup_steps': WARMUP_STEPS,
        'fit': files(fit, seed),
        'test': files(test, seed),
      }
      for seed in seeds
      for group, (fit, test) in GROUPS.items()
    },
  }


def record(name: str, seed: int, workdir: pathlib.Path) -> str:
  """Trains a run, unless it is complete; its curve as CSV."""
  folder = workdir / f'{name}_seed{seed}'
  config = config_of(name, seed)
  run(config, folder)
  [curve] = read_curves(
    folder,
    Reading(format='run', loss='eval_loss'),
    warmup_steps=WARMUP_STEPS,
  )
  return curve.thinned(LR_TOLERANCE * PEAK_LR).to_csv()


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  workdir = pathlib.Path(flags.FLAGS.workdir)
  out = pathlib.Path(flags.FLAGS.out)
  seeds = [int(seed) for seed in flags.FLAGS.seeds]
  out.mkdir(parents=True, exist_ok=True)
  try:
    for seed in seeds:
      for name, (schedule, _) in ALL.items():
        text = record(name, seed, workdir)
        (out / f'{name}_seed{seed}.csv').write_text(text)
        (out / f'{name}.json').write_text(lrsched.to_json(schedule) + '\n')
  except (ValueError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  text = json.dumps(protocol(seeds), indent=1)
  (out / 'protocol.json').write_text(text + '\n')
  print(f'{len(seeds) * len(ALL)} curves in {out}')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/curves', 'Folder of the runs.')
  flags.DEFINE_string('out', 'experiments/curves', 'Folder of the curves.')
  flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds to train with.')
  app.run(main)
