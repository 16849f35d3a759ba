"""What a law of the learning-rate schedule is."""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.laws.path import Path
from lrsched.laws.path import Warmup
from lrsched.laws.path import path_of

# Points x changes evaluated at once by `predict`: 64 MB of float64.
BLOCK = 8_000_000


class Parameter(NamedTuple):
  """One parameter of a law, and where a fit may look for it.

  Attributes:
    name: as in the paper.
    low: least value of a fit.
    high: greatest value of a fit.
    is_log: whether it is fitted by its logarithm: it is positive, and its size
      is not known beforehand.
  """

  name: str
  low: float
  high: float
  is_log: bool = False


class Law(abc.ABC):
  """A formula for the loss at every step of any LR curve.

  A law is a frozen dataclass without parameters of its own; the parameters are
  an argument, by name. LRs are in the unit of `reference_lr` where the law says
  that it wants one, raw otherwise.
  """

  parameters: ClassVar[tuple[Parameter, ...]]
  relative: ClassVar[bool] = False  # LRs in units of the peak
  sized: ClassVar[bool] = False  # asks for the size of the model

  @abc.abstractmethod
  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    """[E] losses at the points of a path, in the dtype of its arrays.

    Pure and differentiable in `params`.
    """

  @abc.abstractmethod
  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    """Parameters to start fits from, for curves of this size.

    Args:
      lowest_loss: of all curves, in nats.
      lr_sum: sum of the LRs of the longest curve, in the law's unit.
      peak_lr: of the curves, in the law's unit.
    """

  def predict(
    self,
    params: Mapping[str, float],
    lrs: np.ndarray,
    at_steps: np.ndarray,
    *,
    warmup_steps: int = 0,
    warmup: Warmup = 'true_sum',
    peak_lr: float | None = None,
    n_params: float | None = None,
  ) -> np.ndarray:
    """Losses under any LR curve, with every change of the LR counted.

    Time and memory are linear in points x changes; in float64.

    Args:
      params: every parameter of the law, by name.
      lrs: [T] LR of every update.
      at_steps: [E] updates after which the loss is asked for, rising.
      warmup_steps: updates of the warmup.
      warmup: the convention that `params` are for; see `lrsched.laws.path`.
      peak_lr: what LRs are relative to, for laws that want it: that of the
        curves `params` were fitted to.
      n_params: size of the model, for laws that ask for it.

    Returns:
      [E] float64, in nats.

    Raises:
      ValueError: if a parameter is missing or unknown, or an argument out of
        range.
    """
    self.check(params)
    if self.relative and peak_lr is None:
      raise ValueError(
        f'peak_lr must be given to {type(self).__name__}: its parameters are '
        'for LRs relative to the peak of the curves they were fitted to'
      )
    path = path_of(
      lrs,
      at_steps,
      warmup_steps=warmup_steps,
      warmup=warmup,
      reference_lr=self.unit(float(peak_lr or 1.0)),
      n_params=self.size_of(n_params),
    )
    values = {name: float(params[name]) for name in self.names()}
    with jax.enable_x64(True):
      n = max(1, BLOCK // max(1, len(path.before)))
      parts = [
        np.asarray(_at(self, values, _points(path, i, i + n)))
        for i in range(0, len(path.steps), n)
      ]
    return np.concatenate(parts) if parts else np.zeros(0)

  def power(self, params: Mapping[str, jax.Array]) -> jax.typing.ArrayLike:
    """The power of the LR whose changes the law counts."""
    del params
    return 1.0

  @classmethod
  def unit(cls, peak_lr: float) -> float:
    """What the law's LRs are divided by, for curves of this peak."""
    return peak_lr if cls.relative else 1.0

  @classmethod
  def size_of(cls, n_params: float | None) -> float:
    """The size of a model as the law takes it; 1 if it takes none.

    Raises:
      ValueError: if the law asks for a size and there is none.
    """
    if cls.sized and n_params is None:
      raise ValueError(
        f'n_params must be given to {cls.__name__}, and be that of every curve'
      )
    return float(n_params) if cls.sized and n_params is not None else 1.0

  @classmethod
  def names(cls) -> tuple[str, ...]:
    """Names of the parameters, in order."""
    return tuple(p.name for p in cls.parameters)

  def check(self, params: Mapping[str, float]) -> None:
    """Raises ValueError unless `params` are all of the law's and finite."""
    name, known = type(self).__name__, self.names()
    if set(params) != set(known):
      raise ValueError(
        f'{name}: params must be {", ".join(known)}, got '
        f'{", ".join(map(str, params)) or "none"}'
      )
    for key, value in params.items():
      if not np.isfinite(value):
        raise ValueError(f'{name}: {key} must be finite, got {value}')


def _points(path: Path, begin: int, end: int) -> Path:
  return path._replace(
    steps=path.steps[begin:end],
    lr_sums=path.lr_sums[begin:end],
    lrs=path.lrs[begin:end],
  )


@functools.partial(jax.jit, static_argnums=0)
def _at(law: Law, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
  return law.at(params, path)


def counted(path: Path) -> jax.Array:
  """[E, K] whether a change has happened at a point."""
  return jnp.asarray(path.steps[:, None] >= path.last_steps[None, :])


def ages(path: Path) -> tuple[jax.Array, jax.Array]:
  """[E, K] LR sums since a stretch's last and first update; 1 where not yet.

  The sum includes the update with the changed LR and the point's own.
  """
  on = counted(path)
  since = lambda sums: jnp.where(
    on, jnp.maximum(path.lr_sums[:, None] - sums[None, :], 0.0), 1.0
  )
  return since(path.last_sums), since(path.first_sums)


def saturation(
  young: jax.Array, old: jax.Array, rate: jax.Array, beta: jax.Array
) -> jax.Array:
  """Mean of `1 - (1 + rate x)^-beta` over ages `x` from `young` to `old`.

  Exact for a stretch whose LR changes evenly in `x`, with `old = young` the
  value itself. Accurate where `old - young` is small, and at `beta = 1`.
  """
  u, v = jnp.log1p(rate * young), jnp.log1p(rate * old)
  # The mean of (1+rx)^-beta over x is, with s = log(1 + r x) and p = 1 - beta,
  # e^(p u) (e^(p (v-u)) - 1) / p / (e^u (e^(v-u) - 1)).
  p, width = 1 - beta, v - u
  wide = width > 1e-6
  safe = jnp.where(wide, width, 1.0)
  mean = jnp.exp(-beta * u) * _expm1_over(p, safe) / jnp.expm1(safe)
  return 1 - jnp.where(wide, mean, jnp.exp(-beta * 0.5 * (u + v)))


def _expm1_over(p: jax.Array, x: jax.Array) -> jax.Array:
  """`(e^(p x) - 1) / p`, which is `x` at `p = 0`."""
  small = jnp.abs(p * x) < 1e-8
  q = jnp.where(small, 1.0, p)
  return jnp.where(small, x * (1 + 0.5 * p * x), jnp.expm1(q * x) / q)
