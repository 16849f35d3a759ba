"""From Levanter: the learning-rate fields of its optimizer configs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from lrsched.base import Schedule
from lrsched.compose import Sequence
from lrsched.elementary import Constant
from lrsched.interop.arguments import call
from lrsched.interop.arguments import check_known
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.interop.levanter_decays import Decay
from lrsched.interop.levanter_decays import constant
from lrsched.interop.levanter_decays import cosine
from lrsched.interop.levanter_decays import inv
from lrsched.interop.levanter_decays import inv_sqrt
from lrsched.interop.levanter_decays import inv_sqrt_decay
from lrsched.interop.levanter_decays import linear
from lrsched.interop.levanter_decays import polynomial
from lrsched.interop.levanter_decays import power
from lrsched.restore import lr_at
from lrsched.tables import PiecewiseLinear

_SCHEDULES: dict[str, Callable[..., Schedule]] = {
  'constant': constant,
  'cosine': cosine,
  'inv': inv,
  'inv_sqrt': inv_sqrt,
  'inv_sqrt_decay': inv_sqrt_decay,
  'linear': linear,
  'polynomial': polynomial,
  'power': power,
}
_DEFAULTS: dict[str, Any] = {
  'learning_rate': 6e-4,
  'min_lr_ratio': 0.1,
  'warmup': 0.01,
  'decay': None,
  'rewarmup': 0.0,
  'cooldown': None,
  'cycle_length': None,
  'cycles': None,
  'lr_schedule': 'cosine',
  'haps': None,
}


def from_levanter(config: Mapping[str, Any], num_train_steps: int) -> Schedule:
  """The schedule of Levanter's optimizer config, by the names of its fields.

  In each cycle of n steps: a line up of `warmup` (from 0), or in later cycles
  `rewarmup` (from where the cycle before ended); the peak; a decay of `decay`.
  Equal to Levanter at updates 0 to `num_train_steps - 1`.

  - A length up to 1 is a fraction, rounded down; 1 is the whole cycle. Warmup,
    rewarmup and decay are fractions of their cycle, `cooldown` and
    `cycle_length` of the run. A decay longer than its cycle is cut.
  - `inv` is the decay of WSD-S. Its first two updates are equal, as there.
  - `inv_sqrt` is constant for its first 10,000 steps, and counts those of its
    cycle's warmup.
  - A `cycle_length` that does not divide the run makes the last cycle longer,
    as there. `cooldown` and `haps` are deprecated there, but still work.

  Args:
    config: those of `learning_rate`, `min_lr_ratio`, `warmup`, `decay`,
      `rewarmup`, `cooldown`, `cycle_length`, `cycles`, `lr_schedule` and `haps`
      that differ from Levanter's defaults. `lr_schedule` is a name, or a dict
      of its `type` and arguments.
    num_train_steps: updates of the run, >= 1.

  Raises:
    ValueError: for an unknown field, name or argument, one out of range, or
      cycles that do not rise or do not fit the run.

  Example:
    >>> spec = from_levanter(
    ...   {
    ...     'learning_rate': 1.0,
    ...     'warmup': 0,
    ...     'decay': 0.5,
    ...     'cycles': [4],
    ...     'lr_schedule': 'linear',
    ...   },
    ...   8,
    ... )
    >>> [round(float(spec(t)), 6) for t in range(8)]
    [1.0, 1.0, 1.0, 0.55, 1.0, 1.0, 1.0, 0.55]
  """
  check_known('from_levanter', config, tuple(_DEFAULTS))
  given = {**_DEFAULTS, **config}
  check_steps('num_train_steps', num_train_steps, low=1)
  check_real('learning_rate', given['learning_rate'])
  check_real('min_lr_ratio', given['min_lr_ratio'], high=1.0)
  lr = given['learning_rate']
  min_lr = lr * given['min_lr_ratio']
  cooldown_steps = 0
  if given['cooldown'] is not None:
    cooldown_steps = _steps('cooldown', given['cooldown'], num_train_steps)
  main_steps = num_train_steps - cooldown_steps
  if main_steps < 1:
    raise ValueError(
      f'cooldown must leave steps before it, got {given["cooldown"]} of '
      f'{num_train_steps}'
    )
  pieces: list[tuple[int, Schedule]] = []  # first step of each
  last_lr = 0.0
  for start, end in itertools.pairwise(_cycle_edges(given, main_steps)):
    name = 'rewarmup' if start else 'warmup'
    n = end - start
    warmup_steps = min(_steps(name, given[name], n), n)
    decay_steps = n - warmup_steps
    if given['decay'] is not None:
      decay_steps = min(_steps('decay', given['decay'], n), decay_steps)
    if warmup_steps:
      pieces.append((start, _line(last_lr, lr, warmup_steps)))
    if warmup_steps + decay_steps < n:
      pieces.append((start + warmup_steps, Constant(lr=lr)))
    last_lr = lr
    if decay_steps:
      decay = _decay(
        given['lr_schedule'], Decay(lr, min_lr, warmup_steps, decay_steps)
      )
      pieces.append((end - decay_steps, decay))
      last_lr = lr_at(decay, decay_steps)
  if cooldown_steps:
    pieces.append((main_steps, _line(last_lr, min_lr, cooldown_steps)))
  if len(pieces) == 1:
    return pieces[0][1]
  return Sequence(
    schedules=tuple(piece for _, piece in pieces),
    boundaries=tuple(start for start, _ in pieces[1:]),
  )


def _line(from_lr: float, to_lr: float, steps: int) -> Schedule:
  return PiecewiseLinear(steps=(0, steps), lrs=(from_lr, to_lr))


def _steps(name: str, length: Any, total_steps: int) -> int:
  """A fraction up to 1 of the total, rounded down; whole steps above."""
  check_real(name, length)
  if length <= 1:
    return int(length * total_steps)
  if length % 1:
    raise ValueError(
      f'{name} must be a fraction up to 1 or whole steps, got {length}'
    )
  return int(length)


def _decay(lr_schedule: Any, decay: Decay) -> Schedule:
  given = (
    dict(lr_schedule)
    if isinstance(lr_schedule, Mapping)
    else {'type': lr_schedule}
  )
  name = given.pop('type', None)
  check_one_of('lr_schedule', name, tuple(_SCHEDULES))
  return call(f'lr_schedule {name}', _SCHEDULES[name], given, decay)


def _cycle_edges(given: dict[str, Any], main_steps: int) -> list[int]:
  """First step of each cycle, and the end of the last one."""
  ways = ('cycle_length', 'cycles', 'haps')
  used = [name for name in ways if given[name] is not None]
  if len(used) > 1:
    raise ValueError(f'give only one of {", ".join(ways)}, got {used}')
  edges = []
  if used:
    name, value = used[0], given[used[0]]
    if isinstance(value, (int, float)) and name == 'cycle_length':
      length = _steps(name, value, main_steps)
      check_steps('cycle_length in steps', length, low=1)
      edges = [i * length for i in range(1, main_steps // length)]
    elif isinstance(value, (int, float)) and name == 'cycles':
      check_steps(name, value, low=1)
      shares = range(1, int(value))
      edges = [int(main_steps / value * i) for i in shares]
    else:
      edges = list(value)
      if name == 'cycle_length':
        edges = list(itertools.accumulate(edges))
  edges = [0, *edges]
  for i in range(1, len(edges)):
    check_steps(f'the end of cycle {i}', edges[i], low=edges[i - 1] + 1)
  if edges[-1] > main_steps:
    raise ValueError(
      f'the cycles must end by step {main_steps}, got {edges[-1]}'
    )
  return edges if edges[-1] == main_steps else [*edges, main_steps]
