"""How to re-warm a model on new data (Gupta et al. 2023, arXiv:2308.04014).

The paper goes on from a model that was trained to the end of its cosine, with
another corpus. It claims that a larger maximum LR ends lower on the new data
and higher on the old; that staying at the final LR is the extreme of both; that
the length of the warmup does not matter in the end; that re-warming costs at
first on the old data too, without any shift; and that a model that goes on is
better on the new data than one trained on it alone.

  python -m experiments.gupta2023_rewarm --workdir=runs/gupta2023_rewarm

The trunk is on docstrings, the new data is Python code. The maximum LRs are .5,
1 and 2 times the trunk's peak, which is tuned on the old data; the peak of the
model without a trunk is tuned on the new data. The optimizer's state is fresh
where the new data begins. Unless its name says otherwise an arm warms up over
1 % of the new updates.
"""

from __future__ import annotations

import functools
import itertools

from absl import app

from experiments.arms import Arm
from experiments.arms import highest
from experiments.arms import last
from experiments.claims import Claim
from experiments.claims import both_ways
from experiments.continual import FINAL_FRAC
from experiments.continual import OLD
from experiments.continual import SIZES
from experiments.continual import TRUNK_WARMUP_FRAC
from experiments.continual import config_of
from experiments.continual import gone_on
from experiments.continual import held
from experiments.continual import trunk
from experiments.continual import trunk_schedule
from experiments.continual import warm_cosine
from experiments.reproduce import Experiment
from experiments.reproduce import Peaks
from experiments.reproduce import Rows
from experiments.reproduce import define_flags
from experiments.reproduce import main

PAPER = '2308.04014'
NEW = 'python'
MAX_LRS = {'max_half': 0.5, 'max_same': 1.0, 'max_double': 2.0}
WARMUPS = {'warmup_0': 0.0, 'warmup_half': 0.005, 'warmup_2': 0.02}  # percent

# From the least to the most adaptation, as the paper has it.
BY_MAX_LR = ('constant', 'max_half', 'max_same', 'max_double')

EXPECTED: tuple[Claim, ...] = (
  *(
    Claim(
      PAPER,
      f'{more} ends lower on the new data than {less}',
      more,
      less,
      'new_loss',
    )
    for less, more in itertools.pairwise(BY_MAX_LR)
  ),
  *(
    Claim(
      PAPER,
      f'{more} ends higher on the old data than {less}',
      less,
      more,
      'old_loss',
    )
    for less, more in itertools.pairwise(BY_MAX_LR)
  ),
  *both_ways(
    Claim(
      PAPER,
      'warmups of 0 and 2 % end alike on the new data',
      'warmup_0',
      'warmup_2',
      'new_loss',
      margin=-0.02,
    )
  ),
  *both_ways(
    Claim(
      PAPER,
      'warmups of 0 and 2 % end alike on the old data',
      'warmup_0',
      'warmup_2',
      'old_loss',
      margin=-0.02,
    )
  ),
  Claim(
    PAPER,
    're-warming on the same data costs at first',
    'before',
    'same_data',
    'old_highest',
    margin=0.02,
  ),
  Claim(
    PAPER,
    'going on is better on the new data than beginning there',
    'max_same',
    'scratch',
    'new_loss',
  ),
)


def scratch(preset: str, peak: float, seed: int) -> Arm:
  """The new data alone, for as many updates as the others have of it."""
  size = SIZES[preset]
  warmup_steps = round(TRUNK_WARMUP_FRAC * size.phase_steps)
  schedule = warm_cosine(peak, warmup_steps, size.phase_steps)
  return Arm(
    'scratch',
    config_of(size, NEW, schedule, size.phase_steps, seed, watched=(OLD,)),
  )


def score(name: str, rows: Rows) -> float:
  domain = {'trunk': OLD, 'scratch': NEW}[name]
  return last(rows[name], f'eval_loss/{domain}')


def arms(preset: str, peaks: Peaks, seed: int) -> list[Arm]:
  size, peak = SIZES[preset], peaks['trunk']
  start, end = size.trunk_steps, size.trunk_steps + size.phase_steps
  stay = held(trunk_schedule(size, peak), start, FINAL_FRAC * peak)
  config = config_of(size, NEW, stay, end, seed, watched=(OLD,))
  rewarm = functools.partial(gone_on, size, seed=seed)
  return [
    trunk(size, peak, seed, (NEW,)),
    Arm('constant', config, 'trunk', start, 'no_optimizer'),
    *(
      rewarm(name, (peak, factor * peak), new=NEW)
      for name, factor in MAX_LRS.items()
    ),
    *(
      rewarm(name, (peak, peak), new=NEW, warmup_frac=frac)
      for name, frac in WARMUPS.items()
    ),
    rewarm('same_data', (peak, peak), new=OLD, watched=(NEW,)),
    scratch(preset, peaks['scratch'], seed),
  ]


def measures(rows: Rows) -> dict[str, dict[str, float]]:
  old, new = f'eval_loss/{OLD}', f'eval_loss/{NEW}'
  found = {
    name: {
      'new_loss': last(of_arm, new),
      'old_loss': last(of_arm, old),
      'old_highest': highest(of_arm, old),
    }
    for name, of_arm in rows.items()
    if name != 'trunk'
  }
  at_end = rows['trunk'][-1:]
  found['before'] = {
    'new_loss': last(at_end, new),
    'old_loss': last(at_end, old),
    'old_highest': highest(at_end, old),
  }
  return found


EXPERIMENT = Experiment(
  name='gupta2023_rewarm',
  about='Docstrings, then Python code; nats per byte at the end of the new '
  'data, and the highest on the old data while the new is trained on.',
  claims=EXPECTED,
  seeds=(0, 1, 2),
  tuned=('trunk', 'scratch'),
  grid=(1e-3, 2e-3, 4e-3, 8e-3),
  tuning_seeds=(101, 102),
  score=score,
  arms=arms,
  measures=measures,
)

if __name__ == '__main__':
  define_flags(EXPERIMENT)
  app.run(functools.partial(main, EXPERIMENT))
