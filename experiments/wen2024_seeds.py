"""WSD-S against WSD, cyclic cosine and cosine over seeds (arXiv:2410.05192).

Wen et al. claim that one WSD-S run is at each of its budgets about as good as a
cosine run made for that budget, no worse than WSD with branched decays, and
better than a cosine that restarts at each budget.

  python -m experiments.wen2024_seeds --workdir=runs/wen2024_seeds

The schedules are those of `experiments.wen2024_wsds`, with the cyclic cosine
beside them, on the docstring corpus with a smaller model and four seeds. Each
schedule has its own peak LR, tuned at half the largest budget.
"""

from __future__ import annotations

import functools

from absl import app

import lrsched
from experiments.arms import Arm
from experiments.arms import at_step
from experiments.claims import Claim
from experiments.claims import both_ways
from experiments.reproduce import Experiment
from experiments.reproduce import Peaks
from experiments.reproduce import Rows
from experiments.reproduce import define_flags
from experiments.reproduce import main
from experiments.wen2024_wsds import DECAY_FRAC
from experiments.wen2024_wsds import FINAL_FRAC
from experiments.wen2024_wsds import WARMUP_STEPS
from experiments.wen2024_wsds import cosine
from experiments.wen2024_wsds import wsd
from experiments.wen2024_wsds import wsds
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.model import PRESETS
from trainers.optimizer import AdamW

PAPER = '2410.05192'
BUDGETS = {'cpu': (200, 400, 800), 'gpu': (5000, 10_000, 20_000)}
MODELS = {
  'cpu': ModelConfig(d_model=64, n_layers=2, n_heads=4, d_ff=160),
  'gpu': PRESETS['10m'],
}
DATA = {
  'cpu': DataConfig(seq_len=64, batch_size=8),
  'gpu': DataConfig(seq_len=512, batch_size=64),
}
NAMES = ('WSD-S', 'WSD', 'cosine', 'cyclic')
ALIKE = -0.02  # nats per byte: what seeds of this size differ by

EXPECTED: tuple[Claim, ...] = (
  *both_ways(
    Claim(PAPER, 'WSD-S is like WSD at the last', 'WSD-S', 'WSD', 'last', ALIKE)
  ),
  *(
    Claim(
      PAPER,
      f'WSD-S is no worse than cosine at the {budget} budget',
      'WSD-S',
      'cosine',
      budget,
      ALIKE,
    )
    for budget in ('first', 'second', 'last')
  ),
  *(
    Claim(
      PAPER,
      f'WSD-S is better than cyclic cosine at the {budget} budget',
      'WSD-S',
      'cyclic',
      budget,
    )
    for budget in ('second', 'last')
  ),
)


def cyclic(peak_lr: float, budgets: tuple[int, ...]) -> lrsched.Warmup:
  """A warmup, then a cosine to each budget, from the peak each time."""
  return lrsched.Warmup(
    schedule=lrsched.CosineRestarts(
      peak_lr=peak_lr,
      final_lr=FINAL_FRAC * peak_lr,
      cycle_ends=tuple(budget - WARMUP_STEPS for budget in budgets),
    ),
    warmup_steps=WARMUP_STEPS,
  )


def config_of(
  preset: str,
  schedule: lrsched.Schedule,
  total_steps: int,
  seed: int,
  keep_steps: tuple[int, ...] = (),
) -> RunConfig:
  data = DATA[preset]
  return RunConfig(
    model=MODELS[preset],
    data=DataConfig(
      seq_len=data.seq_len, batch_size=data.batch_size, seed=seed
    ),
    optimizer=AdamW(schedule=schedule),
    total_steps=total_steps,
    seed=seed,
    eval=EvalConfig(every_steps=total_steps, n_sequences=512, batch_size=64),
    checkpoint=CheckpointConfig(every_steps=total_steps, keep_steps=keep_steps),
    log=LogConfig(every_steps=10),
  )


def trial(preset: str, peaks: Peaks, name: str, seed: int) -> list[Arm]:
  """One schedule at the middle budget; WSD-S and cyclic fall at half of it."""
  peak = peaks[name]
  *earlier, budget = BUDGETS[preset][:2]
  schedules = {
    'WSD-S': wsds(peak, (*earlier, budget)),
    'WSD': wsd(peak, budget),
    'cosine': cosine(peak, budget),
    'cyclic': cyclic(peak, (*earlier, budget)),
  }
  return [Arm(name, config_of(preset, schedules[name], budget, seed))]


def score(name: str, rows: Rows) -> float:
  return rows[name][-1]['eval_loss']


def arms(preset: str, peaks: Peaks, seed: int) -> list[Arm]:
  budgets = BUDGETS[preset]
  make = functools.partial(config_of, preset, seed=seed)
  starts = [b - round(DECAY_FRAC * b) for b in budgets[:-1]]
  trunk = wsd(peaks['WSD'], budgets[-1])
  one_run = {
    'WSD-S': wsds(peaks['WSD-S'], budgets),
    'cyclic': cyclic(peaks['cyclic'], budgets),
  }
  return [
    *(
      Arm(name, make(spec, budgets[-1], keep_steps=budgets))
      for name, spec in one_run.items()
    ),
    Arm('WSD', make(trunk, budgets[-1], keep_steps=tuple(starts))),
    *(
      Arm(
        f'WSD_{budget}',
        make(trunk.decay_from(start, budget - start), budget),
        parent='WSD',
        at_step=start,
      )
      for budget, start in zip(budgets, starts, strict=False)
    ),
    *(
      Arm(f'cosine_{budget}', make(cosine(peaks['cosine'], budget), budget))
      for budget in budgets
    ),
  ]


def measures(rows: Rows) -> dict[str, dict[str, float]]:
  budgets = [int(n.split('_')[1]) for n in rows if n.startswith('cosine_')]
  which = dict(zip(('first', 'second', 'last'), budgets, strict=True))
  found: dict[str, dict[str, float]] = {name: {} for name in NAMES}
  for label, budget in which.items():
    runs = {
      'WSD-S': 'WSD-S',
      'cyclic': 'cyclic',
      'cosine': f'cosine_{budget}',
      'WSD': 'WSD' if label == 'last' else f'WSD_{budget}',
    }
    for name, run in runs.items():
      found[name][label] = at_step(rows[run], budget, 'eval_loss')
  return found


EXPERIMENT = Experiment(
  name='wen2024_seeds',
  about='Loss (nats per byte) on docstrings at three budgets.',
  claims=EXPECTED,
  seeds=(0, 1, 2, 3),
  tuned=NAMES,
  grid=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
  tuning_seeds=(101, 102),
  trial=trial,
  score=score,
  arms=arms,
  measures=measures,
)

if __name__ == '__main__':
  define_flags(EXPERIMENT)
  app.run(functools.partial(main, EXPERIMENT))
