"""Replay of a few texts with margins on activations (arXiv:2508.04676).

GeRe replays a small fixed set of general text and keeps the last hidden state
on it on the teacher's side of two thresholds. The paper claims that such a set
is enough to retain what was learnt, and that the margins retain more than
replay alone.

  python -m experiments.gere2025 --workdir=runs/gere2025

The trunk is that of `gupta2023_rewarm`, on docstrings; the new data is German.
`none` is re-warmed on it alone; `replay` replays 256 sequences of docstrings, 8
in each update, with the weight of as many new ones; `margins` is the same with
the threshold-margin loss, whose weight makes it as large as the losses, and
`margins_1` with a weight of 1. All have the same new data. Each arm has its own
peak LR, tuned by the mean of both losses.
"""

from __future__ import annotations

import dataclasses
import functools

from absl import app

from experiments.arms import Arm
from experiments.arms import last
from experiments.claims import Claim
from experiments.continual import OLD
from experiments.continual import SIZES
from experiments.continual import SOURCES
from experiments.continual import gone_on
from experiments.continual import mean_loss
from experiments.continual import trunk
from experiments.continual import trunk_peak
from experiments.reproduce import Experiment
from experiments.reproduce import Peaks
from experiments.reproduce import Rows
from experiments.reproduce import define_flags
from experiments.reproduce import main
from trainers.gere import GeRe

PAPER = '2508.04676'
NEW = 'german'
_replay = functools.partial(
  GeRe, source=SOURCES[OLD], n_sequences=256, batch_size=8
)
ARMS: dict[str, GeRe | None] = {
  'none': None,
  'replay': _replay(weight=0.0),
  'margins_1': _replay(weight=1.0),
  'margins': _replay(weight='dynamic'),
}

MARGINS = ('margins_1', 'margins')

EXPECTED: tuple[Claim, ...] = (
  Claim(PAPER, 'a small set retains', 'replay', 'none', 'old_loss'),
  *(
    Claim(PAPER, f'{name} retain more than replay', name, 'replay', 'old_loss')
    for name in MARGINS
  ),
  *(
    Claim(PAPER, f'{name} are better on average', name, 'replay', 'average')
    for name in MARGINS
  ),
  *(
    Claim(
      PAPER,
      f'{name} cost little on the new data',
      name,
      'none',
      'new_loss',
      margin=-0.1,
    )
    for name in MARGINS
  ),
)


def arm(preset: str, peaks: tuple[float, float], name: str, seed: int) -> Arm:
  made = gone_on(SIZES[preset], name, peaks, seed, NEW)
  config = dataclasses.replace(made.config, gere=ARMS[name])
  return made._replace(config=config)


def average(name: str, rows: Rows) -> float:
  """The mean of the losses on old and new data."""
  return mean_loss(rows[name][-1], (OLD, NEW))


def arms(preset: str, peaks: Peaks, seed: int) -> list[Arm]:
  return [
    trunk(SIZES[preset], peaks['trunk'], seed, (NEW,)),
    *(arm(preset, (peaks['trunk'], peaks[n]), n, seed) for n in ARMS),
  ]


def measures(rows: Rows) -> dict[str, dict[str, float]]:
  return {
    name: {
      'new_loss': last(rows[name], f'eval_loss/{NEW}'),
      'old_loss': last(rows[name], f'eval_loss/{OLD}'),
      'average': average(name, rows),
    }
    for name in ARMS
  }


EXPERIMENT = Experiment(
  name='gere2025',
  about='Docstrings, then German; nats per byte at the end.',
  claims=EXPECTED,
  seeds=(0, 1, 2),
  tuned=tuple(ARMS),
  grid=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2),
  tuning_seeds=(101,),
  score=average,
  arms=arms,
  measures=measures,
  given=trunk_peak,
)

if __name__ == '__main__':
  define_flags(EXPERIMENT)
  app.run(functools.partial(main, EXPERIMENT))
