"""How a launch begins: what it goes on from, and how the lineage says it."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import lrsched
from trainers import checkpoint
from trainers.data import begun_anew
from trainers.optimizer import Schedules


class Start(NamedTuple):
  """How the run begins.

  Attributes:
    step: updates made so far, by the run's own count.
    root: folder of the checkpoints to load from; None to initialise.
    load_step: the checkpoint to load.
    carry: what to load of it.
    metadata: of that checkpoint; None to initialise.
    is_branch: whether the run begins here, from another's checkpoint.
    lineage: the run's record, with this start as its last event.
  """

  step: int
  root: pathlib.Path | None
  load_step: int
  carry: lrsched.Carry
  metadata: dict[str, Any] | None
  is_branch: bool
  lineage: lrsched.Lineage

  @property
  def position(self) -> dict[str, Any] | None:
    """Of the data, as `Batches` takes it; None from the beginning."""
    if self.metadata is None or self.carry == 'weights':
      return None
    return self.metadata['data']


def checkpoints_of(workdir: pathlib.Path) -> pathlib.Path:
  return workdir.absolute() / 'checkpoints'  # Orbax takes no relative paths


def read_record(path: pathlib.Path) -> dict[str, Any]:
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
  return lrsched.Lineage.from_dict(read_record(workdir / 'lineage.json'))


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


def check_saved(workdir: pathlib.Path, step: int, field: str = '') -> None:
  """Raises ValueError, naming the `field` that asked, unless it is saved."""
  steps = checkpoint.saved_steps(checkpoints_of(workdir))
  if step not in steps:
    asked = f'{field}: ' if field else ''
    raise ValueError(
      f'{asked}{workdir} has no checkpoint of step {step}; it has {steps}; '
      'keep one with checkpoint.keep_steps'
    )


def saved_metadata(
  workdir: pathlib.Path, step: int, field: str = ''
) -> dict[str, Any]:
  """Of a run's checkpoint, whose files are as they were written.

  Raises:
    ValueError: naming the `field` that asked, if there is no such step.
    checkpoint.DamagedCheckpoint: if it is not whole.
  """
  check_saved(workdir, step, field)
  root = checkpoints_of(workdir)
  checkpoint.verify(root, step)
  return checkpoint.load_metadata(root, step)


def weights_note(path: str) -> tuple[str, ...]:
  """What the lineage says of a file of weights: its name and its bytes."""
  try:
    with open(path, 'rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise ValueError(f'--init_from: {path} cannot be read: {error}') from error
  return (f'weights: {path}, sha256 {digest}', 'optimizer state: begins anew')


def digest_in(note: tuple[str, ...]) -> str:
  """The SHA-256 in what `weights_note` made; '' of another note."""
  return note[0].rpartition('sha256 ')[2] if note else ''


def run_id_of(
  resolved: dict[str, Any],
  parent: lrsched.Parent | None,
  origin: tuple[str, ...] | None = None,
  past: lrsched.Lineage | None = None,
) -> str:
  """A name that is a function of the config, given weights, and the parent.

  Of the parent its id, and what was decided in it (`past`, at the checkpoint)
  since that id was given: other schedules make other weights.
  """
  carried = [parent.carry] if parent and parent.carry != 'all' else []
  given = [digest_in(origin)] if origin else []
  events = past.events if past else ()
  decided_since = [e for e in events if e.kind in ('replace', 'decay')]
  source = parent and [parent.run_id, parent.step, *carried, *decided_since]
  text = json.dumps([resolved, source, *given], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_length(resolved: dict[str, Any], step: int) -> None:
  if resolved['total_steps'] <= step:
    raise ValueError(
      f'total_steps must be greater than the restored step {step}, got '
      f'{resolved["total_steps"]}; steps count from the start of the oldest '
      'ancestor'
    )


def data_notes(
  resolved: dict[str, Any],
  streams: Mapping[str, str],
  position: dict[str, Any] | None,
) -> tuple[str, ...]:
  """Where each corpus of a branch is read from, if not from where it stood."""
  anew = begun_anew(position, streams, resolved['data']['source'])
  return tuple(f'data: {name} from its beginning' for name in anew)


def schedule_notes(
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
