"""The power schedule, agnostic of batch size and number of tokens."""

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
from lrsched.base import Steps
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import check_total
from lrsched.base import is_concrete
from lrsched.base import schedule
from lrsched.base import warmup_factor
from lrsched.elementary import check_falls
from lrsched.shapes import DecayShape
from lrsched.shapes import HalfLife
from lrsched.shapes import decay_lr

Exponent = Annotated[Any, Number(whole=False, low=-4.0, high=0.0)]
E_HALVINGS = 1.4426950408889634  # log2(e): the decay of the paper's code base


@schedule
class Power(Schedule):
  """A power of the tokens seen, times the batch size, under a cap.

      power(n) = min(peak, batch a n^b)      n tokens seen
      lr(t) = power(n_W) (t+1)/W             t < W
              power(n_t)                     W <= t
              power(n_S) d((t - S)/D, .)     S <= t < S + D
              final                          from S + D on

  with `n_t = t tokens_per_step` and `S = W + stable`.

  Without a decay (`stable_steps = decay_steps = 0`) it has no end. Within 1e-6
  relative of float64 for any number of tokens: tokens are never multiplied out,
  as 2^31 are reached in the first thousand steps of a large run.

  Attributes:
    peak_lr: the cap, >= 0; 0.02 in the paper.
    amplitude: a, > 0; 4 in the paper, whose fit gave 4.6.
    exponent: b, in [-4, 0]; -0.51 in the paper.
    batch_size: sequences per update, >= 1.
    tokens_per_step: tokens per update, batch_size times their length, >= 1.
    warmup_steps: W, >= 0. Without one, update 0 counts as update 1.
    stable_steps: steps between warmup and decay, >= 0.
    decay_steps: D, >= 0; 0 for no decay.
    final_lr: learning rate after the decay.
    decay: its shape; the paper's code base uses an exponential rescaled to end
      at the floor.

  Raises:
    ValueError: if a field is out of range, `stable_steps` is given without a
      decay, or the lengths sum to 2^31 or more.

  Source: Shen et al. (arXiv:2408.13359), Eq. 7 and 8. Levanter counts tokens
    from the end of the warmup; this counts all, as Eq. 8 does.

  Example:
    >>> power = Power(
    ...   peak_lr=0.02, batch_size=1024, tokens_per_step=4_194_304
    ... )
    >>> f'{float(power(23842)):.6f}'  # 1e11 tokens
    '0.010054'
  """

  peak_lr: LR
  amplitude: Positive = 4.0
  exponent: Exponent = -0.51
  batch_size: PositiveSteps
  tokens_per_step: PositiveSteps
  warmup_steps: Steps = 0
  stable_steps: Steps = 0
  decay_steps: Steps = 0
  final_lr: LR = 0.0
  decay: DecayShape = HalfLife(halvings=E_HALVINGS)

  def check(self) -> None:
    check_falls('Power', self.peak_lr, self.final_lr, self.decay)
    lengths = (self.warmup_steps, self.stable_steps, self.decay_steps)
    check_total('Power', *lengths)
    if is_concrete(lengths) and self.stable_steps and not self.decay_steps:
      raise ValueError(
        f'Power.stable_steps must be 0 without a decay, got '
        f'{self.stable_steps}; give decay_steps, or leave both at 0'
      )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    decay_start = spec.warmup_steps + spec.stable_steps
    has_decay = spec.decay_steps > 0
    # The power is frozen at the end of the warmup, and at the decay's start.
    at = jnp.maximum(step, jnp.maximum(spec.warmup_steps, 1))
    at = jnp.where(has_decay, jnp.minimum(at, jnp.maximum(decay_start, 1)), at)
    power = _power_of_product(at, spec.tokens_per_step, spec.exponent)
    lr = jnp.minimum(spec.peak_lr, spec.batch_size * spec.amplitude * power)
    left_steps = jnp.clip(
      decay_start + spec.decay_steps - step, 0, spec.decay_steps
    )
    decayed = decay_lr(
      spec.decay,
      peak_lr=lr,
      final_lr=jnp.minimum(spec.final_lr, lr),
      left_steps=left_steps,
      decay_steps=spec.decay_steps,
    )
    lr = jnp.where(has_decay, decayed, lr)
    return lr * warmup_factor(step, spec.warmup_steps)

  def phases(self) -> tuple[Phase, ...]:
    warmup_steps = int(self.warmup_steps)
    warmup = Phase('warmup', 0, warmup_steps)
    if not self.decay_steps:
      return (warmup, Phase('fall', warmup_steps, None))
    decay_start = warmup_steps + int(self.stable_steps)
    decay_end = decay_start + int(self.decay_steps)
    return (
      warmup,
      Phase('fall', warmup_steps, decay_start),
      Phase('decay', decay_start, decay_end),
    )


def _power_of_product(m: jax.Array, n: jax.Array, exponent: jax.Array) -> Any:
  """`(m n)^b` for whole m, n >= 1, to a few roundings of float32.

  `m n = f 2^e` with `f` in [1/4, 1). A float32 `b e` of size 30 would be off by
  1e-6; its part with 12 fractional bits is exact, and its whole part a shift.
  """
  dtype = exponent.dtype
  f_m, e_m = jnp.frexp(m.astype(dtype))
  f_n, e_n = jnp.frexp(n.astype(dtype))
  e = (e_m + e_n).astype(dtype)
  coarse = jax.lax.stop_gradient(jnp.round(exponent * 4096) / 4096)
  fine = exponent - coarse
  whole = jnp.floor(coarse * e)
  rest = (coarse * e - whole) + fine * e + exponent * jnp.log2(f_m * f_n)
  return jnp.ldexp(jnp.exp2(rest), jax.lax.stop_gradient(whole).astype(int))
