"""What the laws of size and data share: their class and how they are fitted."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Float

from lrsched.base import Number

T = TypeVar('T')
LogLoss = Callable[[jax.Array, Any], jax.Array]

DELTA = 1e-3  # Huber's, in log losses
# Starts that are descended from, the lowest of those tried: descending from the
# 1,500 lowest of Chinchilla's 4,500 found nothing lower.
DESCENTS = 8
POSITIVE = Number(whole=False, low=0.0, low_open=True)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def scaling_law(cls: type[T]) -> type[T]:
  """Makes a class of positive parameters frozen, checked, and a pytree.

  Args:
    cls: a class whose fields are annotated `float`, or another law.

  Returns:
    The class, as a dataclass registered with jax. A law can be differentiated
    in its parameters, or hold arrays of them under `jax.vmap`.
  """

  def __post_init__(self: object) -> None:
    for name, kind in kinds.items():
      value = getattr(self, name)
      if kind is float:
        check_positive(f'{cls.__name__}.{name}', value)
      elif not isinstance(value, kind):
        raise ValueError(
          f'{cls.__name__}.{name} must be a {kind.__name__}, got {value!r}'
        )

  cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
  cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
  kinds = typing.get_type_hints(cls)

  def flatten(self: object) -> tuple[tuple[object, ...], None]:
    return tuple(getattr(self, name) for name in kinds), None

  def unflatten(_: None, children: tuple[object, ...]) -> T:
    # Not through __init__: a gradient is no law, and may be negative.
    self = object.__new__(cls)
    for name, child in zip(kinds, children, strict=True):
      object.__setattr__(self, name, child)
    return self

  jax.tree_util.register_pytree_node(cls, flatten, unflatten)
  return cls


def huber_sum(
  predictions: Float[np.typing.ArrayLike, ' n'],
  losses: Float[np.typing.ArrayLike, ' n'],
) -> float:
  """What the scaling laws are fitted by: Huber's loss of log losses, summed.

      sum h(log prediction - log loss),
      h(r) = r^2/2 if |r| <= d else d (|r| - d/2),  d = 0.001

  A sum and not a mean: a mean is so small that an optimizer's usual tolerances
  stop it early.

  Args:
    predictions: in nats.
    losses: in nats.

  Returns:
    The sum, in float64.

  Raises:
    ValueError: if lengths differ or a number is not finite and > 0.

  Example:
    >>> huber_sum([2.0, 2.0], [2.0, 2.02])
    9.45e-06
  """
  p, y = as_points({'predictions': predictions, 'losses': losses})
  r = np.abs(np.log(p) - np.log(y))
  return float(np.sum(np.where(r <= DELTA, r**2 / 2, DELTA * (r - DELTA / 2))))


def least_huber(
  log_loss: LogLoss,
  starts: Float[np.ndarray, 'starts parameters'],
  inputs: Any,
  log_losses: Float[np.ndarray, ' n'],
) -> Float[np.ndarray, ' parameters']:
  """The parameters of the least summed Huber loss, in float64.

  Args:
    log_loss: a module's function of parameters and inputs to [n] log losses.
    starts: parameters to start from; the lowest of them are descended from.
    inputs: what `log_loss` takes, a pytree of numbers and arrays.
    log_losses: what was measured.

  Returns:
    The best parameters found.
  """
  with jax.enable_x64(True):
    data = jax.tree.map(jnp.asarray, (inputs, log_losses))
    at_starts = np.asarray(_objectives(log_loss, jnp.asarray(starts), *data))

    def value_and_grad(theta: np.ndarray) -> tuple[float, np.ndarray]:
      value, grad = _value_and_grad(log_loss, theta, *data)
      return float(value), np.asarray(grad)

    ends = [
      scipy.optimize.minimize(
        value_and_grad,
        starts[i],
        jac=True,
        method='L-BFGS-B',
        options={'maxiter': 1000, 'maxfun': 2000, 'ftol': 1e-13, 'gtol': 1e-6},
      )
      for i in np.argsort(at_starts, kind='stable')[:DESCENTS]
    ]
  return min(ends, key=lambda end: end.fun).x


def _objective(
  log_loss: LogLoss,
  theta: jax.Array,
  inputs: Any,
  log_losses: jax.Array,
) -> jax.Array:
  """The sum in units of d^2, so that tolerances mean something."""
  r = jnp.abs(log_loss(theta, inputs) - log_losses) / DELTA
  return jnp.sum(jnp.where(r <= 1, r**2 / 2, r - 0.5))


_value_and_grad = jax.jit(
  jax.value_and_grad(_objective, argnums=1), static_argnums=0
)


@functools.partial(jax.jit, static_argnums=0)
def _objectives(
  log_loss: LogLoss,
  thetas: jax.Array,
  inputs: Any,
  log_losses: jax.Array,
) -> jax.Array:
  of_one = lambda theta: _objective(log_loss, theta, inputs, log_losses)
  return jax.lax.map(of_one, thetas, batch_size=64)


def check_positive(name: str, value: Any) -> None:
  """Raises ValueError unless the value is finite and > 0."""
  if not POSITIVE.accepts(value):
    raise ValueError(f'{name} must be {POSITIVE.rule()}, got {value!r}')


def positive(**values: jax.typing.ArrayLike) -> list[jax.Array]:
  """Values as real arrays of one shape, or ValueError unless finite and > 0."""
  for name, value in values.items():
    check_positive(name, value)
  # Made one shape here, so that ranks that differ are no error under
  # jax_numpy_rank_promotion.
  return jnp.broadcast_arrays(*map(POSITIVE.array, values.values()))


def as_points(
  columns: Mapping[str, np.typing.ArrayLike],
  *,
  at_least: int = 1,
  must_differ: tuple[str, ...] = (),
) -> list[np.ndarray]:
  """Columns as float64, of one length and positive, or ValueError.

  Args:
    columns: name -> numbers, one for each run.
    at_least: how many runs there must be.
    must_differ: columns that may not hold one number throughout.

  Returns:
    The columns in order.
  """
  arrays = {}
  for name, column in columns.items():
    array = np.asarray(column, np.float64)
    if array.ndim != 1 or len(array) < at_least:
      raise ValueError(
        f'{name} must be a list of at least {at_least}, got shape {array.shape}'
      )
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if len(bad):
      raise ValueError(
        f'{name}[{bad[0]}] must be finite and > 0, got {array[bad[0]]}'
      )
    if name in must_differ and np.ptp(array) == 0:
      raise ValueError(
        f'{name} must differ between runs, got {array[0]:g} in all of them'
      )
    arrays[name] = array
  lengths = {name: len(array) for name, array in arrays.items()}
  if len(set(lengths.values())) > 1:
    told = ', '.join(f'{name}: {n}' for name, n in lengths.items())
    raise ValueError(f'lengths must be equal, got {told}')
  return list(arrays.values())
