"""Run folders, read back: what the trainer wrote about each run."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lrsched
from trainers.metrics import Row
from trainers.metrics import read_metrics


class Run(NamedTuple):
  """What a run folder says of its run.

  Attributes:
    name: the folder's path in the folder that was loaded, such as
      `anneals/half_900_40`; of that folder itself its name.
    workdir: the folder's whole path, as a branch records its parent's.
    lineage: the run's id, parent and events.
    config: the resolved config, as JSON values.
    train: training rows; `step` counts updates from 0.
    evaluations: evaluation rows; `step` is the number of updates done.
  """

  name: str
  workdir: str
  lineage: lrsched.Lineage
  config: dict[str, Any]
  train: list[Row]
  evaluations: list[Row]

  @property
  def start_step(self) -> int:
    """The step that the run began at: its own count goes on from there."""
    return self.lineage.start_step

  @property
  def end_step(self) -> int:
    """Updates done by the run's own count, as far as the metrics tell."""
    ends = [row['step'] + 1 for row in self.train[-1:]]
    ends += [row['step'] for row in self.evaluations[-1:]]
    return max([self.start_step, *ends])

  @property
  def schedules(self) -> dict[str, lrsched.Schedule]:
    """The optimizer's schedules by field name; the main one is 'schedule'.

    As the config has them, but for the main one if a decay was begun since.
    """
    fields = dict(self.config['optimizer'])
    if begun := self.lineage.begun_decay:
      fields['schedule'] = begun.spec
    return {
      field: lrsched.from_dict(value, f'{self.name}: optimizer.{field}')
      for field, value in fields.items()
      if field.endswith('schedule')
    }

  @property
  def total_steps(self) -> int:
    """Where the run ends: as its config says, or where a begun decay does."""
    begun = self.lineage.begun_decay
    end = self.schedules['schedule'].end_step if begun else None
    return self.config['total_steps'] if end is None else end

  def tokens_in(self, start_step: int, end_step: int) -> int:
    """Tokens predicted in the updates `start_step <= t < end_step`."""
    data = self.config['data']
    ramp = data.get('ramp')
    edges = tuple(ramp['boundaries']) if ramp else ()
    sizes = tuple(ramp['batch_sizes']) if ramp else (data['batch_size'],)
    first, last = (
      lrsched.samples_at(step, edges, sizes) for step in (start_step, end_step)
    )
    return (last - first) * data['seq_len']


def load_runs(workdir: pathlib.Path) -> list[Run]:
  """The run in a folder, or the runs at any depth below it, as a forest.

  What a run folder holds is its own, and not searched for others.

  Returns:
    Every run before its branches, its latest branch first: listed in this
    order, no branch crosses another.

  Raises:
    ValueError: if there is no run, a file of one cannot be read, or their
      records contradict each other.
  """
  if not workdir.is_dir():
    raise ValueError(f'{workdir} is not a folder; give one that holds runs')
  runs = [
    _load(name, folder) for name, folder in _run_folders(workdir.resolve())
  ]
  if not runs:
    raise ValueError(
      f'{workdir} holds no run: neither it nor a folder below it has '
      'config.json and lineage.json; give what was --workdir of '
      'experiments.launch, or a folder around it'
    )
  by_workdir = {run.workdir: run for run in runs}
  return [by_workdir[node.workdir] for node in forest_of(runs).nodes()]


def forest_of(runs: Sequence[Run]) -> lrsched.Forest:
  """The runs as trees; raises ValueError if their records contradict."""
  return lrsched.forest_of(
    {run.workdir: (run.lineage, run.end_step) for run in runs}
  )


def parents_of(runs: Sequence[Run]) -> dict[str, Run]:
  """By a branch's workdir the run that it left, if that is among the runs."""
  by_workdir = {run.workdir: run for run in runs}
  return {
    child.workdir: by_workdir[node.workdir]
    for node in forest_of(runs).nodes()
    for child in node.children
  }


def read_json(path: pathlib.Path) -> Any:
  """The JSON in a file; a ValueError that names the file if it is none."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not JSON: {error}') from error


def _run_folders(top: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """Names and folders of the runs, each once, also where links lead to it."""
  seen = set()
  for path, names, files in os.walk(top, onerror=_refuse, followlinks=True):
    folder = pathlib.Path(path).resolve()
    is_run = {'config.json', 'lineage.json'} <= {*files}
    if is_run and folder not in seen:
      inside = pathlib.Path(path).relative_to(top).as_posix()
      yield (top.name if inside == '.' else inside), folder
    if is_run or folder in seen:
      names.clear()
    seen.add(folder)
    names.sort(key=_natural)


def _refuse(error: OSError) -> None:
  raise ValueError(f'runs cannot be looked for: {error}') from error


def _load(name: str, folder: pathlib.Path) -> Run:
  path = folder / 'lineage.json'
  try:
    lineage = lrsched.Lineage.from_dict(read_json(path))
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  # A run that is still compiling has no metrics yet.
  has_metrics = (folder / 'metrics.jsonl').exists()
  train, evaluations = read_metrics(folder) if has_metrics else ([], [])
  config = read_json(folder / 'config.json')
  return Run(name, str(folder), lineage, config, train, evaluations)


def _natural(name: str) -> list[tuple[int, str]]:
  """Sorts `cosine_400` before `cosine_1600`."""
  parts = re.split(r'(\d+)', name)
  return [(int(p), '') if p.isdigit() else (-1, p) for p in parts]
