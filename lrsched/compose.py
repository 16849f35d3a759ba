"""Schedules made of schedules: Warmup and Sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lrsched.base import Phase
from lrsched.base import PositiveSteps
from lrsched.base import Schedule
from lrsched.base import Steps
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import check_rises
from lrsched.base import check_total
from lrsched.base import is_concrete
from lrsched.base import schedule
from lrsched.base import warmup_factor


def _shifted(phases: tuple[Phase, ...], by: int) -> list[Phase]:
  return [
    Phase(p.name, p.start + by, None if p.end is None else p.end + by)
    for p in phases
  ]


@schedule
class Warmup(Schedule):
  """A linear warmup before a schedule, which then starts at its own step 0.

      lr(t) = schedule(0) (t+1)/W     t < W
              schedule(t - W)         from there on

  Update `W-1` is at `schedule(0)`, and so is update `W`. With `W = 0` it is the
  schedule itself.

  Attributes:
    schedule: what to warm up to; it counts its own steps from 0.
    warmup_steps: W, >= 0.

  Raises:
    ValueError: if a field is out of range.

  Example:
    >>> from lrsched.elementary import Linear
    >>> warm = Warmup(
    ...   schedule=Linear(peak_lr=1.0, total_steps=2), warmup_steps=2
    ... )
    >>> [float(warm(t)) for t in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
  """

  schedule: Schedule
  warmup_steps: Steps

  def check(self) -> None:
    if is_concrete(self):
      check_total('Warmup', self.warmup_steps, self.schedule.end_step or 0)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    lr = spec.schedule(jnp.maximum(step - spec.warmup_steps, 0))
    return lr * warmup_factor(step, spec.warmup_steps)

  def phases(self) -> tuple[Phase, ...]:
    warmup_steps = int(self.warmup_steps)
    later = _shifted(self.schedule.phases(), warmup_steps)
    return (Phase('warmup', 0, warmup_steps), *later)


@schedule
class Sequence(Schedule):
  """Schedules one after another; each counts its own steps from 0.

      lr(t) = schedules[i](t - boundaries[i-1]),
              boundaries[i-1] <= t < boundaries[i]

  Piece `i` is active while `t < boundaries[i]`; the last one has no end. Every
  piece is evaluated at every step, at a step inside its own stretch, so value
  and gradient are finite whatever an inactive piece would do elsewhere.

  Attributes:
    schedules: the pieces, at least one.
    boundaries: first step of each piece but the first, rising.

  Raises:
    ValueError: if the boundaries do not rise, or are not one fewer than the
      pieces.

  Example:
    >>> from lrsched.elementary import Constant, Linear
    >>> s = Sequence(
    ...   schedules=(
    ...     Constant(lr=1.0),
    ...     Linear(peak_lr=1.0, total_steps=2),
    ...   ),
    ...   boundaries=(3,),
    ... )
    >>> [float(s(t)) for t in range(6)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
  """

  schedules: tuple[Schedule, ...]
  boundaries: tuple[PositiveSteps, ...]

  def check(self) -> None:
    if not self.schedules or len(self.boundaries) != len(self.schedules) - 1:
      raise ValueError(
        'Sequence.boundaries must be one fewer than its schedules (at least '
        f'one), got {len(self.boundaries)} for {len(self.schedules)}'
      )
    check_rises('Sequence.boundaries', self.boundaries)
    if self.boundaries and is_concrete(self):
      last_steps = self.schedules[-1].end_step or 0
      check_total('Sequence', self.boundaries[-1], last_steps)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    starts = (0, *spec.boundaries)
    lr = jnp.zeros(step.shape, jnp.result_type(float))
    for i, piece in enumerate(spec.schedules):
      local = step - starts[i]
      if i < len(spec.boundaries):
        local = jnp.minimum(local, spec.boundaries[i] - starts[i] - 1)
      lr = jnp.where(step >= starts[i], piece(jnp.maximum(local, 0)), lr)
    return lr

  def phases(self) -> tuple[Phase, ...]:
    starts = (0, *(int(b) for b in self.boundaries))
    ends = (*starts[1:], None)
    phases = []
    for piece, start, end in zip(self.schedules, starts, ends, strict=True):
      for phase in _shifted(piece.phases(), start):
        if end is not None and phase.start >= end:
          break
        cut = phase.end
        if end is not None:
          cut = end if cut is None else min(cut, end)
        phases.append(Phase(phase.name, phase.start, cut))
      last = phases[-1]
      if end is not None and last.end is not None and last.end < end:
        phases.append(Phase('rest', last.end, end))
    return tuple(phases)
