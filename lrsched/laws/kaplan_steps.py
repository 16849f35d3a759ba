"""The loss by model size, steps and batch size."""

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

HALVINGS = 60  # of an interval of log losses: below float64's spacing


@scaling_law
class KaplanSteps:
  """Loss of a model of N parameters after S steps of B tokens, data to spare.

      L = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S
      S_min = S / (1 + B_crit(L) / B),   B_crit(L) = B_star / L^(1/alpha_B)

  In nats per token; N is without embeddings, S counts from step 0. `L` is on
  both sides: the right side falls in it, so there is one solution, found by
  bisection. The law knows no LR decay: it is for a constant LR, or for one
  kind of schedule. float32, and float64 under x64.

  Attributes:
    N_c: scale of the parameters.
    alpha_N: exponent of the parameters.
    S_c: scale of the steps.
    alpha_S: exponent of the steps.
    B_star: critical batch size at a loss of 1 nat, in tokens.
    alpha_B: inverse exponent of the critical batch size.

  Raises:
    ValueError: if a parameter is not finite and > 0.

  Source: Kaplan et al. (arXiv:2001.08361), Eq. 5.3, 5.4 and 5.6; the loss at
    any batch size as in Su et al. (arXiv:2403.06563).

  Example:
    >>> run = dict(n_params=1e9, steps=1e5, batch_tokens=2**19)
    >>> float(KAPLAN_STEPS(**run))
    2.546
  """

  N_c: float
  alpha_N: float
  S_c: float
  alpha_S: float
  B_star: float
  alpha_B: float

  def __call__(
    self,
    *,
    n_params: Float[jax.typing.ArrayLike, '*shape'],
    steps: Float[jax.typing.ArrayLike, '*shape'],
    batch_tokens: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """The loss in nats, differentiable in everything.

    Args:
      n_params: N, > 0.
      steps: S, > 0.
      batch_tokens: B, > 0.

    Returns:
      The loss, of the shape that the arguments broadcast to.

    Raises:
      ValueError: if an argument is not finite and > 0.
    """
    n, s, b = positive(
      n_params=n_params, steps=steps, batch_tokens=batch_tokens
    )
    root = jax.lax.stop_gradient(self)._root(*jax.lax.stop_gradient((n, s, b)))
    # One step of Newton's method at the root leaves it in place and gives it
    # its derivative. The slope of the right side, of which the share
    # B_crit/(B + B_crit) moves with L:
    value = self._right_side(root, n, s, b)
    steps_part = value - (self.N_c / n) ** self.alpha_N
    share = 1 / (1 + b / self.critical_batch_tokens(root))
    slope = -self.alpha_S / self.alpha_B * steps_part * share / root
    return root - (root - value) / jax.lax.stop_gradient(1 - slope)

  def _right_side(
    self, loss: jax.Array, n: jax.Array, s: jax.Array, b: jax.Array
  ) -> jax.Array:
    s_min = self.min_steps(steps=s, batch_tokens=b, loss=loss)
    return self.at_min_steps(n_params=n, min_steps=s_min)

  def _root(self, n: jax.Array, s: jax.Array, b: jax.Array) -> jax.Array:
    """The loss to the last digit or two, by bisection of its logarithm."""
    # The right side is at least the model's part, and greatest there.
    least = (self.N_c / n) ** self.alpha_N
    ends = jnp.log(least), jnp.log(self._right_side(least, n, s, b))

    def halve(
      _: int, ends: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
      low, high = ends
      middle = 0.5 * (low + high)
      loss = jnp.exp(middle)
      above = self._right_side(loss, n, s, b) > loss
      return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    return jnp.exp(0.5 * (low + high))

  def at_min_steps(
    self,
    *,
    n_params: Float[jax.typing.ArrayLike, '*shape'],
    min_steps: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """The loss after S_min steps of a batch far above the critical one.

    Args:
      n_params: N, > 0.
      min_steps: S_min, > 0.

    Returns:
      The loss in nats.

    Raises:
      ValueError: if an argument is not finite and > 0.

    Source: Kaplan et al. (arXiv:2001.08361), Eq. 5.6.
    """
    n, s_min = positive(n_params=n_params, min_steps=min_steps)
    return (self.N_c / n) ** self.alpha_N + (self.S_c / s_min) ** self.alpha_S

  def critical_batch_tokens(
    self, loss: Float[jax.typing.ArrayLike, '*shape']
  ) -> Float[jax.Array, '*shape']:
    """B_crit: at it, a run takes twice the least steps and the least tokens.

    Args:
      loss: that the run is to reach, in nats, > 0.

    Returns:
      The batch size in tokens.

    Raises:
      ValueError: if `loss` is not finite and > 0.

    Source: Kaplan et al. (arXiv:2001.08361), Eq. 5.3.

    Example:
      >>> float(KAPLAN_STEPS.critical_batch_tokens(3.0)) / 1e6
      1.12
    """
    (loss,) = positive(loss=loss)
    return self.B_star * loss ** (-1 / self.alpha_B)

  def min_steps(
    self,
    *,
    steps: Float[jax.typing.ArrayLike, '*shape'],
    batch_tokens: Float[jax.typing.ArrayLike, '*shape'],
    loss: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """S_min, the steps to the same loss with a batch far above the critical.

    Args:
      steps: S, > 0.
      batch_tokens: B, > 0.
      loss: that is reached after S steps, in nats, > 0.

    Returns:
      S_min = S / (1 + B_crit(L) / B).

    Raises:
      ValueError: if an argument is not finite and > 0.

    Source: Kaplan et al. (arXiv:2001.08361), Eq. 5.4.
    """
    s, b, loss = positive(steps=steps, batch_tokens=batch_tokens, loss=loss)
    return s / (1 + self.critical_batch_tokens(loss) / b)

  def min_flops(
    self,
    *,
    flops: Float[jax.typing.ArrayLike, '*shape'],
    batch_tokens: Float[jax.typing.ArrayLike, '*shape'],
    loss: Float[jax.typing.ArrayLike, '*shape'],
  ) -> Float[jax.Array, '*shape']:
    """C_min, the compute to the same loss with a batch far below the critical.

    For tokens in the place of compute it gives the least tokens, E_min.

    Args:
      flops: C = 6 N B S, > 0.
      batch_tokens: B, > 0.
      loss: that is reached with C, in nats, > 0.

    Returns:
      C_min = C / (1 + B / B_crit(L)).

    Raises:
      ValueError: if an argument is not finite and > 0.

    Source: Kaplan et al. (arXiv:2001.08361), Eq. 5.5.
    """
    c, b, loss = positive(flops=flops, batch_tokens=batch_tokens, loss=loss)
    return c / (1 + b / self.critical_batch_tokens(loss))

  def early_stop_steps(
    self, data_gap: Float[jax.typing.ArrayLike, '*shape']
  ) -> Float[jax.Array, '*shape']:
    """The least S_min after which a run on too little data can be at its best.

    Before it, what there is to learn still is more than what overfitting costs.

    Args:
      data_gap: `Kaplan.data_gap` of the run, in nats, > 0.

    Returns:
      S_c / data_gap^(1/alpha_S), a lower bound.

    Raises:
      ValueError: if `data_gap` is not finite and > 0.

    Source: Kaplan et al. (arXiv:2001.08361), Eq. 5.7.

    Example:
      >>> from lrsched.laws.kaplan import KAPLAN
      >>> gap = KAPLAN.data_gap(n_params=1e9, n_tokens=20e9)
      >>> round(float(KAPLAN_STEPS.early_stop_steps(gap)), -2)
      95300.0
    """
    (gap,) = positive(data_gap=data_gap)
    return self.S_c * gap ** (-1 / self.alpha_S)

  @classmethod
  def fit(
    cls,
    *,
    n_params: Float[np.typing.ArrayLike, ' points'],
    steps: Float[np.typing.ArrayLike, ' points'],
    batch_tokens: Float[np.typing.ArrayLike, ' points'],
    losses: Float[np.typing.ArrayLike, ' points'],
  ) -> KaplanSteps:
    """The law of the least `huber_sum` over points of loss curves.

    Give points after the warmup only, of runs with a constant LR.

    Args:
      n_params: N of each point, without embeddings.
      steps: S of each point.
      batch_tokens: B of each point.
      losses: loss at each point, in nats.

    Returns:
      The law, with Python floats.

    Raises:
      ValueError: if there are fewer than 6 points, lengths differ, a number is
        not finite and > 0, or all points share one N, S or B.
    """
    columns = {
      'n_params': n_params,
      'steps': steps,
      'batch_tokens': batch_tokens,
      'losses': losses,
    }
    *runs, y = as_points(
      columns,
      at_least=6,
      must_differ=('n_params', 'steps', 'batch_tokens'),
    )
    theta = least_huber(_log_loss, _STARTS, runs, np.log(y))
    return cls(**dict(zip(_NAMES, np.exp(theta).tolist(), strict=True)))


def _log_loss(theta: jax.Array, runs: list[jax.Array]) -> jax.Array:
  law = KaplanSteps(**dict(zip(_NAMES, jnp.exp(theta), strict=True)))
  n, s, b = runs
  return jnp.log(law(n_params=n, steps=s, batch_tokens=b))


_NAMES = ('N_c', 'alpha_N', 'S_c', 'alpha_S', 'B_star', 'alpha_B')
_STARTS = np.log(
  list(
    itertools.product(
      *([1e8, 1e11, 1e14, 1e17], [0.03, 0.1, 0.3, 1.0]),
      *([1e2, 1e3, 1e4], [0.3, 0.8]),
      *([1e7, 1e8, 1e9], [0.1, 0.3]),
    )
  )
)
# Table 3; tokens as in `KAPLAN`.
KAPLAN_STEPS = KaplanSteps(
  N_c=6.5e13, alpha_N=0.077, S_c=2.1e3, alpha_S=0.76, B_star=2.1e8, alpha_B=0.21
)
