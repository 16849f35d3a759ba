"""Laws of published papers: Annealing, MultiPower, Functional, LossDrop.

In all of them `S(t)` is the sum of the LRs up to update `t`, and the loss is a
power of it less what the decays so far have gained:

    L(t) = L0 + A S(t)^-alpha - drop(t)

They differ in the drop, a sum over the changes of the LR.
"""

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

L0 = Parameter('L0', 0.0, 20.0)
A = Parameter('A', 1e-4, 1e3, is_log=True)
ALPHA = Parameter('alpha', 0.02, 3.0)


def power_of_sum(params: Mapping[str, jax.Array], path: Path) -> jax.Array:
  """`L0 + A S^-alpha`: the loss without any decay."""
  sums = jnp.maximum(path.origin + path.lr_sums, 1e-12)
  return params['L0'] + params['A'] * sums ** -params['alpha']


def stable_starts(lowest_loss: float, lr_sum: float) -> list[dict[str, float]]:
  """Two guesses of `L0 + A S^-alpha`: much still to be gained, and little."""
  return [
    {
      'L0': max(lowest_loss - to_gain, 0.1),
      'A': 0.7 * to_gain * lr_sum**0.5,
      'alpha': 0.5,
    }
    for to_gain in (0.3, 0.8)
  ]


# What a decay to 0 is taken to gain, in nats, where a fit starts.
GAIN = 0.3


@dataclasses.dataclass(frozen=True)
class Annealing(Law):
  """Tissue et al. (arXiv:2408.11029): momentum of past LR drops, in steps.

      drop(t) = C sum_k (lr_{k-1} - lr_k) (1 - lam^(t-k+1)) / (1 - lam)

  `lam` is the forgetting factor, 0.99 to 0.999; it is the one parameter that
  the paper sets by hand, and what makes the law one of steps, not of LR. A rise
  of the LR counts as a negative drop. The paper has the warmup `at_peak`.

  As steps at a rate of 0 go on lowering the predicted loss, schedules that are
  optimal under it jump from the peak to 0: do not design with it.
  """

  parameters = (
    L0,
    A,
    ALPHA,
    Parameter('C', 1e-4, 1e5, is_log=True),
    Parameter('lam', 0.8, 0.99999),
  )

  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    return [
      {**start, 'C': GAIN * (1 - lam) / peak_lr, 'lam': lam}
      for start in stable_starts(lowest_loss, lr_sum)
      for lam in (0.95, 0.995, 0.9995)
    ]

  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    drops = _momentum(params['lam'], path)
    return power_of_sum(params, path) - params['C'] * drops


def _momentum(lam: jax.Array, path: Path) -> jax.Array:
  """[E] S2 of the Annealing law: momentum of LR drops, summed over updates."""
  on = counted(path)
  rate = -jnp.log(lam)
  since = lambda steps: jnp.where(
    on, path.steps[:, None] - steps[None, :] + 1, 1.0
  )
  young, old = since(path.last_steps), since(path.first_steps)
  # The mean of lam^x over the stretch's updates, old to young.
  n = old - young + 1
  kept = jnp.exp(-rate * young) * jnp.expm1(-rate * n) / jnp.expm1(-rate)
  momentum = (1 - kept / n) / (1 - lam)
  return jnp.where(on, momentum, 0) @ (path.before - path.after)


@dataclasses.dataclass(frozen=True)
class AnnealingOfSize(Law):
  """Tissue et al. (arXiv:2408.11029): the Annealing law of models of all sizes.

      L = L0 + A S(t)^-alpha + B N^-beta - C N^gamma S2(t)

  with `S2` the sum in `Annealing`, and `N` the parameters of the model without
  its embedding; in millions here, which the paper does not say. A fit wants
  curves of three sizes or more, `Curve(n_params=...)`, at one peak LR.
  """

  parameters = (
    L0,
    A,
    ALPHA,
    Parameter('B', 1e-3, 1e3, is_log=True),
    Parameter('beta', 0.01, 1.0),
    Parameter('C', 1e-4, 1e5, is_log=True),
    Parameter('gamma', -1.0, 1.0),
    Parameter('lam', 0.8, 0.99999),
  )
  sized = True

  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    starts = Annealing().starts(lowest_loss, lr_sum, peak_lr)
    return [
      {**start, 'L0': 0.6 * start['L0'], 'B': 0.8 * start['L0']}
      | {'beta': 0.15, 'gamma': 0.05}
      for start in starts
    ]

  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    capacity = params['B'] * path.size ** -params['beta']
    drops = path.size ** params['gamma'] * _momentum(params['lam'], path)
    return power_of_sum(params, path) + capacity - params['C'] * drops

  def at_size(
    self, params: Mapping[str, float], n_params: float
  ) -> dict[str, float]:
    """Parameters of `Annealing` for models of one size, in millions."""
    self.check(params)
    return {
      'L0': params['L0'] + params['B'] * n_params ** -params['beta'],
      'A': params['A'],
      'alpha': params['alpha'],
      'C': params['C'] * n_params ** params['gamma'],
      'lam': params['lam'],
    }


@dataclasses.dataclass(frozen=True)
class MultiPower(Law):
  """Luo et al. (arXiv:2503.12811), Eq. 2 and 3: the multi-power law.

      drop(t) = B sum_k (lr_{k-1} - lr_k) G(lr_k^-gamma S_k(t)),
      G(x) = 1 - (1 + C x)^-beta

  with `S_k(t)` the sum of the LRs from update `k` to `t`. An LR below
  1e-10 counts as that in `lr_k^-gamma`. Published parameter files are for the
  `whole` warmup, tables of the paper for `true_sum`.
  """

  parameters = (
    L0,
    A,
    ALPHA,
    Parameter('B', 1e-2, 1e6, is_log=True),
    Parameter('C', 1e-3, 1e4, is_log=True),
    Parameter('beta', 0.02, 1.0),
    Parameter('gamma', 0.0, 1.0),
  )

  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    # A decay is felt after some ten updates at the peak.
    return [
      {
        **start,
        'B': GAIN / peak_lr,
        'C': 0.1 * peak_lr ** (gamma - 1),
        'beta': beta,
        'gamma': gamma,
      }
      for start in stable_starts(lowest_loss, lr_sum)
      for beta, gamma in ((0.6, 0.6), (0.3, 0.3))
    ]

  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    lr = jnp.maximum(path.during, 1e-10)
    rate = params['C'] * lr ** -params['gamma']
    gained = saturation(*ages(path), rate[None], params['beta'])
    gained = jnp.where(counted(path), gained, 0)
    drops = gained @ (path.before - path.after)
    return power_of_sum(params, path) - params['B'] * drops


@dataclasses.dataclass(frozen=True)
class Functional(Law):
  """Li et al. (arXiv:2509.19189), Eq. 30: the functional scaling law.

      drop(t) = c2 sum_k (lr_{k-1} - lr_k) (c3 + S(k)^-alpha)
                         (1 - (1 + c4 (S(t) - S(k)))^-gamma)

  `c1` of the paper is `A` here, and its `s` is `alpha`. Without a floor on
  gamma the kernel becomes a logarithm, and predictions blow up.
  """

  parameters = (
    L0,
    A,
    ALPHA,
    Parameter('c2', 1e-4, 1e6, is_log=True),
    Parameter('c3', 1e-6, 1e6, is_log=True),
    Parameter('c4', 1e-3, 1e6, is_log=True),
    Parameter('gamma', 0.2, 1.5),
  )

  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    return [
      {
        **start,
        'c2': GAIN / peak_lr / (c3 + lr_sum**-0.5),
        'c3': c3,
        'c4': 0.1 / peak_lr,
        'gamma': 0.5,
      }
      for start in stable_starts(lowest_loss, lr_sum)
      for c3 in (0.3, 30.0)
    ]

  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    # Here S(k) is up to and including update k.
    young, old = ages(path)
    single = path.first_steps == path.last_steps
    first_lrs = jnp.where(single, path.after, path.before)
    young = jnp.maximum(young - path.after[None, :], 0)
    old = jnp.maximum(old - first_lrs[None, :], young)
    gained = saturation(young, old, params['c4'], params['gamma'])
    middle = 0.5 * (path.first_sums + path.last_sums) + path.after
    middle = path.origin + middle  # absolute, as ages are not
    source = params['c3'] + jnp.maximum(middle, 1e-12) ** -params['alpha']
    gained = jnp.where(counted(path), gained, 0)
    drops = gained @ ((path.before - path.after) * source)
    return power_of_sum(params, path) - params['c2'] * drops


@dataclasses.dataclass(frozen=True)
class LossDrop(Law):
  """Luo et al. (arXiv:2503.12811), section 3.1: a drop as deep as the decay.

      drop(t) = B (lr_peak - lr_t)

  with no memory at all: the first term of the multi-power law's derivation.
  """

  parameters = (L0, A, ALPHA, Parameter('B', 1e-2, 1e6, is_log=True))

  def starts(
    self, lowest_loss: float, lr_sum: float, peak_lr: float
  ) -> list[dict[str, float]]:
    return [
      {**start, 'B': GAIN / peak_lr}
      for start in stable_starts(lowest_loss, lr_sum)
    ]

  def at(self, params: Mapping[str, jax.Array], path: Path) -> jax.Array:
    drops = counted(path) @ (path.before - path.after)
    return power_of_sum(params, path) - params['B'] * drops
