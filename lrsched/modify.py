"""Schedules made of another one's values: Scaled, Clipped, Product, Tied."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from lrsched.base import LR
from lrsched.base import MAX_REAL
from lrsched.base import Number
from lrsched.base import Phase
from lrsched.base import Schedule
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import is_concrete
from lrsched.base import schedule

NonNegative = Annotated[Any, Number(whole=False, low=0.0)]


@schedule
class Scaled(Schedule):
  """A schedule times a factor: `lr(t) = factor schedule(t)`.

  Attributes:
    schedule: what to scale.
    factor: >= 0; 0.5 halves every LR.

  Raises:
    ValueError: if the factor is out of range.

  Example:
    >>> from lrsched.elementary import Linear
    >>> half = Scaled(
    ...   schedule=Linear(peak_lr=1.0, total_steps=4), factor=0.5
    ... )
    >>> float(half(2))
    0.25
  """

  schedule: Schedule
  factor: NonNegative

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    spec = as_arrays(self)
    return spec.factor * spec.schedule(step)

  def phases(self) -> tuple[Phase, ...]:
    return self.schedule.phases()


@schedule
class Clipped(Schedule):
  """A schedule kept in bounds: `lr(t) = min(max(schedule(t), low), high)`.

  A floor under a warmup is a floor there too: put the clipped schedule inside
  the `Warmup` where that is not meant.

  Attributes:
    schedule: what to clip.
    low_lr: least learning rate, >= 0.
    high_lr: greatest learning rate, >= low_lr.

  Raises:
    ValueError: if a field is out of range or the bounds cross.

  Example:
    >>> from lrsched.elementary import InverseSqrt
    >>> floored = Clipped(
    ...   schedule=InverseSqrt(peak_lr=1.0, timescale_steps=10),
    ...   low_lr=0.5,
    ... )
    >>> [float(floored(t)) for t in (0, 30, 1000)]
    [1.0, 0.5, 0.5]
  """

  schedule: Schedule
  low_lr: LR = 0.0
  high_lr: LR = MAX_REAL

  def check(self) -> None:
    bounds = (self.low_lr, self.high_lr)
    if is_concrete(bounds) and self.low_lr > self.high_lr:
      raise ValueError(
        f'Clipped.low_lr must be at most high_lr={self.high_lr}, got '
        f'{self.low_lr}'
      )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    spec = as_arrays(self)
    return jnp.clip(spec.schedule(step), spec.low_lr, spec.high_lr)

  def phases(self) -> tuple[Phase, ...]:
    return self.schedule.phases()


@schedule
class Product(Schedule):
  """The product of schedules: `lr(t) = schedules[0](t) schedules[1](t) ...`.

  One of them is a learning rate; the others are factors, such as
  `Step(peak_lr=1.0, ...)` or `Warmup(Constant(lr=1.0), W)`. All count steps
  from the same 0.

  Attributes:
    schedules: at least one.

  Raises:
    ValueError: if there are none.

  Example:
    >>> from lrsched.elementary import Constant, Linear
    >>> product = Product(
    ...   schedules=(
    ...     Constant(lr=0.5),
    ...     Linear(peak_lr=1.0, total_steps=4),
    ...   )
    ... )
    >>> float(product(2))
    0.25
  """

  schedules: tuple[Schedule, ...]

  def check(self) -> None:
    if not self.schedules:
      raise ValueError('Product.schedules must hold at least one schedule')

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step = as_step(step)
    lr = jnp.ones(step.shape, jnp.result_type(float))
    for factor in as_arrays(self).schedules:
      lr = lr * factor(step)
    return lr

  def phases(self) -> tuple[Phase, ...]:
    """Cut wherever any factor changes its phase; named after all of them."""
    every = [factor.phases() for factor in self.schedules]
    edges = {p.start for phases in every for p in phases}
    ends = [phases[-1].end for phases in every]
    starts = sorted(edges | {e for e in ends if e is not None})
    last = None if None in ends else starts.pop()
    if not starts:  # every factor rests from step 0 on
      return (Phase('rest', 0, 0),)
    cuts = zip(starts, (*starts[1:], last), strict=True)
    return tuple(
      Phase(_names_at(every, start), start, end) for start, end in cuts
    )


def _names_at(every: list[tuple[Phase, ...]], step: int) -> str:
  """The names of the phases at a step, each once; of ended factors none."""
  names = [
    phase.name
    for phases in every
    for phase in phases
    if phase.start <= step and (phase.end is None or step < phase.end)
  ]
  return ' x '.join(dict.fromkeys(names)) or 'rest'


@schedule
class Tied(Schedule):
  """A weight decay or momentum that follows a learning rate.

      value(t) = at_low + (at_high - at_low) f,
      f = (schedule(t) - low_lr) / (high_lr - low_lr), clipped to [0, 1]

  - Weight decay that falls with the LR: `at_low=0, at_high=0.1, low_lr=0`, the
    peak as `high_lr`; give it to `optax.add_decayed_weights`. With optax's
    coupled decay, which multiplies by the LR once more, it is the corrected
    decay of Defazio (arXiv:2506.02285).
  - The momentum of a one-cycle schedule, high while the LR is low:
    `at_low=0.95, at_high=0.85`; give it to `optax.inject_hyperparams`.

  Attributes:
    schedule: the learning rate.
    low_lr: learning rate at which the value is `at_low`, >= 0.
    high_lr: learning rate at which the value is `at_high`, > low_lr.
    at_low: value at `low_lr`, >= 0.
    at_high: value at `high_lr`, >= 0; below or above `at_low`.

  Raises:
    ValueError: if a field is out of range or `high_lr` not above `low_lr`.

  Example:
    >>> from lrsched.cyclic import OneCycle
    >>> momentum = Tied(
    ...   schedule=OneCycle.of_torch(max_lr=1.0, total_steps=100),
    ...   low_lr=0.04,
    ...   high_lr=1.0,
    ...   at_low=0.95,
    ...   at_high=0.85,
    ... )
    >>> [round(float(momentum(t)), 6) for t in (0, 30, 100)]
    [0.95, 0.85, 0.95]
  """

  schedule: Schedule
  low_lr: LR
  high_lr: LR
  at_low: NonNegative
  at_high: NonNegative

  def check(self) -> None:
    bounds = (self.low_lr, self.high_lr)
    if is_concrete(bounds) and self.high_lr <= self.low_lr:
      raise ValueError(
        f'Tied.high_lr must be above low_lr={self.low_lr}, got {self.high_lr}'
      )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    spec = as_arrays(self)
    width = spec.high_lr - spec.low_lr
    # Traced bounds escape the check at construction; stay finite.
    width = jnp.where(width > 0, width, 1)
    f = jnp.clip((spec.schedule(step) - spec.low_lr) / width, 0.0, 1.0)
    return spec.at_low * (1 - f) + spec.at_high * f

  def phases(self) -> tuple[Phase, ...]:
    return self.schedule.phases()
