"""The loss by model size and data, and the best split of a compute budget."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lrsched.laws.scaling import as_points
from lrsched.laws.scaling import least_huber
from lrsched.laws.scaling import positive
from lrsched.laws.scaling import scaling_law


class Allocation(NamedTuple):
  """How a compute budget is best spent.

  Attributes:
    n_params: model size N.
    n_tokens: training tokens D, with `6 N D` the budget.
    loss: the loss that the law predicts, in nats.
  """

  n_params: jax.Array
  n_tokens: jax.Array
  loss: jax.Array


@scaling_law
class Chinchilla:
  """Loss of a model of N parameters after one pass over D tokens.

      L(N, D) = E + A N^-alpha + B D^-beta

  In nats per token. A fit holds for one architecture, tokenizer and text, and
  for runs whose LR has decayed at D. float32, and float64 under x64. `HOFFMANN`
  and `BESIROGLU` are two published fits to the same runs.

  Attributes:
    E: loss of an endless model on endless data.
    A: weight of the model's term.
    alpha: exponent of the model's term.
    B: weight of the data's term.
    beta: exponent of the data's term.

  Raises:
    ValueError: if a parameter is not finite and > 0.

  Source: Hoffmann et al. (arXiv:2203.15556), Eq. 2.

  Example:
    >>> law = Chinchilla(
    ...   E=1.8172, A=477.83, alpha=0.34731, B=2143.4, beta=0.36717
    ... )
    >>> float(law(n_params=70e9, n_tokens=1.4e12))
    1.9733
  """

  E: float
  A: float
  alpha: float
  B: float
  beta: float

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
    n, d = positive(n_params=n_params, n_tokens=n_tokens)
    model = self.A * jnp.exp(-self.alpha * jnp.log(n))
    data = self.B * jnp.exp(-self.beta * jnp.log(d))
    return self.E + model + data

  def compute_optimal(
    self, flops: Float[jax.typing.ArrayLike, '*shape']
  ) -> Allocation:
    """The N and D of the least loss under `flops = 6 N D`.

        N = G (C/6)^(beta/(alpha+beta)),  D = (C/6) / N,
        G = (alpha A / (beta B))^(1/(alpha+beta))

    Args:
      flops: C, > 0.

    Returns:
      N, D and their loss.

    Raises:
      ValueError: if `flops` is not finite and > 0.

    Source: Hoffmann et al. (arXiv:2203.15556), Eq. 4.

    Example:
      >>> best = BESIROGLU.compute_optimal(5.76e23)
      >>> float(best.n_tokens / best.n_params)
      17.9
    """
    (c,) = positive(flops=flops)
    log_product = jnp.log(c) - np.log(6.0)
    share = self.beta / (self.alpha + self.beta)
    log_n = self._log_g() + share * log_product
    n_params, n_tokens = jnp.exp(log_n), jnp.exp(log_product - log_n)
    loss = self(n_params=n_params, n_tokens=n_tokens)
    return Allocation(n_params, n_tokens, loss)

  def optimal_params(
    self, n_tokens: Float[jax.typing.ArrayLike, '*shape']
  ) -> Float[jax.Array, '*shape']:
    """The N that goes with D tokens in `compute_optimal`.

        N = G (G D)^(beta/alpha)

    Args:
      n_tokens: D, > 0.

    Returns:
      N.

    Raises:
      ValueError: if `n_tokens` is not finite and > 0.

    Example:
      >>> float(BESIROGLU.optimal_params(1.3117e12)) / 1e9
      73.2
    """
    (d,) = positive(n_tokens=n_tokens)
    log_g = self._log_g()
    return jnp.exp(log_g + self.beta / self.alpha * (log_g + jnp.log(d)))

  def _log_g(self) -> jax.Array:
    ratio = self.alpha * self.A / (self.beta * self.B)
    return jnp.log(ratio) / (self.alpha + self.beta)

  @classmethod
  def fit(
    cls,
    *,
    n_params: Float[np.typing.ArrayLike, ' runs'],
    n_tokens: Float[np.typing.ArrayLike, ' runs'],
    losses: Float[np.typing.ArrayLike, ' runs'],
  ) -> Chinchilla:
    """The law of the least `huber_sum` over final losses of runs.

    The sum is over log losses, the law's as a log-sum-exp, by L-BFGS from the
    lowest of 4,500 starts. float64 throughout. An outlier in a hundred can move
    `beta` by a fifth: look at the residuals, and at `bootstrap`.

    Args:
      n_params: N of each run.
      n_tokens: D of each run.
      losses: final loss of each run, in nats.

    Returns:
      The law, with Python floats.

    Raises:
      ValueError: if there are fewer than 5 runs, or lengths differ, a number is
        not finite and > 0, all runs share one N or one D, or the best
        exponents are not positive.

    Source: Hoffmann et al. (arXiv:2203.15556), Eq. 3; Besiroglu et al.
      (arXiv:2404.10102) for the sum and the number of starts.

    Example:
      >>> n_params = np.repeat([1e8, 1e9, 1e10], 3)
      >>> n_tokens = np.tile([1e9, 1e10, 1e11], 3)
      >>> losses = BESIROGLU(n_params=n_params, n_tokens=n_tokens)
      >>> law = Chinchilla.fit(
      ...   n_params=n_params, n_tokens=n_tokens, losses=losses
      ... )
      >>> round(law.alpha, 3), round(law.beta, 3)
      (0.347, 0.367)
    """
    logs, log_losses = _logs(n_params, n_tokens, losses)
    return cls._of(least_huber(_log_loss, _starts(), logs, log_losses))

  def bootstrap(
    self,
    *,
    n_params: Float[np.typing.ArrayLike, ' runs'],
    n_tokens: Float[np.typing.ArrayLike, ' runs'],
    losses: Float[np.typing.ArrayLike, ' runs'],
    resamples: int = 4000,
    seed: int = 0,
  ) -> tuple[Chinchilla, ...]:
    """Fits to the runs drawn anew with replacement, each from this law.

    Quantiles over them are intervals of a parameter, or of anything that is
    computed from a law.

    Args:
      n_params: N of each run.
      n_tokens: D of each run.
      losses: final loss of each run, in nats.
      resamples: how many draws.
      seed: of the draws.

    Returns:
      One law for each draw.

    Raises:
      ValueError: as `fit`, for any draw, or if `resamples < 1`.
    """
    if resamples < 1:
      raise ValueError(f'resamples must be >= 1, got {resamples}')
    logs, log_losses = _logs(n_params, n_tokens, losses)
    start = np.array(
      [np.log(self.A), np.log(self.B), np.log(self.E), self.alpha, self.beta]
    )
    rng = np.random.default_rng(seed)
    laws = []
    for _ in range(resamples):
      drawn = rng.integers(len(log_losses), size=len(log_losses))
      sample = tuple(x[drawn] for x in logs)
      theta = least_huber(_log_loss, start[None], sample, log_losses[drawn])
      laws.append(self._of(theta))
    return tuple(laws)

  @classmethod
  def _of(cls, theta: np.ndarray) -> Chinchilla:
    a, b, e, alpha, beta = map(float, theta)
    if not min(alpha, beta) > 0:
      raise ValueError(
        f'the best fit has alpha={alpha:.3g}, beta={beta:.3g}, which must be '
        '> 0: give runs over a wider range of n_params and n_tokens'
      )
    A, B, E = np.exp([a, b, e]).tolist()
    return cls(E=E, A=A, alpha=alpha, B=B, beta=beta)


def _log_loss(theta: jax.Array, inputs: tuple[jax.Array, ...]) -> jax.Array:
  a, b, e, alpha, beta = theta
  log_n, log_d = inputs
  terms = jnp.broadcast_arrays(a - alpha * log_n, b - beta * log_d, e)
  return jax.nn.logsumexp(jnp.stack(terms), axis=0)


def _starts() -> np.ndarray:
  """The grid of Besiroglu et al.: a, b, e, alpha, beta."""
  weights = np.arange(0.0, 30.0, 5.0)
  exponents = np.arange(0.0, 2.5, 0.5)
  offsets = np.arange(-1.0, 1.5, 0.5)
  grid = itertools.product(weights, weights, offsets, exponents, exponents)
  return np.array(list(grid))


def _logs(
  n_params: np.typing.ArrayLike,
  n_tokens: np.typing.ArrayLike,
  losses: np.typing.ArrayLike,
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
  columns = {'n_params': n_params, 'n_tokens': n_tokens, 'losses': losses}
  n, d, y = as_points(columns, at_least=5, must_differ=('n_params', 'n_tokens'))
  return (np.log(n), np.log(d)), np.log(y)


# As printed; the paper fitted more digits, and its fit stopped early.
HOFFMANN = Chinchilla(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
# Besiroglu et al. (arXiv:2404.10102): the 240 runs that could be read off.
BESIROGLU = Chinchilla(
  E=1.8172, A=477.83, alpha=0.34731, B=2143.4, beta=0.36717
)
