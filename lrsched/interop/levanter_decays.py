"""The decays of Levanter, each counting from its own step 0.

Each function takes what every decay is built from, and its own arguments.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from lrsched.base import MAX_STEPS
from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.elementary import Constant
from lrsched.elementary import Cosine
from lrsched.elementary import InverseSqrt
from lrsched.elementary import Linear
from lrsched.elementary import Polynomial
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.modify import Clipped
from lrsched.power import Power
from lrsched.progress import Shifted
from lrsched.shapes import InverseDecay
from lrsched.shapes import InverseSqrtDecay
from lrsched.staged import WSD
from lrsched.tables import Tabulated


class Decay(NamedTuple):
  """What each decay is built from."""

  lr: float
  min_lr: float
  warmup_steps: int  # of its cycle
  steps: int


def constant(d: Decay) -> Schedule:
  """The peak."""
  return Constant(lr=d.lr)


def linear(d: Decay) -> Schedule:
  """A line."""
  return Linear(peak_lr=d.lr, final_lr=d.min_lr, total_steps=d.steps)


def cosine(d: Decay, *, exponent: float = 1.0) -> Schedule:
  """Half a cosine, its height to the power of `exponent`."""
  check_real('lr_schedule.exponent', exponent, low_open=True)
  if exponent == 1:
    return Cosine(peak_lr=d.lr, final_lr=d.min_lr, total_steps=d.steps)
  left = ((d.steps - t) / d.steps for t in range(d.steps + 1))
  heights = (math.sin(math.pi / 2 * u) ** (2 * exponent) for u in left)
  return Tabulated(lrs=[d.min_lr + (d.lr - d.min_lr) * h for h in heights])


def polynomial(d: Decay, *, power: float = 2.0) -> Schedule:
  """`(1 - s)^power`."""
  check_real('lr_schedule.power', power, low_open=True)
  return Polynomial(
    peak_lr=d.lr, final_lr=d.min_lr, total_steps=d.steps, power=power
  )


def inv(d: Decay) -> Schedule:
  """A line in 1/LR."""
  if not d.min_lr > 0:
    raise ValueError(
      'min_lr_ratio and learning_rate must be > 0 with inv, whose final rate '
      f'is their product, got {d.min_lr}'
    )
  # Levanter counts from 1 and its first two updates are equal. From there on
  # 1/LR is on the same line, so that it is the same decay from a lower peak.
  second_lr = d.lr / ((d.lr / d.min_lr - 1) / d.steps + 1)
  if d.steps == 1:
    return Constant(lr=d.min_lr)
  return WSD(
    peak_lr=second_lr,
    final_lr=d.min_lr,
    warmup_steps=0,
    stable_steps=1,
    decay_steps=d.steps - 1,
    decay=InverseDecay(),
  )


def inv_sqrt(d: Decay, *, timescale: float = 10_000) -> Schedule:
  """`lr sqrt(q / n)` from step n = q on, counted with the warmup."""
  check_real('lr_schedule.timescale', timescale, low=1.0)
  if timescale % 1:
    raise ValueError(
      f'lr_schedule.timescale must be a whole number, got {timescale}'
    )
  timescale = int(timescale)
  # Constant until the steps, with those of the warmup, are the timescale.
  flat_steps = max(timescale - d.warmup_steps, 0)
  if flat_steps >= d.steps:
    return Constant(lr=d.lr)
  begin = max(timescale, d.warmup_steps)
  fall: Schedule = InverseSqrt(
    peak_lr=d.lr * math.sqrt(timescale / begin), timescale_steps=begin
  )
  if flat_steps:
    pieces = (Constant(lr=d.lr), fall)
    fall = Sequence(schedules=pieces, boundaries=(flat_steps,))
  return Clipped(schedule=fall, low_lr=d.min_lr)


def inv_sqrt_decay(d: Decay, *, decay_constant: float = 28.6) -> Schedule:
  """`lr / sqrt(1 + c s)`."""
  check_real('lr_schedule.decay_constant', decay_constant, low_open=True)
  # The shape is rescaled to end at the final LR; with the one that the formula
  # itself ends at, the rescaling is the identity.
  fall = WSD(
    peak_lr=d.lr,
    final_lr=d.lr / math.sqrt(1 + decay_constant),
    warmup_steps=0,
    stable_steps=0,
    decay_steps=d.steps,
    decay=InverseSqrtDecay(alpha=decay_constant),
  )
  return Clipped(schedule=fall, low_lr=d.min_lr)


def power(
  d: Decay,
  *,
  batch_size: int,
  seq_length: int,
  a: float = 4.6,
  b: float = -0.51,
) -> Schedule:
  """`min(lr, batch a n^b)` after n tokens of the decay."""
  check_steps('lr_schedule.batch_size', batch_size, low=1)
  check_steps('lr_schedule.seq_length', seq_length, low=1)
  check_real('lr_schedule.a', a, low_open=True)
  check_real('lr_schedule.b', b, low=-4.0, high=0.0)
  tokens = batch_size * seq_length
  if (d.steps - 1) * tokens > MAX_STEPS:
    raise ValueError(
      f'lr_schedule.seq_length: {d.steps} steps of {tokens} tokens are more '
      'than Levanter counts; from 2^31 on its rate is not a number. Use '
      'lrsched.Power'
    )
  fall = Power(
    peak_lr=d.lr,
    amplitude=a,
    exponent=b,
    batch_size=batch_size,
    tokens_per_step=tokens,
  )
  # After no tokens the power is infinite: the first update is at the cap.
  pieces = (Constant(lr=d.lr), Shifted(schedule=fall, by_steps=1))
  return Sequence(schedules=pieces, boundaries=(1,))
