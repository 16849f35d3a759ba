"""The setting of the experiments on continual pre-training.

A trunk is trained on docstrings (a warmup, then a cosine to a tenth of the
peak); then it goes on with new data: Python code without docstrings, a weak
shift, or German, a strong one. All text is bytes; losses are nats per byte on
text that is held out of each corpus. A domain is called the same everywhere, so
its loss is `eval_loss/NAME`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import lrsched
from experiments.arms import Arm
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.metrics import Row
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.model import PRESETS
from trainers.optimizer import AdamW
from trainers.sources import Docstrings
from trainers.sources import GermanSample
from trainers.sources import PythonSource
from trainers.sources import Source

SOURCES: dict[str, Source] = {
  'docstrings': Docstrings(),
  'python': PythonSource(),
  'german': GermanSample(),
}
OLD = 'docstrings'
FINAL_FRAC = 0.1  # of the peak, at the end of every cosine
TRUNK_WARMUP_FRAC = 0.05
WARMUP_FRAC = 0.01  # of the new updates


class Size(NamedTuple):
  """How large an experiment is.

  Attributes:
    model: the network.
    seq_len: tokens of a sequence.
    batch_size: sequences of an update.
    trunk_steps: updates before the new data.
    phase_steps: updates with the new data.
    eval_steps: updates between evaluations.
    n_sequences: evaluated of each domain.
  """

  model: ModelConfig
  seq_len: int
  batch_size: int
  trunk_steps: int
  phase_steps: int
  eval_steps: int
  n_sequences: int


SIZES = {
  'cpu': Size(
    model=ModelConfig(d_model=64, n_layers=2, n_heads=4, d_ff=160),
    seq_len=64,
    batch_size=8,
    trunk_steps=600,
    phase_steps=300,
    eval_steps=50,
    n_sequences=192,
  ),
  'gpu': Size(
    model=PRESETS['10m'],
    seq_len=512,
    batch_size=64,
    trunk_steps=20_000,
    phase_steps=10_000,
    eval_steps=500,
    n_sequences=1024,
  ),
}


def warm_cosine(
  peak_lr: float, warmup_steps: int, total_steps: int
) -> lrsched.Warmup:
  """A warmup and a cosine to a tenth of the peak, `total_steps` together."""
  return lrsched.Warmup(
    schedule=lrsched.Cosine(
      peak_lr=peak_lr,
      final_lr=FINAL_FRAC * peak_lr,
      total_steps=total_steps - warmup_steps,
    ),
    warmup_steps=warmup_steps,
  )


def trunk_peak(preset: str) -> dict[str, float]:
  """The peak LR of the trunk, which the first of the experiments tuned.

  Raises:
    ValueError: if it was not tuned for the preset.
  """
  name = 'gupta2023_rewarm' + ('' if preset == 'cpu' else f'_{preset}')
  path = pathlib.Path(__file__).parent / 'records' / f'{name}_tuning.json'
  if not path.exists():
    raise ValueError(
      f'there is no {path.name} in experiments/records; run '
      f'experiments.gupta2023_rewarm --preset={preset} --tune first'
    )
  return {'trunk': json.loads(path.read_text())['peak_lr']['trunk']}


def trunk_schedule(size: Size, peak_lr: float) -> lrsched.Warmup:
  warmup_steps = round(TRUNK_WARMUP_FRAC * size.trunk_steps)
  return warm_cosine(peak_lr, warmup_steps, size.trunk_steps)


def rewarmed(
  before: lrsched.Schedule, at_step: int, after: lrsched.Warmup
) -> lrsched.Rewarm:
  """`after` from `at_step` on; its warmup begins at the LR of `before`."""
  return lrsched.Rewarm(
    before=before,
    rewarm_step=at_step,
    warmup_steps=after.warmup_steps,
    after=after.schedule,
  )


def held(before: lrsched.Schedule, at_step: int, lr: float) -> lrsched.Sequence:
  """A constant LR from `at_step` on."""
  return lrsched.Sequence(
    schedules=(before, lrsched.Constant(lr=lr)), boundaries=(at_step,)
  )


def config_of(
  size: Size,
  main: str,
  schedule: lrsched.Schedule,
  total_steps: int,
  seed: int,
  *,
  watched: tuple[str, ...],
  replay: float = 0.0,
  subset: float = 1.0,
  keep_steps: tuple[int, ...] = (),
) -> RunConfig:
  """A run on a domain.

  Args:
    size: of the experiment.
    main: the domain that is trained on.
    schedule: its schedule.
    total_steps: updates, its ancestors' included.
    seed: of weights and data order.
    watched: domains that are evaluated beside `main`.
    replay: share of docstrings in every batch, from their first batch on.
    subset: share of `main` that is used, again in every epoch.
    keep_steps: checkpoints that are kept.
  """
  domains = {main: Domain(source=SOURCES[main], subset=subset)}
  if replay:
    domains[OLD] = Domain(source=SOURCES[OLD], share=replay, from_start=True)
  others = {name: SOURCES[name] for name in watched if name not in domains}
  return RunConfig(
    model=size.model,
    data=DataConfig(
      source=Mixture(domains=domains),
      seq_len=size.seq_len,
      batch_size=size.batch_size,
      seed=seed,
    ),
    optimizer=AdamW(schedule=schedule),
    total_steps=total_steps,
    seed=seed,
    eval=EvalConfig(
      every_steps=size.eval_steps,
      n_sequences=size.n_sequences,
      batch_size=64,
      sources=others,
    ),
    checkpoint=CheckpointConfig(every_steps=total_steps, keep_steps=keep_steps),
    log=LogConfig(every_steps=10),
  )


def mean_loss(row: Row, domains: Sequence[str]) -> float:
  """The mean over domains of the losses of an evaluation."""
  return sum(row[f'eval_loss/{name}'] for name in domains) / len(domains)


def trunk(size: Size, peak: float, seed: int, watched: tuple[str, ...]) -> Arm:
  """The run on docstrings; `watched` are evaluated too."""
  schedule = trunk_schedule(size, peak)
  steps = size.trunk_steps
  config = config_of(size, OLD, schedule, steps, seed, watched=watched)
  return Arm('trunk', config)


def gone_on(
  size: Size,
  name: str,
  peaks: tuple[float, float],
  seed: int,
  new: str,
  *,
  warmup_frac: float = WARMUP_FRAC,
  watched: tuple[str, ...] = (OLD,),
  replay: float = 0.0,
  subset: float = 1.0,
) -> Arm:
  """The trunk re-warmed on a domain, with a fresh state of the optimizer.

  Args:
    size: of the experiment.
    name: of the arm.
    peaks: peak LRs of the trunk and of the new cosine.
    seed: the trunk's.
    new: the domain that is trained on.
    warmup_frac: share of the new updates.
    watched: domains that are evaluated beside `new`.
    replay: share of docstrings in every batch.
    subset: share of `new` that is used.
  """
  start, n = size.trunk_steps, size.phase_steps
  schedule = rewarmed(
    trunk_schedule(size, peaks[0]),
    start,
    warm_cosine(peaks[1], round(warmup_frac * n), n),
  )
  config = config_of(
    size,
    new,
    schedule,
    start + n,
    seed,
    watched=watched,
    replay=replay,
    subset=subset,
  )
  return Arm(name, config, 'trunk', start, 'no_optimizer')
