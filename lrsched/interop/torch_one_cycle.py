"""PyTorch's OneCycleLR, whose legs may meet between two updates."""

from __future__ import annotations

import math

from lrsched.base import Schedule
from lrsched.cyclic import OneCycle
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.tables import Tabulated

_SHAPES: dict[str, DecayShape] = {'cos': CosineDecay(), 'linear': LinearDecay()}


def one_cycle(
  _: float,
  until: int | None,
  /,
  *,
  max_lr: float,
  total_steps: int | None = None,
  epochs: int | None = None,
  steps_per_epoch: int | None = None,
  pct_start: float = 0.3,
  anneal_strategy: str = 'cos',
  cycle_momentum: bool = True,
  base_momentum: float = 0.85,
  max_momentum: float = 0.95,
  div_factor: float = 25.0,
  final_div_factor: float = 1e4,
  three_phase: bool = False,
) -> Schedule:
  """The spec of `OneCycleLR`, equal at updates 0 to `total_steps - 1`.

  Args:
    _: the optimizer's learning rate, which it overwrites.
    until: last step that the run comes to, not beyond the schedule's own.
    max_lr: the peak, >= 0.
    total_steps: T, or `epochs * steps_per_epoch` if it is None.
    epochs: see `total_steps`.
    steps_per_epoch: see `total_steps`.
    pct_start: fraction of T up to the peak.
    anneal_strategy: `cos` or `linear`.
    cycle_momentum: not part of a learning rate, as the next two.
    base_momentum: least momentum.
    max_momentum: greatest momentum.
    div_factor: peak over first learning rate, > 0.
    final_div_factor: first over last learning rate, > 0.
    three_phase: whether a leg back to the first learning rate is in between.

  Raises:
    ValueError: if an argument is out of range, or the first leg has no length.
  """
  if total_steps is None:
    if epochs is None or steps_per_epoch is None:
      raise ValueError(
        'OneCycleLR needs total_steps, or epochs and steps_per_epoch'
      )
    check_steps('OneCycleLR epochs', epochs, low=1)
    check_steps('OneCycleLR steps_per_epoch', steps_per_epoch, low=1)
    total_steps = epochs * steps_per_epoch
  check_steps('OneCycleLR total_steps', total_steps, low=2)
  if until is not None and until >= total_steps:
    raise ValueError(
      f'OneCycleLR total_steps must be at least that of the run, {until + 1}, '
      f'got {total_steps}; PyTorch raises when it is stepped beyond'
    )
  check_real('OneCycleLR max_lr', max_lr)
  check_real('OneCycleLR pct_start', pct_start, high=1.0)
  check_real('OneCycleLR div_factor', div_factor, low_open=True)
  check_real('OneCycleLR final_div_factor', final_div_factor, low_open=True)
  check_one_of('OneCycleLR anneal_strategy', anneal_strategy, tuple(_SHAPES))
  first_lr = max_lr / div_factor
  last_lr = first_lr / final_div_factor
  up = pct_start * total_steps - 1
  ends, lrs = [up], [first_lr, max_lr]
  if three_phase:
    ends.append(2 * up)
    lrs.append(first_lr)
  ends.append(total_steps - 1)
  lrs.append(last_lr)
  return _of_legs(tuple(ends), tuple(lrs), anneal_strategy)


def _of_legs(
  ends: tuple[float, ...], lrs: tuple[float, ...], strategy: str
) -> Schedule:
  lengths = [end - start for start, end in zip((0, *ends), ends, strict=False)]
  whole = [round(length) for length in lengths]
  fits = min(whole) >= 1 and all(
    abs(n - length) < 1e-9 * ends[-1]
    for n, length in zip(whole, lengths, strict=True)
  )
  if fits and lrs[-1] <= lrs[0] <= lrs[1]:
    return OneCycle(
      initial_lr=lrs[0],
      peak_lr=lrs[1],
      final_lr=lrs[-1],
      up_steps=whole[0],
      down_steps=whole[1],
      tail_steps=whole[2] if len(whole) == 3 else 0,
      shape=_SHAPES[strategy],
    )
  if ends[0] == 0 or ends[-1] == ends[-2]:
    raise ValueError(
      'OneCycleLR pct_start must leave each leg a length: its legs end at '
      f'updates {", ".join(f"{end:g}" for end in ends)}'
    )
  return Tabulated(
    lrs=[_lr_at(t, ends, lrs, strategy) for t in range(round(ends[-1]) + 1)]
  )


def _lr_at(
  step: int, ends: tuple[float, ...], lrs: tuple[float, ...], strategy: str
) -> float:
  leg = next((i for i, end in enumerate(ends) if step <= end), len(ends) - 1)
  start = ends[leg - 1] if leg else 0.0
  done = (step - start) / (ends[leg] - start)
  if strategy == 'cos':
    done = math.sin(math.pi * done / 2) ** 2
  return lrs[leg] * (1 - done) + lrs[leg + 1] * done
