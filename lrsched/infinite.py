"""Schedules whose constant phase can go on for ever: Infinite, WSDC."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from lrsched.base import LR
from lrsched.base import Phase
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
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import ExponentialDecay
from lrsched.shapes import LinearDecay
from lrsched.shapes import decay_lr
from lrsched.staged import WSD


@schedule
class WSDC(Schedule):
  """Warmup, stable, decay, constant: `WSD` that stays at `const_lr`.

      lr(t) = peak (t+1)/W                        t < W
              peak                                W <= t < W + S
              peak d((t - W - S)/D, const/peak)   W + S <= t < W + S + D
              const                               from there on, with no end

  Attributes:
    peak_lr: learning rate of the stable phase, >= 0.
    const_lr: learning rate after the decay, in [0, peak_lr].
    warmup_steps: W, >= 0.
    stable_steps: S, >= 0.
    decay_steps: D, >= 1.
    decay: the shape of the decay; the paper names none.

  Raises:
    ValueError: if a field is out of range, or W + S + D >= 2^31.

  Source: PLM (arXiv:2503.12167), which gives the name and the phases.

  Example:
    >>> wsdc = WSDC(
    ...   peak_lr=1.0,
    ...   const_lr=0.5,
    ...   warmup_steps=0,
    ...   stable_steps=2,
    ...   decay_steps=2,
    ... )
    >>> [float(wsdc(t)) for t in (1, 2, 3, 4, 1000)]
    [1.0, 1.0, 0.75, 0.5, 0.5]
  """

  peak_lr: LR
  const_lr: LR
  warmup_steps: Steps
  stable_steps: Steps
  decay_steps: PositiveSteps
  decay: DecayShape = LinearDecay()

  def check(self) -> None:
    check_falls(
      'WSDC', self.peak_lr, self.const_lr, self.decay, final_name='const_lr'
    )
    check_total('WSDC', self.warmup_steps, self.stable_steps, self.decay_steps)

  def _until_const(self) -> WSD:
    return WSD(
      peak_lr=self.peak_lr,
      final_lr=self.const_lr,
      warmup_steps=self.warmup_steps,
      stable_steps=self.stable_steps,
      decay_steps=self.decay_steps,
      decay=self.decay,
    )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    return self._until_const()(step)

  def phases(self) -> tuple[Phase, ...]:
    phases = self._until_const().phases()
    return (*phases, Phase('constant', phases[-1].end or 0, None))


@schedule
class Infinite(Schedule):
  """Warmup, cooldown, a constant phase of any length, annealing.

      lr(t) = peak (t+1)/W                              t < W
              peak c((t - W)/C, const/peak)             W <= t < W + C
              const                                     W + C <= t < W + C + K
              const (final/const)^((t - W - C - K)/A)   for A steps
              final                                     from there on

  The annealing is run to release a checkpoint, on a branch (`anneal_from`); the
  next task goes on from the constant phase, without a warmup.

  Attributes:
    peak_lr: greatest learning rate, >= 0; 3e-4 in the paper at 405M.
    const_lr: learning rate of the constant phase; 1.65e-4 there.
    final_lr: learning rate after annealing, > 0; 3e-5 there.
    warmup_steps: W, >= 0.
    cooldown_steps: C, >= 1.
    const_steps: K, >= 0.
    anneal_steps: A, >= 1.
    cooldown: shape of the cooldown; `CosineDecay` or `InverseSqrtDecay`.

  Raises:
    ValueError: if a field is out of range, the LRs do not fall, or the lengths
      sum to 2^31 or more.

  Source: Ibrahim et al. (arXiv:2403.08763), section 7.4. The exponent printed
    in arXiv:2503.02844, Eq. 1, would reach `final_lr` late; this reaches it at
    the end of the annealing.

  Example:
    >>> infinite = Infinite(
    ...   peak_lr=4.0,
    ...   const_lr=2.0,
    ...   final_lr=0.5,
    ...   warmup_steps=0,
    ...   cooldown_steps=2,
    ...   const_steps=2,
    ...   anneal_steps=2,
    ... )
    >>> [round(float(infinite(t)), 6) for t in range(7)]
    [4.0, 3.0, 2.0, 2.0, 2.0, 1.0, 0.5]
  """

  peak_lr: LR
  const_lr: LR
  final_lr: LR
  warmup_steps: Steps
  cooldown_steps: PositiveSteps
  const_steps: Steps
  anneal_steps: PositiveSteps
  cooldown: DecayShape = CosineDecay()

  def check(self) -> None:
    check_falls(
      'Infinite',
      self.peak_lr,
      self.const_lr,
      self.cooldown,
      final_name='const_lr',
    )
    check_falls(
      'Infinite',
      self.const_lr,
      self.final_lr,
      ExponentialDecay(),
      peak_name='const_lr',
    )
    check_total(
      'Infinite',
      self.warmup_steps,
      self.cooldown_steps,
      self.const_steps,
      self.anneal_steps,
    )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    cooled = spec.warmup_steps + spec.cooldown_steps
    end = cooled + spec.const_steps + spec.anneal_steps
    cooldown = decay_lr(
      spec.cooldown,
      peak_lr=spec.peak_lr,
      final_lr=spec.const_lr,
      left_steps=jnp.clip(cooled - step, 0, spec.cooldown_steps),
      decay_steps=spec.cooldown_steps,
    )
    anneal = decay_lr(
      ExponentialDecay(),
      peak_lr=spec.const_lr,
      final_lr=spec.final_lr,
      left_steps=jnp.clip(end - step, 0, spec.anneal_steps),
      decay_steps=spec.anneal_steps,
    )
    lr = jnp.where(step < cooled, cooldown, anneal)
    return lr * warmup_factor(step, spec.warmup_steps)

  def phases(self) -> tuple[Phase, ...]:
    warmup_steps = int(self.warmup_steps)
    cooled = warmup_steps + int(self.cooldown_steps)
    anneal_start = cooled + int(self.const_steps)
    return (
      Phase('warmup', 0, warmup_steps),
      Phase('cooldown', warmup_steps, cooled),
      Phase('constant', cooled, anneal_start),
      Phase('decay', anneal_start, anneal_start + int(self.anneal_steps)),
    )

  def anneal_from(self, step: int, anneal_steps: int) -> Infinite:
    """The same schedule with its annealing starting at `step`.

    What a branch from a checkpoint of the constant phase runs.

    Args:
      step: first step of the annealing; not before the end of the cooldown.
      anneal_steps: its length, >= 1.

    Raises:
      ValueError: if the annealing would start before the constant phase.
    """
    cooled = self.warmup_steps + self.cooldown_steps
    if is_concrete(step, cooled) and step < cooled:
      raise ValueError(
        f'step must be >= {cooled}, the end of the cooldown, got {step}'
      )
    return dataclasses.replace(
      self, const_steps=step - cooled, anneal_steps=anneal_steps
    )
