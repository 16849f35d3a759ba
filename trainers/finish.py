"""When a run begins its last decay: in time for a deadline, or when told to."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

from trainers.fields import config
from trainers.fields import require

# Time per update is measured over the run so far, evaluations and checkpoints
# included; a decay begins early enough for this much more.
MARGIN = 1.05


@config
class Finish:
  """A decay that ends with a budget, or begins on an order.

  The run's schedule must be one whose decay can begin early, such as WSD; its
  own end is the latest. An order (SIGUSR1, or a file `decay` in the run's
  folder) begins the decay at the next update, whatever the budget.

  Attributes:
    decay_steps: length of the decay; None for `decay_frac`.
    decay_frac: length of the decay as a share of the updates before it.
    by_step: the run ends after at most so many updates.
    by_tokens: ... tokens, as `steps_from_tokens` counts them.
    by_time: ... at this time, ISO 8601 with an offset from UTC, such as
      '2026-01-31T08:00+00:00'; by the earliest clock of the processes.
    by_device_hours: ... hours times devices, over all launches of the run.
  """

  decay_steps: int | None = None
  decay_frac: float = 0.1
  by_step: int | None = None
  by_tokens: int | None = None
  by_time: str | None = None
  by_device_hours: float | None = None

  def check(self) -> None:
    for name in ('decay_steps', 'by_step', 'by_tokens'):
      value = getattr(self, name)
      good = value is None or value >= 1
      require(good, f'Finish.{name}', value, 'must be >= 1')
    inside = 0 < self.decay_frac <= 1
    require(inside, 'Finish.decay_frac', self.decay_frac, 'must be in (0, 1]')
    hours = self.by_device_hours
    good = hours is None or hours > 0
    require(good, 'Finish.by_device_hours', hours, 'must be > 0')
    if self.by_time is not None:
      self.deadline()

  def deadline(self) -> float:
    """`by_time` in seconds of the epoch; never, if there is none."""
    if self.by_time is None:
      return float('inf')
    rule = 'must be an ISO 8601 time with an offset, such as 2026-01-31T08:00Z'
    try:
      moment = datetime.datetime.fromisoformat(self.by_time)
    except ValueError as error:
      raise ValueError(
        f'Finish.by_time {rule}, got {self.by_time!r}'
      ) from error
    require(moment.tzinfo is not None, 'Finish.by_time', self.by_time, rule)
    return moment.timestamp()

  def decay_steps_at(self, step: int) -> int:
    """Length of a decay that begins at update `step`."""
    return self.decay_steps or max(1, round(self.decay_frac * step))

  def is_last_chance(self, step: int, tokens_at: Callable[[int], int]) -> bool:
    """Whether a decay from the update after `step` on would be too late.

    Args:
      step: the next update.
      tokens_at: tokens before an update.
    """
    end = step + 1 + self.decay_steps_at(step + 1)
    late = self.by_step is not None and end > self.by_step
    return late or (
      self.by_tokens is not None and tokens_at(end) > self.by_tokens
    )

  def is_late_by_clock(self, step: int, pace: Pace, every_steps: int) -> bool:
    """The same for `by_time` and `by_device_hours`, by this process's clock.

    Args:
      step: the next update.
      pace: of the run.
      every_steps: updates from here to the next chance to begin the decay.
    """
    if pace.seconds_per_update is None:
      return False
    updates = every_steps + self.decay_steps_at(step + every_steps)
    seconds = updates * pace.seconds_per_update * MARGIN
    if time.time() + seconds > self.deadline():
      return True
    if self.by_device_hours is None:
      return False
    hours = (pace.seconds() + seconds) / 3600 * pace.n_devices
    return hours > self.by_device_hours


class Pace:
  """How long a run has trained, and what an update takes.

  Args:
    seconds_before: that earlier launches of the run trained.
    n_devices: of the run.
  """

  def __init__(self, seconds_before: float, n_devices: int):
    self._before, self._began = seconds_before, time.monotonic()
    self._since: tuple[int, float] | None = None
    self.n_devices = n_devices
    self.seconds_per_update: float | None = None

  def seconds(self) -> float:
    """Trained so far, over all launches."""
    return self._before + time.monotonic() - self._began

  def mark(self, step: int) -> None:
    """Update `step` is next; the first mark comes after the compilation."""
    now = time.monotonic()
    if self._since is None:
      self._since = (step, now)
    elif step > self._since[0]:
      seconds = now - self._since[1]
      self.seconds_per_update = seconds / (step - self._since[0])
