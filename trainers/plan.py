"""Decides how a launch begins: anew, resumed, replaced, or as a branch.

`plan_start` only reads. It decides, or raises, before anything is compiled or
written; what the schedules have to say is `lrsched.plan_restore`'s.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lrsched
from trainers import checkpoint
from trainers.decided import decided
from trainers.decided import schedules_in
from trainers.start import Start
from trainers.start import check_length
from trainers.start import checkpoints_of
from trainers.start import data_notes
from trainers.start import digest_in
from trainers.start import parse_branch
from trainers.start import read_lineage
from trainers.start import read_record
from trainers.start import run_id_of
from trainers.start import saved_metadata
from trainers.start import schedule_notes
from trainers.start import weights_note

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

# Of these, what decides the LRs: a decay that was begun ends with a change.
SCHEDULED = ('config.optimizer', 'config.total_steps', 'config.finish')

# All that a launch leaves behind if it is killed before the config is written.
BEFORE_A_RUN = {
  'lock',
  'lineage.json',
  'lineage.json.tmp',
  'config.json.tmp',
}


def plan_start(
  resolved: dict[str, Any],
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
  - `restore='replace'` accepts another schedule or length, and records it; a
    decay that was begun ends with that, but not if other fields change.
  - Anything else is an error that shows the difference.

  Args:
    resolved: the whole config as JSON values, with the hashes of the corpora.
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
      resolved, streams, workdir, branch_from, carry, origin, restore
    )
  _check_unused(workdir, restore)
  if branch_from is None:
    return _fresh(resolved, origin)
  source, step = parse_branch(branch_from)
  return _plan_branch(resolved, streams, source, step, carry)


def _fresh(resolved: dict[str, Any], origin: tuple[str, ...] | None) -> Start:
  run_id = run_id_of(resolved, None, origin)
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


def _plan_branch(
  resolved: dict[str, Any],
  streams: Mapping[str, str],
  source: pathlib.Path,
  load_step: int,
  carry: lrsched.Carry,
) -> Start:
  metadata = saved_metadata(source, load_step, 'branch_from')
  past = lrsched.Lineage.from_dict(metadata['lineage'])
  saved = decided(metadata['config'], past)
  changes = lrsched.diff(saved, resolved, 'config')
  parent = lrsched.Parent(
    read_lineage(source).run_id, str(source.resolve()), load_step, carry
  )
  run_id = run_id_of(resolved, parent, past=past)
  lineage = lrsched.Lineage(run_id, parent, ())
  start = Start(
    lineage.start_step,
    checkpoints_of(source),
    load_step,
    carry,
    metadata,
    True,
    lineage,
  )
  check_length(resolved, start.step)
  if carry != 'weights':
    _check_tokens(resolved, saved)
  notes = schedule_notes(
    saved, schedules_in(resolved), load_step, 'branch', carry
  )
  notes += data_notes(resolved, streams, start.position)
  lineage = lineage.recorded(start.step, 'branch', (*notes, *changes))
  return start._replace(lineage=lineage)


def _check_tokens(resolved: dict[str, Any], saved: dict[str, Any]) -> None:
  """Raises ValueError if a budget would count the parent's tokens wrong."""
  data, before = resolved['data'], saved['data']
  if resolved['finish']['by_tokens'] is None or data['ramp'] is not None:
    return
  for name in ('batch_size', 'seq_len'):
    if before['ramp'] is not None or before[name] != data[name]:
      raise ValueError(
        'Finish.by_tokens counts every update at this batch_size and seq_len, '
        f'but the parent had {name} {before[name]}'
        f'{" and a ramp" if before["ramp"] else ""}, this has {data[name]}; '
        'give the sizes so far in data.ramp, or use Finish.by_step'
      )


def _plan_restart(
  resolved: dict[str, Any],
  streams: Mapping[str, str],
  workdir: pathlib.Path,
  branch_from: str | None,
  carry: lrsched.Carry,
  origin: tuple[str, ...] | None,
  restore: str | None,
) -> Start:
  lineage = read_lineage(workdir)
  _check_parent(lineage, branch_from, carry, workdir)
  began = lineage.events[0].note if lineage.parent is None else ()
  if origin is not None and digest_in(began) != digest_in(origin):
    raise ValueError(
      f'workdir {workdir} holds a run that did not begin with these weights '
      f'({origin[0]}); use a new workdir'
    )
  accepted = read_record(workdir / 'config.json')
  changes = lrsched.diff(accepted, resolved, 'config')
  _check_changes(changes, workdir, restore)
  if not _is_unsaved(workdir, lineage.start_step):
    return _go_on(resolved, workdir, lineage, changes)
  # Killed before its first checkpoint was whole: nothing happened yet.
  if lineage.parent is None:
    if began and origin is None:
      raise ValueError(
        f'workdir {workdir} was killed before it saved what it began with '
        f'({began[0]}); launch it with --init_from again'
      )
    return _fresh(resolved, origin)
  parent = lineage.parent
  source = pathlib.Path(parent.workdir)
  if branch_from is not None:
    source = parse_branch(branch_from)[0]  # it may have moved since
  return _plan_branch(resolved, streams, source, parent.step, parent.carry)


def _check_changes(
  changes: Sequence[str], workdir: pathlib.Path, restore: str | None
) -> None:
  """Raises ValueError unless the config that was accepted may so change."""
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


def _is_unsaved(workdir: pathlib.Path, first_step: int) -> bool:
  """Whether a run was killed before its first checkpoint was whole.

  Raises:
    ValueError: if it has trained, so that checkpoints are missing.
  """
  root, metrics = checkpoints_of(workdir), workdir / 'metrics.jsonl'
  if checkpoint.manifest_of(root, first_step).exists():
    return False
  if checkpoint.saved_steps(root) not in ([], [first_step]):
    return False
  if metrics.exists() and metrics.stat().st_size > 0:
    raise ValueError(
      f'workdir {workdir} has trained, but its checkpoints are gone; put '
      f'{root} back, or use a new workdir'
    )
  return True


def _go_on(
  resolved: dict[str, Any],
  workdir: pathlib.Path,
  lineage: lrsched.Lineage,
  changes: Sequence[str],
) -> Start:
  """From the last whole checkpoint; `changes` are what this launch replaces."""
  root = checkpoints_of(workdir)
  step, damaged = checkpoint.last_good(root)
  if damaged:
    lineage = lineage.recorded(step, 'fallback', damaged)
  metadata = checkpoint.load_metadata(root, step)
  kind = 'resume'
  if changes:
    is_other = any(line.startswith(SCHEDULED) for line in changes)
    kind = 'replace' if is_other else 'change'
  # A decay that was begun goes on, unless this launch replaces it.
  runs = resolved if kind == 'replace' else decided(resolved, lineage)
  # The checkpoint can be of an older config than the last accepted: after a
  # fallback, or a kill before the first checkpoint with that one.
  since = lrsched.diff(metadata['config'], resolved, 'config')
  notes: tuple[str, ...] = ()
  if any(line.startswith(SCHEDULED) for line in since):
    check_length(runs, step)
    past = lrsched.Lineage.from_dict(metadata['lineage'])
    trained = decided(metadata['config'], past)
    notes = schedule_notes(trained, schedules_in(runs), step, 'replace')
  if changes or step < runs['total_steps']:
    lineage = lineage.recorded(step, kind, (*notes, *(since or changes)))
  return Start(step, root, step, 'all', metadata, False, lineage)


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
