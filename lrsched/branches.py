"""Decays branched off one trunk: what each runs, and what all of them cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from lrsched.base import Schedule
from lrsched.compose import Rewarm
from lrsched.infinite import Infinite
from lrsched.progress import Ramped
from lrsched.progress import samples_at
from lrsched.staged import WSD


class DecayBranch(NamedTuple):
  """A decay that leaves the trunk.

  Attributes:
    start_step: the trunk's updates that it goes on from.
    spec: its schedule, equal to the trunk's before `start_step`.
    end_step: updates at its end, the trunk's included.
  """

  start_step: int
  spec: Schedule
  end_step: int


class BranchPlan(NamedTuple):
  """Decays off one trunk.

  Attributes:
    branches: in the order of the steps, then of the lengths.
  """

  branches: tuple[DecayBranch, ...]

  @property
  def branch_updates(self) -> int:
    """Updates of the branches, without the trunk."""
    return sum(b.end_step - b.start_step for b in self.branches)

  @property
  def total_updates(self) -> int:
    """Updates of the branches, and of the trunk up to the last of them."""
    return self.branch_updates + max(b.start_step for b in self.branches)

  @property
  def alone_updates(self) -> int:
    """Updates of as many runs, each with a trunk of its own."""
    return sum(b.end_step for b in self.branches)


def decay_branches(
  spec: Schedule, steps: Iterable[int], decay_steps: Iterable[int]
) -> BranchPlan:
  """A decay of every length from every step of a trunk.

  Args:
    spec: the trunk's schedule: `WSD` or `Infinite`, which can decay from any
      step of their stable or constant phase (`decay_from`, `anneal_from`), a
      `Rewarm` to one of them, or a `Ramped` of either.
    steps: first updates of the decays.
    decay_steps: their lengths, each >= 1.

  Raises:
    ValueError: if the schedule has no decay to begin early, a step or length is
      missing, given twice or out of range.

  Example:
    >>> from lrsched import WSD
    >>> trunk = WSD(
    ...   peak_lr=1.0, warmup_steps=10, stable_steps=890, decay_steps=100
    ... )
    >>> plan = decay_branches(trunk, (450, 900), (50, 100))
    >>> [b.end_step for b in plan.branches]
    [500, 550, 950, 1000]
    >>> plan.total_updates, plan.alone_updates
    (1200, 3000)
  """
  steps, decay_steps = tuple(steps), tuple(decay_steps)
  for name, values in (('steps', steps), ('decay_steps', decay_steps)):
    if not values or len(set(values)) < len(values):
      raise ValueError(f'{name} must be one or more, each once, got {values}')
  branches = []
  for step in steps:
    for length in decay_steps:
      branch = _decay_from(spec, step, length)
      # Of a ramped schedule it may be less, as it ends with a whole batch.
      end_step = branch.end_step or step + length
      branches.append(DecayBranch(step, branch, end_step))
  return BranchPlan(tuple(branches))


def _decay_from(spec: Schedule, step: int, length: int) -> Schedule:
  if isinstance(spec, WSD):
    return spec.decay_from(step, length)
  if isinstance(spec, Infinite):
    begun = spec.phases()[-1].start
    if step > begun:
      raise ValueError(
        f'step must be <= {begun}, where this schedule begins to anneal, got '
        f'{step}'
      )
    return spec.anneal_from(step, length)
  if isinstance(spec, Rewarm):
    warm = int(spec.rewarm_step) + int(spec.warmup_steps)
    if step < warm:
      raise ValueError(
        f'step must be >= {warm}, where the re-warming is over, got {step}'
      )
    try:
      after = _decay_from(spec.after, step - warm, length)
    except ValueError as error:
      raise ValueError(f'Rewarm.after, from step {warm} on: {error}') from error
    return dataclasses.replace(spec, after=after)
  if isinstance(spec, Ramped):
    # Its own schedule counts full batches: the decay takes the whole ones.
    full = int(spec.batch_sizes[-1])
    edges, sizes = tuple(spec.boundaries), tuple(spec.batch_sizes)
    begin = -(-samples_at(step, edges, sizes) // full)
    whole = samples_at(step + length, edges, sizes) // full - begin
    if whole < 1:
      raise ValueError(
        f'decay_steps must hold a full batch of {full}, got {length} from step '
        f'{step}; give more updates'
      )
    decayed = _decay_from(spec.schedule, begin, whole)
    return dataclasses.replace(spec, schedule=decayed)
  raise ValueError(
    f'spec must be WSD, Infinite or Rewarm to one of them, whose decay can '
    f'begin early, got {type(spec).__name__}; branch with a schedule of your '
    'own, such as a Sequence of it and a decay'
  )
