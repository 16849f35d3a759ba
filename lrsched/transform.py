"""The one place where a learning rate meets an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ScaleByLRState(NamedTuple):
  """State of `scale_by_lr`.

  Attributes:
    step: shape (), int32; updates made so far.
    lr: shape (), float32; the LR of the update that produced this state, 0
      before the first.
  """

  step: jax.Array
  lr: jax.Array


def scale_by_lr(
  schedule: Callable[[Any], jax.typing.ArrayLike],
) -> optax.GradientTransformation:
  """Multiplies updates by `-schedule(step)` and records the LR it applied.

  The last link of an optax chain. The LR stays float32 (float64 under x64)
  until it multiplies: a bfloat16 update is multiplied in float32 and rounded
  once. The step is the optimizer's own count, so with gradient accumulation the
  schedule advances once per update, and a skipped update does not advance it.

  The schedule is not part of the state, so a restored state cannot bring an old
  one back. To sweep schedules in one program, build the chain inside the
  compiled step from a schedule that is an argument (see `as_arrays`).

  Args:
    schedule: integer step to LR, such as an `lrsched.Schedule`.

  Returns:
    A gradient transformation with a `ScaleByLRState`.

  Raises:
    ValueError: if `schedule` is not callable.

  Example:
    >>> import lrsched
    >>> tx = optax.chain(
    ...   optax.scale_by_adam(), scale_by_lr(lrsched.Constant(lr=0.1))
    ... )
    >>> state = tx.init(jnp.zeros(2))
    >>> _, state = tx.update(jnp.ones(2), state)
    >>> round(float(applied_lr(state)), 6)
    0.1
  """
  if not callable(schedule):
    raise ValueError(
      f'schedule must map a step to an LR, got {schedule!r}; '
      'for one fixed LR use Constant(lr=...)'
    )

  def init(params: optax.Params) -> ScaleByLRState:
    del params
    return ScaleByLRState(
      step=jnp.zeros((), jnp.int32), lr=jnp.zeros((), jnp.result_type(float))
    )

  def update(
    updates: optax.Updates,
    state: ScaleByLRState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, ScaleByLRState]:
    del params
    lr = jnp.asarray(schedule(state.step), state.lr.dtype)
    updates = jax.tree.map(lambda u: minus_lr_times(lr, u), updates)
    step = optax.safe_increment(state.step)
    return updates, ScaleByLRState(step=step, lr=lr)

  return optax.GradientTransformation(init, update)


def minus_lr_times(lr: jax.Array, update: jax.Array) -> jax.Array:
  """`-lr * update` in the wider dtype of the two, rounded once to update's."""
  wide = update.astype(jnp.promote_types(lr.dtype, update.dtype))
  return (-lr * wide).astype(update.dtype)


def only_state(
  opt_state: optax.OptState, kind: type, *, if_none: str, if_several: str
) -> Any:
  """The one state of a class inside an optimizer state.

  Raises:
    ValueError: with the remedy, if there are none or several.
  """
  is_state = lambda x: isinstance(x, kind)
  leaves = jax.tree.leaves(opt_state, is_leaf=is_state)
  found = [leaf for leaf in leaves if is_state(leaf)]
  if len(found) != 1:
    raise ValueError(
      f'opt_state must hold one {kind.__name__}, found {len(found)}; '
      + (if_several if found else if_none)
    )
  return found[0]


def applied_lr(opt_state: optax.OptState) -> jax.Array:
  """The LR that the last update was multiplied by, read from the state.

  Args:
    opt_state: an optimizer state that holds one `ScaleByLRState`.

  Returns:
    float32 scalar; 0 before the first update.

  Raises:
    ValueError: if the state holds none, or several (one for each parameter
      group): pass the state of one group then.

  Example:
    >>> import lrsched
    >>> tx = scale_by_lr(lrsched.Constant(lr=0.1))
    >>> float(applied_lr(tx.init(jnp.zeros(2))))
    0.0
  """
  state = only_state(
    opt_state,
    ScaleByLRState,
    if_none='end the optax chain with scale_by_lr(schedule)',
    if_several='pass the state of one parameter group',
  )
  return state.lr
