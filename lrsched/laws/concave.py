"""A law with a concave power of the LR: what `auto` fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from lrsched.laws.law import Law
from lrsched.laws.law import Parameter
from lrsched.laws.law import ages
from lrsched.laws.law import counted
from lrsched.laws.law import saturation
from lrsched.laws.path import Path

SUM_UNIT = 1e4  # updates at the peak


@dataclasses.dataclass(frozen=True)
class Concave(Law):
  """A generalised kernel: a concave power of the LR, a mixed source.

      L(t) = L0 + A tau^-a - K sum_k (e_{k-1}^q - e_k^q) source_k G_k(t)
      source_k = w + (1 - w) tau_k^-a
      G_k(t) = 1 - (1 + C e_k^-g (tau_t - tau_k))^-b

  with `e` the LR over the peak of the fitted curves and `tau` the sum of `e`
  over 10^4 updates. With `w = q = 1` it is `MultiPower`, with `g = 0, q = 1`
  `Functional`, in other units. `L0, A, a, K` belong to a model and its data;
  the kernel `w, C, b, g, q` is much the same for all that it was fitted to.
  """

  parameters = (
    Parameter('L0', 0.0, 20.0),
    Parameter('A', 1e-3, 1e2, is_log=True),
    Parameter('a', 0.05, 2.0),
    Parameter('K', 1e-3, 1e1, is_log=True),
    Parameter('w', 0.0, 1.0),
    Parameter('C', 1.0, 1e6, is_log=True),
    Parameter('b', 0.02, 1.5),
    Parameter('g', 0.0, 1.5),
    Parameter('q', 0.2, 1.5),
  )
  relative = True

  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    del peak_lr  # it is the unit
    return [
      {
        'L0': max(lowest_loss - to_gain, 0.1),
        'A': 0.7 * to_gain * (lr_sum / SUM_UNIT) ** 0.45,
        'a': 0.45,
        'K': 0.22,
        'w': 0.75,
        'C': 1000.0,
        'b': 0.4,
        'g': 0.0,
        'q': 0.7,
      }
      for to_gain in (0.3, 0.8)
    ]

  def power(self, params: Mapping[str, jax.Array]) -> jax.typing.ArrayLike:
    return params['q']

  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    tau = jnp.maximum((path.origin + path.lr_sums) / SUM_UNIT, 1e-9)
    middle = path.origin + 0.5 * (path.first_sums + path.last_sums)
    tau_k = jnp.maximum(middle / SUM_UNIT, 1e-9)
    e_k = jnp.maximum(path.during, 1e-9)
    rate = params['C'] / SUM_UNIT * e_k ** -params['g']
    gained = saturation(*ages(path), rate[None], params['b'])
    source = params['w'] + (1 - params['w']) * tau_k ** -params['a']
    drop = _power(path.before, params['q']) - _power(path.after, params['q'])
    drops = jnp.where(counted(path), gained, 0) @ (drop * source)
    stable = params['L0'] + params['A'] * tau ** -params['a']
    return stable - params['K'] * drops


def _power(x: jax.typing.ArrayLike, q: jax.Array) -> jax.Array:
  """`x^q`, with a finite derivative in `q` at 0."""
  x = jnp.asarray(x)
  positive = x > 0
  return jnp.where(positive, jnp.where(positive, x, 1.0) ** q, 0.0)
