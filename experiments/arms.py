"""Runs of an experiment, as a small forest for each seed.

An arm is one run, or one that goes on from another arm of the same seed. All
arms and seeds are trained in one process, so those that differ in their
schedules and seeds alone share a compiled program; a call that is repeated
resumes what is unfinished, and reads back what is complete.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from trainers.config import RunConfig
from trainers.log import eval_file
from trainers.metrics import Row
from trainers.metrics import read_metrics
from trainers.train import run


class Arm(NamedTuple):
  """One run of an experiment.

  Attributes:
    name: unique among the arms of a seed.
    config: the run; its seed is that of weights and data order.
    parent: name of the arm it goes on from; None to begin anew.
    at_step: step of the parent's checkpoint.
    carry: what comes from the checkpoint; see `trainers.train.run`.
  """

  name: str
  config: RunConfig
  parent: str | None = None
  at_step: int = 0
  carry: Literal['all', 'no_optimizer', 'weights'] = 'all'


class Trained(NamedTuple):
  """What arms came to.

  Attributes:
    rows: evaluation rows of each arm, its parent's not included.
    n_new: runs that this call trained; the others were complete.
  """

  rows: dict[str, list[Row]]
  n_new: int


def train(arms: Sequence[Arm], workdir: pathlib.Path) -> Trained:
  """Trains arms in order, each after its parent.

  Args:
    arms: of one seed; a parent before its branches.
    workdir: each arm gets the folder of its name in it.

  Raises:
    ValueError: if a name is there twice, a parent is not before its branch, or
      an arm does not fit what its folder holds.
    FloatingPointError: if an arm diverged.
  """
  _check(arms)
  rows, n_new = {}, 0
  for arm in arms:
    folder = workdir / arm.name
    n_new += not eval_file(folder, arm.config.total_steps).exists()
    if arm.parent is None:
      run(arm.config, folder)
    else:
      source = f'{workdir / arm.parent}@{arm.at_step}'
      run(arm.config, folder, branch_from=source, carry=arm.carry)
    rows[arm.name] = read_metrics(folder)[1]
  return Trained(rows, n_new)


def _check(arms: Sequence[Arm]) -> None:
  known: list[str] = []
  for arm in arms:
    if arm.name in known:
      raise ValueError(f'arm names must differ, got {arm.name!r} twice')
    if arm.parent is not None and arm.parent not in known:
      raise ValueError(
        f'{arm.name}: its parent {arm.parent!r} must be an arm before it; '
        f'there are {known}'
      )
    known.append(arm.name)


def with_ancestors(arms: Sequence[Arm], name: str) -> list[Arm]:
  """An arm and those it goes on from, the oldest first."""
  by_name = {arm.name: arm for arm in arms}
  path = [by_name[name]]
  while path[0].parent is not None:
    path.insert(0, by_name[path[0].parent])
  return path


def last(rows: Sequence[Row], name: str) -> float:
  """A value of the last evaluation."""
  return rows[-1][name]


def highest(rows: Sequence[Row], name: str) -> float:
  """The highest value of any evaluation."""
  return max(row[name] for row in rows)


def at_step(rows: Sequence[Row], step: int, name: str) -> float:
  """The value of the evaluation after `step` updates.

  Raises:
    ValueError: if there was none.
  """
  found = [row[name] for row in rows if row['step'] == step]
  if not found:
    steps = [row['step'] for row in rows]
    raise ValueError(f'no evaluation after {step} updates; there are {steps}')
  return found[-1]
