"""When a run begins its last decay: in time for a deadline, or when told to."""

from __future__ import annotations

import bisect
import datetime
import time
from collections.abc import Callable

from trainers.fields import config
from trainers.fields import require

now = time.time  # seconds of the epoch
# Time per update is measured over the run so far, evaluations and checkpoints
# included; a decay begins early enough for this much more.
MARGIN = 1.05

TokensAt = Callable[[int], int]  # tokens before an update


@config
class Finish:
  """A decay that ends with a budget, or begins on an order.

  With a budget, the run's schedules must be such whose decay can begin early,
  as WSD; their own end is the latest. An order (SIGUSR1, or a file `decay` in
  the run's folder) begins the decay at the next update, whatever the budget.

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

  def is_over(self, step: int, tokens_at: TokensAt) -> bool:
    """Whether a run of so many updates is beyond `by_step` or `by_tokens`."""
    late = self.by_step is not None and step > self.by_step
    return late or (
      self.by_tokens is not None and tokens_at(step) > self.by_tokens
    )

  def asked_steps_at(self, step: int) -> int:
    """Length that a decay from update `step` on is asked to have."""
    return self.decay_steps or max(1, round(self.decay_frac * step))

  def decay_steps_at(self, step: int, tokens_at: TokensAt) -> int:
    """Length of a decay that begins at update `step`.

    As asked, but no more than `by_step` and `by_tokens` leave, which is less
    where a decay could not begin in time, as in a warmup.
    """
    lengths = range(1, self.asked_steps_at(step) + 1)
    over = lambda length: self.is_over(step + length, tokens_at)
    return max(1, bisect.bisect_left(lengths, True, key=over))

  def is_last_chance(self, step: int, tokens_at: TokensAt) -> bool:
    """Whether a decay from the update after `step` on would be too late.

    Args:
      step: the next update.
      tokens_at: tokens before an update.
    """
    end = step + 1 + self.asked_steps_at(step + 1)
    return self.is_over(end, tokens_at)

  def is_late_by_clock(self, step: int, pace: Pace, every_steps: int) -> bool:
    """The same for `by_time` and `by_device_hours`, by this process's clock.

    Args:
      step: the next update.
      pace: of the run.
      every_steps: updates from here to the next chance to begin the decay.
    """
    if pace.seconds_per_update is None:
      return False
    updates = every_steps + self.asked_steps_at(step + every_steps)
    seconds = updates * pace.seconds_per_update * MARGIN
    if now() + seconds > self.deadline():
      return True
    if self.by_device_hours is None:
      return False
    device_seconds = pace.device_seconds() + seconds * pace.n_devices
    return device_seconds > 3600 * self.by_device_hours


def check_left(
  finish: Finish, step: int, tokens_at: TokensAt, is_fresh: bool
) -> None:
  """Raises ValueError if a run that goes on from `step` has nothing left.

  Args:
    finish: its budget.
    step: updates done.
    tokens_at: tokens before an update.
    is_fresh: whether the run begins here. One that goes on may be late, as it
      was stopped too long: it decays as soon as it can.
  """
  if finish.is_over(step + 1, tokens_at):
    raise ValueError(
      f'{finish}: nothing is left after {step} updates, {tokens_at(step)} '
      'tokens; raise Finish.by_step or by_tokens'
    )
  if is_fresh and now() > finish.deadline():
    raise ValueError(
      f'Finish.by_time must be in the future, got {finish.by_time!r}'
    )


class Pace:
  """How long a run has trained, and what an update takes.

  Args:
    device_seconds_before: seconds times devices of earlier launches of the run,
      which may have had other devices.
    n_devices: of this launch.
  """

  def __init__(self, device_seconds_before: float, n_devices: int):
    self._before, self._began = device_seconds_before, time.monotonic()
    self._since: tuple[int, float] | None = None
    self.n_devices = n_devices
    self.seconds_per_update: float | None = None

  def device_seconds(self) -> float:
    """Seconds times devices so far, over all launches."""
    return self._before + (time.monotonic() - self._began) * self.n_devices

  def mark(self, step: int) -> None:
    """Update `step` is next; the first mark comes after the compilation."""
    now = time.monotonic()
    if self._since is None:
      self._since = (step, now)
    elif step > self._since[0]:
      seconds = now - self._since[1]
      self.seconds_per_update = seconds / (step - self._since[0])
