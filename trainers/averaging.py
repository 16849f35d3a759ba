"""LAWA: the mean of the latest weights, beside those that are trained.

A ring in the training state holds a snapshot of the weights for each of the
last `window` multiples of `every_steps`; the mean is made when it is asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trainers.fields import config
from trainers.fields import require


@config
class Lawa:
  """The mean of the latest weights, taken every so many updates.

  It costs `window` times the memory of the weights, split over devices as they
  are, and the same in every checkpoint; no time but in the updates that take a
  snapshot, which copy the weights once. A window of `w` snapshots stands for a
  decay over about `w * every_steps` updates (arXiv:2209.14981, 2306.03241).

  Attributes:
    every_steps: updates between snapshots, which are taken after the updates
      whose number, from step 0 of the oldest ancestor, is a multiple of it.
    window: snapshots that are kept and averaged.
  """

  every_steps: int
  window: int = 5

  def check(self) -> None:
    for name in ('every_steps', 'window'):
      value = getattr(self, name)
      require(value >= 1, f'Lawa.{name}', value, 'must be >= 1')


class LawaState(NamedTuple):
  """The latest weights.

  Attributes:
    ring: a tree as the weights, with a leading axis of `window` snapshots.
    taken: int32 scalar; snapshots so far. The next goes to `taken % window`.
  """

  ring: Any
  taken: jax.Array


def init_lawa(params: Any, config: Lawa) -> LawaState:
  """A ring without snapshots."""
  slots = lambda x: jnp.zeros((config.window, *x.shape), x.dtype)
  return LawaState(jax.tree.map(slots, params), jnp.zeros((), jnp.int32))


def updated_lawa(
  lawa: LawaState, params: Any, step_done: jax.Array, config: Lawa
) -> LawaState:
  """The ring after update number `step_done`, the first being 1.

  For use inside the donated training step: a snapshot is written in place, and
  where none is due nothing is read or written.
  """
  is_due = step_done % config.every_steps == 0
  slot = lawa.taken % config.window

  def take(ring: Any) -> Any:
    put = jax.lax.dynamic_update_index_in_dim
    return jax.tree.map(lambda r, x: put(r, x, slot, 0), ring, params)

  # Not a `where`: that would copy a slot in every update.
  ring = jax.lax.cond(is_due, take, lambda ring: ring, lawa.ring)
  return LawaState(ring, lawa.taken + is_due)


def lawa_mean(lawa: LawaState, params: Any) -> Any:
  """The mean of the snapshots so far, at most `window`; new arrays.

  Summed in at least float32 and rounded once.

  Args:
    lawa: the ring.
    params: the weights now: the mean while there is no snapshot yet.
  """

  def of_leaf(ring: jax.Array, now: jax.Array) -> jax.Array:
    n = jnp.minimum(lawa.taken, ring.shape[0])
    is_taken = jnp.arange(ring.shape[0]) < n
    is_taken = jnp.expand_dims(is_taken, tuple(range(1, ring.ndim)))
    wide = ring.astype(jnp.promote_types(ring.dtype, jnp.float32))
    total = jnp.sum(jnp.where(is_taken, wide, 0), axis=0)
    mean = total / jnp.maximum(n, 1)
    return jnp.where(n > 0, mean.astype(now.dtype), now)

  return jax.tree.map(of_leaf, lawa.ring, params)
