r"""Loss curves from what users have: run folders, CSV, TensorBoard, plain logs.

  curves = read_curves(pathlib.Path('runs/demo'))
  curves = read_curves(path, Reading(lr='train/lr', loss='val/loss'))

A format is told from the file, or named with `Reading(format=...)`:

- run: a run folder of the trainer, or the folder around several.
- csv: a CSV with columns of step, LR and loss.
- wandb: the export of a Weights & Biases chart.
- hugging_face: `trainer_state.json`, or the folder that has it.
- tensorboard: event files, their folder, or the folder around several.
- text: any other log, with a `pattern`.

What step, LR and loss mean in each is in the docstring of its reader. A number
that is negative or not finite is an error that names its place, an empty one is
a value that was not logged.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import lrsched
from experiments.event_files import Scalars
from experiments.event_files import event_files
from experiments.event_files import read_scalars
from experiments.log_formats import read_csv
from experiments.log_formats import read_hugging_face
from experiments.log_formats import read_text
from experiments.log_formats import read_wandb
from experiments.log_formats import table
from experiments.logged import Logged
from experiments.logged import Reading
from experiments.logged import choose_series
from experiments.logged import logged
from experiments.logged import to_curve
from experiments.logged import value_in
from experiments.runs import Run
from experiments.runs import load_runs
from experiments.runs import parents_of
from lrsched.laws import Curve
from trainers.metrics import Row

HUGGING_FACE_FILE = 'trainer_state.json'


def read_curves(
  path: pathlib.Path,
  reading: Reading = Reading(),  # noqa: B008
  *,
  schedule: lrsched.Schedule | None = None,
  warmup_steps: int | None = None,
) -> list[Curve]:
  """The loss curve of every run in a file or folder.

  Args:
    path: what the run left.
    reading: how to read it.
    schedule: gives the LRs before the first and after the last logged one, or
      all of them if none is logged. A run folder of the trainer knows its own.
    warmup_steps: updates of the warmup; None takes the initial strict rise.

  Returns:
    A curve for each run, in the order of the file or folder.

  Raises:
    ValueError: naming the file, the place and what is wrong there.
    OSError: if a file cannot be read.
  """
  logs = _read(path, reading, losses=True)
  return [to_curve(log, schedule, warmup_steps) for log in logs]


def read_lrs(
  path: pathlib.Path,
  reading: Reading = Reading(),  # noqa: B008
) -> list[Logged]:
  """The logged LRs of every run in a file or folder; no losses are needed.

  Of a branch these are its own, without those of the run it branched from.

  Raises:
    ValueError: as `read_curves`, and if no LR is logged.
    OSError: if a file cannot be read.
  """
  logs = _read(path, reading, losses=False)
  for log in logs:
    if not log.lrs:
      raise ValueError(
        f'{path}: {log.name} has no LR; name what holds it with lr='
      )
  return logs


def read_run_folders(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  """Run folders of the trainer: the one given, or those in the one given.

  A training row at `step` has the LR of update `step`, from 0, and the loss
  before it, which is the one after update `step - 1`. An evaluation at `step`
  comes after `step` updates, so it too is the loss after update `step - 1`.
  `loss` is `loss` (of training) unless named, for instance `eval_loss`.

  The curve of a branch begins at step 0, with the rows of the run it branched
  from up to there; both must be in the folder given. After the last row logged,
  LRs are those of the schedule in `config.json`.
  """
  runs = load_runs(path)
  parents = parents_of(runs)
  lr_name, loss_name = reading.lr or 'lr', reading.loss or 'loss'
  out = []
  for run in runs:
    train, evaluations = run.train, run.evaluations
    if losses:
      train, evaluations = _history(run, parents)
    found = {}
    for what, name, rows in (
      ('lr', lr_name, train),
      ('loss', loss_name, [*train, *evaluations] if losses else []),
    ):
      pairs = []
      for row in rows:
        where = f'{run.name}, metrics at step {row["step"]}'
        value = value_in(where, name, row.get(name))
        if value is not None:
          pairs.append((row['step'], value))
      found[what] = dict(sorted(pairs))
    if losses and not found['loss']:
      names = {name for row in (*train, *evaluations) for name in row}
      raise ValueError(
        f'{run.name}: {loss_name} is not in its metrics, but '
        f'{", ".join(sorted(names - {"step"})) or "nothing"}'
      )
    after = {step - 1: x for step, x in found['loss'].items() if step > 0}
    schedule = run.schedules.get('schedule') if lr_name == 'lr' else None
    out.append(Logged(run.name, found['lr'], after, schedule))
  return out


def _history(run: Run, parents: dict[str, Run]) -> tuple[list[Row], list[Row]]:
  """Training rows and evaluations from step 0 on, ancestors' included."""
  parent = run.lineage.parent
  if parent is None:
    return run.train, run.evaluations
  if run.workdir not in parents:
    raise ValueError(
      f'{run.name} branched at step {parent.step} from {parent.workdir}, which '
      'is not here; give the folder that holds both'
    )
  train, evaluations = _history(parents[run.workdir], parents)
  return (
    [row for row in train if row['step'] < parent.step] + run.train,
    [row for row in evaluations if row['step'] <= parent.step]
    + run.evaluations,
  )


def read_tensorboard(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  """TensorBoard: an event file, the folder of a run, or that around several.

  LR and loss are taken as logged with update `step` from 0; `first_step=1` says
  that the trainer counts the updates done. A step at or before the last one of
  its tag is a restart, and replaces what was logged from there on. Numbers are
  float32. Of a run of this trainer give the run folder, not its `tb`: there
  evaluations count differently from training rows.
  """
  folders = [path]
  if path.is_dir() and not event_files(path):
    folders = sorted(f for f in path.iterdir() if f.is_dir() and event_files(f))
  out = []
  for folder in folders:
    tags: Scalars = {}
    for file in event_files(folder) if folder.is_dir() else [folder]:
      for tag, pairs in read_scalars(file).items():
        tags.setdefault(tag, []).extend(pairs)
    if not tags:
      continue  # events without scalars, as a list of hyperparameters has
    where = str(folder)
    chosen = choose_series(where, sorted(tags), reading, losses)
    found: dict[str, list[tuple[int, float]]] = {'lr': [], 'loss': []}
    for what, tag in chosen.items():
      for step, number in tags[tag]:
        value = value_in(f'{where}, {tag} at step {step}', what, number)
        if value is not None:
          found[what].append((step, value))
    name = folder.resolve().name
    lrs, values = found['lr'], found['loss']
    out.append(logged(name, lrs, values, reading, first_step=0, restarts=True))
  if not out:
    raise ValueError(f'{path}: there is no event file with a scalar')
  return out


Reader = Callable[..., list[Logged]]
# What each format is read by, and which fields of a Reading it takes.
_CONVENTIONS = ('first_step', 'next_lr')
FORMATS: dict[str, tuple[Reader, tuple[str, ...]]] = {
  'run': (read_run_folders, ('lr', 'loss')),
  'csv': (read_csv, ('step', 'lr', 'loss', *_CONVENTIONS)),
  'wandb': (read_wandb, ('step', 'lr', 'loss', *_CONVENTIONS)),
  'hugging_face': (read_hugging_face, ('loss', 'next_lr')),
  'tensorboard': (read_tensorboard, ('lr', 'loss', *_CONVENTIONS)),
  'text': (read_text, ('pattern', *_CONVENTIONS)),
}


def _read(
  path: pathlib.Path, reading: Reading, *, losses: bool
) -> list[Logged]:
  if not path.exists():
    raise ValueError(f'there is no {path}')
  form = reading.format or _format_of(path, reading)
  if form not in FORMATS:
    raise ValueError(
      f'format must be one of {", ".join(FORMATS)}, got {form!r}'
    )
  reader, takes = FORMATS[form]
  for field, default in Reading()._asdict().items():
    given = getattr(reading, field)
    if field not in ('format', *takes) and given != default:
      raise ValueError(
        f'{path}: {field}={given!r} is not for the format {form}, which takes '
        f'{", ".join(takes)}'
      )
  if form == 'hugging_face' and path.is_dir():
    path = path / HUGGING_FACE_FILE
  return reader(path, reading, losses=losses)


def _format_of(path: pathlib.Path, reading: Reading) -> str:
  """The format, by name and content."""
  if path.is_dir():
    if (path / HUGGING_FACE_FILE).exists():
      return 'hugging_face'
    folders = [path, *(f for f in path.iterdir() if f.is_dir())]
    if any(path.rglob('lineage.json')):
      return 'run'
    if any(event_files(f) for f in folders):
      return 'tensorboard'
  elif 'tfevents' in path.name:
    return 'tensorboard'
  elif reading.pattern is not None:
    return 'text'
  elif path.suffix == '.json':
    return 'hugging_face'
  elif path.suffix == '.csv':
    header, _ = table(path)
    return 'wandb' if any(' - ' in name for name in header) else 'csv'
  raise ValueError(
    f'{path}: it cannot be told what this is; name the format '
    f'({", ".join(FORMATS)}), or give a pattern for a plain log'
  )
