"""The early-stopped loss by model size and data, after Kaplan et al."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lrsched.laws.scaling import as_points
from lrsched.laws.scaling import least_huber
from lrsched.laws.scaling import positive
from lrsched.laws.scaling import scaling_law


@scaling_law
class Kaplan:
  """Early-stopped loss of a model of N parameters on D tokens.

      L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D

  In nats per token; N is without embeddings. Without an irreducible loss it
  falls to 0 in the limit, so it is not for extrapolation far beyond a fit. The
  scales depend on tokenizer and text. float32, and float64 under x64.

  Attributes:
    N_c: scale of the parameters.
    alpha_N: exponent of the parameters.
    D_c: scale of the tokens.
    alpha_D: exponent of the tokens.

  Raises:
    ValueError: if a parameter is not finite and > 0.

  Source: Kaplan et al. (arXiv:2001.08361), Eq. 1.5.

  Example:
    >>> float(KAPLAN(n_params=1e9, n_tokens=20e9))
    2.374
  """

  N_c: float
  alpha_N: float
  D_c: float
  alpha_D: float

  def __call__(
    self,
    *,
    n_params: Float[jax.typing.ArrayLike, '*shape'],
    n_tokens: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """The loss in nats.

    Args:
      n_params: N, > 0.
      n_tokens: D, > 0.

    Returns:
      The loss, of the shape that the arguments broadcast to.

    Raises:
      ValueError: if an argument is not finite and > 0.
    """
    return jnp.exp(
      self.alpha_D * jnp.logaddexp(*self._terms(n_params, n_tokens))
    )

  def data_gap(
    self,
    *,
    n_params: Float[jax.typing.ArrayLike, '*shape'],
    n_tokens: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """What the want of data costs: `L(N, D) - L(N, inf)`, in nats.

    Exact also where it is far below the loss.

    Args:
      n_params: N, > 0.
      n_tokens: D, > 0.

    Returns:
      The gap, > 0.

    Raises:
      ValueError: if an argument is not finite and > 0.
    """
    model, data = self._terms(n_params, n_tokens)
    ratio = jnp.logaddexp(0.0, data - model)
    return jnp.exp(self.alpha_D * model) * jnp.expm1(self.alpha_D * ratio)

  def _terms(
    self, n_params: jax.typing.ArrayLike, n_tokens: jax.typing.ArrayLike
  ) -> tuple[jax.Array, jax.Array]:
    """Logs of the two terms in the bracket."""
    n, d = positive(n_params=n_params, n_tokens=n_tokens)
    model = self.alpha_N / self.alpha_D * jnp.log(self.N_c / n)
    return model, jnp.log(self.D_c / d)

  @classmethod
  def fit(
    cls,
    *,
    n_params: Float[np.typing.ArrayLike, ' runs'],
    n_tokens: Float[np.typing.ArrayLike, ' runs'],
    losses: Float[np.typing.ArrayLike, ' runs'],
  ) -> Kaplan:
    """The law of the least `huber_sum` over final losses of runs.

    Args:
      n_params: N of each run, without embeddings.
      n_tokens: D of each run.
      losses: least loss of each run on held-out data, in nats.

    Returns:
      The law, with Python floats.

    Raises:
      ValueError: if there are fewer than 4 runs, lengths differ, a number is
        not finite and > 0, or all runs share one N or one D.

    Example:
      >>> n_params = np.repeat([1e7, 1e8, 1e9], 3)
      >>> n_tokens = np.tile([1e8, 1e9, 1e10], 3)
      >>> law = Kaplan.fit(
      ...   n_params=n_params,
      ...   n_tokens=n_tokens,
      ...   losses=KAPLAN(n_params=n_params, n_tokens=n_tokens),
      ... )
      >>> round(law.alpha_N, 3), round(law.alpha_D, 3)
      (0.076, 0.103)
    """
    columns = {'n_params': n_params, 'n_tokens': n_tokens, 'losses': losses}
    n, d, y = as_points(
      columns, at_least=4, must_differ=('n_params', 'n_tokens')
    )
    theta = least_huber(_log_loss, _STARTS, (n, d), np.log(y))
    N_c, alpha_N, D_c, alpha_D = np.exp(theta).tolist()
    return cls(N_c=N_c, alpha_N=alpha_N, D_c=D_c, alpha_D=alpha_D)


def _log_loss(theta: jax.Array, runs: tuple[jax.Array, jax.Array]) -> jax.Array:
  N_c, alpha_N, D_c, alpha_D = jnp.exp(theta)
  law = Kaplan(N_c=N_c, alpha_N=alpha_N, D_c=D_c, alpha_D=alpha_D)
  return jnp.log(law(n_params=runs[0], n_tokens=runs[1]))


_SCALES = [1e8, 1e11, 1e14, 1e17]
_EXPONENTS = [0.03, 0.1, 0.3, 1.0]
_STARTS = np.log(
  list(itertools.product(_SCALES, _EXPONENTS, _SCALES, _EXPONENTS))
)

# Table 2; tokens are of a byte-pair encoding of 50,257.
KAPLAN = Kaplan(N_c=6.4e13, alpha_N=0.076, D_c=1.8e13, alpha_D=0.103)
