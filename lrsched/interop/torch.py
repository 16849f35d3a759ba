"""From PyTorch: `torch.optim.lr_scheduler` classes and their sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Listing
from typing import Any

from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.interop.arguments import call
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.interop.torch_classes import Until
from lrsched.interop.torch_classes import constant_lr
from lrsched.interop.torch_classes import cosine_annealing_lr
from lrsched.interop.torch_classes import cosine_annealing_warm_restarts
from lrsched.interop.torch_classes import cyclic_lr
from lrsched.interop.torch_classes import exponential_lr
from lrsched.interop.torch_classes import linear_lr
from lrsched.interop.torch_classes import multi_step_lr
from lrsched.interop.torch_classes import polynomial_lr
from lrsched.interop.torch_classes import step_lr
from lrsched.interop.torch_one_cycle import one_cycle
from lrsched.modify import Product

# What multiplies the LR it finds, whatever else has changed that.
_FACTORS: dict[str, Callable[..., Schedule]] = {
  'ConstantLR': constant_lr,
  'LinearLR': linear_lr,
  'ExponentialLR': exponential_lr,
  'StepLR': step_lr,
  'MultiStepLR': multi_step_lr,
  'PolynomialLR': polynomial_lr,
  'CosineAnnealingLR': cosine_annealing_lr,
}


def _chained(
  lr: float,
  until: Until,
  /,
  *,
  schedulers: Listing[tuple[str, Mapping[str, Any]]],
) -> Schedule:
  if not schedulers:
    raise ValueError('ChainedScheduler schedulers must not be empty')
  factors = []
  for i, (name, given) in enumerate(schedulers):
    where = f'ChainedScheduler schedulers[{i}]'
    if name not in _FACTORS:
      raise ValueError(
        f'{where} must be a factor of the learning rate, one of '
        f'{", ".join(_FACTORS)}, got {name!r}, which sets it'
      )
    factors.append(call(name, _FACTORS[name], given, 1.0 if i else lr, None))
    if name == 'CosineAnnealingLR':
      _check_chained_cosine(where, given, until)
  return Product(schedules=tuple(factors))


def _check_chained_cosine(
  where: str, given: Mapping[str, Any], until: Until
) -> None:
  """Raises ValueError unless a chained cosine is a factor throughout."""
  if given.get('eta_min', 0.0) != 0:
    raise ValueError(
      f'{where}: eta_min must be 0 in a chain, got {given["eta_min"]}; a floor '
      'that other factors multiply is no longer one'
    )
  if until is not None and until > given['T_max']:
    raise ValueError(
      f'{where}: T_max must be at least the last update {until} in a chain, '
      f'got {given["T_max"]}; PyTorch adds when it rises again'
    )


_CLASSES: dict[str, Callable[..., Schedule]] = {
  **_FACTORS,
  'CosineAnnealingWarmRestarts': cosine_annealing_warm_restarts,
  'CyclicLR': cyclic_lr,
  'OneCycleLR': one_cycle,
  'ChainedScheduler': _chained,
}
# Neither is itself in a sequence: PyTorch changes or loses their state there.
_ALONE = {
  'ChainedScheduler': 'SequentialLR cannot start it',
  'OneCycleLR': 'it overwrites the initial learning rate of all others',
}


def from_torch(
  base_lr: float,
  schedulers: Listing[tuple[str, Mapping[str, Any]]],
  milestones: Listing[int] = (),
  *,
  total_steps: int | None = None,
) -> Schedule:
  """A PyTorch scheduler, or a `SequentialLR` of several, as a spec.

  Equal to PyTorch 2.14 with one `scheduler.step()` after each update: update t
  has the learning rate of `last_epoch = t`. One step per epoch of k updates is
  `Sampled(Stretched(spec, from_steps=1, to_steps=k), every_steps=k)`.

  - Each scheduler counts from its milestone, and starts from `base_lr`, not
    from where the one before stood.
  - `CosineAnnealingLR` rises again after `T_max`: so it does here up to
    `total_steps` or the next milestone. Where neither is known it rests at
    `eta_min`.
  - `OneCycleLR` ends at update `total_steps - 1` and rests there. Where
    `pct_start * total_steps` is not a whole number, its peak is between two
    updates, and it becomes a table.
  - A `CyclicLR` at the front of a sequence makes its own `base_lr` that of all
    later ones, as in PyTorch.
  - The momentum that `CyclicLR` and `OneCycleLR` cycle is not part of the
    spec; `Tied` makes one that follows a learning rate.
  - PyTorch multiplies step by step where this has closed forms; the difference
    is float rounding, also at the last step before a cosine's bottom.

  Args:
    base_lr: the optimizer's learning rate, >= 0.
    schedulers: pairs of a class name and its keyword arguments; defaults are
      PyTorch's. `ChainedScheduler` takes `schedulers`, such pairs again, of
      classes that multiply the learning rate.
    milestones: first update of each scheduler but the first, rising.
    total_steps: updates of the run; needed for restarts without an end.

  Raises:
    ValueError: for an unknown class or argument, one out of range, milestones
      that do not rise or do not match, or what no schedule can be equal to.

  Example:
    >>> spec = from_torch(
    ...   1.0,
    ...   [
    ...     ('LinearLR', {'start_factor': 0.5, 'total_iters': 2}),
    ...     ('CosineAnnealingLR', {'T_max': 4, 'eta_min': 0.1}),
    ...   ],
    ...   milestones=[2],
    ... )
    >>> [round(float(spec(t)), 6) for t in range(7)]
    [0.5, 0.75, 1.0, 0.868198, 0.55, 0.231802, 0.1]
  """
  check_real('base_lr', base_lr)
  if not schedulers or len(milestones) != len(schedulers) - 1:
    raise ValueError(
      'milestones must be one fewer than the schedulers (at least one), got '
      f'{len(milestones)} for {len(schedulers)}'
    )
  starts = [0, *milestones]
  for i, start in enumerate(starts[1:]):
    check_steps(f'milestones[{i}]', start, low=starts[i] + 1)
  ends: list[int | None] = [*starts[1:], None]
  if total_steps is not None:
    check_steps('total_steps', total_steps, low=starts[-1] + 1)
    ends[-1] = total_steps
  pieces = []
  for i, (name, given) in enumerate(schedulers):
    check_one_of(f'schedulers[{i}]', name, tuple(_CLASSES))
    if name in _ALONE and len(schedulers) > 1:
      raise ValueError(
        f'schedulers[{i}]: {name} must be the only one, as {_ALONE[name]}'
      )
    end = ends[i]
    until = None if end is None else end - 1 - starts[i]
    pieces.append(call(name, _CLASSES[name], given, base_lr, until))
    if i == 0 and name == 'CyclicLR':
      base_lr = given['base_lr']
  if len(pieces) == 1:
    return pieces[0]
  return Sequence(schedules=tuple(pieces), boundaries=tuple(starts[1:]))
