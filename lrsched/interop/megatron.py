"""From Megatron-LM: its command-line flags of the learning rate."""

from __future__ import annotations

import fractions
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.elementary import Constant
from lrsched.elementary import InverseSqrt
from lrsched.interop.arguments import check_known
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.modify import Clipped
from lrsched.shapes import CosineDecay
from lrsched.shapes import DecayShape
from lrsched.shapes import HalfLife
from lrsched.shapes import LinearDecay
from lrsched.shapes import OneMinusSqrt
from lrsched.staged import WSD
from lrsched.tables import PiecewiseLinear
from lrsched.tables import Tabulated

_DEFAULTS: dict[str, Any] = {
  'lr': None,
  'min_lr': 0.0,
  'lr_decay_style': 'linear',
  'lr_wsd_decay_style': 'exponential',
  'lr_warmup_init': 0.0,
  'lr_warmup_fraction': None,
  'global_batch_size': None,
  'train_iters': None,
  'lr_decay_iters': None,
  'lr_wsd_decay_iters': None,
  'lr_warmup_iters': 0,
  'train_samples': None,
  'lr_decay_samples': None,
  'lr_wsd_decay_samples': None,
  'lr_warmup_samples': 0,
}
_STYLES = ('constant', 'linear', 'cosine', 'inverse-square-root', 'WSD')
_SHAPES: dict[str, DecayShape] = {
  'exponential': HalfLife(halvings=1.0),
  'linear': LinearDecay(),
  'cosine': CosineDecay(),
  'minus_sqrt': OneMinusSqrt(),
}


class _Course(NamedTuple):
  """The three stages, in updates; fractions where samples make no whole."""

  init_lr: float
  lr: float
  min_lr: float
  shape: DecayShape | None  # None for the inverse square root
  warmup_end: fractions.Fraction
  decay_start: fractions.Fraction
  decay_end: fractions.Fraction
  one_sample: fractions.Fraction  # of an update


def from_megatron(flags: Mapping[str, Any]) -> Schedule:
  """The schedule of Megatron-LM's flags, by their names as attributes.

      lr(t) = init + (lr - init) t/W                       t <= W
              min + (lr - min) c((t - S) / (E - S))        S <= t <= E
              min                                          E < t

  with E the decay's end, counted from update 0 with the warmup in it; S is W
  for `linear` and `cosine`, and E minus the WSD decay for `WSD`, before which
  the learning rate is `lr`. `inverse-square-root` is `lr sqrt(W/t)`, not below
  `min`, and jumps to `min` after E. Equal to Megatron-LM at every update that
  is not skipped for an overflow.

  Megatron counts samples. Where the lengths are not whole numbers of batches,
  the result is a table: it has nothing to sweep. A batch size that ramps up is
  `Ramped`, with the flags of the last batch size inside.

  Args:
    flags: `lr` and one of `train_iters` and `train_samples`, and what of
      `min_lr`, `lr_decay_style`, `lr_wsd_decay_style`, `lr_warmup_init`,
      `lr_warmup_fraction`, `lr_warmup_iters`, `lr_decay_iters`,
      `lr_wsd_decay_iters`, the same three in `samples`, and
      `global_batch_size` differs from Megatron's default. Samples need
      `global_batch_size`, and so does an inverse square root without warmup.

  Raises:
    ValueError: for an unknown flag, one out of range, lengths in both units,
      or a warmup or WSD decay that does not fit.

  Example:
    >>> spec = from_megatron(
    ...   {
    ...     'lr': 1.0,
    ...     'min_lr': 0.1,
    ...     'lr_decay_style': 'cosine',
    ...     'train_iters': 6,
    ...     'lr_warmup_iters': 2,
    ...   }
    ... )
    >>> [round(float(spec(t)), 6) for t in range(7)]
    [0.0, 0.5, 1.0, 0.868198, 0.55, 0.231802, 0.1]
  """
  check_known('from_megatron', flags, tuple(_DEFAULTS))
  given = {**_DEFAULTS, **flags}
  if given['lr'] is None:
    raise ValueError('lr must be given, the peak learning rate')
  check_real('lr', given['lr'])
  check_real('min_lr', given['min_lr'], high=given['lr'])
  check_real('lr_warmup_init', given['lr_warmup_init'], high=given['lr'])
  check_one_of('lr_decay_style', given['lr_decay_style'], _STYLES)
  check_one_of(
    'lr_wsd_decay_style', given['lr_wsd_decay_style'], tuple(_SHAPES)
  )
  course = _course(given, _unit(given))
  if given['lr_decay_style'] == 'constant':
    return _rise(course)
  whole = all(
    n.denominator == 1
    for n in (course.warmup_end, course.decay_start, course.decay_end)
  )
  return _pieces(course) if whole else _table(course)


def _unit(given: dict[str, Any]) -> str:
  """`iters` or `samples`: whichever all the lengths are in."""
  if (given['train_iters'] is None) == (given['train_samples'] is None):
    raise ValueError(
      'exactly one of train_iters and train_samples must be given, got '
      f'{given["train_iters"]} and {given["train_samples"]}'
    )
  unit, other = 'iters', 'samples'
  if given['train_iters'] is None:
    unit, other = other, unit
  for name in given:
    if name.endswith(f'_{other}') and given[name]:
      raise ValueError(
        f'{name} must not be given with train_{unit}: all lengths are in {unit}'
      )
  size = given['global_batch_size']
  if size is not None:
    check_steps('global_batch_size', size, low=1)
  elif unit == 'samples':
    raise ValueError('global_batch_size must be given with train_samples')
  return unit


def _course(given: dict[str, Any], unit: str) -> _Course:
  batch = given['global_batch_size'] if unit == 'samples' else 1
  check_steps(f'train_{unit}', given[f'train_{unit}'], low=1)
  warmup, end = given[f'lr_warmup_{unit}'], given[f'lr_decay_{unit}']
  if end is None:
    end = given[f'train_{unit}']
  check_steps(f'lr_decay_{unit}', end, low=1)
  check_steps(f'lr_warmup_{unit}', warmup)
  if given['lr_warmup_fraction'] is not None:
    check_real('lr_warmup_fraction', given['lr_warmup_fraction'])
    if warmup:
      raise ValueError(
        f'lr_warmup_{unit} must not be given with lr_warmup_fraction, got '
        f'{warmup}'
      )
    warmup = given['lr_warmup_fraction'] * end
  if warmup >= end:
    raise ValueError(
      f'the warmup must be shorter than lr_decay_{unit}={end}, got {warmup}'
    )
  style, start = given['lr_decay_style'], warmup
  if style == 'WSD':
    decay = given[f'lr_wsd_decay_{unit}']
    if decay is None:
      raise ValueError(f'lr_wsd_decay_{unit} must be given with WSD')
    check_steps(f'lr_wsd_decay_{unit}', decay, low=1)
    start = end - decay
    if start < warmup:
      raise ValueError(
        f'lr_wsd_decay_{unit} must be at most {end - warmup}, what is left '
        f'after the warmup, got {decay}'
      )
    style = given['lr_wsd_decay_style']
  size = given['global_batch_size']
  if style == 'inverse-square-root' and not warmup and size is None:
    raise ValueError(
      'global_batch_size must be given with inverse-square-root without a '
      'warmup: it falls from the first sample on'
    )
  return _Course(
    init_lr=given['lr_warmup_init'],
    lr=given['lr'],
    min_lr=given['min_lr'],
    shape=_SHAPES.get(style),
    warmup_end=_updates(warmup, batch),
    decay_start=_updates(start, batch),
    decay_end=_updates(end, batch),
    one_sample=fractions.Fraction(1, size or 1),
  )


def _updates(length: float, batch: int) -> fractions.Fraction:
  """A length in updates; 0.07 * 100 is meant as 7, not as a float's more."""
  exact = fractions.Fraction(length) / batch
  close = abs(exact - round(exact)) <= exact / 10**9
  return fractions.Fraction(round(exact)) if close else exact


def _rise(course: _Course) -> Schedule:
  """The warmup, and the peak from its end on."""
  if not course.warmup_end:
    return Constant(lr=course.lr)
  last = math.floor(course.warmup_end)
  steps, lrs = [0], [course.init_lr]
  if last and last < course.warmup_end:  # its end is between two updates
    done = float(last / course.warmup_end)
    steps.append(last)
    lrs.append(course.init_lr + (course.lr - course.init_lr) * done)
  steps.append(math.ceil(course.warmup_end))
  return PiecewiseLinear(steps=steps, lrs=[*lrs, course.lr])


def _pieces(course: _Course) -> Schedule:
  warmup_end = int(course.warmup_end)
  start, end = int(course.decay_start), int(course.decay_end)
  if course.shape is not None:
    decay = WSD(
      peak_lr=course.lr,
      final_lr=course.min_lr,
      warmup_steps=0,
      stable_steps=start - warmup_end,
      decay_steps=end - start,
      decay=course.shape,
    )
    if not warmup_end:
      return decay
    pieces = (_rise(course), decay)
    return Sequence(schedules=pieces, boundaries=(warmup_end,))
  # Without a warmup it falls from the first sample on, an update is many.
  peak_lr = course.lr
  if not warmup_end:
    peak_lr *= math.sqrt(course.one_sample)
  fall = InverseSqrt(peak_lr=peak_lr, timescale_steps=max(warmup_end, 1))
  return Sequence(
    schedules=(
      _rise(course),
      Clipped(schedule=fall, low_lr=course.min_lr),
      Constant(lr=course.min_lr),
    ),
    boundaries=(max(warmup_end, 1), end + 1),
  )


def _table(course: _Course) -> Schedule:
  steps = np.arange(math.floor(course.decay_end) + 2, dtype=np.float64)
  start, end = float(course.decay_start), float(course.decay_end)
  if course.shape is None:
    first = float(max(course.warmup_end, course.one_sample))
    lrs = course.lr * np.sqrt(first / np.maximum(steps, first))
    lrs = np.maximum(lrs, course.min_lr)
  else:
    ratio = course.min_lr / course.lr if course.lr else 0.0
    done = np.clip((steps - start) / (end - start), 0.0, 1.0)
    lrs = course.lr * np.asarray(course.shape(done, ratio), np.float64)
  rise = np.asarray(_rise(course)(steps.astype(np.int64)), np.float64)
  lrs = np.where(steps <= float(course.warmup_end), rise, lrs)
  return Tabulated(lrs=np.where(steps > end, course.min_lr, lrs))
