"""Schedules in stages: WSD, and WSD-S with its repeated decays."""

from __future__ import annotations

import dataclasses
import fractions
import math
from typing import Any

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
from lrsched.shapes import DecayShape
from lrsched.shapes import InverseDecay
from lrsched.shapes import LinearDecay
from lrsched.shapes import decay_lr


@schedule
class WSD(Schedule):
  """Warmup, stable, decay.

      lr(t) = peak (t+1)/W                    t < W
              peak                            W <= t < W + S
              peak d((t - W - S)/D, final/peak)   W + S <= t < W + S + D
              final                           from there on

  `d` is the decay shape. The decay never includes the warmup or the stable
  phase; the run is `W + S + D` steps long. A decay branched off a longer trunk
  is the same class with other lengths (`decay_from`), so it runs the trunk's
  compiled program.

  Attributes:
    peak_lr: learning rate of the stable phase, >= 0.
    final_lr: learning rate after the decay, in [0, peak_lr].
    warmup_steps: W, >= 0. Papers that print `t/W` start one step lower.
    stable_steps: S, >= 0.
    decay_steps: D, >= 1.
    decay: the shape of the decay.

  Raises:
    ValueError: if a field is out of range, or W + S + D >= 2^31.

  Source: Hu et al., MiniCPM (arXiv:2404.06395), section 4.2; linear and
    1-sqrt decays: Haegele et al. (arXiv:2405.18392).

  Example:
    >>> wsd = WSD(
    ...   peak_lr=1.0, warmup_steps=2, stable_steps=4, decay_steps=2
    ... )
    >>> [float(wsd(t)) for t in (0, 1, 5, 6, 7, 8)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
  """

  peak_lr: LR
  final_lr: LR = 0.0
  warmup_steps: Steps
  stable_steps: Steps
  decay_steps: PositiveSteps
  decay: DecayShape = LinearDecay()

  def check(self) -> None:
    check_falls('WSD', self.peak_lr, self.final_lr, self.decay)
    check_total('WSD', self.warmup_steps, self.stable_steps, self.decay_steps)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    end = spec.warmup_steps + spec.stable_steps + spec.decay_steps
    lr = decay_lr(
      spec.decay,
      peak_lr=spec.peak_lr,
      final_lr=spec.final_lr,
      left_steps=jnp.clip(end - step, 0, spec.decay_steps),
      decay_steps=spec.decay_steps,
    )
    return lr * warmup_factor(step, spec.warmup_steps)

  def phases(self) -> tuple[Phase, ...]:
    decay_start = int(self.warmup_steps) + int(self.stable_steps)
    return (
      Phase('warmup', 0, int(self.warmup_steps)),
      Phase('stable', int(self.warmup_steps), decay_start),
      Phase('decay', decay_start, decay_start + int(self.decay_steps)),
    )

  def decay_from(self, step: int, decay_steps: int) -> WSD:
    """The same schedule with its decay starting at `step`.

    Equal to this one at every step before `step`: what a branch from a stable
    checkpoint runs.

    Args:
      step: first step of the decay; not before the end of the warmup, nor
        after the start of this one's decay.
      decay_steps: length of the decay, >= 1.

    Raises:
      ValueError: if the decay would start inside the warmup, or where the LR
        has begun to decay already.

    Example:
      >>> trunk = WSD(
      ...   peak_lr=1.0, warmup_steps=2, stable_steps=98, decay_steps=10
      ... )
      >>> trunk.decay_from(50, 5).end_step
      55
    """
    if step < self.warmup_steps:
      raise ValueError(
        f'step must be >= warmup_steps={self.warmup_steps}, got {step}; '
        'a decay starts after the warmup'
      )
    if step > self.warmup_steps + self.stable_steps:
      raise ValueError(
        f'step must be <= {self.warmup_steps + self.stable_steps}, where this '
        f'schedule begins to decay, got {step}'
      )
    return dataclasses.replace(
      self, stable_steps=step - self.warmup_steps, decay_steps=decay_steps
    )


@schedule
class WSDS(Schedule):
  """WSD-S: one trunk that decays at every budget and jumps back to the peak.

      lr(t) = peak (t+1)/W                       t < W
              peak d(s_i, final/peak)            E_{i-1} <= t < E_i
              final                              from E_n on

  with `s_i = max(0, (t - (E_i - D_i)) / D_i)`: cycle `i` runs at the peak until
  `D_i` steps before its end `E_i`. At `t = E_i` training goes on from the
  decayed weights with the LR straight back at the peak, without a warmup; the
  weights after update `E_i - 1` are the checkpoint of that budget.

  Published code disagrees on what a decay fraction is a fraction of; the class
  methods compute `decay_steps` in each reading: `of_cycle`, `of_total`,
  `of_steps`.

  Attributes:
    peak_lr: learning rate of the stable phases, >= 0.
    final_lr: learning rate at the end of each decay, in (0, peak_lr] for the
      paper's shape; 0.1 of the peak is usual.
    warmup_steps: W, >= 0, inside the first cycle.
    cycle_ends: E_1 < E_2 < ..., the budgets, in steps since the run began.
    decay_steps: D_1, D_2, ..., one for each cycle, >= 1.
    decay: the shape; the paper interpolates 1/LR linearly.

  Raises:
    ValueError: if a field is out of range, the ends do not rise, the numbers of
      ends and decays differ, or a decay does not fit its cycle.

  Source: Wen et al. (arXiv:2410.05192), section 4.

  Example:
    >>> wsds = WSDS(
    ...   peak_lr=1.0,
    ...   final_lr=0.5,
    ...   warmup_steps=0,
    ...   cycle_ends=(4, 8),
    ...   decay_steps=(2, 2),
    ...   decay=LinearDecay(),
    ... )
    >>> [float(wsds(t)) for t in range(9)]
    [1.0, 1.0, 1.0, 0.75, 1.0, 1.0, 1.0, 0.75, 0.5]
  """

  peak_lr: LR
  final_lr: LR
  warmup_steps: Steps
  cycle_ends: tuple[PositiveSteps, ...]
  decay_steps: tuple[PositiveSteps, ...]
  decay: DecayShape = InverseDecay()

  def check(self) -> None:
    check_falls('WSDS', self.peak_lr, self.final_lr, self.decay)
    if not self.cycle_ends or len(self.cycle_ends) != len(self.decay_steps):
      raise ValueError(
        'WSDS.decay_steps must hold one length for each of the cycle_ends '
        f'(at least one), got {len(self.decay_steps)} for '
        f'{len(self.cycle_ends)}'
      )
    if not is_concrete(self.warmup_steps, self.cycle_ends, self.decay_steps):
      return
    stable_from = (self.warmup_steps, *self.cycle_ends)
    for i, end in enumerate(self.cycle_ends):
      room = end - stable_from[i]
      if room < 1:
        after = f'cycle_ends[{i - 1}]' if i else 'warmup_steps'
        raise ValueError(
          f'WSDS.cycle_ends[{i}] must be > {after}={stable_from[i]}, got {end}'
        )
      if self.decay_steps[i] > room:
        raise ValueError(
          f'WSDS.decay_steps[{i}] must be at most {room}, the stable part of '
          f'its cycle, got {self.decay_steps[i]}'
        )

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    end, decay_steps = spec.cycle_ends[0], spec.decay_steps[0]
    for i in range(1, len(spec.cycle_ends)):
      later = step >= spec.cycle_ends[i - 1]
      end = jnp.where(later, spec.cycle_ends[i], end)
      decay_steps = jnp.where(later, spec.decay_steps[i], decay_steps)
    lr = decay_lr(
      spec.decay,
      peak_lr=spec.peak_lr,
      final_lr=spec.final_lr,
      left_steps=jnp.clip(end - step, 0, decay_steps),
      decay_steps=decay_steps,
    )
    return lr * warmup_factor(step, spec.warmup_steps)

  def phases(self) -> tuple[Phase, ...]:
    phases = [Phase('warmup', 0, int(self.warmup_steps))]
    for end, decay_steps in zip(self.cycle_ends, self.decay_steps, strict=True):
      decay_start = int(end) - int(decay_steps)
      phases.append(Phase('stable', int(phases[-1].end or 0), decay_start))
      phases.append(Phase('decay', decay_start, int(end)))
    return tuple(phases)

  @classmethod
  def of_cycle(
    cls, *, decay_frac: float, cycle_ends: tuple[int, ...], **lrs: Any
  ) -> WSDS:
    """Each decay is `decay_frac` of its own cycle, rounded to a step.

    Cycles are measured from the end of the one before, the first from step 0
    with its warmup. Levanter's `decay` (fraction of a cycle) and OLMo-core's
    `decay_fraction` (fraction of a period) mean this.

    Args:
      decay_frac: in (0, 1].
      cycle_ends: the budgets in steps.
      **lrs: the remaining fields, as for the constructor.
    """
    starts = (0, *cycle_ends)
    lengths = [e - s for s, e in zip(starts, cycle_ends, strict=False)]
    return cls._of(decay_frac, lengths, cycle_ends, lrs)

  @classmethod
  def of_total(
    cls, *, decay_frac: float, cycle_ends: tuple[int, ...], **lrs: Any
  ) -> WSDS:
    """Each decay is `decay_frac` of all steps up to its budget.

    So decays grow with the run, as the code in Meta's lingua reads the paper.

    Args:
      decay_frac: in (0, 1].
      cycle_ends: the budgets in steps.
      **lrs: the remaining fields, as for the constructor.
    """
    return cls._of(decay_frac, cycle_ends, cycle_ends, lrs)

  @classmethod
  def of_steps(
    cls, *, decay_steps: int, cycle_ends: tuple[int, ...], **lrs: Any
  ) -> WSDS:
    """Each decay is `decay_steps` long, whatever its cycle.

    Args:
      decay_steps: length of every decay, >= 1.
      cycle_ends: the budgets in steps.
      **lrs: the remaining fields, as for the constructor.
    """
    decays = (decay_steps,) * len(cycle_ends)
    return cls(cycle_ends=cycle_ends, decay_steps=decays, **lrs)

  @classmethod
  def _of(
    cls, decay_frac: float, lengths: Any, cycle_ends: Any, lrs: dict[str, Any]
  ) -> WSDS:
    if not 0 < decay_frac <= 1:
      raise ValueError(f'decay_frac must be in (0, 1], got {decay_frac}')
    # The fraction as written, halves up: 0.1 of 25 is 3, not a float's 2.
    exact = fractions.Fraction(str(decay_frac))
    decays = tuple(
      max(1, math.floor(exact * n + fractions.Fraction(1, 2))) for n in lengths
    )
    return cls(cycle_ends=cycle_ends, decay_steps=decays, **lrs)
