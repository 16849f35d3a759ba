"""Schedules with one formula over one stretch: Constant, Linear, Cosine."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lrsched.base import LR
from lrsched.base import Phase
from lrsched.base import PositiveSteps
from lrsched.base import Schedule
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import is_concrete
from lrsched.base import schedule
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.shapes import decay_lr


def check_falls(
  name: str, peak_lr: LR, final_lr: LR, shape: DecayShape
) -> None:
  """Raises ValueError unless known LRs fall, and are in the shape's domain."""
  if not is_concrete(peak_lr, final_lr):
    return
  if final_lr > peak_lr:
    raise ValueError(
      f'{name}.final_lr must be at most peak_lr={peak_lr}, got {final_lr}; '
      'for a rise use Warmup'
    )
  if shape.needs_floor and not final_lr > 0:
    raise ValueError(
      f'{name}.final_lr must be > 0 with decay={shape!r}, got {final_lr}; '
      'give it a floor such as 0.1 * peak_lr'
    )


@schedule
class Constant(Schedule):
  """One learning rate for ever: `lr(t) = lr`.

  Attributes:
    lr: learning rate, >= 0.

  Example:
    >>> float(Constant(lr=0.5)(10**9))
    0.5
  """

  lr: LR

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step = as_step(step)
    return jnp.broadcast_to(as_arrays(self).lr, step.shape)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('constant', 0, None),)


@schedule
class Linear(Schedule):
  """Linear decay: `lr(t) = final + (peak - final) (1 - t/T)` for `t < T`.

  Reaches `final_lr` at `t = T`, the first step after the run. It is the
  worst-case optimal schedule of Defazio et al. (arXiv:2310.07831); put it in a
  `Warmup` as they do in practice.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    final_lr: learning rate from step T on, in [0, peak_lr].
    total_steps: T, >= 1.

  Raises:
    ValueError: if a field is out of range.

  Example:
    >>> float(Linear(peak_lr=1.0, final_lr=0.0, total_steps=4)(1))
    0.75
  """

  peak_lr: LR
  final_lr: LR = 0.0
  total_steps: PositiveSteps

  def check(self) -> None:
    check_falls('Linear', self.peak_lr, self.final_lr, LinearDecay())

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    return _decay_over(self, LinearDecay(), step)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('decay', 0, int(self.total_steps)),)


@schedule
class Cosine(Schedule):
  """Half a cosine: `lr(t) = final + (peak - final) (1 + cos(pi t/T)) / 2`.

  Computed as `sin^2(pi (T-t) / 2T)`, which keeps its relative accuracy to the
  last step. It reaches `final_lr` at `t = T`, as torch's `T_max`; MaxText
  divides by `T-1`, so that its last executed step is at the floor.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    final_lr: learning rate from step T on, in [0, peak_lr].
    total_steps: T, >= 1.

  Raises:
    ValueError: if a field is out of range.

  Source: Loshchilov and Hutter (arXiv:1608.03983), Eq. 5, one cycle.

  Example:
    >>> round(
    ...   float(Cosine(peak_lr=1.0, final_lr=0.1, total_steps=4)(2)), 6
    ... )
    0.55
  """

  peak_lr: LR
  final_lr: LR = 0.0
  total_steps: PositiveSteps

  def check(self) -> None:
    check_falls('Cosine', self.peak_lr, self.final_lr, CosineDecay())

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    return _decay_over(self, CosineDecay(), step)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('decay', 0, int(self.total_steps)),)


def _decay_over(
  spec: Linear | Cosine, shape: DecayShape, step: jax.typing.ArrayLike
) -> jax.Array:
  step, spec = as_step(step), as_arrays(spec)
  return decay_lr(
    shape,
    peak_lr=spec.peak_lr,
    final_lr=spec.final_lr,
    left_steps=jnp.maximum(spec.total_steps - step, 0),
    decay_steps=spec.total_steps,
  )
