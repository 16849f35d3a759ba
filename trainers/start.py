"""How a launch begins: anew, resumed, with a replaced schedule, or as a branch.

`plan_start` only reads. It decides, or raises, before anything is compiled or
written; what the schedules have to say is `lrsched.plan_restore`'s.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any, Literal, NamedTuple

import lrsched
from trainers import checkpoint
from trainers.optimizer import Schedules

# What `replace` may change: the schedule, how far the run goes, what is watched
# on the way, and the machine. Anything else would make it another run.
REPLACEABLE = (
  'config.optimizer.schedule',
  'config.optimizer.adam_schedule',
  'config.optimizer.groups',
  'config.total_steps',
  'config.eval',
  'config.checkpoint',
  'config.log',
  'config.forecast',
  'config.mesh',
  'config.data.cache_dir',
)

# All that a launch leaves behind if it is killed before the config is written.
BEFORE_A_RUN = {
  'lock',
  'lineage.json',
  'lineage.json.tmp',
  'config.json.tmp',
}


# Fields that configs have had for less long than checkpoints exist, and what
# a config without them meant.
ADDED: tuple[tuple[str, str, Any], ...] = (
  ('data', 'ramp', None),
  ('optimizer', 'groups', {}),
)


class Start(NamedTuple):
  """How the run begins.

  Attributes:
    step: updates made so far.
    root: folder of the checkpoints to load `step` from; None to initialise.
    same_data: whether the data iterator goes on from its saved position.
    lineage: the run's record, with this start as its last event.
  """

  step: int
  root: pathlib.Path | None
  same_data: bool
  lineage: lrsched.Lineage


def checkpoints_of(workdir: pathlib.Path) -> pathlib.Path:
  return workdir.absolute() / 'checkpoints'  # Orbax takes no relative paths


def _read_record(path: pathlib.Path) -> dict[str, Any]:
  try:
    record = json.loads(path.read_bytes())
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{path} cannot be read ({error}); every checkpoint of the run holds a '
      'copy in its metadata'
    ) from error
  if not isinstance(record, dict):
    raise ValueError(f'{path} must hold a JSON object, got {record!r}')
  return record


def _completed(saved: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
  """A saved config with the fields that it is too old to have."""
  saved = {'forecast': None} | saved
  for part, field, meant in ADDED:
    if field in asked[part] and field not in saved[part]:
      saved = saved | {part: saved[part] | {field: meant}}
  return saved


def read_lineage(workdir: pathlib.Path) -> lrsched.Lineage:
  """The lineage record of a run folder."""
  return lrsched.Lineage.from_dict(_read_record(workdir / 'lineage.json'))


def parse_branch(branch_from: str) -> tuple[pathlib.Path, int]:
  """Folder and step of `DIR@STEP`; raises ValueError if it is not that."""
  folder, _, step = branch_from.rpartition('@')
  if not folder or not step.isdecimal():
    raise ValueError(f'branch_from must be DIR@STEP, got {branch_from!r}')
  source = pathlib.Path(folder)
  if not (source / 'config.json').exists():
    raise ValueError(f'branch_from: there is no run in {source}')
  return source, int(step)


def plan_start(
  resolved: dict[str, Any],
  schedules: Schedules,
  workdir: pathlib.Path,
  branch_from: str | None,
  restore: Literal['resume', 'replace'] | None,
) -> Start:
  """Decides how a launch into `workdir` begins.

  - An empty or new folder starts a run, or a branch with `branch_from`.
  - A folder with the same resolved config resumes, with or without `restore`.
  - `restore='replace'` accepts another schedule or length, and records it.
  - Anything else is an error that shows the difference.

  Args:
    resolved: the whole config as JSON values, with the hash of the corpus.
    schedules: the asked schedules, by field name.
    workdir: the run's folder.
    branch_from: `DIR@STEP`: the run folder and checkpoint to branch from.
    restore: demands that there is a run to restore, and says how.

  Raises:
    ValueError: saying what is wrong and what to do; nothing was changed.
    checkpoint.DamagedCheckpoint: if no checkpoint of the run can be used.
  """
  if not (workdir / 'config.json').exists():
    _check_unused(workdir, restore)
    if branch_from is None:
      run_id = _run_id(resolved, None)
      lineage = lrsched.Lineage(run_id, None, ()).recorded(0, 'start', ())
      return Start(0, None, False, lineage)
    return _plan_branch(resolved, schedules, *parse_branch(branch_from))
  return _plan_restart(resolved, schedules, workdir, branch_from, restore)


def _check_unused(workdir: pathlib.Path, restore: str | None) -> None:
  if restore is not None:
    raise ValueError(f'--restore={restore}: there is no run in {workdir}')
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f'workdir {workdir} is a file; name a folder')
  if not workdir.exists():
    return
  if found := sorted({p.name for p in workdir.iterdir()} - BEFORE_A_RUN):
    raise ValueError(
      f'workdir {workdir} holds files that are not a run ({found[0]}, ...); '
      'use an empty or new folder'
    )


def _run_id(resolved: dict[str, Any], parent: lrsched.Parent | None) -> str:
  """A name that is a function of the config and the parent."""
  origin = [resolved, parent and [parent.run_id, parent.step]]
  text = json.dumps(origin, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plan_branch(
  resolved: dict[str, Any],
  schedules: Schedules,
  source: pathlib.Path,
  step: int,
) -> Start:
  root = checkpoints_of(source)
  steps = checkpoint.saved_steps(root)
  if step not in steps:
    raise ValueError(
      f'branch_from: {source} has no checkpoint of step {step}; it has '
      f'{steps}; keep one with checkpoint.keep_steps'
    )
  checkpoint.verify(root, step)
  saved = checkpoint.load_metadata(root, step)['config']
  saved = _completed(saved, resolved)
  changes = lrsched.diff(saved, resolved, 'config')
  _check_length(resolved, step)
  notes = _schedule_notes(saved, schedules, step, 'branch')
  parent = lrsched.Parent(
    read_lineage(source).run_id, str(source.resolve()), step
  )
  lineage = lrsched.Lineage(_run_id(resolved, parent), parent, ())
  same_data = not any(
    line.startswith(('config.data', 'config.corpus'))
    and not line.startswith('config.data.cache_dir')
    for line in changes
  )
  if not same_data:
    notes = (*notes, "data: from its beginning, as it is not the parent's")
  lineage = lineage.recorded(step, 'branch', (*changes, *notes))
  return Start(step, root, same_data, lineage)


def _plan_restart(
  resolved: dict[str, Any],
  schedules: Schedules,
  workdir: pathlib.Path,
  branch_from: str | None,
  restore: str | None,
) -> Start:
  saved = _completed(_read_record(workdir / 'config.json'), resolved)
  lineage = read_lineage(workdir)
  _check_parent(lineage, branch_from, workdir)
  changes = lrsched.diff(saved, resolved, 'config')
  if changes and restore != 'replace':
    raise ValueError(
      f'workdir {workdir} holds another run (its config -> this one):\n  '
      + '\n  '.join(changes)
      + '\nuse a new workdir, branch from it with --branch_from='
      f'{workdir}@STEP, or change its schedule with --restore=replace'
    )
  if fixed := [c for c in changes if not c.startswith(REPLACEABLE)]:
    raise ValueError(
      '--restore=replace changes schedules, length, evaluation, saving, '
      'logging and mesh only; for this, branch into a new workdir:\n  '
      + '\n  '.join(fixed)
    )
  root = checkpoints_of(workdir)
  first = 0 if lineage.parent is None else lineage.parent.step
  unsealed = not checkpoint.manifest_of(root, first).exists()
  if unsealed and checkpoint.saved_steps(root) in ([], [first]):
    if (workdir / 'metrics.jsonl').exists():
      raise ValueError(
        f'workdir {workdir} has trained, but its checkpoints are gone; put '
        f'{root} back, or use a new workdir'
      )
    # Killed before its first checkpoint was whole: nothing happened yet.
    if lineage.parent is None:
      run_id = _run_id(resolved, None)
      lineage = lrsched.Lineage(run_id, None, ()).recorded(0, 'start', ())
      return Start(0, None, False, lineage)
    source = pathlib.Path(lineage.parent.workdir)
    return _plan_branch(resolved, schedules, source, lineage.parent.step)
  step, damaged = checkpoint.last_good(root)
  if damaged:
    lineage = lineage.recorded(step, 'fallback', damaged)
  # What counts is the config that the checkpoint was trained with: after a
  # fallback it can be older than the one that was last accepted here.
  trained = checkpoint.load_metadata(root, step)['config']
  trained = _completed(trained, resolved)
  if since := lrsched.diff(trained, resolved, 'config'):
    _check_length(resolved, step)
    notes = _schedule_notes(trained, schedules, step, 'replace')
    lineage = lineage.recorded(step, 'replace', (*since, *notes))
  elif step < resolved['total_steps']:
    _schedule_notes(trained, schedules, step, 'resume')
    lineage = lineage.recorded(step, 'resume', ())
  return Start(step, root, True, lineage)


def _check_parent(
  lineage: lrsched.Lineage, branch_from: str | None, workdir: pathlib.Path
) -> None:
  if branch_from is None:
    return
  parent = lineage.parent
  source, step = parse_branch(branch_from)
  # By id, not by path: the parent may have moved since.
  asked = (read_lineage(source).run_id, step)
  if parent is None or (parent.run_id, parent.step) != asked:
    origin = parent and f'a branch of {parent.workdir}@{parent.step}'
    raise ValueError(
      f'workdir {workdir} holds {origin or "a run without a parent"}, not a '
      f'branch of {source}@{step}; use a new workdir'
    )


def _check_length(resolved: dict[str, Any], step: int) -> None:
  if resolved['total_steps'] <= step:
    raise ValueError(
      f'total_steps must be greater than the restored step {step}, got '
      f'{resolved["total_steps"]}; steps count from the start of the oldest '
      'ancestor'
    )


def _schedule_notes(
  saved: dict[str, Any], schedules: Schedules, step: int, policy: lrsched.Policy
) -> tuple[str, ...]:
  """What a change of schedule does: the next LR, its phase, the end."""
  notes: list[str] = []
  optimizer = saved['optimizer']
  groups = optimizer.get('groups', {}).items()
  specs = optimizer | {f'groups.{pattern}': spec for pattern, spec in groups}
  for name, asked in schedules.items():
    if specs.get(name) is not None:  # there, and not frozen
      old = lrsched.from_dict(specs[name], f'optimizer.{name}')
      plan = lrsched.plan_restore(old, step, asked, policy)
      which = '' if name == 'schedule' else f'optimizer.{name}: '
      # The changed fields are in the diff of the configs.
      lines = [n for n in plan.diff if not n.startswith('schedule.')]
      notes += [which + line for line in lines]
  return tuple(notes)
