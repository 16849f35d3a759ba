"""Decay shapes: how a learning rate goes from its peak to its final value.

A shape maps the fraction `s` of the decay that is done, and the ratio
`r = final_lr / peak_lr`, to a factor of the peak that is 1 at `s = 0` and `r`
at `s = 1`. Shapes are values: `WSD(..., decay=OneMinusSqrt())`.

Written with `u = 1 - s`, the fraction left, each formula keeps its relative
accuracy where it matters, at the end of the decay: near `s = 1` a float32
`1 + cos(pi s)` has lost all its digits, `2 sin^2(pi u / 2)` none.
"""

from __future__ import annotations

import abc
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from lrsched.base import Number
from lrsched.base import Positive
from lrsched.base import Spec
from lrsched.base import as_arrays
from lrsched.base import is_concrete
from lrsched.base import schedule

# 2^100 is well inside float32; a decay of a hundred halvings is a step.
Halvings = Annotated[
  Any, Number(whole=False, low=0.0, high=100.0, low_open=True)
]

# REX is the line at 0; at 1 it would be a step.
Beta = Annotated[Any, Number(whole=False, low=0.0, high=0.999)]


class DecayShape(Spec, abc.ABC):
  """A decay shape; see the module docstring for the convention."""

  needs_floor = False  # whether final_lr = 0 is outside the shape's domain

  @abc.abstractmethod
  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    """The factor for fractions `done + left = 1`, both exact to rounding."""

  def __call__(
    self, done: jax.typing.ArrayLike, ratio: jax.typing.ArrayLike = 0.0
  ) -> jax.Array:
    """The factor of the peak LR when the fraction `done` has passed.

    Args:
      done: fraction of the decay that is done; clipped to [0, 1].
      ratio: final LR over peak LR, in [0, 1].

    Returns:
      float32 (float64 under x64): 1 at `done = 0`, `ratio` at `done = 1`.
    """
    dtype = jnp.result_type(float)
    done = jnp.clip(jnp.asarray(done, dtype), 0.0, 1.0)
    ratio = jnp.asarray(ratio, dtype)
    value = self.factor(done, 1 - done, ratio)
    return jnp.where(done == 1, ratio, value)


def decay_lr(
  shape: DecayShape,
  *,
  peak_lr: jax.Array,
  final_lr: jax.Array,
  left_steps: jax.Array,
  decay_steps: jax.Array,
) -> jax.Array:
  """The LR with `left_steps` of `decay_steps` to go; exact at both ends."""
  length = jnp.maximum(decay_steps, 1)
  ratio = final_lr / jnp.where(peak_lr > 0, peak_lr, 1)
  factor = shape.factor(
    (length - left_steps) / length, left_steps / length, ratio
  )
  # peak * (final / peak) may miss final by one rounding.
  return jnp.where(left_steps == 0, final_lr, peak_lr * factor)


def check_floor(where: str, final_lr: Any, shape: DecayShape) -> None:
  """Raises ValueError if a known final LR is 0 where the shape needs more."""
  if shape.needs_floor and is_concrete(final_lr) and not final_lr > 0:
    raise ValueError(
      f'{where} must be > 0 with {shape!r}, got {final_lr}; give it a floor '
      'such as a tenth of the peak'
    )


def _mix(shape: jax.Array, ratio: jax.Array) -> jax.Array:
  """From 1 to `ratio` as `shape` goes from 1 to 0; exact at both ends."""
  return shape + (1 - shape) * ratio


@schedule
class LinearDecay(DecayShape):
  """`1 - s`: the worst-case optimal last-iterate decay (arXiv:2310.07831).

  Example:
    >>> float(LinearDecay()(0.25, 0.0))
    0.75
  """

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    return _mix(left, ratio)


@schedule
class CosineDecay(DecayShape):
  """`(1 + cos(pi s)) / 2`, as `sin^2(pi u / 2)` (arXiv:1608.03983, Eq. 5).

  Example:
    >>> round(float(CosineDecay()(0.5, 0.1)), 6)
    0.55
  """

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    return _mix(jnp.sin(0.5 * math.pi * left) ** 2, ratio)


@schedule
class OneMinusSqrt(DecayShape):
  """`1 - sqrt(s)`, computed as `u / (1 + sqrt(s))` (arXiv:2405.18392).

  Example:
    >>> round(float(OneMinusSqrt()(0.25)), 6)
    0.5
  """

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    # The derivative of sqrt at 0 is infinite; it is asked for when a fraction,
    # not a step, is differentiated.
    root = jnp.sqrt(jnp.where(done > 0, done, 1))
    return _mix(left / (1 + jnp.where(done > 0, root, 0)), ratio)


@schedule
class OneMinusPower(DecayShape):
  """`1 - s^p`: `OneMinusSqrt` at 1/2, linear at 1, `SquareDecay` at 2.

  Computed as `-expm1(p log s)`. At `p = 1/2` it was the best of the family
  in arXiv:2405.18392.

  Attributes:
    power: p, > 0.

  Example:
    >>> round(float(OneMinusPower(power=3.0)(0.5)), 6)
    0.875
  """

  power: Positive

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    # log 0 where nothing is done yet, and its derivative, are not wanted.
    begun, late = done > 0, done > 0.5
    log = jnp.where(
      late,
      jnp.log1p(-jnp.where(late, left, 0.5)),
      jnp.log(jnp.where(begun & ~late, done, 0.5)),
    )
    fallen = -jnp.expm1(as_arrays(self).power * log)
    return _mix(jnp.where(begun, fallen, 1), ratio)


@schedule
class SquareDecay(DecayShape):
  """`1 - s^2`, computed as `u (2 - u)` (arXiv:2405.18392).

  Example:
    >>> float(SquareDecay()(0.5))
    0.75
  """

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    return _mix(left * (2 - left), ratio)


@schedule
class MirrorCosine(DecayShape):
  """`2 (1 - s) - (1 + cos(pi s)) / 2`: cosine mirrored at the line.

  Falls fast first and flattens in the middle (arXiv:2405.18392).

  Example:
    >>> round(float(MirrorCosine()(0.25)), 6)
    0.646447
  """

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    return _mix(2 * left - jnp.sin(0.5 * math.pi * left) ** 2, ratio)


@schedule
class ExponentialDecay(DecayShape):
  """`r^s`: equal ratios in equal times; needs a final LR above 0.

  Example:
    >>> round(float(ExponentialDecay()(0.5, 0.1)), 6)
    0.316228
  """

  needs_floor = True

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    # A traced ratio of 0 escapes the check at construction; stay finite.
    return jnp.exp(done * jnp.log(jnp.maximum(ratio, 1e-30)))


@schedule
class HalfLife(DecayShape):
  """`(2^(n u) - 1) / (2^n - 1)`: `n` halvings, rescaled to end at the ratio.

  One formula holds what three code bases call exponential decay:

  - `0.5^(steps/h)` of MiniCPM (arXiv:2404.06395, section 4.2): `n = D/h`
    halvings in a decay of `D` steps with `final_lr = peak_lr * 2^-n`; the
    rescaling is then the identity.
  - Megatron-LM's `2 * 0.5^s - 1`: `halvings=1`, any final LR.
  - dolomite-engine's `A e^-s + B`: `halvings = log2(e)`, any final LR.

  Attributes:
    halvings: half-lives in the whole decay, in (0, 100].

  Example:
    >>> round(float(HalfLife(halvings=1.0)(0.5)), 6)
    0.414214
  """

  halvings: Halvings = 1.0

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    rate = as_arrays(self).halvings * math.log(2)
    return _mix(jnp.expm1(rate * left) / jnp.expm1(rate), ratio)


@schedule
class InverseDecay(DecayShape):
  """`1 / (s/r + 1 - s)`: `1/LR` grows linearly; needs a final LR above 0.

  The decay of WSD-S (arXiv:2410.05192).

  Example:
    >>> round(float(InverseDecay()(0.5, 0.1)), 6)
    0.181818
  """

  needs_floor = True

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    # As in ExponentialDecay; the derivative squares it, in float32.
    ratio = jnp.maximum(ratio, 1e-18)
    return 1 / (left + done / ratio)


@schedule
class InverseSqrtDecay(DecayShape):
  """`1 - h(s)/h(1)` with `h(s) = 1/sqrt(1 + a s) - 1`: fast, then flat.

  The second cooldown of infinite schedules (arXiv:2403.08763), with `a = 10` in
  published code.

  Attributes:
    alpha: a, > 0.

  Example:
    >>> round(float(InverseSqrtDecay()(0.25, 0.55)), 6)
    0.700117
  """

  alpha: Positive = 10.0

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    # h(1) - h(s), as a product of what is left: no digits are lost near s = 1.
    alpha = as_arrays(self).alpha
    a, b = jnp.sqrt(1 + alpha * done), jnp.sqrt(1 + alpha)
    return _mix(left * (b + 1) / (a * (a + b)), ratio)


@schedule
class PowerOfLeft(DecayShape):
  """`u^p`, of the fraction `u = 1 - s` that is left.

  Attributes:
    power: p, > 0.

  Example:
    >>> float(PowerOfLeft(power=2.0)(0.5))
    0.25
  """

  power: Positive

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    base = jnp.where(left > 0, left, 1)  # 0^p has no derivative in p
    value = jnp.where(left > 0, base ** as_arrays(self).power, 0)
    return _mix(value, ratio)


@schedule
class ReflectedExponential(DecayShape):
  """`u / (1 - b + b u)`: the profile of REX (arXiv:2107.04197).

  Attributes:
    beta: b, in [0, 0.999]; 1/2 in the paper.

  Example:
    >>> round(float(ReflectedExponential(beta=0.5)(0.5)), 6)
    0.666667
  """

  beta: Beta = 0.5

  def factor(
    self, done: jax.Array, left: jax.Array, ratio: jax.Array
  ) -> jax.Array:
    beta = as_arrays(self).beta
    return _mix(left / (1 - beta + beta * left), ratio)
