"""Schedules with repeated or single cycles, and stairs."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from lrsched.base import LR
from lrsched.base import Number
from lrsched.base import Phase
from lrsched.base import PositiveSteps
from lrsched.base import Schedule
from lrsched.base import Steps
from lrsched.base import as_arrays
from lrsched.base import as_step
from lrsched.base import check_rises
from lrsched.base import check_total
from lrsched.base import schedule
from lrsched.base import turns_and_rest
from lrsched.elementary import Share
from lrsched.elementary import check_falls
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.shapes import decay_lr

# A multiple of the peak LR, from none of it to all.
Fraction = Annotated[Any, Number(whole=False, low=0.0, high=1.0)]


@schedule
class CosineRestarts(Schedule):
  """SGDR: a cosine in each cycle, and a restart at the peak at its end.

      lr(t) = final + (peak_i - final) (1 + cos(pi (t - E_{i-1}) / T_i)) / 2

  in cycle `i`, from `E_{i-1}` to `E_i = E_{i-1} + T_i`, with
  `peak_i = max(final, peak k^i)`. From the last end on, the LR is `final`.
  `of_period` computes the ends for periods that grow. With the ends at the
  budgets it is the cyclic cosine that WSD-S is compared with.

  Attributes:
    peak_lr: learning rate at the start of the first cycle, >= 0.
    final_lr: learning rate at the end of each cycle, in [0, peak_lr].
    cycle_ends: E_1 < E_2 < ..., in steps.
    peak_factor: k, what each restart multiplies the peak by, in (0, 1].

  Raises:
    ValueError: if a field is out of range or the ends do not rise.

  Source: Loshchilov and Hutter (arXiv:1608.03983), Eq. 5; `k`: timm.

  Example:
    >>> sgdr = CosineRestarts.of_period(
    ...   peak_lr=1.0, first_steps=10, multiplier=2, n_cycles=3
    ... )
    >>> sgdr.cycle_ends
    (10, 30, 70)
    >>> [round(float(sgdr(t)), 6) for t in (0, 5, 9, 10, 20, 70)]
    [1.0, 0.5, 0.024472, 1.0, 0.5, 0.0]
  """

  peak_lr: LR
  final_lr: LR = 0.0
  cycle_ends: tuple[PositiveSteps, ...]
  peak_factor: Share = 1.0

  def check(self) -> None:
    check_falls('CosineRestarts', self.peak_lr, self.final_lr, CosineDecay())
    if not self.cycle_ends:
      raise ValueError('CosineRestarts.cycle_ends must not be empty')
    check_rises('CosineRestarts.cycle_ends', self.cycle_ends)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    start, end = jnp.zeros_like(step), spec.cycle_ends[0]
    scale = jnp.ones_like(spec.peak_lr)
    for before, after in zip(
      spec.cycle_ends, spec.cycle_ends[1:], strict=False
    ):
      later = step >= before
      start = jnp.where(later, before, start)
      end = jnp.where(later, after, end)
      scale = jnp.where(later, scale * spec.peak_factor, scale)
    return decay_lr(
      CosineDecay(),
      peak_lr=jnp.maximum(spec.peak_lr * scale, spec.final_lr),
      final_lr=spec.final_lr,
      left_steps=jnp.clip(end - step, 0, end - start),
      decay_steps=end - start,
    )

  def phases(self) -> tuple[Phase, ...]:
    starts = (0, *self.cycle_ends[:-1])
    pairs = zip(starts, self.cycle_ends, strict=True)
    return tuple(Phase('decay', int(s), int(e)) for s, e in pairs)

  @classmethod
  def of_period(
    cls,
    *,
    peak_lr: LR,
    final_lr: LR = 0.0,
    first_steps: int,
    multiplier: float = 1,
    n_cycles: int,
    peak_factor: float = 1.0,
  ) -> CosineRestarts:
    """Cycles of `first_steps * multiplier^i`, rounded to steps.

    Args:
      peak_lr: learning rate at the start of the first cycle.
      final_lr: learning rate at the end of each cycle.
      first_steps: T_0, length of the first cycle, >= 1.
      multiplier: T_mult, >= 1.
      n_cycles: number of cycles, >= 1.
      peak_factor: what each restart multiplies the peak by.
    """
    if first_steps < 1 or multiplier < 1 or n_cycles < 1:
      raise ValueError(
        'first_steps, multiplier and n_cycles must be >= 1, got '
        f'{first_steps}, {multiplier}, {n_cycles}'
      )
    ends, length = [0], float(first_steps)
    for _ in range(n_cycles):
      ends.append(ends[-1] + round(length))
      length *= multiplier
    return cls(
      peak_lr=peak_lr,
      final_lr=final_lr,
      cycle_ends=tuple(ends[1:]),
      peak_factor=peak_factor,
    )


@schedule
class OneCycle(Schedule):
  """Up once, down once, and further down in a tail if there is one.

      lr(t) = rises from initial at t = 0 to peak at t = U
              falls to `final` at U + D, if there is no tail
              falls to `initial` at U + D, then to `final` at U + D + Z

  The rise is the fall's shape run backwards. The usual cosine cycle has no
  tail, the linear one of the paper has one.

  Attributes:
    initial_lr: learning rate at step 0, in [0, peak_lr].
    peak_lr: greatest learning rate, >= 0.
    final_lr: learning rate from the end on, in [0, initial_lr].
    up_steps: U, >= 1.
    down_steps: D, >= 1.
    tail_steps: Z, >= 0; 0 for no tail.
    shape: `CosineDecay` or `LinearDecay`, or another.

  Raises:
    ValueError: if a field is out of range, or U + D + Z >= 2^31.

  Source: Smith and Topin (arXiv:1708.07120). `of_torch` takes the arguments of
    PyTorch's `OneCycleLR`.

  Example:
    >>> cycle = OneCycle.of_torch(max_lr=1.0, total_steps=100)
    >>> [round(float(cycle(t)), 6) for t in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.500002, 4e-06]
  """

  initial_lr: LR
  peak_lr: LR
  final_lr: LR
  up_steps: PositiveSteps
  down_steps: PositiveSteps
  tail_steps: Steps = 0
  shape: DecayShape = CosineDecay()

  def check(self) -> None:
    check_falls(
      'OneCycle',
      self.peak_lr,
      self.initial_lr,
      self.shape,
      final_name='initial_lr',
    )
    check_falls(
      'OneCycle',
      self.initial_lr,
      self.final_lr,
      self.shape,
      peak_name='initial_lr',
    )
    check_total('OneCycle', self.up_steps, self.down_steps, self.tail_steps)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    down_end = spec.up_steps + spec.down_steps
    has_tail = spec.tail_steps > 0
    leg = lambda high, low, left, length: decay_lr(
      spec.shape,
      peak_lr=high,
      final_lr=low,
      left_steps=jnp.clip(left, 0, length),
      decay_steps=length,
    )
    up = leg(spec.peak_lr, spec.initial_lr, step, spec.up_steps)
    low = jnp.where(has_tail, spec.initial_lr, spec.final_lr)
    down = leg(spec.peak_lr, low, down_end - step, spec.down_steps)
    end = down_end + spec.tail_steps
    tail = leg(low, spec.final_lr, end - step, spec.tail_steps)
    lr = jnp.where(step < spec.up_steps, up, down)
    return jnp.where(has_tail & (step >= down_end), tail, lr)

  def phases(self) -> tuple[Phase, ...]:
    up_steps = int(self.up_steps)
    down_end = up_steps + int(self.down_steps)
    phases = (Phase('warmup', 0, up_steps), Phase('decay', up_steps, down_end))
    if not self.tail_steps:
      return phases
    return (*phases, Phase('decay', down_end, down_end + int(self.tail_steps)))

  @classmethod
  def of_torch(
    cls,
    *,
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
    anneal_strategy: str = 'cos',
  ) -> OneCycle:
    """From the arguments of PyTorch's `OneCycleLR`.

    PyTorch ends at its step `total_steps - 1`, one step early; here the end is
    at `total_steps`, as everywhere in this library, and the peak at
    `pct_start * total_steps`.
    """
    shapes = {'cos': CosineDecay(), 'linear': LinearDecay()}
    if anneal_strategy not in shapes:
      raise ValueError(
        f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}"
      )
    up_steps = round(pct_start * total_steps)
    down_steps = up_steps if three_phase else total_steps - up_steps
    return cls(
      initial_lr=max_lr / div_factor,
      peak_lr=max_lr,
      final_lr=max_lr / div_factor / final_div_factor,
      up_steps=up_steps,
      down_steps=down_steps,
      tail_steps=total_steps - up_steps - down_steps,
      shape=shapes[anneal_strategy],
    )


@schedule
class Triangular(Schedule):
  """Cyclical learning rates: up and down in lines, again and again.

      lr(t) = low + (peak - low) k^i tri(t)

  In cycle `i = t // (U + D)`, `tri` rises from 0 to 1 in `U` steps and falls to
  0 in `D`. `k = 1` is the paper's `triangular`, 1/2 its `triangular2`. It has
  no end.

  Attributes:
    low_lr: learning rate between cycles, in [0, peak_lr].
    peak_lr: greatest learning rate, >= 0.
    up_steps: U, >= 1.
    down_steps: D, >= 1.
    peak_factor: k, in (0, 1].

  Raises:
    ValueError: if a field is out of range.

  Source: Smith (arXiv:1506.01186), section 3.

  Example:
    >>> clr = Triangular(
    ...   low_lr=0.0, peak_lr=1.0, up_steps=2, down_steps=4
    ... )
    >>> [float(clr(t)) for t in range(8)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.5]
  """

  low_lr: LR
  peak_lr: LR
  up_steps: PositiveSteps
  down_steps: PositiveSteps
  peak_factor: Share = 1.0

  def check(self) -> None:
    check_falls(
      'Triangular',
      self.peak_lr,
      self.low_lr,
      LinearDecay(),
      final_name='low_lr',
    )
    check_total('Triangular', self.up_steps, self.down_steps)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    period = spec.up_steps + spec.down_steps
    cycles, within = turns_and_rest(step, period)
    height = jnp.minimum(
      within / spec.up_steps, (period - within) / spec.down_steps
    )
    scale = jnp.exp(jnp.log(spec.peak_factor) * cycles)
    amplitude = (spec.peak_lr - spec.low_lr) * scale
    return spec.low_lr + amplitude * height

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('cycles', 0, None),)


@schedule
class Step(Schedule):
  """Stairs: `peak` times a factor that changes at each boundary.

      lr(t) = peak factors[i],   boundaries[i] <= t < boundaries[i+1]
              peak               t < boundaries[0]

  Factors are of the peak, not of the step before: 0.1, 0.01, 0.001.

  Attributes:
    peak_lr: learning rate before the first boundary, >= 0.
    boundaries: first step of each stair but the first, rising.
    factors: its share of the peak, one for each boundary, in [0, 1].

  Raises:
    ValueError: if the boundaries do not rise, or there are not as many factors.

  Source: `of_30_60_90`: the 30-60-90 rule of ImageNet training;
    `of_deepseek`: DeepSeek LLM (arXiv:2401.02954), section 2.2.

  Example:
    >>> s = Step.of_30_60_90(peak_lr=1.0, total_steps=100)
    >>> [round(float(s(t)), 6) for t in (29, 30, 60, 90)]
    [1.0, 0.1, 0.01, 0.001]
  """

  peak_lr: LR
  boundaries: tuple[PositiveSteps, ...]
  factors: tuple[Fraction, ...]

  def check(self) -> None:
    if len(self.boundaries) != len(self.factors) or not self.factors:
      raise ValueError(
        'Step.factors must be as many as boundaries (at least one), got '
        f'{len(self.factors)} for {len(self.boundaries)}'
      )
    check_rises('Step.boundaries', self.boundaries)

  def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
    step, spec = as_step(step), as_arrays(self)
    factor = jnp.ones(step.shape, spec.peak_lr.dtype)
    for boundary, share in zip(spec.boundaries, spec.factors, strict=True):
      factor = jnp.where(step >= boundary, share, factor)
    return spec.peak_lr * factor

  def phases(self) -> tuple[Phase, ...]:
    edges = (0, *(int(b) for b in self.boundaries))
    return tuple(
      Phase('stair', edge, edges[i + 1] if i + 1 < len(edges) else None)
      for i, edge in enumerate(edges)
    )

  @classmethod
  def of_30_60_90(cls, *, peak_lr: LR, total_steps: int) -> Step:
    """A tenth of the LR at 30, 60 and 90 % of the run."""
    boundaries = tuple(round(f * total_steps) for f in (0.3, 0.6, 0.9))
    return cls(
      peak_lr=peak_lr, boundaries=boundaries, factors=(0.1, 0.01, 0.001)
    )

  @classmethod
  def of_deepseek(cls, *, peak_lr: LR, total_steps: int) -> Step:
    """31.6 % of the peak from 80 % of the run on, 10 % from 90 % on."""
    boundaries = tuple(round(f * total_steps) for f in (0.8, 0.9))
    return cls(peak_lr=peak_lr, boundaries=boundaries, factors=(0.316, 0.1))
