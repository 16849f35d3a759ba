"""The text files of a folder."""

from __future__ import annotations

import fnmatch
import os
import pathlib
from collections.abc import Iterable, Iterator

from trainers.documents import Documents
from trainers.documents import held_out
from trainers.sources import TextFolder


def documents(source: TextFolder, cache: pathlib.Path) -> Documents:
  """The files, each a document; a cache in the folder is no text of it."""
  parts = _split(source, cache)
  return Documents(
    name='folder',
    parts=parts,
    made_from=_stamps([*parts['valid'], *parts['train']]),
    extract=_extract,
  )


def _split(source: TextFolder, cache: pathlib.Path) -> dict[str, list[str]]:
  """Matching files, held out by the hash of their path below the folder."""
  folder = pathlib.Path(source.path).resolve()
  if not folder.is_dir():
    raise ValueError(
      f'TextFolder.path must be an existing folder, got {source.path!r}.'
    )

  def unreadable(error: OSError) -> None:
    raise ValueError(
      f'TextFolder.path {source.path!r}: {error.filename} cannot be read '
      f'({error.strerror}); make it readable or move it out of the folder.'
    ) from error

  parts: dict[str, list[str]] = {'valid': [], 'train': []}
  for root, folders, files in os.walk(folder, onerror=unreadable):
    # A cache inside the folder is not text of the folder.
    folders[:] = [f for f in folders if pathlib.Path(root, f) != cache]
    for file in fnmatch.filter(files, source.pattern):
      path = pathlib.Path(root, file)
      name = path.relative_to(folder).as_posix().encode(errors='replace')
      part = 'valid' if held_out(name, source.valid_percent) else 'train'
      parts[part].append(str(path))
  if not parts['valid'] and not parts['train']:
    raise ValueError(
      f'TextFolder.pattern must match a file, got {source.pattern!r}, which '
      f'matches none in {source.path!r}.'
    )
  for part in parts:
    if not parts[part]:
      raise ValueError(
        f'TextFolder.valid_percent must leave a file to both parts, got '
        f'{source.valid_percent}, which leaves none to {part!r} of '
        f'{sum(map(len, parts.values()))} files in {source.path!r}; change '
        'it, or split the text into more files.'
      )
    parts[part].sort()
  return parts


def _stamps(paths: Iterable[str]) -> dict[str, list[int]]:
  """Size and time of change: what tells that a file is still the same."""
  stamps = {}
  for path in paths:
    try:
      stat = os.stat(path)
    except OSError as error:
      raise _unreadable(path, error) from error
    stamps[path] = [stat.st_size, stat.st_mtime_ns]
  return stamps


def _unreadable(path: str | pathlib.Path, error: OSError) -> ValueError:
  return ValueError(
    f'{path} cannot be read ({error.strerror}); make it readable or take it '
    'out of the corpus.'
  )


def _extract(paths: Iterable[str]) -> Iterator[bytes]:
  for path in paths:
    try:
      yield pathlib.Path(path).read_bytes()
    except OSError as error:
      raise _unreadable(path, error) from error
