"""Turns a source of text into two flat token files that can be memory-mapped.

Text becomes bytes (a vocabulary of 256, one byte per token), documents end with
byte 0, and the result is written once to a cache with its SHA-256, which every
later call verifies. Token files are used where they lie.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from trainers import docstrings
from trainers.config import Docstrings
from trainers.config import TextFolder
from trainers.config import TokenFile

# Part of every cache file's key: raise it when the extraction changes.
_FORMAT = 1
_CHUNK_BYTES = 1 << 24  # a multiple of every token size


class Corpus(NamedTuple):
  """Training and validation tokens as flat files of one dtype.

  Attributes:
    train_path: file of the training tokens.
    valid_path: file of the validation tokens.
    dtype: NumPy name of the files' element type.
    hash: SHA-256 over the dtype and the SHA-256 of the two files, in hex.
    train_tokens: number of training tokens.
    valid_tokens: number of validation tokens.
    vocab_size: smallest vocabulary that covers the tokens; 256 for text.
    bytes_per_token: 1.0 for text; None where only a tokenizer would know.
  """

  train_path: str
  valid_path: str
  dtype: str
  hash: str
  train_tokens: int
  valid_tokens: int
  vocab_size: int
  bytes_per_token: float | None


def materialise(
  source: Docstrings | TextFolder | TokenFile, cache_dir: str
) -> Corpus:
  """Makes `source` ready to be memory-mapped.

  Text is extracted on the first call and found again by a key over what it was
  made from: the packages and their versions, or the folder's files with sizes
  and times. Exact duplicates of a document are dropped, from the training part
  also those of validation documents. Every call reads the files in full, to
  verify or compute their hashes (about 1 GB/s).

  Args:
    source: where the text or the tokens come from.
    cache_dir: folder for extracted text, created if needed; not used for a
      `TokenFile`.

  Returns:
    The corpus.

  Raises:
    ValueError: if the source is missing, unreadable, empty or malformed, if
      the cache cannot be written, or if a cached file is damaged.
  """
  if isinstance(source, TokenFile):
    return _token_files(source)
  cache = pathlib.Path(cache_dir).resolve()
  parts: Mapping[str, Sequence[str]]
  made_from: Mapping[str, Any]
  extract: Callable[[Iterable[str]], Iterator[bytes]]
  if isinstance(source, Docstrings):
    name, extract = 'docstrings', docstrings.extract
    parts = {'valid': source.valid_packages, 'train': source.train_packages}
    made_from = docstrings.versions(source)
  else:
    name, extract = 'folder', _texts
    parts = _split(source, cache)
    made_from = _stamps([*parts['valid'], *parts['train']])

  key = json.dumps([_FORMAT, parts, made_from])
  stem = f'{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}'
  paths = {part: cache / f'{stem}.{part}.bin' for part in parts}
  record_path = cache / f'{stem}.json'
  if not all(path.exists() for path in [*paths.values(), record_path]):
    record: dict[str, Any] = {'made_from': made_from}
    seen: set[bytes] = set()
    try:
      cache.mkdir(parents=True, exist_ok=True)
      # Validation comes first: what it holds is left out of training.
      for part, items in parts.items():
        record[part] = _write(paths[part], extract(items), seen)
        if not record[part]['documents']:
          raise ValueError(
            f'The {part} part of {source} must hold text of its own, found '
            'none; add packages or files with text.'
          )
      with _new_file(record_path) as file:
        file.write(json.dumps(record, indent=1).encode())
    except OSError as error:
      raise ValueError(
        'DataConfig.cache_dir must be a folder that can be written, got '
        f'{cache_dir!r} ({error}); choose another.'
      ) from error
  return _verified(record_path, paths)


def _combined_hash(dtype: str, train: str, valid: str) -> str:
  return hashlib.sha256(f'{dtype} {train} {valid}'.encode()).hexdigest()


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


def _verified(
  record_path: pathlib.Path, paths: dict[str, pathlib.Path]
) -> Corpus:
  """The cached corpus, if its files still hash to what was recorded."""
  try:
    record = json.loads(record_path.read_bytes())
    hashes = {part: record[part]['sha256'] for part in paths}
    sizes = {part: record[part]['bytes'] for part in paths}
  except (ValueError, KeyError, TypeError) as error:
    raise _damaged(record_path) from error
  for part, path in paths.items():
    with path.open('rb') as file:
      if hashlib.file_digest(file, 'sha256').hexdigest() != hashes[part]:
        raise _damaged(path)
  return Corpus(
    train_path=str(paths['train']),
    valid_path=str(paths['valid']),
    dtype='uint8',
    hash=_combined_hash('uint8', hashes['train'], hashes['valid']),
    train_tokens=sizes['train'],
    valid_tokens=sizes['valid'],
    vocab_size=256,
    bytes_per_token=1.0,
  )


def _damaged(path: pathlib.Path) -> ValueError:
  return ValueError(
    f'The cached file {path} is damaged: its content is not what was written; '
    'delete it, and it will be made again.'
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
      percent = int(hashlib.sha256(name).hexdigest()[:8], 16) % 100
      part = 'valid' if percent < source.valid_percent else 'train'
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


def _texts(paths: Iterable[str]) -> Iterator[bytes]:
  for path in paths:
    try:
      yield pathlib.Path(path).read_bytes()
    except OSError as error:
      raise _unreadable(path, error) from error


def _token_files(source: TokenFile) -> Corpus:
  """Checks, hashes and counts two token files, without a copy."""
  hashes, counts, largest = {}, {}, 0
  width = np.dtype(source.dtype).itemsize
  for field in ('train_path', 'valid_path'):
    path = pathlib.Path(getattr(source, field))
    if not path.is_file():
      raise ValueError(
        f'TokenFile.{field} must be an existing file, got {str(path)!r}.'
      )
    size = path.stat().st_size
    if size == 0 or size % width:
      raise ValueError(
        f'TokenFile.{field} must hold whole tokens of {width} bytes, at least '
        f'one, got {size} bytes in {str(path)!r}; check TokenFile.dtype '
        f'({source.dtype}) or write the file again.'
      )
    try:
      hashes[field], top = _scan(path, source.dtype)
    except OSError as error:
      raise _unreadable(str(path), error) from error
    if top >= 2**31 - 1:
      raise ValueError(
        f'TokenFile.{field} must hold ids below 2^31 - 1, got {top} in '
        f'{str(path)!r}; check TokenFile.dtype ({source.dtype}).'
      )
    counts[field] = size // width
    largest = max(largest, top)
  if hashes['train_path'] == hashes['valid_path']:
    raise ValueError(
      'TokenFile.valid_path must hold other tokens than train_path, got the '
      f'same content in {source.valid_path!r}; hold out a part of the text.'
    )
  return Corpus(
    train_path=source.train_path,
    valid_path=source.valid_path,
    dtype=source.dtype,
    hash=_combined_hash(
      source.dtype, hashes['train_path'], hashes['valid_path']
    ),
    train_tokens=counts['train_path'],
    valid_tokens=counts['valid_path'],
    vocab_size=largest + 1,
    bytes_per_token=None,
  )


def _scan(path: pathlib.Path, dtype: str) -> tuple[str, int]:
  """SHA-256 in hex and largest token, in pieces that fit any memory."""
  digest, largest = hashlib.sha256(), 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      digest.update(chunk)
      largest = max(largest, int(np.frombuffer(chunk, dtype).max()))
  return digest.hexdigest(), largest
