"""Runs that learnt one task alone, and learners of several against them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from experiments.runs import Run
from experiments.task_chains import Chain
from experiments.task_chains import task_of
from experiments.task_chains import trained_on
from lrsched import diagnostics

# The fewest evaluations of which one lucky one is not the majority.
SATURATION_EVALS = 3
NOTHING = math.nan, math.nan


def against_experts(
  chain: Chain, runs: Sequence[Run]
) -> tuple[list[tuple[float, float]], list[str]]:
  """Each task of a sequence against the run that learnt it alone.

  Performance is exp(-loss) after `every_steps`, 2 `every_steps`, ... updates on
  the task, in all its phases, as far as the learner and the expert both go. So
  the evaluation before the first update is in neither curve, nor is one that
  only one of them has.

  Args:
    chain: the learner.
    runs: the folder's. The expert of a task is the only one without a parent or
      foreign weights, but for the chain's own root, that trains on its corpus
      and on no other, with the same model and tokens per update, evaluated as
      often. Runs of one id are repetitions: the first of them stands for all.

  Returns:
    Relative performance and sample efficiency of each task, NaN without an
    expert; and a line for each run that is none because of how it was trained,
    and for each task that has several.
  """
  ratios, lines = [], []
  for task, name in enumerate(chain.tasks):
    names, found = [], []
    alone: dict[str, Run] = {}
    for run in runs:
      if _learnt_alone(run, chain, task):
        alone.setdefault(run.lineage.run_id, run)
    for run in alone.values():
      try:
        found.append(_curves(chain, task, run))
        names.append(run.name)
      except ValueError as error:
        lines.append(f'{run.name}: not the expert of {name}: {error}')
    if len(found) > 1:
      lines.append(
        f'{name}: no RP and SE in what began with {chain.path[0].name}: '
        f'{", ".join(names)} learnt it alone; put all but one into another '
        'folder'
      )
    ratios.append(_ratios(*found[0]) if len(found) == 1 else NOTHING)
  return ratios, lines


def _learnt_alone(run: Run, chain: Chain, task: int) -> bool:
  lineage = run.lineage
  # As the trainer records it, only foreign weights leave a note at the start.
  is_new = lineage.parent is None and not any(
    e.note for e in lineage.events[:1]
  )
  is_root = lineage.run_id == chain.path[0].lineage.run_id
  alone = {*trained_on(run).values()} == {chain.hashes[task]}
  return is_new and alone and not is_root and bool(run.evaluations)


def _curves(
  chain: Chain, task: int, expert: Run
) -> tuple[np.ndarray, np.ndarray]:
  """Performance of both after as many updates; ValueError if not comparable."""
  for run in chain.path:
    if task_of(run) == chain.hashes[task]:
      _check_alike(run, expert)
  chosen = chain.task_of_evaluation == task
  own = dict(
    zip(
      chain.updates_of_evaluation[chosen].tolist(),
      chain.performance[chosen, task].tolist(),
      strict=True,
    )
  )
  other = {row['step']: -row['eval_loss'] for row in expert.evaluations}
  every_steps = expert.config['eval']['every_steps']
  end = min(max(own), max(other))
  grid = range(every_steps, end + 1, every_steps)
  if not grid or not {*grid} <= own.keys() & other.keys():
    raise ValueError(
      f'it and {chain.name} are not both evaluated after every {every_steps} '
      f'updates on {chain.tasks[task]}, up to {end}; begin and end all runs at '
      'multiples of eval.every_steps'
    )
  for step in grid:
    if not math.isfinite(other[step]):
      raise ValueError(
        f'its loss after {step} updates is {-other[step]}; train it again with '
        'a lower LR'
      )
  return (
    np.exp([own[updates] for updates in grid]),
    np.exp([other[updates] for updates in grid]),
  )


def _check_alike(run: Run, expert: Run) -> None:
  """ValueError unless evaluations of the two runs can be compared by number."""
  for one in (run, expert):
    if one.config['data'].get('ramp'):
      raise ValueError(
        f'{one.name} begins with smaller batches; train one without data.ramp'
      )
  own, other = run.config, expert.config
  if own['model'] != other['model']:
    raise ValueError('it is another model; train one with the same model')
  every = [config['eval']['every_steps'] for config in (other, own)]
  if every[0] != every[1]:
    raise ValueError(
      f'it is evaluated every {every[0]} updates, not every {every[1]}; train '
      'one with the same eval.every_steps'
    )
  tokens = [
    config['data']['batch_size'] * config['data']['seq_len']
    for config in (other, own)
  ]
  if tokens[0] != tokens[1]:
    raise ValueError(
      f'it has {tokens[0]} tokens per update, not {tokens[1]}; train one with '
      'the same data.batch_size and data.seq_len'
    )


def _ratios(own: np.ndarray, expert: np.ndarray) -> tuple[float, float]:
  """Relative performance, and sample efficiency."""
  window = min(SATURATION_EVALS, len(own))
  return (
    diagnostics.relative_performance(own, expert),
    diagnostics.sample_efficiency(own, expert, window),
  )
