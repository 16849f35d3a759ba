"""Schedules one after another: Warmup, Sequence, Chained, Rewarm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lrsched.base import LR
from lrsched.base import MAX_REAL
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
from lrsched.base import traced_once
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.shapes import check_floor
from lrsched.shapes import decay_lr


@schedule
class Warmup(Schedule):
  """A warmup before a schedule, which then starts at its own step 0.

      lr(t) = from + (schedule(0) - from) (t+1)/W     t < W
              schedule(t - W)                         from there on

  for the linear rise; another one is a decay shape run backwards:
  `schedule(0) rise(1 - (t+1)/W, from/schedule(0))`. An exponential warmup is
  `rise=ExponentialDecay()` with `from_lr > 0`. A `from_lr` above `schedule(0)`
  falls to it by the shape itself.

  Update `W-1` is at `schedule(0)`, and so is update `W`. With `W = 0` it is the
  schedule itself.

  Attributes:
    schedule: what to warm up to; it counts its own steps from 0.
    warmup_steps: W, >= 0.
    from_lr: the LR before update 0, >= 0; it may lie above `schedule(0)`.
    rise: the shape, from the higher LR down to the lower one.

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
  from_lr: LR = 0.0
  rise: DecayShape = LinearDecay()

  def check(self) -> None:
    check_floor('Warmup.from_lr', self.from_lr, self.rise)
    if is_concrete(self):
      check_total('Warmup', self.warmup_steps, self.schedule.end_step or 0)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    lr = spec.schedule(jnp.maximum(step - spec.warmup_steps, 0))
    # Not (t + 1) alone, which would wrap at the last step.
    done = jnp.minimum(step, spec.warmup_steps - 1) + 1
    rises = spec.from_lr <= lr
    risen = decay_lr(
      spec.rise,
      peak_lr=jnp.where(rises, lr, spec.from_lr),
      final_lr=jnp.where(rises, spec.from_lr, lr),
      left_steps=jnp.where(rises, done, spec.warmup_steps - done),
      decay_steps=spec.warmup_steps,
    )
    return jnp.where(step < spec.warmup_steps, risen, lr)

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
    _check_pieces('Sequence', self.schedules, self.boundaries)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    lr = jnp.zeros(step.shape, jnp.result_type(float))
    for i, piece in enumerate(spec.schedules):
      local, begun = _local_step(step, i, spec.boundaries)
      lr = jnp.where(begun, piece(local), lr)
    return lr

  def phases(self) -> tuple[Phase, ...]:
    return _phases_of_pieces(self.schedules, self.boundaries)


@schedule
class Chained(Schedule):
  """A sequence without jumps: each piece starts where the one before stands.

      lr(t) = c_i schedules[i](t - boundaries[i-1]),
              boundaries[i-1] <= t < boundaries[i]

  with `c_0 = 1` and `c_i` such that piece `i` at its own step 0 has the LR that
  piece `i-1` would have had at the boundary. The joins are continuous by
  construction: also in a sweep, in gradients and after a change of an earlier
  piece. OLMo-core's `SequentialScheduler` means this. A cosine cut short and
  then a line to 0 is `Chained((Cosine(...), Linear(...)), (cut,))`.

  Attributes:
    schedules: the pieces, at least one; all but the first are above 0 at their
      own step 0, and only their shape counts.
    boundaries: first step of each piece but the first, rising.

  Raises:
    ValueError: if the boundaries do not rise, or are not one fewer than the
      pieces, or a later piece starts at 0.

  Example:
    >>> from lrsched.elementary import Linear
    >>> chained = Chained(
    ...   schedules=(
    ...     Linear(peak_lr=1.0, total_steps=4),
    ...     Linear(peak_lr=1.0, total_steps=2),
    ...   ),
    ...   boundaries=(2,),
    ... )
    >>> [float(chained(t)) for t in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
  """

  schedules: tuple[Schedule, ...]
  boundaries: tuple[PositiveSteps, ...]

  def check(self) -> None:
    _check_pieces('Chained', self.schedules, self.boundaries)
    if not is_concrete(self):
      return
    for i, piece in enumerate(self.schedules[1:], start=1):
      if not (starts_at := _known_lr(piece, 0)) > 0:
        raise ValueError(
          f'Chained.schedules[{i}] must be above 0 at its step 0, got '
          f'{starts_at}: nothing times 0 is the LR before it'
        )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    lr = jnp.zeros(step.shape, jnp.result_type(float))
    scale = jnp.ones((), lr.dtype)
    for i, piece in enumerate(spec.schedules):
      if i:
        length = spec.boundaries[i - 1] - (
          spec.boundaries[i - 2] if i > 1 else 0
        )
        first = piece(0)
        level = scale * spec.schedules[i - 1](length)
        # Traced values escape the check at construction; stay finite.
        scale = jnp.where(first > 0, level / jnp.where(first > 0, first, 1), 0)
      local, begun = _local_step(step, i, spec.boundaries)
      lr = jnp.where(begun, scale * piece(local), lr)
    return lr

  def phases(self) -> tuple[Phase, ...]:
    return _phases_of_pieces(self.schedules, self.boundaries)


@schedule
class Rewarm(Schedule):
  """A run that is re-warmed: the old schedule, a warmup, the new schedule.

      lr(t) = before(t)                                     t < R
              from + (after(0) - from) (t - R + 1)/W        R <= t < R + W
              after(t - R - W)                              from there on

  with `from = before(R)`, the LR that the old schedule would have gone on with:
  the final LR of one that has ended, whatever it was. A new peak below it is
  approached from above. The re-warming of continual pre-training is
  `after=Cosine(...)` with the new data's length.

  Attributes:
    before: the schedule of the run so far.
    rewarm_step: R, the step of the checkpoint to go on from, >= 1.
    warmup_steps: W, >= 0; 0 jumps.
    after: the new schedule; it counts its own steps from 0.
    rise: shape of the warmup, as in `Warmup`.

  Raises:
    ValueError: if a field is out of range.

  Source: Ibrahim et al. (arXiv:2403.08763), section 4.1; warmup lengths: Gupta
    et al. (arXiv:2308.04014).

  Example:
    >>> from lrsched.elementary import Linear
    >>> rewarmed = Rewarm(
    ...   before=Linear(peak_lr=1.0, final_lr=0.2, total_steps=4),
    ...   rewarm_step=4,
    ...   warmup_steps=2,
    ...   after=Linear(peak_lr=1.0, total_steps=2),
    ... )
    >>> [round(float(rewarmed(t)), 6) for t in range(3, 9)]
    [0.4, 0.6, 1.0, 1.0, 0.5, 0.0]
  """

  before: Schedule
  rewarm_step: PositiveSteps
  warmup_steps: Steps
  after: Schedule
  rise: DecayShape = LinearDecay()

  def check(self) -> None:
    if is_concrete(self):
      after_steps = self.after.end_step or 0
      check_total('Rewarm', self.rewarm_step, self.warmup_steps, after_steps)
      if self.rise.needs_floor:
        from_lr = _known_lr(self.before, self.rewarm_step)
        check_floor('Rewarm: the LR at rewarm_step', from_lr, self.rise)

  def _warmup(self, from_lr: LR) -> Warmup:
    return Warmup(
      schedule=self.after,
      warmup_steps=self.warmup_steps,
      from_lr=from_lr,
      rise=self.rise,
    )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    before = traced_once(spec.before, step)
    from_lr = traced_once(spec.before, spec.rewarm_step)
    later = spec._warmup(from_lr)(jnp.maximum(step - spec.rewarm_step, 0))
    return jnp.where(step < spec.rewarm_step, before, later)

  def phases(self) -> tuple[Phase, ...]:
    # Phases are of steps alone; any LR does.
    pieces = (self.before, self._warmup(MAX_REAL))
    return _phases_of_pieces(pieces, (self.rewarm_step,))


def _known_lr(schedule: Schedule, step: int) -> float:
  """The LR of a concrete schedule, also while something else is traced."""
  with jax.ensure_compile_time_eval():
    return float(schedule(step))


def _shifted(phases: tuple[Phase, ...], by: int) -> list[Phase]:
  return [
    Phase(p.name, p.start + by, None if p.end is None else p.end + by)
    for p in phases
  ]


def _check_pieces(
  name: str, schedules: tuple[Schedule, ...], boundaries: tuple[Steps, ...]
) -> None:
  if not schedules or len(boundaries) != len(schedules) - 1:
    raise ValueError(
      f'{name}.boundaries must be one fewer than its schedules (at least '
      f'one), got {len(boundaries)} for {len(schedules)}'
    )
  check_rises(f'{name}.boundaries', boundaries)
  if boundaries and is_concrete(schedules, boundaries):
    check_total(name, boundaries[-1], schedules[-1].end_step or 0)


def _local_step(
  step: jax.Array, i: int, boundaries: tuple[Steps, ...]
) -> tuple[jax.Array, jax.Array]:
  """Piece `i`'s own step, kept inside its stretch, and whether it has begun."""
  start = boundaries[i - 1] if i else 0
  local = step - start
  if i < len(boundaries):
    local = jnp.minimum(local, boundaries[i] - start - 1)
  return jnp.maximum(local, 0), step >= start


def _phases_of_pieces(
  schedules: tuple[Schedule, ...], boundaries: tuple[Steps, ...]
) -> tuple[Phase, ...]:
  starts = (0, *(int(b) for b in boundaries))
  ends = (*starts[1:], None)
  phases = []
  for piece, start, end in zip(schedules, starts, ends, strict=True):
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
