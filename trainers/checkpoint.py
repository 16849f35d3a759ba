"""Checkpoints that cannot be loaded damaged.

A checkpoint of step `n` is a folder that Orbax writes, `<root>/<n>`, and a
manifest with the SHA-256 of each of its files, `<root>/<n>.manifest`. The
manifest is written last, so a checkpoint without one is unfinished; it is
compared with the files before anything is loaded, because Orbax itself loads
flipped bits without a word. Its own first line is the hash of the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

FORMAT = 3  # of a checkpoint; raise it when an older one cannot be read
WIDTH = 9  # digits of a step in names, so that they sort


class DamagedCheckpoint(ValueError):
  """A checkpoint is unfinished, or its bytes have changed since."""


def path_of(root: pathlib.Path, step: int) -> pathlib.Path:
  return root / f'{step:0{WIDTH}}'


def manifest_of(root: pathlib.Path, step: int) -> pathlib.Path:
  return root / f'{step:0{WIDTH}}.manifest'


def saved_steps(root: pathlib.Path) -> list[int]:
  """Steps that have a folder or a manifest, finished or not, in order."""
  names = {p.name.removesuffix('.manifest') for p in root.glob('*')}
  return sorted(int(n) for n in names if n.isdecimal())


def _hashes(folder: pathlib.Path) -> dict[str, str]:
  out = {}
  for path in sorted(p for p in folder.rglob('*') if p.is_file()):
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
    out[path.relative_to(folder).as_posix()] = digest
  return out


def _seal(root: pathlib.Path, step: int) -> None:
  """Writes the manifest of a checkpoint, once its files are on the disk."""
  for path in (path_of(root, step), *path_of(root, step).rglob('*')):
    _sync(path)
  body = json.dumps({'step': step, 'sha256': _hashes(path_of(root, step))})
  head = hashlib.sha256(body.encode()).hexdigest()
  write_durably(manifest_of(root, step), f'{head}\n{body}')


def write_durably(path: pathlib.Path, text: str) -> None:
  """Writes a whole file or nothing, and waits for the disk."""
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
  _sync(path.parent)


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  os.fsync(descriptor)
  os.close(descriptor)


def verify(root: pathlib.Path, step: int) -> None:
  """Compares a checkpoint with its manifest.

  Raises:
    DamagedCheckpoint: naming the file that is missing, left over or changed.
  """
  folder, manifest = path_of(root, step), manifest_of(root, step)
  if not manifest.exists():
    raise DamagedCheckpoint(
      f'{folder} is unfinished: it has no {manifest.name}'
    )
  head, _, body = manifest.read_bytes().partition(b'\n')
  if hashlib.sha256(body).hexdigest().encode() != head:
    raise DamagedCheckpoint(f'{manifest} is damaged')
  record = json.loads(body)
  if record['step'] != step:
    raise DamagedCheckpoint(f'{folder} is the checkpoint of {record["step"]}')
  written, found = record['sha256'], _hashes(folder)
  for name in sorted(written.keys() | found.keys()):
    if name not in found:
      raise DamagedCheckpoint(f'{folder / name} is missing')
    if name not in written:
      raise DamagedCheckpoint(f'{folder / name} was not part of the checkpoint')
    if written[name] != found[name]:
      raise DamagedCheckpoint(f'{folder / name} is damaged')


def last_good(root: pathlib.Path) -> tuple[int, tuple[str, ...]]:
  """The latest step that verifies, and why each later one does not.

  Raises:
    DamagedCheckpoint: if none does.
  """
  reasons: list[str] = []
  for step in reversed(saved_steps(root)):
    try:
      verify(root, step)
    except DamagedCheckpoint as error:
      reasons.append(str(error))
    else:
      return step, tuple(reasons)
  raise DamagedCheckpoint(
    f'no checkpoint under {root} can be used: '
    + ('; '.join(reasons) or 'there is none')
  )


class Saver:
  """Saves checkpoints in the background, one at a time, in order.

  A save copies the state and returns; writing, sealing and pruning happen on a
  thread. An error there is raised by the next `save` or `wait`.

  Attributes:
    root: folder of the checkpoints.
    last_step: step of the last save, or of the checkpoint that the run goes on
      from; known to every process alike, which a file's existence is not.
  """

  def __init__(
    self, root: pathlib.Path, keep_last: int, keep_steps: tuple[int, ...]
  ):
    self.root, self._keep_last = root, keep_last
    self._keep_steps = {0, *keep_steps}
    self.last_step: int | None = None
    if jax.process_index() == 0:
      for path in root.glob('*.orbax-checkpoint-tmp*'):
        shutil.rmtree(path)  # of a save that was killed
    self._thread = ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
    self._pending: Future | None = None

  def __enter__(self) -> Saver:
    return self

  def __exit__(self, *error: Any) -> None:
    # After an error too: the save in flight is from before it.
    try:
      self.wait()
    finally:
      self._thread.shutdown()

  def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
    """Starts saving; the arrays may be donated once this returns.

    Args:
      step: updates made.
      state: a tuple with named fields, as `load` takes them.
      metadata: JSON values; the format of checkpoints is added.
    """
    self.wait()
    self.last_step = step
    folder = path_of(self.root, step)
    if jax.process_index() == 0:
      # What an earlier, killed or damaged, save of this step left behind.
      manifest_of(self.root, step).unlink(missing_ok=True)
    response = ocp.save_checkpointables_async(
      folder,
      {'state': state},
      overwrite=True,
      custom_metadata={'format': FORMAT} | metadata,
    )
    self._pending = self._thread.submit(self._finish, response, step)

  def _finish(self, response: Any, step: int) -> None:
    response.result()
    if jax.process_index() == 0:
      _seal(self.root, step)
      self._prune(step)

  def _prune(self, last: int) -> None:
    # Later ones are damaged: the run fell back from them and will redo them.
    steps = [s for s in saved_steps(self.root) if s <= last]
    sealed = [s for s in steps if manifest_of(self.root, s).exists()]
    others = [s for s in sealed if s not in self._keep_steps]
    # One without a manifest was being saved, or deleted, when a run was killed.
    unsealed = [s for s in steps if s not in sealed]
    for step in (*unsealed, *others[: -self._keep_last]):
      # The manifest first: what is half deleted must not look finished.
      manifest_of(self.root, step).unlink(missing_ok=True)
      shutil.rmtree(path_of(self.root, step), ignore_errors=True)

  def wait(self) -> None:
    """Returns when the last save is durable; raises what went wrong with it."""
    if self._pending is not None:
      pending, self._pending = self._pending, None
      pending.result()


def load_metadata(root: pathlib.Path, step: int) -> dict[str, Any]:
  """What was saved as metadata with a verified checkpoint.

  Raises:
    ValueError: if it is of another format.
  """
  folder = path_of(root, step)
  metadata = ocp.metadata(folder, 'state').custom_metadata
  if metadata.get('format') != FORMAT:
    raise ValueError(
      f'{folder} is of format {metadata.get("format", 1)}, and this version of '
      f'lrsched reads format {FORMAT}; go on with the version that saved it, '
      f'which is in its metadata: {metadata.get("versions")}'
    )
  return metadata


def load(
  root: pathlib.Path, step: int, asked: Mapping[str, Any]
) -> dict[str, Any]:
  """Fields of the saved state, with the shapes and shardings asked for.

  Args:
    root: folder of the checkpoints.
    step: which one; verified already.
    asked: by field of the state, a tree of `jax.ShapeDtypeStruct` with
      shardings; other fields are not read.

  Raises:
    ValueError: if a saved tree differs, naming the paths.
  """
  folder = path_of(root, step)
  saved = ocp.metadata(folder, 'state').metadata
  parts = {name: saved[name] for name in asked}
  if lines := _tree_diff(parts, dict(asked)):
    shown = '\n  '.join(lines[:20])
    more = f'\n  and {len(lines) - 20} more' if len(lines) > 20 else ''
    if all(line.startswith('opt_state') for line in lines):
      more += (
        '\nto leave the optimizer state behind, branch with carry=no_optimizer'
      )
    elif any(line.startswith('params') for line in lines):
      more += '\nthe weights are of another model: use its config.model'
    raise ValueError(
      f'{folder} holds another tree than this config makes '
      f'(saved -> asked):\n  {shown}{more}'
    )
  context = ocp.Context()
  context.pytree.loading.partial_load = True  # what differs was named above
  with context:
    return ocp.load_checkpointables(folder, {'state': dict(asked)})['state']


def _leaves(tree: Any) -> dict[str, str]:
  """`path -> dtype[shape]`; tuples, lists and fields are named alike."""
  out = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    out[name] = f'{leaf.dtype}{list(leaf.shape)}'
  return out


def _tree_diff(saved: Any, asked: Any) -> list[str]:
  """Paths of leaves that differ; of weights first, as others follow them."""
  a, b = _leaves(saved), _leaves(asked)
  lines = [
    f'{name}: {a.get(name, "(absent)")} -> {b.get(name, "(absent)")}'
    for name in [*a, *(n for n in b if n not in a)]
    if a.get(name) != b.get(name)
  ]
  return sorted(lines, key=lambda line: not line.startswith('params'))
