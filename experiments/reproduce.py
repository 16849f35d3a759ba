"""Runs the experiment of a paper: tunes, trains, judges, records.

An experiment is a file with an `Experiment`; `main` gives it its command:

  python -m experiments.NAME --workdir=runs/NAME [--preset=cpu|gpu] [--tune]

`--tune` finds the peak LRs first, on seeds that the experiment does not use,
and writes `NAME_tuning.json`; without it that file must be there. Each tuned
name has the same grid and the same seeds. Then every arm is trained with every
seed, the claims are judged, and `NAME.json` (the record) and a report of each
seed with the table of all are written. A call that was interrupted goes on
where it stopped.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import rich.console
import rich.table
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.arms import Arm
from experiments.arms import train
from experiments.arms import with_ancestors
from experiments.claims import Claim
from experiments.claims import as_record
from experiments.claims import headline
from experiments.claims import judge
from experiments.compiles import CompileCount
from experiments.report import write_report
from trainers.metrics import Row

Peaks = Mapping[str, float]  # peak LR by tuned name
Rows = Mapping[str, Sequence[Row]]  # evaluations by arm

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'scipy', 'grain')


class Experiment(NamedTuple):
  """What a paper's experiment is made of.

  Attributes:
    name: of its file, its record and its runs.
    about: one line: what is trained on what.
    claims: what the paper says of it, with margins, fixed before the runs.
    seeds: of the arms; at least 3.
    tuned: names whose peak LR is tuned, each after those before it.
    grid: peak LRs that are tried, rising.
    tuning_seeds: apart from `seeds`.
    score: `(name, rows) -> loss` of a trial: what tuning minimises.
    arms: `(preset, peaks, seed) -> arms` of the experiment.
    trial: `(preset, peaks, name, seed) -> arms` of one trial, with the tried
      peak among `peaks`; None for the arm of that name and its ancestors.
    measures: `rows -> {arm: {measure: value}}` of one seed.
    given: `preset -> peaks` that another experiment tuned.
  """

  name: str
  about: str
  claims: tuple[Claim, ...]
  seeds: tuple[int, ...]
  tuned: tuple[str, ...]
  grid: tuple[float, ...]
  tuning_seeds: tuple[int, ...]
  score: Callable[[str, Rows], float]
  arms: Callable[[str, Peaks, int], list[Arm]]
  measures: Callable[[Rows], dict[str, dict[str, float]]]
  given: Callable[[str], Peaks] = lambda preset: {}
  trial: Callable[[str, Peaks, str, int], list[Arm]] | None = None


def tune(
  experiment: Experiment, preset: str, workdir: pathlib.Path
) -> dict[str, Any]:
  """Peak LRs with the lowest mean score; as a record.

  Raises:
    ValueError: if a best peak is at an end of the grid, or the tuning seeds are
      not apart from the seeds.
  """
  if both := set(experiment.tuning_seeds) & set(experiment.seeds):
    raise ValueError(f'tuning seeds must not be test seeds, got {both} in both')
  began = time.monotonic()
  scores: dict[str, dict[str, list[float]]] = {}
  peaks = dict(experiment.given(preset))
  for name in experiment.tuned:
    scores[name] = {}
    for peak in experiment.grid:
      scores[name][f'{peak:g}'] = [
        _score(experiment, preset, peaks, name, peak, seed, workdir)
        for seed in experiment.tuning_seeds
      ]
    mean = {p: statistics.mean(found) for p, found in scores[name].items()}
    best = min(mean, key=mean.__getitem__)
    print(f'{experiment.name}: peak of {name}: {best} of {mean}')
    peaks[name] = float(best)
    if peaks[name] in (experiment.grid[0], experiment.grid[-1]):
      raise ValueError(
        f'{name}: the best peak {best} is an end of the grid '
        f'{experiment.grid}; widen it'
      )
  return {
    'command': f'{_command(experiment, preset)} --tune',
    'grid': experiment.grid,
    'seeds': experiment.tuning_seeds,
    'score': scores,
    'peak_lr': peaks,
    'wall_seconds': round(time.monotonic() - began, 1),
  }


def trial_arms(
  experiment: Experiment, preset: str, peaks: Peaks, name: str, seed: int
) -> list[Arm]:
  """What is trained to try `peaks[name]`; names tuned later may be missing."""
  if experiment.trial is not None:
    return experiment.trial(preset, peaks, name, seed)
  # Arms of later names are made as well, but not trained: any peak does.
  all_peaks = dict.fromkeys(experiment.tuned, peaks[name]) | dict(peaks)
  return with_ancestors(experiment.arms(preset, all_peaks, seed), name)


def _score(
  experiment: Experiment,
  preset: str,
  peaks: Peaks,
  name: str,
  peak: float,
  seed: int,
  workdir: pathlib.Path,
) -> float:
  """Infinite if the trial diverged."""
  arms = trial_arms(experiment, preset, {**peaks, name: peak}, name, seed)
  # An arm whose peak was found before is the same in every trial.
  called = {
    arm.name: arm.name if arm.name in peaks else f'{arm.name}_{peak:g}'
    for arm in arms
  }
  renamed = [
    arm._replace(name=called[arm.name], parent=called.get(arm.parent or ''))
    for arm in arms
  ]
  folder = workdir / 'tuning' / f'seed{seed}'
  try:
    rows = train(renamed, folder).rows
  except FloatingPointError:
    return float('inf')
  return experiment.score(name, {n: rows[called[n]] for n in called})


def measure(
  experiment: Experiment, preset: str, peaks: Peaks, workdir: pathlib.Path
) -> tuple[dict[str, dict[str, list[float]]], dict[str, int]]:
  """Every measure of every arm over the seeds, and how many runs that took."""
  outcomes: dict[str, dict[str, list[float]]] = {}
  count = {'runs': 0, 'trained_in_this_call': 0}
  for seed in experiment.seeds:
    arms = experiment.arms(preset, peaks, seed)
    trained = train(arms, workdir / f'seed{seed}')
    count['runs'] += len(arms)
    count['trained_in_this_call'] += trained.n_new
    for name, values in experiment.measures(trained.rows).items():
      for what, value in values.items():
        outcomes.setdefault(name, {}).setdefault(what, []).append(value)
  return outcomes, count


def _command(experiment: Experiment, preset: str) -> str:
  name = experiment.name
  command = f'python -m experiments.{name} --workdir=runs/{name}'
  return command if preset == 'cpu' else f'{command} --preset={preset}'


def _commit() -> dict[str, Any]:
  """The commit of the code and whether a tracked file differs from it.

  Records do not count: tuning has just written one.
  """
  git = lambda *args: subprocess.run(
    ['git', '--no-optional-locks', *args],
    cwd=pathlib.Path(__file__).parents[1],
    capture_output=True,
    text=True,
    check=False,
  )
  try:
    head = git('rev-parse', 'HEAD')
    records = ':(top,exclude)experiments/records'
    changed = git('diff', '--quiet', 'HEAD', '--', '.', records).returncode
  except FileNotFoundError:
    return {'commit': None}
  if head.returncode:
    return {'commit': None}
  return {'commit': head.stdout.strip(), 'changed_since': bool(changed)}


def record(
  experiment: Experiment, preset: str, workdir: pathlib.Path, peaks: Peaks
) -> dict[str, Any]:
  """Trains every arm, judges the claims, and writes the report's table."""
  began, commit = time.monotonic(), _commit()
  outcomes, count = measure(experiment, preset, peaks, workdir)
  verdicts = [judge(claim, outcomes) for claim in experiment.claims]
  seconds = round(time.monotonic() - began, 1)
  tuned = ', '.join(f'{name} {peak:g}' for name, peak in peaks.items())
  notes = [
    experiment.about,
    f'Seeds {", ".join(map(str, experiment.seeds))}; peak LRs, tuned on seeds '
    f'{", ".join(map(str, experiment.tuning_seeds))}: {tuned}.',
  ]
  table = headline(outcomes, verdicts, notes)
  for seed in experiment.seeds:
    # Beside the runs of each seed: their report shows it.
    path = workdir / f'seed{seed}' / 'table.json'
    path.write_text(json.dumps(table, indent=2))
  _show(table)
  return {
    'name': experiment.name,
    'about': experiment.about,
    'command': _command(experiment, preset),
    **commit,
    'versions': {'python': platform.python_version()}
    | {'lrsched': lrsched.__version__}
    | {name: importlib.metadata.version(name) for name in PACKAGES},
    'platform': jax.devices()[0].platform,
    'seeds': experiment.seeds,
    'peak_lr': dict(peaks),
    'wall_seconds': seconds,
    **count,
    **as_record(outcomes, verdicts),
  }


def _show(table: Mapping[str, Any]) -> None:
  shown = rich.table.Table()
  for i, column in enumerate(table['columns']):
    shown.add_column(column, justify='right' if i else 'left')
  for row in table['rows']:
    shown.add_row(*row)
  rich.console.Console(width=120).print(shown)
  for note in table['notes']:
    print(note)


def define_flags(experiment: Experiment) -> None:
  """The flags of an experiment's command."""
  flags.DEFINE_string('workdir', f'runs/{experiment.name}', 'Folder of runs.')
  flags.DEFINE_enum('preset', 'cpu', ['cpu', 'gpu'], 'How large.')
  flags.DEFINE_bool('tune', False, 'Find the peak LRs first.')
  flags.DEFINE_string('records', 'experiments/records', 'Folder of records.')
  flags.DEFINE_string('compile_cache', 'compile-cache', 'Compiled programs.')


def main(experiment: Experiment, argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  workdir, records = pathlib.Path(given.workdir), pathlib.Path(given.records)
  name = experiment.name + ('' if given.preset == 'cpu' else f'_{given.preset}')
  tuning = records / f'{name}_tuning.json'
  compiles = CompileCount(given.compile_cache)
  try:
    if given.tune:
      _write(tuning, tune(experiment, given.preset, workdir))
    if not tuning.exists():
      raise ValueError(f'there is no {tuning}; add --tune')
    peaks = json.loads(tuning.read_text())['peak_lr']
    result = record(experiment, given.preset, workdir, peaks)
  except (ValueError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  _write(records / f'{name}.json', result)
  for seed in experiment.seeds:
    print(f'report: {write_report(workdir / f"seed{seed}")}')
  print(f'record: {records / f"{name}.json"}; {compiles}')


def _write(path: pathlib.Path, value: Any) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value, indent=1) + '\n')
