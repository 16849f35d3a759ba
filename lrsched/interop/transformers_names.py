"""The schedules of Hugging Face transformers, one by one.

Each function takes what every name is given, and the arguments of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.cyclic import CosineRestarts
from lrsched.cyclic import OneCycle
from lrsched.elementary import Constant
from lrsched.elementary import InverseSqrt
from lrsched.elementary import Linear
from lrsched.elementary import Polynomial
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.interop.waves import MOST_PIECES
from lrsched.interop.waves import cosine_wave
from lrsched.progress import Shifted
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.shapes import OneMinusSqrt
from lrsched.staged import WSD
from lrsched.tables import PiecewiseLinear
from lrsched.tables import Tabulated


class Run(NamedTuple):
  """What every name is given; `total_steps` is 0 where it is not needed."""

  lr: float
  warmup_steps: int
  total_steps: int


def _after_warmup(
  run: Run, later: Schedule, *, from_lr: float = 0.0
) -> Schedule:
  """`t/W` of the way up to the peak, and `later` from update W on."""
  if not run.warmup_steps:
    return later
  rise = PiecewiseLinear(steps=(0, run.warmup_steps), lrs=(from_lr, run.lr))
  return Sequence(schedules=(rise, later), boundaries=(run.warmup_steps,))


def _decay_steps(run: Run) -> int:
  if run.warmup_steps >= run.total_steps:
    raise ValueError(
      f'num_warmup_steps must be < num_training_steps={run.total_steps}, got '
      f'{run.warmup_steps}; a decay needs at least one step'
    )
  return run.total_steps - run.warmup_steps


def constant(run: Run) -> Schedule:
  """The peak, from the first update on."""
  return Constant(lr=run.lr)


def constant_with_warmup(run: Run) -> Schedule:
  """The warmup, then the peak."""
  return _after_warmup(run, Constant(lr=run.lr))


def linear(run: Run) -> Schedule:
  """A line down to 0."""
  return _after_warmup(
    run, Linear(peak_lr=run.lr, total_steps=_decay_steps(run))
  )


def _wave(run: Run, num_cycles: float, low_lr: float) -> Schedule:
  check_real('num_cycles', num_cycles, low_open=True)
  decay_steps = _decay_steps(run)
  wave = cosine_wave(
    peak_lr=run.lr,
    low_lr=low_lr,
    half_steps=decay_steps / (2 * num_cycles),
    until_step=decay_steps,
  )
  return _after_warmup(run, wave)


def cosine(run: Run, *, num_cycles: float = 0.5) -> Schedule:
  """`num_cycles` waves of a cosine down to 0; half a wave by default."""
  return _wave(run, num_cycles, 0.0)


def _low_lr(run: Run, min_lr: float | None, min_lr_rate: float | None) -> float:
  if (min_lr is None) == (min_lr_rate is None):
    raise ValueError(
      f'exactly one of min_lr and min_lr_rate must be given, got {min_lr} and '
      f'{min_lr_rate}'
    )
  if min_lr is not None:
    check_real('min_lr', min_lr, high=run.lr)
    return min_lr
  check_real('min_lr_rate', min_lr_rate, high=1.0)
  return run.lr * min_lr_rate  # type: ignore[operator]


def cosine_with_min_lr(
  run: Run,
  *,
  num_cycles: float = 0.5,
  min_lr: float | None = None,
  min_lr_rate: float | None = None,
) -> Schedule:
  """The same with a floor, as a rate or a share of the peak."""
  return _wave(run, num_cycles, _low_lr(run, min_lr, min_lr_rate))


def cosine_warmup_with_min_lr(
  run: Run,
  *,
  num_cycles: float = 0.5,
  min_lr: float | None = None,
  min_lr_rate: float | None = None,
  warmup_lr_rate: float | None = None,
) -> Schedule:
  """The same, one update earlier, with a first rate to warm up from."""
  check_real('num_cycles', num_cycles, low_open=True)
  low_lr = _low_lr(run, min_lr, min_lr_rate)
  warmup_steps, decay_steps = run.warmup_steps, _decay_steps(run)
  wave = cosine_wave(
    peak_lr=run.lr,
    low_lr=low_lr,
    half_steps=decay_steps / (2 * num_cycles),
    until_step=decay_steps,
  )
  first_lr = run.lr / max(warmup_steps, 1)
  if warmup_lr_rate is not None:
    check_real('warmup_lr_rate', warmup_lr_rate, high=1.0)
    first_lr = run.lr * warmup_lr_rate
  # The peak is at update W - 1, and the wave counts from there; with less than
  # two updates of warmup, update W is at step 1 of the wave all the same.
  if not warmup_steps:
    return Shifted(schedule=wave, by_steps=1)
  if warmup_steps == 1:
    later = Shifted(schedule=wave, by_steps=1)
    return Sequence(schedules=(Constant(lr=first_lr), later), boundaries=(1,))
  rise = PiecewiseLinear(steps=(0, warmup_steps - 1), lrs=(first_lr, run.lr))
  return Sequence(schedules=(rise, wave), boundaries=(warmup_steps - 1,))


def cosine_with_restarts(run: Run, *, num_cycles: int = 1) -> Schedule:
  """`num_cycles` half waves, each from the peak again."""
  check_steps('num_cycles', num_cycles, low=1)
  steps = _decay_steps(run)
  if num_cycles <= MOST_PIECES and steps % num_cycles == 0:
    length = steps // num_cycles
    ends = tuple(range(length, steps + 1, length))
    later: Schedule = CosineRestarts(peak_lr=run.lr, cycle_ends=ends)
  else:
    # In the floats of the framework: the remainder at a restart may round to
    # the end of the cycle before, and the rate of that update to 0.
    done = (num_cycles * (t / steps) % 1.0 for t in range(steps))
    lrs = [run.lr * math.cos(math.pi * s / 2) ** 2 for s in done]
    later = Tabulated(lrs=[*lrs, 0.0])
  return _after_warmup(run, later)


def polynomial(
  run: Run, *, lr_end: float = 1e-7, power: float = 1.0
) -> Schedule:
  """`(1 - s)^power` down to `lr_end`."""
  check_real('power', power, low_open=True)
  check_real('lr_end', lr_end)
  if lr_end >= run.lr:
    raise ValueError(f'lr_end must be < learning_rate={run.lr}, got {lr_end}')
  later = Polynomial(
    peak_lr=run.lr,
    final_lr=lr_end,
    total_steps=_decay_steps(run),
    power=power,
  )
  return _after_warmup(run, later)


def inverse_sqrt(run: Run, *, timescale: int | None = None) -> Schedule:
  """`lr sqrt(q / (q + t - W))`, with q the timescale."""
  if timescale is None:
    timescale = run.warmup_steps or 10_000
  check_steps('timescale', timescale, low=1)
  later = InverseSqrt(peak_lr=run.lr, timescale_steps=timescale)
  return _after_warmup(run, later)


_SHAPES: dict[str, DecayShape] = {
  'linear': LinearDecay(),
  'cosine': CosineDecay(),
  '1-sqrt': OneMinusSqrt(),
}


def warmup_stable_decay(
  run: Run,
  *,
  num_decay_steps: int,
  num_stable_steps: int | None = None,
  warmup_type: str = 'linear',
  decay_type: str = 'cosine',
  min_lr_ratio: float = 0.0,
  num_cycles: float = 0.5,
) -> Schedule:
  """Warmup, peak and decay, from and to `min_lr_ratio` of the peak."""
  check_one_of('warmup_type', warmup_type, tuple(_SHAPES))
  check_one_of('decay_type', decay_type, tuple(_SHAPES))
  check_real('min_lr_ratio', min_lr_ratio, high=1.0)
  check_real('num_cycles', num_cycles, low_open=True)
  check_steps('num_decay_steps', num_decay_steps, low=1)
  if num_stable_steps is None:
    num_stable_steps = run.total_steps - run.warmup_steps - num_decay_steps
  check_steps('num_stable_steps', num_stable_steps)
  low_lr = run.lr * min_lr_ratio
  decay: Schedule
  if decay_type != 'cosine' or num_cycles == 0.5:
    decay = WSD(
      peak_lr=run.lr,
      final_lr=low_lr,
      warmup_steps=0,
      stable_steps=num_stable_steps,
      decay_steps=num_decay_steps,
      decay=_SHAPES[decay_type],
    )
  else:
    wave = cosine_wave(
      peak_lr=run.lr,
      low_lr=low_lr,
      half_steps=num_decay_steps / (2 * num_cycles),
      until_step=num_decay_steps,
    )
    pieces = (Constant(lr=run.lr), wave, Constant(lr=low_lr))
    starts = (num_stable_steps, num_stable_steps + num_decay_steps)
    decay = (
      Sequence(schedules=pieces, boundaries=starts)
      if num_stable_steps
      else Sequence(schedules=pieces[1:], boundaries=starts[1:])
    )
  if warmup_type == 'linear' or not run.warmup_steps:
    return _after_warmup(run, decay, from_lr=low_lr)
  rise = OneCycle(  # up to its peak, where the decay takes over
    initial_lr=low_lr,
    peak_lr=run.lr,
    final_lr=low_lr,
    up_steps=run.warmup_steps,
    down_steps=1,
    shape=_SHAPES[warmup_type],
  )
  return Sequence(schedules=(rise, decay), boundaries=(run.warmup_steps,))
