"""The LR so far, in a fixed amount of memory, for laws in a training step.

`Track` is carried in the training state, and takes the LR of each update as it
was applied. It keeps the LR as lines between a few updates, its knots: those
that a law could tell from the whole curve. With every update one knot goes, the
one that laws miss least. What they miss is about the area between the curves,
of LR over LR sum, over its age, as their kernels forget as powers of the age.
So a constant LR takes two knots, a jump two, and a smooth decay some for each
doubling of its age; and what is missed is kept as a moment, so that a change is
counted at the right age on average.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KNOTS = 256


class Knots(NamedTuple):
  """The LR as lines between some updates, [n] each.

  Sums are in two parts, of which the second is what float32 lost in the first:
  an age is a difference of large sums.

  Attributes:
    steps: int32, the updates, rising; the first repeats in slots not yet used.
    lrs: float32, their LRs.
    sums: float32, sum of the LRs of all updates up to each.
    rests: float32, what to add to `sums`.
    missed: float32, area between the line up to each knot and the LR, over the
      LR sum; at most, and in units of the peak.
    areas: float32, the same with its sign: how much later, in LR sum, the LR
      changes than the line does, times the change.
    root_areas: float32, the same of the root of the LR.
  """

  steps: Any
  lrs: Any
  sums: Any
  rests: Any
  missed: Any
  areas: Any
  root_areas: Any


class Track(NamedTuple):
  """The LR of all updates so far, in a fixed amount of memory.

  Attributes:
    n: int32 [], updates so far.
    knots: KNOTS of them; the last is the last update.
  """

  n: jax.Array
  knots: Knots


def init_track() -> Track:
  """Before the first update."""
  zeros = [jnp.zeros(KNOTS, jnp.float32)] * (len(Knots._fields) - 1)
  steps = jnp.zeros(KNOTS, jnp.int32)
  return Track(jnp.zeros((), jnp.int32), Knots(steps, *zeros))


def tracked(
  track: Track, lr: jax.Array, warmup_steps: jax.typing.ArrayLike
) -> Track:
  """The track after one more update.

  Args:
    track: before it.
    lr: float32 [] that the update was multiplied by.
    warmup_steps: updates of the warmup: its rise is no change of the LR to a
      law, and is not kept.
  """
  lr = jnp.asarray(lr, jnp.float32)
  old = track.knots
  total, rest = _add(old.sums[-1], old.rests[-1], lr)
  new = Knots(track.n, lr, total, rest, *[jnp.zeros((), jnp.float32)] * 3)
  longer = Knots(*map(jnp.append, old, new))
  # Until the warmup is over there is one knot, the last update.
  is_single = old.steps[0] == old.steps[-1]
  anew = is_single & (track.n < jnp.maximum(warmup_steps, 1))
  knots = jax.tree.map(
    lambda kept, x: jnp.where(anew, x, kept), without_one(longer), new
  )
  return Track(track.n + 1, knots)


def _add(
  total: jax.Array, rest: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`total + rest + x` as a float32 sum and what it lost (Knuth's two-sum)."""
  x = x + rest
  new = total + x
  back = new - total
  return new, (total - (new - back)) + (x - back)


def without_one(knots: Knots) -> Knots:
  """All knots but the one that a law would miss least."""
  xp = np if isinstance(knots.steps, np.ndarray) else jnp
  n = len(knots.steps)
  age = ages_of(knots)
  peak = xp.maximum(knots.lrs.max(), 1e-30)
  width = age[:-1] - age[1:]

  def turn(y: Any) -> Any:
    """[n - 2] area of the triangle that a knot and its neighbours are."""
    rise = y[1:] - y[:-1]
    return 0.5 * (rise[:-1] * width[1:] - rise[1:] * width[:-1])

  turns = turn(knots.lrs), turn(xp.sqrt(knots.lrs))
  # Laws take the LR itself or a concave power of it.
  most = xp.maximum(xp.abs(turns[0]) / peak, xp.abs(turns[1]) / xp.sqrt(peak))
  worth = (most + knots.missed[1:-1] + knots.missed[2:]) / (age[2:] + peak)
  unused = xp.where(knots.steps[0] == knots.steps[1], -1.0, xp.inf)
  ends = xp.full(1, xp.inf)
  gone = xp.argmin(xp.concatenate([unused[None], worth, ends]))
  kept = xp.arange(n - 1) + (xp.arange(n - 1) >= gone)
  # The line after the knot takes over what the line before it had.
  is_next = xp.arange(n) == gone + 1
  lost = {}
  for name, new in zip(
    ('missed', 'areas', 'root_areas'), (most, *turns), strict=True
  ):
    column = getattr(knots, name)
    passed = xp.pad(new, 1)[gone] + column[gone]
    lost[name] = column + xp.where(is_next, passed, 0)
  return Knots(*(column[kept] for column in knots._replace(**lost)))


def ages_of(knots: Knots) -> Any:
  """[n] LR sums since each knot."""
  sums, rests = knots.sums, knots.rests
  return (sums[-1] - sums) + (rests[-1] - rests)
