"""The loss where tokens are seen more than once."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lrsched.laws.chinchilla import Chinchilla
from lrsched.laws.scaling import as_points
from lrsched.laws.scaling import least_huber
from lrsched.laws.scaling import positive
from lrsched.laws.scaling import scaling_law


@scaling_law
class DataConstrained:
  """Chinchilla's law of effective parameters and tokens.

      L(N, D, U) = base(N', D'),   D' = U (1 + R*_D (1 - exp(-R_D / R*_D)))
                                   N' = V (1 + R*_N (1 - exp(-R_N / R*_N)))
      R_D = max(D/U - 1, 0)   V = min(N, N_opt(U))   R_N = N/V - 1

  In nats per token, for D tokens of which U are unique. A repetition adds the
  less the more there were: R_D epochs after the first are worth
  `R*_D (1 - exp(-R_D / R*_D))` fresh ones, so the first few nearly their number
  and all of them no more than R*_D. Likewise for parameters beyond the number
  that is compute-optimal for U tokens. More repetition never raises the loss
  of this law, whereas real runs overfit.

  Attributes:
    base: the law without repetition.
    R_D_star: scale of the decay for tokens, in epochs after the first.
    R_N_star: scale of the decay for parameters, in multiples of V.

  Raises:
    ValueError: if `base` is no `Chinchilla`, or a number not finite and > 0.

  Source: Muennighoff et al. (arXiv:2305.16264).

  Example:
    >>> tokens = dict(n_tokens=100e9, unique_tokens=25e9)
    >>> round(float(MUENNIGHOFF.effective_tokens(**tokens)) / 1e9, 1)
    93.1
    >>> round(float(MUENNIGHOFF(n_params=2.8e9, **tokens)), 3)
    2.318
  """

  base: Chinchilla
  R_D_star: float
  R_N_star: float

  def __call__(
    self,
    *,
    n_params: Float[jax.typing.ArrayLike, '*shape'],
    n_tokens: Float[jax.typing.ArrayLike, '*shape'],
    unique_tokens: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """The loss in nats.

    Args:
      n_params: N, > 0.
      n_tokens: D, > 0, every repetition counted.
      unique_tokens: U, > 0; where it is above D, D is what counts.

    Returns:
      The loss, of the shape that the arguments broadcast to.

    Raises:
      ValueError: if an argument is not finite and > 0.
    """
    n, d, u = positive(
      n_params=n_params, n_tokens=n_tokens, unique_tokens=unique_tokens
    )
    u = jnp.minimum(u, d)
    return self.base(
      n_params=self.effective_params(n_params=n, unique_tokens=u),
      n_tokens=self.effective_tokens(n_tokens=d, unique_tokens=u),
    )

  def effective_tokens(
    self,
    *,
    n_tokens: Float[jax.typing.ArrayLike, '*shape'],
    unique_tokens: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """D', the fresh tokens that D tokens of U unique ones are worth.

    Args:
      n_tokens: D, > 0.
      unique_tokens: U, > 0; where it is above D, D is what counts.

    Returns:
      D', between U and D.

    Raises:
      ValueError: if an argument is not finite and > 0.
    """
    d, u = positive(n_tokens=n_tokens, unique_tokens=unique_tokens)
    return _worth(d, jnp.minimum(u, d), self.R_D_star)

  def effective_params(
    self,
    *,
    n_params: Float[jax.typing.ArrayLike, '*shape'],
    unique_tokens: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """N', the parameters that N are worth with U unique tokens.

    Args:
      n_params: N, > 0.
      unique_tokens: U, > 0, and not above the tokens seen.

    Returns:
      N', at most N.

    Raises:
      ValueError: if an argument is not finite and > 0.
    """
    n, u = positive(n_params=n_params, unique_tokens=unique_tokens)
    v = jnp.minimum(n, self.base.optimal_params(u))
    return _worth(n, v, self.R_N_star)

  @classmethod
  def fit(
    cls,
    *,
    base: Chinchilla,
    n_params: Float[np.typing.ArrayLike, ' runs'],
    n_tokens: Float[np.typing.ArrayLike, ' runs'],
    unique_tokens: Float[np.typing.ArrayLike, ' runs'],
    losses: Float[np.typing.ArrayLike, ' runs'],
  ) -> DataConstrained:
    """R*_D and R*_N of the least `huber_sum`, for a base that is known.

    Fit the base with `Chinchilla.fit` to runs without repetition first. float64
    throughout.

    Args:
      base: the law without repetition.
      n_params: N of each run.
      n_tokens: D of each run.
      unique_tokens: U of each run.
      losses: final loss of each run, in nats.

    Returns:
      The law, with Python floats.

    Raises:
      ValueError: if lengths differ, a number is not finite and > 0, no run
        repeats tokens, or none has more parameters than are optimal for its
        unique tokens.

    Source: Muennighoff et al. (arXiv:2305.16264), for the two stages.

    Example:
      >>> runs = dict(
      ...   n_params=[1e9, 1e9, 8e9, 8e9],
      ...   n_tokens=[8e9, 80e9, 80e9, 300e9],
      ...   unique_tokens=[4e9, 4e9, 4e9, 40e9],
      ... )
      >>> runs = {k: np.array(v) for k, v in runs.items()}
      >>> law = DataConstrained.fit(
      ...   base=MUENNIGHOFF.base, losses=MUENNIGHOFF(**runs), **runs
      ... )
      >>> round(law.R_D_star, 1), round(law.R_N_star, 1)
      (15.4, 5.3)
    """
    columns = {
      'n_params': n_params,
      'n_tokens': n_tokens,
      'unique_tokens': unique_tokens,
      'losses': losses,
    }
    n, d, u, y = as_points(columns, at_least=2)
    u = np.minimum(u, d)
    with jax.enable_x64(True):
      optimal = np.asarray(base.optimal_params(u))
    if not np.any(d > u):
      raise ValueError(
        'some run must have n_tokens > unique_tokens, to tell R_D_star by'
      )
    if not np.any(n > optimal):
      raise ValueError(
        'some run must have n_params above base.optimal_params(unique_tokens), '
        'to tell R_N_star by'
      )
    theta = least_huber(_log_loss, _STARTS, (base, n, d, u), np.log(y))
    r_d, r_n = np.exp(theta).tolist()
    return cls(base=base, R_D_star=r_d, R_N_star=r_n)


def _worth(x: jax.Array, unit: jax.Array, star: jax.Array | float) -> jax.Array:
  """What `x` is worth, counted in `unit` <= x."""
  return unit * (1 + star * -jnp.expm1(-(x / unit - 1) / star))


def _log_loss(
  theta: jax.Array,
  runs: tuple[Chinchilla, jax.Array, jax.Array, jax.Array],
) -> jax.Array:
  base, n, d, u = runs
  r_d, r_n = jnp.exp(theta)
  law = DataConstrained(base=base, R_D_star=r_d, R_N_star=r_n)
  return jnp.log(law(n_params=n, n_tokens=d, unique_tokens=u))


_STARTS = np.log(list(itertools.product([1.0, 4.0, 16.0, 64.0], repeat=2)))

# The base was fitted with one exponent for both terms.
MUENNIGHOFF = DataConstrained(
  base=Chinchilla(
    E=math.exp(0.6254804),
    A=math.exp(6.255414),
    alpha=0.3526596,
    B=math.exp(7.3049974),
    beta=0.3526596,
  ),
  R_D_star=15.387756,
  R_N_star=5.309743,
)
