"""Schedules at another pace: Stretched, Shifted, Sampled, Ramped."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from lrsched.base import Number
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
from lrsched.base import turns_and_rest

# Three of them must fit 32 unsigned bits in `_share`.
MOST = 2**30
Ratio = Annotated[Any, Number(whole=True, low=1, high=MOST)]


def _share(n: jax.Array, num: jax.Array, den: jax.Array) -> Any:
  """`n num / den` as whole part and rest over `den`, exactly.

  The product would not fit: the whole turns `n // den` are apart, and the rest
  is a long division, a bit of `num` at a time. A whole part beyond the integer
  type is its greatest value.
  """
  most = jnp.iinfo(n.dtype).max - 1
  wide = jnp.uint32
  turns, r = turns_and_rest(n, den)
  r = r.astype(wide)
  d, whole, rest = den.astype(wide), jnp.zeros_like(r), jnp.zeros_like(r)
  for i in reversed(range(MOST.bit_length())):
    bit = (num.astype(wide) >> i) & 1
    rest = 2 * rest + bit * r  # < 3 den
    carry = (rest >= d).astype(wide) + (rest >= 2 * d).astype(wide)
    whole, rest = 2 * whole + carry, rest - carry * d
  whole, rest = whole.astype(n.dtype), rest.astype(n.dtype)
  can = turns <= most // num
  base = jnp.where(can, turns, 0) * num
  fits = can & (whole <= most - base)
  return jnp.where(fits, base + whole, most), jnp.where(fits, rest, 0)


def _between(
  schedule: Schedule, whole: jax.Array, rest: jax.Array, den: jax.Array
) -> jax.Array:
  """The LR `rest/den` of the way from step `whole` to the next one."""
  here = traced_once(schedule, whole)
  after = traced_once(schedule, whole + 1)
  return here + rest / den * (after - here)  # equal LRs stay what they are


@schedule
class Stretched(Schedule):
  """A schedule on another horizon: `lr(t) = schedule(t from/to)`.

  Between two of the schedule's own steps the LR is on the line that joins them,
  so that a stretched one has no stairs; a jump takes one own step. The fraction
  is exact for any number of steps. Everything is stretched, a warmup too; where
  only the end should move, change `total_steps` or `stable_steps`.

  Attributes:
    schedule: what to stretch.
    from_steps: a length in its own steps, in [1, 2^30], such as its
      `total_steps`.
    to_steps: what that length becomes, in [1, 2^30].

  Raises:
    ValueError: if a field is out of range.

  Example:
    >>> from lrsched.tables import Tabulated
    >>> table = Tabulated(lrs=(1.0, 0.5, 0.0))
    >>> long = Stretched(schedule=table, from_steps=3, to_steps=6)
    >>> [float(long(t)) for t in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
  """

  schedule: Schedule
  from_steps: Ratio
  to_steps: Ratio

  def check(self) -> None:
    _check_end(self)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    whole, rest = _share(step, spec.from_steps, spec.to_steps)
    return _between(spec.schedule, whole, rest, spec.to_steps)

  def phases(self) -> tuple[Phase, ...]:
    num, den = int(self.to_steps), int(self.from_steps)
    return _moved(self.schedule.phases(), lambda step: -(-step * num // den))


@schedule
class Shifted(Schedule):
  """A schedule entered in its middle: `lr(t) = schedule(t + by_steps)`.

  A piece of a `Sequence` counts from 0; shifted, it goes on where it was. So a
  half cosine, or the rest of a decay that an earlier run began, is a piece.

  Attributes:
    schedule: what to enter.
    by_steps: its own step at step 0, >= 0.

  Raises:
    ValueError: if `by_steps` is out of range.

  Example:
    >>> from lrsched.elementary import Linear
    >>> rest = Shifted(
    ...   schedule=Linear(peak_lr=1.0, total_steps=4), by_steps=3
    ... )
    >>> [float(rest(t)) for t in range(3)]
    [0.25, 0.0, 0.0]
  """

  schedule: Schedule
  by_steps: Steps

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    # Not the sum alone, which wraps.
    most = jnp.iinfo(step.dtype).max
    room = most - spec.by_steps
    return spec.schedule(jnp.minimum(step, room) + spec.by_steps)

  def phases(self) -> tuple[Phase, ...]:
    by = int(self.by_steps)
    left = [
      Phase(p.name, max(p.start - by, 0), p.end and max(p.end - by, 0))
      for p in self.schedule.phases()
    ]
    # Of those that have passed only the last can matter: the schedule rests.
    passed = [p for p in left if p.end == 0]
    return (*passed[-1:], *(p for p in left if p.end != 0))


@schedule
class Sampled(Schedule):
  """A schedule read at every k-th update: `lr(t) = schedule(k floor(t/k))`.

  The sampling rate of REX (arXiv:2107.04197), and the stairs of any profile:
  `Sampled(Exponential(...), k)` is a staircase, an epoch-wise schedule has the
  updates of an epoch as `k`.

  Attributes:
    schedule: what to read.
    every_steps: k, >= 1; 1 is the schedule itself.

  Raises:
    ValueError: if `every_steps` is out of range.

  Example:
    >>> from lrsched.elementary import Linear
    >>> stairs = Sampled(
    ...   schedule=Linear(peak_lr=1.0, total_steps=4), every_steps=2
    ... )
    >>> [float(stairs(t)) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.0]
  """

  schedule: Schedule
  every_steps: PositiveSteps

  def check(self) -> None:
    _check_end(self)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    _, rest = turns_and_rest(step, spec.every_steps)
    return spec.schedule(step - rest)

  def phases(self) -> tuple[Phase, ...]:
    every = int(self.every_steps)
    return _moved(
      self.schedule.phases(), lambda step: -(-step // every) * every
    )


@schedule
class Ramped(Schedule):
  """A schedule that follows the samples seen while the batch size ramps up.

      lr(t) = schedule(p(t)),   p(t) = sum_{u<t} batch(u) / batch_sizes[-1]

  with `batch(u) = batch_sizes[i]` for `boundaries[i-1] <= u < boundaries[i]`.
  The schedule counts in updates of the last, full batch size, so a budget in
  tokens or samples is a length in those, whatever the ramp: warmup, stable
  phase and decay end at the samples they were given. `end_step` is in real
  updates.

  Between two of the schedule's own steps the LR is on the line that joins them.

  Attributes:
    schedule: in steps of `batch_sizes[-1]` samples.
    boundaries: first update of each batch size but the first, rising.
    batch_sizes: samples (sequences) per update, each in [1, 2^30]; one more
      than the boundaries.

  Raises:
    ValueError: if the boundaries do not rise, or there is not one batch size
      more than boundaries.

  Example:
    >>> from lrsched.elementary import Linear
    >>> ramped = Ramped(
    ...   schedule=Linear(peak_lr=1.0, total_steps=4),
    ...   boundaries=(4,),
    ...   batch_sizes=(8, 16),
    ... )
    >>> [float(ramped(t)) for t in range(7)]
    [1.0, 0.875, 0.75, 0.625, 0.5, 0.25, 0.0]
    >>> ramped.end_step
    6
  """

  schedule: Schedule
  boundaries: tuple[PositiveSteps, ...]
  batch_sizes: tuple[Ratio, ...]

  def check(self) -> None:
    if len(self.batch_sizes) != len(self.boundaries) + 1:
      raise ValueError(
        'Ramped.batch_sizes must be one more than boundaries, got '
        f'{len(self.batch_sizes)} for {len(self.boundaries)}'
      )
    check_rises('Ramped.boundaries', self.boundaries)
    _check_end(self)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    full = spec.batch_sizes[-1]
    starts = jnp.stack([jnp.zeros_like(full), *spec.boundaries])
    sizes = jnp.stack(spec.batch_sizes)
    lengths = jnp.diff(starts)  # of all stages but the last
    # At full size a step is a step. A loop, so that a hundred stages are one
    # small program.
    whole = jnp.maximum(step - starts[-1], 0)
    begin = (whole, jnp.zeros_like(whole), step, full)
    stages = (starts[:-1], lengths, sizes[:-1])
    (whole, rest, _, _), _ = jax.lax.scan(_add_stage, begin, stages)
    return _between(spec.schedule, whole, rest, full)

  def steps_for(self, full_steps: int) -> int:
    """The first update at which `full_steps` full updates have been seen.

    Args:
      full_steps: updates of the full batch size, >= 0.

    Example:
      >>> from lrsched.elementary import Constant
      >>> ramped = Ramped(
      ...   schedule=Constant(lr=1.0),
      ...   boundaries=(4,),
      ...   batch_sizes=(8, 16),
      ... )
      >>> ramped.steps_for(1000)
      1002
    """
    samples = int(full_steps) * int(self.batch_sizes[-1])
    return steps_for_samples(samples, self.boundaries, self.batch_sizes)

  def phases(self) -> tuple[Phase, ...]:
    return _moved(self.schedule.phases(), self.steps_for)


# Of the module, so that calls outside jit share a program: what is defined in
# a call is compiled in each.
def _add_stage(place: Any, stage: Any) -> Any:
  """Full updates seen in a stage added to those before it."""
  whole, rest, step, full = place
  start, length, size = stage
  inside = jnp.clip(step - start, 0, length)
  more, part = _share(inside, size, full)
  carry = (rest + part >= full).astype(rest.dtype)
  rest = rest + part - carry * full
  most = jnp.iinfo(step.dtype).max - 1
  whole = whole + jnp.minimum(more + carry, most - whole)
  return (whole, rest, step, full), None


def samples_at(
  step: int, boundaries: tuple[int, ...], batch_sizes: tuple[int, ...]
) -> int:
  """Samples seen before update `step` of a batch ramp, as an exact integer.

  Args:
    step: updates made, >= 0.
    boundaries: first update of each batch size but the first.
    batch_sizes: samples per update, one more than the boundaries.

  Example:
    >>> samples_at(6, (4,), (8, 16))
    64
  """
  starts, ends = (0, *boundaries), (*boundaries, step)
  stages = zip(starts, ends, batch_sizes, strict=True)
  return sum(
    max(min(int(end), step) - int(start), 0) * int(size)
    for start, end, size in stages
  )


def steps_for_samples(
  samples: int, boundaries: tuple[int, ...], batch_sizes: tuple[int, ...]
) -> int:
  """The fewest updates of a batch ramp that see at least `samples` samples.

  Args:
    samples: >= 0.
    boundaries: first update of each batch size but the first.
    batch_sizes: samples per update, one more than the boundaries.

  Example:
    >>> steps_for_samples(64, (4,), (8, 16))
    6
  """
  seen = start = 0
  for end, size in zip(boundaries, batch_sizes, strict=False):
    stage = (int(end) - start) * int(size)
    if samples <= seen + stage:
      return start - ((seen - samples) // int(size))
    seen, start = seen + stage, int(end)
  return start - ((seen - samples) // int(batch_sizes[-1]))


def _check_end(spec: Schedule) -> None:
  """Raises ValueError if a known schedule now ends beyond the last step."""
  if is_concrete(spec):
    check_total(type(spec).__name__, spec.end_step or 0)


def _moved(phases: tuple[Phase, ...], to: Any) -> tuple[Phase, ...]:
  """The phases with each edge at the first step that has reached it."""
  return tuple(
    Phase(p.name, to(p.start), None if p.end is None else to(p.end))
    for p in phases
  )
