"""Run folders, read back: what the trainer wrote about each run."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Sequence
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
  """The run in a folder, or the runs in its subfolders, as a forest.

  Returns:
    Every run before its branches, its latest branch first: listed in this
    order, no branch crosses another.

  Raises:
    ValueError: if there is no run, a file of one cannot be read, or their
      records contradict each other.
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
  by_id = {run.lineage.run_id: run for run in runs}
  return [by_id[node.lineage.run_id] for node in forest_of(runs).nodes()]


def forest_of(runs: Sequence[Run]) -> lrsched.Forest:
  """The runs as trees; raises ValueError if their records contradict."""
  return lrsched.forest_of((run.lineage, run.end_step) for run in runs)


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
