"""Re-warm, re-decay and replay (Ibrahim et al. 2024, arXiv:2403.08763).

The paper goes on with new data by a warmup and a new cosine, and puts a share
of the old data into every batch. It claims that this cuts what is forgotten at
a small cost on the new data (5 % for a weak shift, 25 % for a strong one), and
that the result is on average as good as training anew on both corpora.

  python -m experiments.ibrahim2024_replay --workdir=runs/ibrahim2024_replay

The trunk is that of `gupta2023_rewarm`, on docstrings; the weak shift is to
Python code, the strong one to German. All arms are compute-equivalent: a batch
is as large with replay, so the new data gets less. Old text is read again in
its first order, and the optimizer's state is fresh. `union` is one run over
both corpora from its beginning, as long as trunk and new data together and in
these shares. Each arm has its own peak LR, tuned by the mean of both losses.
Without replay that is a lower one, so `python_0_same` and `german_0_same`,
which have no replay and the peak of the arm with it, show what replay costs at
one LR. They and their claims were added after the others had been judged.
"""

from __future__ import annotations

import functools

from absl import app

from experiments.arms import Arm
from experiments.arms import last
from experiments.claims import Claim
from experiments.continual import OLD
from experiments.continual import SIZES as ALL_SIZES
from experiments.continual import TRUNK_WARMUP_FRAC
from experiments.continual import config_of
from experiments.continual import gone_on
from experiments.continual import mean_loss
from experiments.continual import trunk
from experiments.continual import trunk_peak
from experiments.continual import warm_cosine
from experiments.reproduce import Experiment
from experiments.reproduce import Peaks
from experiments.reproduce import Rows
from experiments.reproduce import define_flags
from experiments.reproduce import main

PAPER = '2403.08763'
# Evaluated at the ends only.
SIZES = {
  preset: size._replace(eval_steps=size.phase_steps)
  for preset, size in ALL_SIZES.items()
}
NEW = ('python', 'german')
# Arm: new domain, share of replay. The paper's shares, and none.
REPLAYS = {
  'python_0': ('python', 0.0),
  'python_5': ('python', 0.05),
  'german_0': ('german', 0.0),
  'german_25': ('german', 0.25),
}
UNIONS = {'python_union': 'python', 'german_union': 'german'}
# Arm without replay: the arm with replay whose peak LR it has.
SAME_PEAK = {'python_0_same': 'python_5', 'german_0_same': 'german_25'}

# New domain, share of replay, and what it may cost on the new data: twice what
# the paper measured, .01 and .05 nats.
SHIFTS = {'weak': ('python', 5, 0.02), 'strong': ('german', 25, 0.1)}


def _replay_claims(without: str, words: str) -> list[Claim]:
  """What replay does, compared with the arm `NEW_without`."""
  claims = []
  for shift, (new, share, cost) in SHIFTS.items():
    pair = (f'{new}_{share}', f'{new}_{without}')
    says = f'{shift} shift{words}: {share} % replay'
    claims += [
      Claim(PAPER, f'{says} cuts forgetting', *pair, 'old_loss'),
      Claim(
        PAPER,
        f'{says} costs little on the new data',
        *pair,
        'new_loss',
        margin=-cost,
      ),
    ]
  return claims


EXPECTED: tuple[Claim, ...] = (
  *_replay_claims('0', ''),
  *(
    Claim(
      PAPER,
      f'{shift} shift: on average as good as training on both',
      f'{new}_{share}',
      f'{new}_union',
      'average',
      margin=-0.04,
    )
    for shift, (new, share, _) in SHIFTS.items()
  ),
  *_replay_claims('0_same', ', one peak'),
)


def new_of(name: str) -> str:
  if name in SAME_PEAK:
    return new_of(SAME_PEAK[name])
  return UNIONS[name] if name in UNIONS else REPLAYS[name][0]


def replayed(
  preset: str, peaks: tuple[float, float], name: str, seed: int
) -> Arm:
  new, share = REPLAYS[name]
  return gone_on(SIZES[preset], name, peaks, seed, new, replay=share)


def union(preset: str, name: str, peak: float, seed: int) -> Arm:
  size = SIZES[preset]
  total_steps = size.trunk_steps + size.phase_steps
  warmup_steps = round(TRUNK_WARMUP_FRAC * total_steps)
  schedule = warm_cosine(peak, warmup_steps, total_steps)
  share = round(size.trunk_steps / total_steps, 4)
  config = config_of(
    size,
    UNIONS[name],
    schedule,
    total_steps,
    seed,
    watched=(OLD,),
    replay=share,
  )
  return Arm(name, config)


def average(name: str, rows: Rows) -> float:
  """The mean of the losses on old and new data."""
  return mean_loss(rows[name][-1], (OLD, new_of(name)))


def arms(preset: str, peaks: Peaks, seed: int) -> list[Arm]:
  return [
    trunk(SIZES[preset], peaks['trunk'], seed, NEW),
    *(
      replayed(preset, (peaks['trunk'], peaks[name]), name, seed)
      for name in REPLAYS
    ),
    *(union(preset, name, peaks[name], seed) for name in UNIONS),
    *(
      gone_on(
        SIZES[preset],
        name,
        (peaks['trunk'], peaks[tuned]),
        seed,
        new_of(name),
      )
      for name, tuned in SAME_PEAK.items()
    ),
  ]


def measures(rows: Rows) -> dict[str, dict[str, float]]:
  return {
    name: {
      'new_loss': last(rows[name], f'eval_loss/{new_of(name)}'),
      'old_loss': last(rows[name], f'eval_loss/{OLD}'),
      'average': average(name, rows),
    }
    for name in (*REPLAYS, *SAME_PEAK, *UNIONS)
  }


EXPERIMENT = Experiment(
  name='ibrahim2024_replay',
  about='Docstrings, then Python code or German; nats per byte at the end.',
  claims=EXPECTED,
  seeds=(0, 1, 2),
  tuned=(*REPLAYS, *UNIONS),
  grid=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
  tuning_seeds=(101,),
  score=average,
  arms=arms,
  measures=measures,
  given=trunk_peak,
)

if __name__ == '__main__':
  define_flags(EXPERIMENT)
  app.run(functools.partial(main, EXPERIMENT))
