"""Schedules with one formula over one stretch, and those without an end."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from lrsched.base import LR
from lrsched.base import Number
from lrsched.base import Phase
from lrsched.base import Positive
from lrsched.base import PositiveSteps
from lrsched.base import Schedule
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import is_concrete
from lrsched.base import schedule
from lrsched.base import turns_and_rest
from lrsched.shapes import Beta
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.shapes import PowerOfLeft
from lrsched.shapes import ReflectedExponential
from lrsched.shapes import check_floor
from lrsched.shapes import decay_lr


def check_falls(
  name: str,
  peak_lr: LR,
  final_lr: LR,
  shape: DecayShape,
  *,
  peak_name: str = 'peak_lr',
  final_name: str = 'final_lr',
) -> None:
  """Raises ValueError unless known LRs fall, and are in the shape's domain."""
  if is_concrete(peak_lr, final_lr) and final_lr > peak_lr:
    raise ValueError(
      f'{name}.{final_name} must be at most {peak_name}={peak_lr}, got '
      f'{final_lr}; for a rise use Warmup'
    )
  check_floor(f'{name}.{final_name}', final_lr, shape)


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


# A share of an LR: 0 would end it, more than 1 would grow without bound.
Share = Annotated[Any, Number(whole=False, low=0.0, high=1.0, low_open=True)]


@schedule
class Polynomial(Schedule):
  """Polynomial decay: `lr(t) = final + (peak - final) (1 - t/T)^p`.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    final_lr: learning rate from step T on, in [0, peak_lr].
    total_steps: T, >= 1.
    power: p, > 0; 1 is `Linear`.

  Raises:
    ValueError: if a field is out of range.

  Example:
    >>> float(Polynomial(peak_lr=1.0, total_steps=4, power=2.0)(2))
    0.25
  """

  peak_lr: LR
  final_lr: LR = 0.0
  total_steps: PositiveSteps
  power: Positive

  def check(self) -> None:
    check_falls('Polynomial', self.peak_lr, self.final_lr, LinearDecay())

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    return _decay_over(self, PowerOfLeft(power=as_arrays(self).power), step)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('decay', 0, int(self.total_steps)),)


@schedule
class REX(Schedule):
  """Reflected exponential: `lr(t) = final + (peak - final) u / (1-b + b u)`.

  `u = 1 - t/T` is what is left. The paper's profile is `b = 1/2`,
  `(1-z) / (1 - z/2)`; the co-author's code, and trainers that derive from it,
  use `b = 0.9`, which stays high much longer (0.91 of the peak half way instead
  of 0.67). `b = 0` is `Linear`. REX samples its profile at every update; other
  sampling rates are `Sampled`.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    final_lr: learning rate from step T on, in [0, peak_lr].
    total_steps: T, >= 1.
    beta: b, in [0, 0.999].

  Raises:
    ValueError: if a field is out of range.

  Source: Chen, Wolfe and Kyrillidis (arXiv:2107.04197).

  Example:
    >>> rex = REX(peak_lr=1.0, total_steps=5)
    >>> [round(float(rex(t)), 6) for t in range(6)]
    [1.0, 0.888889, 0.75, 0.571429, 0.333333, 0.0]
  """

  peak_lr: LR
  final_lr: LR = 0.0
  total_steps: PositiveSteps
  beta: Beta = 0.5

  def check(self) -> None:
    check_falls('REX', self.peak_lr, self.final_lr, LinearDecay())

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    return _decay_over(self, ReflectedExponential(beta=self.beta), step)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('decay', 0, int(self.total_steps)),)


@schedule
class Exponential(Schedule):
  """Equal ratios in equal times: `lr(t) = max(final, peak f^(t/k))`.

  In stairs, one for each `k` steps, it is `Sampled(Exponential(...), k)`.
  GPT-NeoX's `exponential` is `f = 0.5, k = total_steps`: it only halves.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    final_lr: least learning rate, in [0, peak_lr].
    factor: f, what `every_steps` steps multiply the LR by, in (0, 1].
    every_steps: k, >= 1.

  Raises:
    ValueError: if a field is out of range.

  Example:
    >>> s = Exponential(peak_lr=1.0, factor=0.5, every_steps=10)
    >>> round(float(s(20)), 6)
    0.25
  """

  peak_lr: LR
  final_lr: LR = 0.0
  factor: Share
  every_steps: PositiveSteps

  def check(self) -> None:
    check_falls('Exponential', self.peak_lr, self.final_lr, LinearDecay())

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    # Whole periods and the rest apart, so that the exponent keeps its digits.
    whole, rest = turns_and_rest(step, spec.every_steps)
    rate = jnp.log(spec.factor)
    lr = spec.peak_lr * jnp.exp(rate * whole)
    lr = lr * jnp.exp(rate * (rest / spec.every_steps))
    return jnp.maximum(lr, spec.final_lr)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('fall', 0, None),)


@schedule
class InverseSqrt(Schedule):
  """Inverse square root: `lr(t) = peak sqrt(q / (q + t))`; it has no end.

  Halves when `3 q` steps have passed. Other code bases are this one, moved:

  - Vaswani et al.: `Warmup(InverseSqrt(timescale_steps=W), W)`, whose update
    `t >= W` has `peak sqrt(W/t)`, with `peak = (d W)^-1/2`; they count from 1.
  - Megatron-LM: the same, with a floor (`Clipped`).
  - big_vision: `q` is its timescale.
  - Levanter: constant for the first `q` steps, `peak sqrt(q / max(t, q))`:
    `Sequence((Constant(peak), InverseSqrt(peak, q)), (q,))`.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    timescale_steps: q, >= 1.

  Raises:
    ValueError: if a field is out of range.

  Source: Vaswani et al. (arXiv:1706.03762), Eq. 3; timescale: Zhai et al.
    (arXiv:2106.04560).

  Example:
    >>> float(InverseSqrt(peak_lr=1.0, timescale_steps=100)(300))
    0.5
  """

  peak_lr: LR
  timescale_steps: PositiveSteps

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    spec = as_arrays(self)
    return spec.peak_lr * jnp.sqrt(_slowing(step, spec.timescale_steps))

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('fall', 0, None),)


@schedule
class InverseTime(Schedule):
  """Inverse time: `lr(t) = peak q / (q + t)`; it has no end.

  Attributes:
    peak_lr: learning rate at step 0, >= 0.
    timescale_steps: q, steps until the LR has halved, >= 1.

  Raises:
    ValueError: if a field is out of range.

  Source: Robbins and Monro (1951).

  Example:
    >>> float(InverseTime(peak_lr=1.0, timescale_steps=100)(300))
    0.25
  """

  peak_lr: LR
  timescale_steps: PositiveSteps

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    spec = as_arrays(self)
    return spec.peak_lr * _slowing(step, spec.timescale_steps)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('fall', 0, None),)


def _slowing(step: jax.typing.ArrayLike, timescale_steps: Any) -> jax.Array:
  """`q / (q + t)`, as reals: the sum of two steps could wrap."""
  dtype = jnp.result_type(float)
  q = jnp.asarray(timescale_steps, dtype)
  return q / (q + as_step(step).astype(dtype))


def _decay_over(
  spec: Linear | Cosine | Polynomial | REX,
  shape: DecayShape,
  step: jax.typing.ArrayLike,
) -> jax.Array:
  step, spec = as_step(step), as_arrays(spec)
  return decay_lr(
    shape,
    peak_lr=spec.peak_lr,
    final_lr=spec.final_lr,
    left_steps=jnp.maximum(spec.total_steps - step, 0),
    decay_steps=spec.total_steps,
  )
