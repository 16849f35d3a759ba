"""Documents: how a source hands them over, and the flat files that keep them.

A file holds the documents of one part of a corpus, byte 0 after each. A record
beside the two files says what they were made from, and their SHA-256; it is
written last, so that where there is a record, there are whole files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

_PARTS = ('valid', 'train')


class Documents(NamedTuple):
  """What a source's text is made from, and how to get it.

  Attributes:
    name: begins the names of its files.
    parts: items of the 'valid' and of the 'train' part, such as packages.
    made_from: JSON values that change when the text does.
    extract: yields the documents of some items; none holds byte 0.
  """

  name: str
  parts: Mapping[str, Sequence[str]]
  made_from: Mapping[str, Any]
  extract: Callable[[Iterable[str]], Iterator[bytes]]


class Files(NamedTuple):
  """The files of a corpus: the record, and one for each part."""

  record: pathlib.Path
  valid: pathlib.Path
  train: pathlib.Path


def held_out(name: bytes, percent: int) -> bool:
  """Whether what has this name is validation, by a hash: it never moves."""
  return int(hashlib.sha256(name).hexdigest()[:8], 16) % 100 < percent


def write(
  files: Files,
  made_from: Mapping[str, Any],
  documents: Mapping[str, Iterable[bytes]],
  owner: str,
) -> None:
  """Writes the files and the record, in a folder made if needed.

  Exact duplicates of a document are dropped. Validation comes first: what it
  holds is left out of training.

  Args:
    files: what to write, all in one folder.
    made_from: goes into the record.
    documents: documents of each part.
    owner: whose text it is, for the error.

  Raises:
    ValueError: if a part is left without a document.
    OSError: if a file cannot be written.
  """
  record: dict[str, Any] = {'made_from': made_from}
  seen: set[bytes] = set()
  files.record.parent.mkdir(parents=True, exist_ok=True)
  for part in _PARTS:
    record[part] = _write(getattr(files, part), documents[part], seen)
    if not record[part]['documents']:
      raise ValueError(
        f'The {part} part of {owner} must hold text of its own, found none; '
        'add packages or files with text.'
      )
  with _new_file(files.record) as file:
    file.write(json.dumps(record, indent=1).encode())


def verified(files: Files, remedy: str) -> dict[str, Any]:
  """The record, if the files still hash to what it says.

  Raises:
    ValueError: naming the file that does not, and the remedy.
  """
  try:
    record = json.loads(files.record.read_bytes())
    said = [(record[p]['bytes'], record[p]['sha256']) for p in _PARTS]
  except (ValueError, KeyError, TypeError) as error:
    raise _damaged(files.record, remedy) from error
  for path, expected in zip((files.valid, files.train), said, strict=True):
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
    if (path.stat().st_size, digest) != expected:
      raise _damaged(path, remedy)
  return record


def _damaged(path: pathlib.Path, remedy: str) -> ValueError:
  return ValueError(
    f'The file {path} is damaged: its content is not what was written; {remedy}'
  )


@contextlib.contextmanager
def _new_file(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """A file that appears under its name only when it is complete."""
  # A unique name, as the processes of a run may share the folder.
  temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}.tmp')
  try:
    with temporary.open('wb') as file:
      yield file
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _write(
  path: pathlib.Path, documents: Iterable[bytes], seen: set[bytes]
) -> dict[str, Any]:
  """Writes the documents not in `seen` (of SHA-256), and adds them to it."""
  digest, n_bytes, n_documents = hashlib.sha256(), 0, 0
  with _new_file(path) as file:
    for document in documents:
      key = hashlib.sha256(document).digest()
      if not document or key in seen:
        continue
      seen.add(key)
      n_documents += 1
      for piece in (document, b'\0'):
        n_bytes += file.write(piece)
        digest.update(piece)
  return {
    'documents': n_documents,
    'bytes': n_bytes,
    'sha256': digest.hexdigest(),
  }
