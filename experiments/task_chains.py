"""Runs that branch off each other, as one sequence of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.runs import Run
from experiments.runs import parents_of
from trainers.metrics import Row

PREFIX = 'eval_loss/'


class Chain(NamedTuple):
  """Tasks that runs were trained on, one after the other.

  Attributes:
    path: the runs, the root first.
    tasks: names of the corpora, in the order of their first training.
    hashes: of these corpora.
    performance: -loss, float [evaluations, tasks], NaN where not evaluated yet.
    task_of_evaluation: int [evaluations].
    updates_of_evaluation: int [evaluations], updates on that task until then,
      in all its phases.
  """

  path: tuple[Run, ...]
  tasks: tuple[str, ...]
  hashes: tuple[str, ...]
  performance: np.ndarray
  task_of_evaluation: np.ndarray
  updates_of_evaluation: np.ndarray

  @property
  def name(self) -> str:
    """The names of the runs."""
    return ' → '.join(run.name for run in self.path)


def chains(runs: Sequence[Run]) -> tuple[list[Chain], list[str]]:
  """Every sequence of runs with two tasks or more, and why some are left out.

  A run whose end another goes on from is a part of that one's sequence.
  """
  parents = parents_of(runs)
  ends = {
    (parents[run.workdir].workdir, run.lineage.parent.step)
    for run in runs
    if run.lineage.parent and run.workdir in parents
  }
  found, lines = [], []
  for run in runs:
    if (run.workdir, run.end_step) in ends or not corpora_of(run):
      continue
    path = [run]
    while above := parents.get(path[0].workdir):
      path.insert(0, above)
    try:
      tasks = list(dict.fromkeys(task_of(part) for part in path))
      if len(tasks) > 1:
        found.append(_chain(path, tasks))
    except ValueError as error:
      names = ' → '.join(part.name for part in path)
      lines.append(f'{names}: no metrics of tasks in sequence: {error}')
  return found, lines


def corpora_of(run: Run) -> list[str]:
  """Names of the corpora in the evaluations, if these tell them apart."""
  found = dict.fromkeys(
    name.removeprefix(PREFIX)
    for row in run.evaluations
    for name in row
    if name.startswith(PREFIX)
  )
  return list(found)


def main_of(run: Run) -> str:
  """Name of the corpus that a run mainly trains on."""
  source = run.config['data']['source']
  if source['kind'] != 'Mixture':
    return source['kind'].lower()
  shares = {name: d['share'] for name, d in source['domains'].items()}
  return next(name for name, share in shares.items() if share is None)


def task_of(run: Run) -> str:
  """Hash of the corpus that a run mainly trains on; ValueError if unknown."""
  return _hash(run, main_of(run))


def trained_on(run: Run) -> dict[str, str]:
  """Hashes by name of all corpora that a run trains on, replayed ones too."""
  config = run.config
  found = {n: c['hash'] for n, c in config.get('corpora', {}).items()}
  if 'corpus' in config:  # a run from when there was one corpus
    found[main_of(run)] = config['corpus']['hash']
  return found


def _chain(path: Sequence[Run], tasks: Sequence[str]) -> Chain:
  """The evaluations along a path of runs; ValueError if one is missing."""
  # As the last run that evaluates it calls each.
  names = {_hash(run, name): name for run in path for name in _names(run)}
  losses: list[dict[str, float]] = []
  phase: list[int] = []
  updates: list[int] = []
  done = dict.fromkeys(tasks, 0)  # updates on each task before this run
  last_step = None  # of the parent's evaluations
  for run, branch in zip(path, [*path[1:], None], strict=True):
    left = branch and branch.lineage.parent
    main = task_of(run)
    rows = [r for r in run.evaluations if not left or r['step'] <= left.step]
    if not any(row['step'] > run.start_step for row in rows):
      raise ValueError(f'{run.name} was not evaluated after its first update')
    for row in rows:
      here = _losses(run, row)
      for task in tasks:
        if task not in here and any(task in before for before in losses):
          raise ValueError(
            f'{run.name} does not evaluate {names[task]}; name it in '
            'eval.sources'
          )
      own = run.lineage.parent
      if row['step'] > run.start_step:
        phase.append(tasks.index(main))
        updates.append(done[main] + row['step'] - run.start_step)
      elif own and last_step == own.step:
        # The parent was evaluated with these weights: it is one evaluation,
        # which has more corpora now.
        here = losses.pop() | here
      else:
        # The end of the parent's phase; of the oldest run, before any phase.
        phase.append(phase[-1] if phase else -1)
        updates.append(done[tasks[phase[-1]]] if phase[-1] >= 0 else 0)
      losses.append(here)
    last_step = rows[-1]['step']
    if left:
      done[main] += left.step - run.start_step
  performance = [[-row.get(task, math.nan) for task in tasks] for row in losses]
  return Chain(
    path=tuple(path),
    tasks=tuple(names[task] for task in tasks),
    hashes=tuple(tasks),
    performance=np.array(performance),
    task_of_evaluation=np.array(phase),
    updates_of_evaluation=np.array(updates),
  )


def _names(run: Run) -> list[str]:
  """Names of the corpora that a run is evaluated on, the main one at least."""
  return corpora_of(run) or [main_of(run)]


def _losses(run: Run, row: Row) -> dict[str, float]:
  """Losses of an evaluation by the hash of the corpus."""
  if not corpora_of(run):
    found = {main_of(run): row['eval_loss']}
  else:
    found = {n: row[PREFIX + n] for n in corpora_of(run) if PREFIX + n in row}
  for name, loss in found.items():
    if not math.isfinite(loss):
      raise ValueError(
        f'{run.name} has a loss on {name} of {loss} at step {row["step"]}'
      )
  return {_hash(run, name): loss for name, loss in found.items()}


def _hash(run: Run, name: str) -> str:
  """What a corpus is known by in every run, whatever each calls it."""
  known = run.config.get('eval_corpora', {}) | trained_on(run)
  if name not in known:
    raise ValueError(f'config.json of {run.name} has no hash of corpus {name}')
  return known[name]
