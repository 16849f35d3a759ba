"""Schedules as tables of learning rates, for any framework."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.base import Schedule
from lrsched.base import as_arrays
from lrsched.interop.arguments import check_steps
from lrsched.spec import to_json

# The schedule is an argument: those of one structure share a program.
_evaluate = jax.jit(lambda schedule, steps: schedule(steps))


def _values(schedule: Schedule, total_steps: int) -> np.ndarray:
  if not isinstance(schedule, Schedule):
    raise ValueError(
      f'schedule must be a Schedule of lrsched, got {schedule!r}; read other '
      'callables with from_optax first'
    )
  check_steps('total_steps', total_steps, low=1)
  return np.asarray(_evaluate(as_arrays(schedule), jnp.arange(total_steps)))


def to_table(schedule: Schedule, total_steps: int) -> list[float]:
  """The learning rates of updates 0 to `total_steps - 1`, as Python floats.

  Each is the float32 that an update is multiplied by, so a table of a framework
  that counts in float64 has the digits of that float32.

  PyTorch multiplies what a function of the step returns by the optimizer's own
  learning rate; with that at 1, the function is the table:

      # lrs = lrsched.interop.to_table(schedule, total_steps)
      # optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
      # last = len(lrs) - 1
      # scheduler = torch.optim.lr_scheduler.LambdaLR(
      #   optimizer, lambda step: lrs[min(step, last)]
      # )  # then scheduler.step() after each optimizer.step()

  Args:
    schedule: a schedule with concrete leaves.
    total_steps: updates of the run, >= 1.

  Returns:
    A list of `total_steps` learning rates.

  Raises:
    ValueError: if `schedule` is not one of this library, or there are no steps.

  Example:
    >>> from lrsched.elementary import Linear
    >>> to_table(Linear(peak_lr=1.0, total_steps=4), 4)
    [1.0, 0.75, 0.5, 0.25]
  """
  return [float(lr) for lr in _values(schedule, total_steps)]


def to_csv(schedule: Schedule, total_steps: int) -> str:
  """The same as text: a line `step,lr`, and one for each update.

  A learning rate has as many digits as tell it from any other float32.

  Args:
    schedule: a schedule with concrete leaves.
    total_steps: updates of the run, >= 1.

  Raises:
    ValueError: as `to_table`.

  Example:
    >>> from lrsched.elementary import Linear
    >>> print(to_csv(Linear(peak_lr=0.1, total_steps=2), 2), end='')
    step,lr
    0,0.1
    1,0.05
  """
  values = _values(schedule, total_steps)
  lines = (f'{step},{lr!s}\n' for step, lr in enumerate(values))
  return 'step,lr\n' + ''.join(lines)


def to_table_json(schedule: Schedule, total_steps: int) -> str:
  """The same as JSON, with the spec it is of: `{"lr": [...], "spec": {...}}`.

  `spec` is what `to_json` writes, so that the table can be made again.

  Args:
    schedule: a schedule with concrete leaves.
    total_steps: updates of the run, >= 1.

  Raises:
    ValueError: as `to_table`.

  Example:
    >>> from lrsched.elementary import Constant
    >>> to_table_json(Constant(lr=0.5), 2)
    '{"lr": [0.5, 0.5], "spec": {"lrsched": 1, "kind": "Constant", "lr": 0.5}}'
  """
  spec = json.loads(to_json(schedule))
  return json.dumps({'lr': to_table(schedule, total_steps), 'spec': spec})
