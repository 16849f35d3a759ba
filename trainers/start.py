"""How a launch begins: anew, resumed, with a replaced schedule, or as a branch.

`plan_start` only reads. It decides, or raises, before anything is compiled or
written; what the schedules have to say is `lrsched.plan_restore`'s.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import lrsched
from trainers import checkpoint
from trainers.decided import decided
from trainers.decided import schedules_in
from trainers.optimizer import Schedules

# What `replace` may change: the schedule, how far the run goes, what is watched
# on the way, and the machine. Anything else would make it another run.
REPLACEABLE = (
  'config.optimizer.schedule',
  'config.optimizer.adam_schedule',
  'config.optimizer.groups',
  'config.total_steps',
  'config.eval',
  'config.eval_corpora',
  'config.checkpoint',
  'config.log',
  'config.forecast',
  'config.finish',
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


class Start(NamedTuple):
  """How the run begins.

  Attributes:
    step: updates made so far, by the run's own count.
    root: folder of the checkpoints to load from; None to initialise.
    load_step: the checkpoint to load.
    carry: what to load of it.
    position: of the data, as `Batches` takes it; None from the beginning.
    is_branch: whether the run begins here, from another's checkpoint.
    lineage: the run's record, with this start as its last event.
  """

  step: int
  root: pathlib.Path | None
  load_step: int
  carry: lrsched.Carry
  position: dict[str, Any] | None
  is_branch: bool
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


def read_lineage(workdir: pathlib.Path) -> lrsched.Lineage:
  """The lineage record of a run folder."""
  return lrsched.Lineage.from_dict(_read_record(workdir / 'lineage.json'))


def parse_branch(
  text: str, field: str = 'branch_from'
) -> tuple[pathlib.Path, int]:
  """Folder and step of `DIR@STEP`; raises ValueError if it is not that."""
  folder, _, step = text.rpartition('@')
  if not folder or not step.isdecimal():
    raise ValueError(f'{field} must be DIR@STEP, got {text!r}')
  source = pathlib.Path(folder)
  if not (source / 'config.json').exists():
    raise ValueError(f'{field}: there is no run in {source}')
  return source, int(step)


def plan_start(
  resolved: dict[str, Any],
  schedules: Schedules,
  streams: Mapping[str, str],
  workdir: pathlib.Path,
  *,
  branch_from: str | None = None,
  carry: lrsched.Carry = 'all',
  init_from: str | None = None,
  restore: Literal['resume', 'replace'] | None = None,
) -> Start:
  """Decides how a launch into `workdir` begins.

  - An empty or new folder starts a run, or a branch with `branch_from`.
  - A folder with the same resolved config resumes, with or without `restore`.
  - `restore='replace'` accepts another schedule or length, and records it.
  - Anything else is an error that shows the difference.

  Args:
    resolved: the whole config as JSON values, with the hashes of the corpora.
    schedules: the asked schedules, by field name.
    streams: of the data, by domain: `data.streams_of`.
    workdir: the run's folder.
    branch_from: `DIR@STEP`: the run folder and checkpoint to branch from.
    carry: what a branch takes along, as in `lrsched.plan_restore`.
    init_from: file of weights that a new run begins with.
    restore: demands that there is a run to restore, and says how.

  Raises:
    ValueError: saying what is wrong and what to do; nothing was changed.
    checkpoint.DamagedCheckpoint: if no checkpoint of the run can be used.
  """
  if carry not in lrsched.CARRIES:
    raise ValueError(f'carry must be one of {lrsched.CARRIES}, got {carry!r}')
  if branch_from is None and carry != 'all':
    raise ValueError(
      f'--carry={carry} says what a branch takes along: it needs --branch_from'
    )
  if branch_from is not None and init_from is not None:
    raise ValueError(
      '--init_from and --branch_from both give the first weights; drop one'
    )
  origin = None if init_from is None else weights_note(init_from)
  if (workdir / 'config.json').exists():
    return _plan_restart(
      resolved, schedules, streams, workdir, branch_from, carry, origin, restore
    )
  _check_unused(workdir, restore)
  if branch_from is None:
    return _fresh(resolved, origin)
  source, step = parse_branch(branch_from)
  return _plan_branch(resolved, schedules, streams, source, step, carry)


def weights_note(path: str) -> tuple[str, ...]:
  """What the lineage says of a file of weights: its name and its bytes."""
  try:
    with open(path, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise ValueError(f'--init_from: {path} cannot be read: {error}') from error
  return (f'weights: {path}, sha256 {digest}', 'optimizer state: begins anew')


def _fresh(resolved: dict[str, Any], origin: tuple[str, ...] | None) -> Start:
  run_id = _run_id(resolved, None, origin)
  lineage = lrsched.Lineage(run_id, None, ())
  lineage = lineage.recorded(0, 'start', origin or ())
  return Start(0, None, 0, 'all', None, False, lineage)


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


def _digest(note: tuple[str, ...]) -> str:
  """The SHA-256 in what `weights_note` made; '' of another note."""
  return note[0].rpartition('sha256 ')[2] if note else ''


def _run_id(
  resolved: dict[str, Any],
  parent: lrsched.Parent | None,
  origin: tuple[str, ...] | None = None,
) -> str:
  """A name that is a function of the config, the parent and given weights."""
  carried = [parent.carry] if parent and parent.carry != 'all' else []
  given = [_digest(origin)] if origin else []
  source = parent and [parent.run_id, parent.step, *carried]
  text = json.dumps([resolved, source, *given], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plan_branch(
  resolved: dict[str, Any],
  schedules: Schedules,
  streams: Mapping[str, str],
  source: pathlib.Path,
  load_step: int,
  carry: lrsched.Carry,
) -> Start:
  root = checkpoints_of(source)
  steps = checkpoint.saved_steps(root)
  if load_step not in steps:
    raise ValueError(
      f'branch_from: {source} has no checkpoint of step {load_step}; it has '
      f'{steps}; keep one with checkpoint.keep_steps'
    )
  checkpoint.verify(root, load_step)
  metadata = checkpoint.load_metadata(root, load_step)
  origin = lrsched.Lineage.from_dict(metadata['lineage'])
  saved = decided(metadata['config'], origin)
  changes = lrsched.diff(saved, resolved, 'config')
  parent = lrsched.Parent(
    read_lineage(source).run_id, str(source.resolve()), load_step, carry
  )
  lineage = lrsched.Lineage(_run_id(resolved, parent), parent, ())
  step = lineage.start_step
  _check_length(resolved, step)
  notes = _schedule_notes(saved, schedules, load_step, 'branch', carry)
  position = None if carry == 'weights' else metadata['data']
  data_notes = _data_notes(resolved, streams, position)
  lineage = lineage.recorded(step, 'branch', (*changes, *notes, *data_notes))
  return Start(step, root, load_step, carry, position, True, lineage)


def _data_notes(
  resolved: dict[str, Any],
  streams: Mapping[str, str],
  position: dict[str, Any] | None,
) -> tuple[str, ...]:
  """Where each corpus of a branch is read from, if not from where it stood."""
  drawn = {} if position is None else position['drawn']
  domains = resolved['data']['source'].get('domains', {})
  return tuple(
    f'data: {name} from its beginning'
    for name, key in streams.items()
    if key not in drawn or domains.get(name, {}).get('from_start')
  )


def _plan_restart(
  resolved: dict[str, Any],
  schedules: Schedules,
  streams: Mapping[str, str],
  workdir: pathlib.Path,
  branch_from: str | None,
  carry: lrsched.Carry,
  origin: tuple[str, ...] | None,
  restore: str | None,
) -> Start:
  saved = _read_record(workdir / 'config.json')
  lineage = read_lineage(workdir)
  _check_parent(lineage, branch_from, carry, workdir)
  began = lineage.events[0].note if lineage.parent is None else ()
  if origin is not None and _digest(began) != _digest(origin):
    raise ValueError(
      f'workdir {workdir} holds a run that did not begin with these weights '
      f'({origin[0]}); use a new workdir'
    )
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
  first = lineage.start_step
  unsealed = not checkpoint.manifest_of(root, first).exists()
  if unsealed and checkpoint.saved_steps(root) in ([], [first]):
    if (workdir / 'metrics.jsonl').exists():
      raise ValueError(
        f'workdir {workdir} has trained, but its checkpoints are gone; put '
        f'{root} back, or use a new workdir'
      )
    # Killed before its first checkpoint was whole: nothing happened yet.
    if lineage.parent is None:
      if began and origin is None:
        raise ValueError(
          f'workdir {workdir} was killed before it saved what it began with '
          f'({began[0]}); launch it with --init_from again'
        )
      return _fresh(resolved, origin)
    source = pathlib.Path(lineage.parent.workdir)
    if branch_from is not None:
      source = parse_branch(branch_from)[0]  # it may have moved since
    return _plan_branch(
      resolved,
      schedules,
      streams,
      source,
      lineage.parent.step,
      lineage.parent.carry,
    )
  step, damaged = checkpoint.last_good(root)
  if damaged:
    lineage = lineage.recorded(step, 'fallback', damaged)
  # What counts is the config that the checkpoint was trained with: after a
  # fallback it can be older than the one that was last accepted here.
  metadata = checkpoint.load_metadata(root, step)
  trained = decided(metadata['config'], lineage)
  runs = decided(resolved, lineage)
  asked = schedules if runs is resolved else schedules_in(runs)
  changes = lrsched.diff(metadata['config'], resolved, 'config')
  if changes:
    _check_length(resolved, step)
    notes = _schedule_notes(trained, schedules, step, 'replace')
    lineage = lineage.recorded(step, 'replace', (*changes, *notes))
  elif step < runs['total_steps']:
    _schedule_notes(trained, asked, step, 'resume')
    lineage = lineage.recorded(step, 'resume', ())
  return Start(step, root, step, 'all', metadata['data'], False, lineage)


def _check_parent(
  lineage: lrsched.Lineage,
  branch_from: str | None,
  carry: lrsched.Carry,
  workdir: pathlib.Path,
) -> None:
  if branch_from is None:
    return
  parent = lineage.parent
  source, step = parse_branch(branch_from)
  # By id, not by path: the parent may have moved since.
  asked = (read_lineage(source).run_id, step, carry)
  if parent is None or (parent.run_id, parent.step, parent.carry) != asked:
    origin = parent and (
      f'a branch of {parent.workdir}@{parent.step}, carry={parent.carry}'
    )
    raise ValueError(
      f'workdir {workdir} holds {origin or "a run without a parent"}, not a '
      f'branch of {source}@{step}, carry={carry}; use a new workdir'
    )


def _check_length(resolved: dict[str, Any], step: int) -> None:
  if resolved['total_steps'] <= step:
    raise ValueError(
      f'total_steps must be greater than the restored step {step}, got '
      f'{resolved["total_steps"]}; steps count from the start of the oldest '
      'ancestor'
    )


def _schedule_notes(
  saved: dict[str, Any],
  schedules: Schedules,
  step: int,
  policy: lrsched.Policy,
  carry: lrsched.Carry = 'all',
) -> tuple[str, ...]:
  """What a restore does to the schedules: the next LR, its phase, the end."""
  notes: list[str] = []
  optimizer = saved['optimizer']
  groups = optimizer.get('groups', {}).items()
  specs = optimizer | {f'groups.{pattern}': spec for pattern, spec in groups}
  for name, asked in schedules.items():
    if specs.get(name) is not None:  # there, and not frozen
      old = lrsched.from_dict(specs[name], f'optimizer.{name}')
      plan = lrsched.plan_restore(old, step, asked, policy, carry)
      which = '' if name == 'schedule' else f'optimizer.{name}: '
      # The changed fields are in the diff of the configs.
      lines = [n for n in plan.diff if not n.startswith('schedule.')]
      notes += [which + line for line in lines]
  return tuple(notes)
