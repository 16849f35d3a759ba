"""From Hugging Face transformers: the open-loop names of `get_scheduler`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lrsched.base import Schedule
from lrsched.interop.arguments import call
from lrsched.interop.arguments import check_one_of
from lrsched.interop.arguments import check_real
from lrsched.interop.arguments import check_steps
from lrsched.interop.transformers_names import Run
from lrsched.interop.transformers_names import constant
from lrsched.interop.transformers_names import constant_with_warmup
from lrsched.interop.transformers_names import cosine
from lrsched.interop.transformers_names import cosine_warmup_with_min_lr
from lrsched.interop.transformers_names import cosine_with_min_lr
from lrsched.interop.transformers_names import cosine_with_restarts
from lrsched.interop.transformers_names import inverse_sqrt
from lrsched.interop.transformers_names import linear
from lrsched.interop.transformers_names import polynomial
from lrsched.interop.transformers_names import warmup_stable_decay

_NAMES: dict[str, Callable[..., Schedule]] = {
  'constant': constant,
  'constant_with_warmup': constant_with_warmup,
  'cosine': cosine,
  'cosine_warmup_with_min_lr': cosine_warmup_with_min_lr,
  'cosine_with_min_lr': cosine_with_min_lr,
  'cosine_with_restarts': cosine_with_restarts,
  'inverse_sqrt': inverse_sqrt,
  'linear': linear,
  'polynomial': polynomial,
  'warmup_stable_decay': warmup_stable_decay,
}
_CLOSED_LOOP = ('greedy', 'reduce_lr_on_plateau')
_WITHOUT_TOTAL = ('constant', 'constant_with_warmup', 'inverse_sqrt')


def from_transformers(
  name: str,
  *,
  learning_rate: float,
  num_warmup_steps: int,
  num_training_steps: int | None,
  scheduler_specific_kwargs: Mapping[str, Any] | None = None,
) -> Schedule:
  """What `transformers.get_scheduler(name, ...)` gives an optimizer, as a spec.

  Equal to transformers 5.23 at every update from 0 to `num_training_steps - 1`.
  Its warmup is `t/W`, so that update 0 has a learning rate of 0, or of
  `min_lr_ratio` times the peak in `warmup_stable_decay`.

  - A cosine of `num_cycles` other than 0.5 is written as cosines down and up
    where half a cycle is a whole number of steps, and as a table where not; so
    are restarts. Tables have nothing to sweep.
  - After `num_training_steps` a cosine of transformers rises again. Here the
    default rests where it ends; of others, a half wave that has begun goes on
    to its end, and a table rests at its last value.
  - `cosine_warmup_with_min_lr` is at its peak at update W-1 and at its lowest
    at the last update, unlike all others.
  - `constant` ignores the warmup, as there.

  Args:
    name: one of the names of `get_scheduler` that need no metric.
    learning_rate: the optimizer's, >= 0: the peak.
    num_warmup_steps: W, >= 0.
    num_training_steps: T > W; None for a name that does not need it.
    scheduler_specific_kwargs: further arguments by name; their defaults are
      those of transformers.

  Raises:
    ValueError: for an unknown name or argument, one out of range, a schedule
      that follows a metric, or a warmup as long as the run.

  Example:
    >>> spec = from_transformers(
    ...   'cosine_with_min_lr',
    ...   learning_rate=1.0,
    ...   num_warmup_steps=2,
    ...   num_training_steps=6,
    ...   scheduler_specific_kwargs={'min_lr': 0.1},
    ... )
    >>> [round(float(spec(t)), 6) for t in range(7)]
    [0.0, 0.5, 1.0, 0.868198, 0.55, 0.231802, 0.1]
  """
  if name in _CLOSED_LOOP:
    raise ValueError(
      f'name={name!r} follows a metric of the run: it is no function of the '
      'step. Export the learning rates of a finished run, as lrsched.Tabulated'
    )
  check_one_of('name', name, tuple(_NAMES))
  check_real('learning_rate', learning_rate)
  check_steps('num_warmup_steps', num_warmup_steps)
  given = dict(scheduler_specific_kwargs or {})
  total_steps = num_training_steps
  if total_steps is None:
    if name not in _WITHOUT_TOTAL and 'num_stable_steps' not in given:
      raise ValueError(
        f'num_training_steps must be given for {name!r}, got None'
      )
    total_steps = 0
  check_steps('num_training_steps', total_steps)
  run = Run(learning_rate, num_warmup_steps, total_steps)
  return call(name, _NAMES[name], given, run)
