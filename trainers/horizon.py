"""Steps from tokens, epochs and fractions: the only place that converts.

Everything else in the project counts optimizer updates. All arithmetic is on
Python integers and exact fractions, so a budget of 10^18 tokens is as exact as
one of a thousand.

A step consumes `batch_size * seq_len` tokens: those that are predicted, over
all devices and accumulation steps. The first token of a sequence is only read.
"""

from __future__ import annotations

import fractions
import math

import lrsched
from trainers.fields import config
from trainers.fields import require


@config
class BatchRamp:
  """Smaller batches at first, in stages; each batch size is compiled once.

  Attributes:
    boundaries: first update of each batch size but the first, rising.
    batch_sizes: sequences per update, one more than the boundaries; the last is
      the run's `batch_size`.
  """

  boundaries: tuple[int, ...]
  batch_sizes: tuple[int, ...]

  def check(self) -> None:
    try:
      self.schedule(lrsched.Constant(lr=0.0))  # the rules are the schedule's
    except ValueError as error:
      raise ValueError(str(error).replace('Ramped.', 'BatchRamp.')) from error

  def schedule(self, schedule: lrsched.Schedule) -> lrsched.Ramped:
    """A schedule in updates of the full batch size, on this ramp.

    It ends at the samples it was given; its `end_step` is the run's length.
    """
    return lrsched.Ramped(
      schedule=schedule,
      boundaries=self.boundaries,
      batch_sizes=self.batch_sizes,
    )

  def size_at(self, step: int) -> int:
    """Sequences in update `step`."""
    return self.batch_sizes[sum(step >= b for b in self.boundaries)]


def _check_count(name: str, value: int) -> None:
  if not isinstance(value, int) or isinstance(value, bool) or value < 1:
    raise ValueError(
      f'{name} must be an integer >= 1, got {value!r}; '
      'write large numbers as integers, such as 10**9.'
    )


def _exact(name: str, value: float) -> fractions.Fraction:
  """The decimal number that was written, not its nearest binary one."""
  number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not number or not math.isfinite(value):
    raise ValueError(f'{name} must be a finite number, got {value!r}.')
  return fractions.Fraction(repr(value))


def steps_from_tokens(
  tokens: int,
  *,
  batch_size: int,
  seq_len: int,
  ramp: BatchRamp | None = None,
  share: float = 1.0,
) -> int:
  """The fewest steps that train on at least `tokens` tokens.

  With replay two budgets are meant: `tokens` of all data, old and new, is
  compute-equivalent to a run without replay; `tokens` of the new data alone,
  with its `share` of every batch, costs `1/share` times as many updates.

  Args:
    tokens: budget, an integer >= 1.
    batch_size: sequences per step.
    seq_len: tokens predicted per sequence.
    ramp: of the batch size, if the run has one.
    share: of every batch that counts towards the budget, in (0, 1]; what a
      mixture gives a domain is off by less than one sequence.

  Returns:
    `tokens / (batch_size * seq_len * share)`, rounded up, without a ramp.

  Raises:
    ValueError: if an argument is not an integer >= 1, or the share not in
      (0, 1].
  """
  _check_count('tokens', tokens)
  _check_count('batch_size', batch_size)
  _check_count('seq_len', seq_len)
  part = _exact('share', share)
  if not 0 < part <= 1:
    raise ValueError(f'share must be in (0, 1], got {share!r}.')
  samples = math.ceil(fractions.Fraction(tokens, seq_len) / part)
  if ramp is None:
    return -(-samples // batch_size)
  check_ramp(ramp, batch_size)
  return lrsched.steps_for_samples(samples, ramp.boundaries, ramp.batch_sizes)


def check_ramp(ramp: BatchRamp, batch_size: int) -> None:
  """Raises ValueError unless a ramp ends at the run's batch size."""
  require(
    ramp.batch_sizes[-1] == batch_size,
    'BatchRamp.batch_sizes',
    ramp.batch_sizes,
    f'must end with batch_size={batch_size}',
  )


def steps_from_epochs(
  epochs: float,
  *,
  windows_per_epoch: int,
  batch_size: int,
  ramp: BatchRamp | None = None,
) -> int:
  """The fewest steps that go through the data at least `epochs` times.

  Args:
    epochs: passes over the training windows, > 0; 0.5 is half a pass.
    windows_per_epoch: sequences in one pass (`data.windows_per_epoch`).
    batch_size: sequences per step.
    ramp: of the batch size, if the run has one.

  Returns:
    `epochs * windows_per_epoch / batch_size`, rounded up, without a ramp.

  Raises:
    ValueError: if `epochs` is not positive and finite or a count is not an
      integer >= 1.
  """
  _check_count('windows_per_epoch', windows_per_epoch)
  _check_count('batch_size', batch_size)
  passes = _exact('epochs', epochs)
  if passes <= 0:
    raise ValueError(f'epochs must be > 0, got {epochs!r}.')
  if ramp is None:
    return math.ceil(passes * windows_per_epoch / batch_size)
  check_ramp(ramp, batch_size)
  samples = math.ceil(passes * windows_per_epoch)
  return lrsched.steps_for_samples(samples, ramp.boundaries, ramp.batch_sizes)


def steps_from_frac(frac: float, *, total_steps: int) -> int:
  """A share of a run, such as a warmup of 0.02 of it.

  Args:
    frac: share, in [0, 1].
    total_steps: length of the run in steps.

  Returns:
    `frac * total_steps`, rounded to the nearest step, halves up. The product
    is that of the decimal as written: 0.15 of 10 steps is 1.5, hence 2.

  Raises:
    ValueError: if `frac` is outside [0, 1], `total_steps` is not an integer
      >= 1, or a share above 0 comes to no step at all.
  """
  _check_count('total_steps', total_steps)
  share = _exact('frac', frac)
  if not 0 <= share <= 1:
    raise ValueError(f'frac must be in [0, 1], got {frac!r}.')
  steps = math.floor(share * total_steps + fractions.Fraction(1, 2))
  if share > 0 and steps == 0:
    raise ValueError(
      f'frac must come to at least one step, got {frac!r} of {total_steps} '
      'steps; use 0 for none, or a longer run.'
    )
  return steps
