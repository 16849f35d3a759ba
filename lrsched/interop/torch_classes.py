"""PyTorch's schedulers one by one, each counting from its own step 0.

Each function takes the optimizer's LR and the last step that the run comes to,
None where that is not known, and the arguments of the class of its name.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence as Listing

from lrsched.base import MAX_STEPS
from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.cyclic import CosineRestarts
from lrsched.cyclic import Step
from lrsched.cyclic import Triangular
from lrsched.elementary import Constant
from lrsched.elementary import Cosine
from lrsched.elementary import Exponential
from lrsched.elementary import Polynomial
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.interop.waves import MOST_PIECES
from lrsched.interop.waves import cosine_wave
from lrsched.modify import Product
from lrsched.modify import Tied
from lrsched.progress import Sampled
from lrsched.tables import PiecewiseLinear
from lrsched.tables import Tabulated

Until = int | None


def constant_lr(
  lr: float, _: Until, /, *, factor: float = 1 / 3, total_iters: int = 5
) -> Schedule:
  """`factor lr` for the first `total_iters` steps, then `lr`."""
  check_real('ConstantLR factor', factor, high=1.0, low_open=True)
  check_steps('ConstantLR total_iters', total_iters, low=1)
  return Sequence(
    schedules=(Constant(lr=lr * factor), Constant(lr=lr)),
    boundaries=(total_iters,),
  )


def linear_lr(
  lr: float,
  _: Until,
  /,
  *,
  start_factor: float = 1 / 3,
  end_factor: float = 1.0,
  total_iters: int = 5,
) -> Schedule:
  """A line from `start_factor lr` to `end_factor lr`, in `total_iters`."""
  check_real('LinearLR start_factor', start_factor, high=1.0, low_open=True)
  check_real('LinearLR end_factor', end_factor, high=1.0)
  check_steps('LinearLR total_iters', total_iters, low=1)
  return PiecewiseLinear(
    steps=(0, total_iters), lrs=(lr * start_factor, lr * end_factor)
  )


def exponential(lr: float, gamma: float, every_steps: int = 1) -> Schedule:
  """`lr gamma^(t / every_steps)`."""
  if gamma == 1:
    return Constant(lr=lr)
  # A float32 0.9999 is off by 1e-8, and its power after 10,000 steps by 1e-4.
  # So the factor is that of as many steps as about halve the LR.
  n = max(1, round(math.log(0.5) / math.log(gamma)))
  n = min(n, MAX_STEPS // every_steps)
  return Exponential(peak_lr=lr, factor=gamma**n, every_steps=n * every_steps)


def exponential_lr(lr: float, _: Until, /, *, gamma: float) -> Schedule:
  """`lr gamma^t`."""
  check_real('ExponentialLR gamma', gamma, high=1.0, low_open=True)
  return exponential(lr, gamma)


def step_lr(
  lr: float, _: Until, /, *, step_size: int, gamma: float = 0.1
) -> Schedule:
  """`lr gamma^floor(t / step_size)`."""
  check_steps('StepLR step_size', step_size, low=1)
  check_real('StepLR gamma', gamma, high=1.0, low_open=True)
  fall = exponential(lr, gamma, step_size)
  return Sampled(schedule=fall, every_steps=step_size)


def multi_step_lr(
  lr: float, _: Until, /, *, milestones: Listing[int], gamma: float = 0.1
) -> Schedule:
  """`lr gamma^n`, with n the milestones up to t."""
  for i, milestone in enumerate(milestones):
    check_steps(f'MultiStepLR milestones[{i}]', milestone, low=1)
  check_real('MultiStepLR gamma', gamma, high=1.0, low_open=True)
  if not milestones:
    return Constant(lr=lr)
  ordered = sorted(milestones)
  edges = tuple(sorted(set(ordered)))
  # A milestone that is listed twice counts twice.
  passed = [bisect.bisect_right(ordered, edge) for edge in edges]
  return Step(
    peak_lr=lr, boundaries=edges, factors=tuple(gamma**n for n in passed)
  )


def polynomial_lr(
  lr: float, _: Until, /, *, total_iters: int = 5, power: float = 1.0
) -> Schedule:
  """`lr (1 - t/total_iters)^power`, then 0."""
  check_steps('PolynomialLR total_iters', total_iters, low=1)
  check_real('PolynomialLR power', power, low_open=True)
  return Polynomial(peak_lr=lr, total_steps=total_iters, power=power)


def cosine_annealing_lr(
  lr: float, until: Until, /, *, T_max: int, eta_min: float = 0.0
) -> Schedule:
  """A cosine down to `eta_min` in `T_max`, up again, and down again."""
  check_steps('CosineAnnealingLR T_max', T_max, low=1)
  check_real('CosineAnnealingLR eta_min', eta_min, high=lr)
  if until is None:
    return Cosine(peak_lr=lr, final_lr=eta_min, total_steps=T_max)
  return cosine_wave(
    peak_lr=lr, low_lr=eta_min, half_steps=T_max, until_step=until
  )


def cosine_annealing_warm_restarts(
  lr: float, until: Until, /, *, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
  """Cosines of `T_0 T_mult^i` steps, each from the peak."""
  check_steps('CosineAnnealingWarmRestarts T_0', T_0, low=1)
  check_steps('CosineAnnealingWarmRestarts T_mult', T_mult, low=1)
  check_real('CosineAnnealingWarmRestarts eta_min', eta_min, high=lr)
  if until is None:
    raise ValueError(
      'CosineAnnealingWarmRestarts has no end: give total_steps, the updates '
      'of the run'
    )
  ends, length = [T_0], T_0
  while ends[-1] <= until:
    length *= T_mult
    ends.append(ends[-1] + length)
  if len(ends) <= MOST_PIECES:
    return CosineRestarts(peak_lr=lr, final_lr=eta_min, cycle_ends=tuple(ends))
  lrs, start = [], 0
  for end in ends:
    for t in range(start, min(end, until + 1)):
      height = math.cos(math.pi * (t - start) / (end - start) / 2) ** 2
      lrs.append(eta_min + (lr - eta_min) * height)
    start = end
  return Tabulated(lrs=lrs)


def cyclic_lr(
  _: float,
  until: Until,
  /,
  *,
  base_lr: float,
  max_lr: float,
  step_size_up: int = 2000,
  step_size_down: int | None = None,
  mode: str = 'triangular',
  gamma: float = 1.0,
  cycle_momentum: bool = True,
  base_momentum: float = 0.8,
  max_momentum: float = 0.9,
) -> Schedule:
  """Triangles up to `max_lr`, alike, halved or falling by `gamma^t`."""
  check_one_of(
    'CyclicLR mode', mode, ('triangular', 'triangular2', 'exp_range')
  )
  check_real('CyclicLR max_lr', max_lr)
  check_real('CyclicLR base_lr', base_lr, high=max_lr)
  check_real('CyclicLR gamma', gamma, high=1.0, low_open=True)
  down_steps = step_size_up if step_size_down is None else step_size_down
  check_steps('CyclicLR step_size_up', step_size_up, low=1)
  check_steps('CyclicLR step_size_down', down_steps, low=1)
  if mode != 'exp_range' or gamma == 1 or base_lr == max_lr:
    return Triangular(
      low_lr=base_lr,
      peak_lr=max_lr,
      up_steps=step_size_up,
      down_steps=down_steps,
      peak_factor=0.5 if mode == 'triangular2' else 1.0,
    )
  height = Triangular(
    low_lr=0.0, peak_lr=1.0, up_steps=step_size_up, down_steps=down_steps
  )
  return Tied(
    schedule=Product(schedules=(height, exponential(1.0, gamma))),
    low_lr=0.0,
    high_lr=1.0,
    at_low=base_lr,
    at_high=max_lr,
  )
