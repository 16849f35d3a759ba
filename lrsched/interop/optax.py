"""From optax: any schedule, read step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.interop.arguments import check_steps
from lrsched.tables import Tabulated


def from_optax(schedule: Callable[[Any], Any], total_steps: int) -> Tabulated:
  """The values of an optax schedule at updates 0 to `total_steps`, as a table.

      lr(t) = schedule(min(t, total_steps))

  An optax schedule is a closure: what it was made of cannot be read back. So
  the table has no peak, length or shape left to sweep or to change, and rests
  at its last value after `total_steps`. Where those matter, write the schedule
  with the kinds of this library.

  All steps are evaluated in one compiled program, each as a traced scalar: what
  optax itself hands a schedule inside a compiled update. A schedule that needs
  its count as a Python number fails here as it would there.

  Args:
    schedule: a callable from an update's number to its learning rate.
    total_steps: last update to read, >= 1; usually the length of the run, so
      that the value at its end is in the table.

  Returns:
    A table of `total_steps + 1` learning rates.

  Raises:
    ValueError: if `schedule` is not callable, does not return one real number,
      or one of them is negative or not finite; the message names the step.

  Example:
    >>> import optax
    >>> table = from_optax(optax.linear_schedule(1.0, 0.0, 4), 4)
    >>> table
    Tabulated(lrs=(1.0, 0.75, 0.5, 0.25, 0.0))
  """
  if not callable(schedule):
    raise ValueError(
      f'schedule must be callable, got {schedule!r}; for one learning rate use '
      'lrsched.Constant'
    )
  check_steps('total_steps', total_steps, low=1)
  count = jnp.arange(total_steps + 1)
  lrs = jax.jit(jax.vmap(lambda step: jnp.asarray(schedule(step))))(count)
  if lrs.ndim != 1 or not (
    jnp.issubdtype(lrs.dtype, jnp.floating)
    or jnp.issubdtype(lrs.dtype, jnp.integer)
  ):
    raise ValueError(
      'schedule must return one real number for each step, got '
      f'{lrs.dtype}{list(lrs.shape[1:])}'
    )
  values = np.asarray(lrs, np.float64)
  bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
  if bad.size:
    raise ValueError(
      'schedule must be finite and >= 0 at every step, got '
      f'{values[bad[0]]} at step {bad[0]}; a rate that turns the sign belongs '
      'into the optimizer chain, as optax.scale(-1.0)'
    )
  return Tabulated(lrs=values)
