"""Run folders, read back: what the trainer wrote about each run."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, NamedTuple

import lrsched
from trainers.metrics import Row
from trainers.metrics import read_metrics


class Run(NamedTuple):
  """What a run folder says of its run.

  Attributes:
    name: the folder's name.
    lineage: the run's id, parent and events.
    config: the resolved config, as JSON values.
    train: training rows; `step` counts updates from 0.
    evaluations: evaluation rows; `step` is the number of updates done.
  """

  name: str
  lineage: lrsched.Lineage
  config: dict[str, Any]
  train: list[Row]
  evaluations: list[Row]

  @property
  def start_step(self) -> int:
    """Updates that the run's ancestors had done when it began."""
    return self.lineage.parent.step if self.lineage.parent else 0

  @property
  def end_step(self) -> int:
    """Updates done, its ancestors' included, as far as the metrics tell."""
    ends = [row['step'] + 1 for row in self.train[-1:]]
    ends += [row['step'] for row in self.evaluations[-1:]]
    return max([self.start_step, *ends])

  @property
  def schedules(self) -> dict[str, lrsched.Schedule]:
    """The optimizer's schedules by field name; the main one is 'schedule'."""
    return {
      field: lrsched.from_dict(value, f'{self.name}: optimizer.{field}')
      for field, value in self.config['optimizer'].items()
      if field.endswith('schedule')
    }


def load_runs(workdir: pathlib.Path) -> list[Run]:
  """The run in a folder, or the runs in its subfolders, as a forest.

  Returns:
    Every run before its branches, its latest branch first: listed in this
    order, no branch crosses another.

  Raises:
    ValueError: if there is no run, or a file of one cannot be read.
  """
  if not workdir.is_dir():
    raise ValueError(f'{workdir} is not a folder; give one that holds runs')
  folders = [workdir, *(path for path in workdir.iterdir() if path.is_dir())]
  runs = [
    _load(folder)
    for folder in sorted(folders, key=_natural)
    if (folder / 'config.json').exists() and (folder / 'lineage.json').exists()
  ]
  if not runs:
    raise ValueError(
      f'{workdir} holds no run: neither it nor a folder in it has config.json '
      'and lineage.json; give what was --workdir of experiments.launch, or the '
      'folder around it'
    )
  known = {run.lineage.run_id for run in runs}
  ordered = []

  def add(run: Run) -> None:
    ordered.append(run)
    branches = [r for r in runs if parent_id(r) == run.lineage.run_id]
    for branch in sorted(branches, key=lambda r: -r.start_step):
      add(branch)

  for run in runs:
    if parent_id(run) not in known:
      add(run)
  return ordered


def parent_id(run: Run) -> str | None:
  """The id of the run that this one branched from."""
  return run.lineage.parent.run_id if run.lineage.parent else None


def read_json(path: pathlib.Path) -> Any:
  """The JSON in a file; a ValueError that names the file if it is none."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not JSON: {error}') from error


def _load(folder: pathlib.Path) -> Run:
  path = folder / 'lineage.json'
  try:
    lineage = lrsched.Lineage.from_dict(read_json(path))
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  # A run that is still compiling has no metrics yet.
  has_metrics = (folder / 'metrics.jsonl').exists()
  train, evaluations = read_metrics(folder) if has_metrics else ([], [])
  config = read_json(folder / 'config.json')
  return Run(folder.resolve().name, lineage, config, train, evaluations)


def _natural(path: pathlib.Path) -> list[tuple[int, str]]:
  """Sorts `cosine_400` before `cosine_1600`."""
  parts = re.split(r'(\d+)', path.name)
  return [(int(p), '') if p.isdigit() else (-1, p) for p in parts]
