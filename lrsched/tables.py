"""Schedules given by numbers: one for each update, or knots and lines."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.base import MAX_STEPS
from lrsched.base import LRTable
from lrsched.base import Number
from lrsched.base import Phase
from lrsched.base import Schedule
from lrsched.base import Table
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import is_concrete
from lrsched.base import schedule

Knots = Annotated[
  Any, Table(Number(whole=True, low=0, high=MAX_STEPS), at_least=2)
]
KnotLRs = Annotated[Any, Table(Number(whole=False, low=0.0), at_least=2)]


def _key(*tables: Any) -> tuple[Any, ...]:
  """What two specs with equal tables share, whatever holds the numbers."""
  return tuple((np.shape(t), np.asarray(t).tobytes()) for t in tables)


SHORT = 16  # longer tables are shown by their length and hash


def _summary(table: Any) -> str:
  if not isinstance(table, np.ndarray):
    return repr(table)  # a tracer, or an array inside a program
  if len(table) <= SHORT:
    return repr(tuple(table.tolist()))
  digest = hashlib.sha256(table.tobytes()).hexdigest()[:12]
  return f'<{len(table)} values, sha256 {digest}>'


@schedule
class Tabulated(Schedule):
  """One LR for each update: `lr(t) = lrs[t]`, and the last one from there on.

  For schedules that come from elsewhere: another framework's log, a refinement
  from gradient norms, an optimisation under a loss law. The values are kept in
  float64, and the spec is differentiable in each of them. Equal tables are
  equal and have one hash; `repr` shows the length and hash of a long one.

  Attributes:
    lrs: [n] learning rates, >= 0, at least one: a list, tuple or array.

  Raises:
    ValueError: if a value is out of range, by its index.

  Example:
    >>> table = Tabulated(lrs=(0.5, 1.0, 0.25))
    >>> [float(table(t)) for t in range(5)]
    [0.5, 1.0, 0.25, 0.25, 0.25]
    >>> table
    Tabulated(lrs=(0.5, 1.0, 0.25))
  """

  lrs: LRTable

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    lrs = as_arrays(self).lrs
    return lrs[jnp.minimum(as_step(step), lrs.shape[-1] - 1)]

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('table', 0, len(self.lrs)),)

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Tabulated):
      return NotImplemented
    return _key(self.lrs) == _key(other.lrs)

  def __hash__(self) -> int:
    return hash(('Tabulated', _key(self.lrs)))

  def __repr__(self) -> str:
    return f'Tabulated(lrs={_summary(self.lrs)})'


@schedule
class PiecewiseLinear(Schedule):
  """Lines between knots: at `steps[i]` the LR is `lrs[i]`.

      lr(t) = lrs[i] (1 - f) + lrs[i+1] f,   f = (t - s_i) / (s_{i+1} - s_i)

  for `s_i <= t < s_{i+1}`; the first value before the first knot, the last one
  from the last knot on. A jump is a line of one step, or a `Sequence`.

  Attributes:
    steps: [n] the knots, >= 0, rising; at least two.
    lrs: [n] learning rates there, >= 0.

  Raises:
    ValueError: if the knots do not rise, there are not as many LRs, or a value
      is out of range.

  Example:
    >>> line = PiecewiseLinear(steps=(2, 4, 8), lrs=(0.0, 1.0, 0.5))
    >>> [float(line(t)) for t in (0, 2, 3, 4, 6, 8, 100)]
    [0.0, 0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
  """

  steps: Knots
  lrs: KnotLRs

  def check(self) -> None:
    if np.shape(self.steps) != np.shape(self.lrs):
      raise ValueError(
        'PiecewiseLinear.lrs must be as many as its steps, got '
        f'{len(self.lrs)} for {len(self.steps)}'
      )
    if not is_concrete(self.steps):
      return
    if (falls := np.flatnonzero(np.diff(self.steps) <= 0)).size:
      i = int(falls[0]) + 1
      raise ValueError(
        f'PiecewiseLinear.steps[{i}] must be > steps[{i - 1}]='
        f'{self.steps[i - 1]}, got {self.steps[i]}'
      )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    last = spec.steps.shape[-1] - 1
    # A few comparisons at once are faster than a search in steps.
    method = 'compare_all' if last < SHORT else 'scan'
    after = jnp.searchsorted(spec.steps, step, side='right', method=method)
    i = jnp.clip(after, 1, last)
    start, end = spec.steps[i - 1], spec.steps[i]
    length = jnp.maximum(end - start, 1)  # traced knots may not rise
    done = jnp.clip(step - start, 0, length) / length
    left = jnp.clip(end - step, 0, length) / length
    return spec.lrs[i - 1] * left + spec.lrs[i] * done

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('lines', 0, int(self.steps[-1])),)

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, PiecewiseLinear):
      return NotImplemented
    return _key(self.steps, self.lrs) == _key(other.steps, other.lrs)

  def __hash__(self) -> int:
    return hash(('PiecewiseLinear', _key(self.steps, self.lrs)))

  def __repr__(self) -> str:
    steps, lrs = _summary(self.steps), _summary(self.lrs)
    return f'PiecewiseLinear(steps={steps}, lrs={lrs})'
