"""Several epochs on a part of the new data (Guo et al. 2024, arXiv:2406.14833).

The paper finds that a model that goes on with new data first falls behind what
it was, and then recovers, and claims that less is lost, and sooner regained,
with several epochs on a part of the new data of a proper size than with one
epoch on all of it, and with a mixture near to what the model was trained on.

  python -m experiments.guo2024_stability_gap \
    --workdir=runs/guo2024_stability_gap

The trunk is that of `gupta2023_rewarm`, on docstrings; the new data is Python
code, the same number of updates in every arm: `once` sees each sequence at most
once, `epochs` a part of them four times, `mixed` the same part, half as often,
with as many docstrings. The gap is of the loss on docstrings: `gap`, how far it
rises above where it was, and `gap_end`, what is left of that. Each arm has its
own peak LR, tuned by the mean of both losses.
"""

from __future__ import annotations

import functools

from absl import app

from experiments.arms import Arm
from experiments.arms import highest
from experiments.arms import last
from experiments.claims import Claim
from experiments.continual import OLD
from experiments.continual import SIZES as ALL_SIZES
from experiments.continual import gone_on
from experiments.continual import mean_loss
from experiments.continual import trunk
from experiments.continual import trunk_peak
from experiments.reproduce import Experiment
from experiments.reproduce import Peaks
from experiments.reproduce import Rows
from experiments.reproduce import define_flags
from experiments.reproduce import main

PAPER = '2406.14833'
NEW = 'python'
# The new corpus has 8.9 MB: on a GPU, no more updates than one epoch takes.
SIZES = ALL_SIZES | {
  'gpu': ALL_SIZES['gpu']._replace(phase_steps=270, eval_steps=10)
}
# Share of the new corpus that the new updates are four epochs of.
SUBSETS = {'cpu': 0.0043, 'gpu': 0.25}
# Arm: whether it is a part of the corpus, and the share of docstrings.
ARMS = {'once': (False, 0.0), 'epochs': (True, 0.0), 'mixed': (True, 0.5)}

EXPECTED: tuple[Claim, ...] = (
  Claim(
    PAPER,
    'several epochs on a part lose less than one epoch',
    'epochs',
    'once',
    'gap',
  ),
  Claim(
    PAPER,
    'several epochs on a part end with a smaller gap',
    'epochs',
    'once',
    'gap_end',
  ),
  Claim(
    PAPER,
    'several epochs on a part are better on the new data',
    'epochs',
    'once',
    'new_loss',
  ),
  Claim(PAPER, 'a mixture loses less', 'mixed', 'epochs', 'gap'),
  Claim(PAPER, 'a mixture is better on average', 'mixed', 'epochs', 'average'),
)


def arm(preset: str, peaks: tuple[float, float], name: str, seed: int) -> Arm:
  is_part, replay = ARMS[name]
  return gone_on(
    SIZES[preset],
    name,
    peaks,
    seed,
    NEW,
    replay=replay,
    subset=SUBSETS[preset] if is_part else 1.0,
  )


def average(name: str, rows: Rows) -> float:
  """The mean of the losses on old and new data."""
  return mean_loss(rows[name][-1], (OLD, NEW))


def arms(preset: str, peaks: Peaks, seed: int) -> list[Arm]:
  return [
    trunk(SIZES[preset], peaks['trunk'], seed, (NEW,)),
    *(arm(preset, (peaks['trunk'], peaks[n]), n, seed) for n in ARMS),
  ]


def measures(rows: Rows) -> dict[str, dict[str, float]]:
  old = f'eval_loss/{OLD}'
  before = last(rows['trunk'], old)
  return {
    name: {
      'gap': highest(rows[name], old) - before,
      'gap_end': last(rows[name], old) - before,
      'new_loss': last(rows[name], f'eval_loss/{NEW}'),
      'average': average(name, rows),
    }
    for name in ARMS
  }


EXPERIMENT = Experiment(
  name='guo2024_stability_gap',
  about='Docstrings, then Python code: one epoch, several of a part, or those '
  'mixed with docstrings; nats per byte.',
  claims=EXPECTED,
  seeds=(0, 1, 2),
  tuned=tuple(ARMS),
  grid=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
  tuning_seeds=(101,),
  score=average,
  arms=arms,
  measures=measures,
  given=trunk_peak,
)

if __name__ == '__main__':
  define_flags(EXPERIMENT)
  app.run(functools.partial(main, EXPERIMENT))
