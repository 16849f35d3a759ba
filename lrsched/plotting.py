"""A picture of a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.base import Schedule

if TYPE_CHECKING:
  from matplotlib.axes import Axes


def plot(
  schedule: Schedule,
  total_steps: int | None = None,
  *,
  label: str | None = None,
  ax: Axes | None = None,
) -> Axes:
  """Draws the LR over steps, with its phases shaded.

  Needs matplotlib (the extra `plot`).

  Args:
    schedule: what to draw.
    total_steps: steps to draw, >= 1; to just past its end if None.
    label: legend entry; the class name if None.
    ax: where to draw; a new figure if None.

  Returns:
    The matplotlib axes.

  Raises:
    ValueError: if `total_steps` is needed and not given, or is below 1.

  Example:
    >>> import lrsched
    >>> ax = plot(lrsched.Linear(peak_lr=1.0, total_steps=10))
    >>> ax.get_xlabel()
    'step'
  """
  if total_steps is None:
    if schedule.end_step is None:
      raise ValueError(
        f'total_steps must be given: {type(schedule).__name__} has no end'
      )
    total_steps = schedule.end_step + 1
  if total_steps < 1:
    raise ValueError(f'total_steps must be >= 1, got {total_steps}')
  if ax is None:
    from matplotlib.figure import Figure  # not pyplot: no global state

    ax = Figure(figsize=(6, 2.6), layout='constrained').subplots()
  # At most ~2000 points, and both sides of every phase boundary: a jump is
  # drawn where it is, however long the run.
  steps = np.linspace(0, total_steps - 1, min(total_steps, 2000)).astype(int)
  edges = [p.start + d for p in schedule.phases() for d in (-1, 0, 1)]
  edges = [e for e in edges if 0 <= e < total_steps]
  steps = np.unique(np.concatenate([steps, np.asarray(edges, int)]))
  lrs = jax.jit(lambda s, t: s(t))(schedule, jnp.asarray(steps))
  ax.plot(steps, np.asarray(lrs), label=label or type(schedule).__name__)
  for phase in schedule.phases():
    if phase.name == 'decay' and phase.start < total_steps:
      end = min(phase.end or total_steps, total_steps)
      ax.axvspan(phase.start, end, color='0.9', lw=0, zorder=0)
  ax.set(
    xlabel='step', ylabel='learning rate', xlim=(0, max(total_steps - 1, 1))
  )
  ax.set_ylim(bottom=0)
  ax.ticklabel_format(axis='y', style='sci', scilimits=(-2, 2))
  ax.legend(frameon=False)
  return ax
