"""Turns a source of text into two flat token files that can be memory-mapped.

Text becomes bytes (a vocabulary of 256, one byte per token), documents end with
byte 0, and the result is written once to a cache with its SHA-256, which every
later call verifies. Fetched texts and token files are used where they lie.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import NamedTuple

from trainers import docstrings
from trainers import fetched
from trainers import german_sample
from trainers import python_source
from trainers import text_folder
from trainers import token_files
from trainers.documents import Documents
from trainers.documents import Files
from trainers.documents import verified
from trainers.documents import write
from trainers.sources import Docstrings
from trainers.sources import Fetched
from trainers.sources import GermanSample
from trainers.sources import PythonSource
from trainers.sources import Source
from trainers.sources import TextFolder
from trainers.sources import TokenFile

# The others are used where they lie.
Extracted = Docstrings | PythonSource | GermanSample | TextFolder

# Part of every cache file's key: raise it when the extraction changes.
_FORMAT = 1


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
    bytes_per_token: 1.0 for text; of a token file what it says, or None.
  """

  train_path: str
  valid_path: str
  dtype: str
  hash: str
  train_tokens: int
  valid_tokens: int
  vocab_size: int
  bytes_per_token: float | None


def materialise(source: Source, cache_dir: str) -> Corpus:
  """Makes `source` ready to be memory-mapped.

  Text is extracted on the first call and found again by a key over what it was
  made from: the packages and their versions, or the files with sizes and times
  or hashes. Exact duplicates of a document are dropped, from the training part
  also those of validation documents. Every call reads the files in full, to
  verify or compute their hashes (about 1 GB/s).

  Args:
    source: where the text or the tokens come from.
    cache_dir: folder for extracted text, created if needed, and of fetched
      text; not used for a `TokenFile`.

  Returns:
    The corpus.

  Raises:
    ValueError: if the source is missing, unreadable, empty or malformed, if
      the cache cannot be written, or if a cached or fetched file is damaged.
  """
  if isinstance(source, TokenFile):
    return _of_tokens(source)
  if isinstance(source, Fetched):
    files = fetched.files(source.name, cache_dir)
    fetched.require_all(source.name, cache_dir)
    return _of_text(files, fetched.remedy(source.name, cache_dir))
  files = _extracted(source, cache_dir)
  return _of_text(files, 'delete it, and it will be made again.')


def _extracted(source: Extracted, cache_dir: str) -> Files:
  """The files of the source's text, made if they are not there."""
  cache = pathlib.Path(cache_dir).resolve()
  name, parts, made_from, extract = _documents(source, cache)
  key = json.dumps([_FORMAT, parts, made_from])
  stem = f'{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}'
  files = Files(
    record=cache / f'{stem}.json',
    valid=cache / f'{stem}.valid.bin',
    train=cache / f'{stem}.train.bin',
  )
  if not all(path.exists() for path in files):
    documents = {part: extract(items) for part, items in parts.items()}
    try:
      write(files, made_from, documents, str(source))
    except OSError as error:
      raise ValueError(
        'DataConfig.cache_dir must be a folder that can be written, got '
        f'{cache_dir!r} ({error}); choose another.'
      ) from error
  return files


def _documents(source: Extracted, cache: pathlib.Path) -> Documents:
  """Whose text is extracted, and by which file."""
  match source:
    case Docstrings():
      return docstrings.documents(source)
    case PythonSource():
      return python_source.documents(source)
    case GermanSample():
      return german_sample.documents()
    case TextFolder():
      return text_folder.documents(source, cache)


def _of_text(files: Files, remedy: str) -> Corpus:
  record = verified(files, remedy)
  train, valid = record['train'], record['valid']
  return Corpus(
    train_path=str(files.train),
    valid_path=str(files.valid),
    dtype='uint8',
    hash=_hash('uint8', train['sha256'], valid['sha256']),
    train_tokens=train['bytes'],
    valid_tokens=valid['bytes'],
    vocab_size=256,
    bytes_per_token=1.0,
  )


def _of_tokens(source: TokenFile) -> Corpus:
  parts = token_files.counted(source)
  train, valid = parts['train'], parts['valid']
  return Corpus(
    train_path=source.train_path,
    valid_path=source.valid_path,
    dtype=source.dtype,
    hash=_hash(source.dtype, train.sha256, valid.sha256),
    train_tokens=train.tokens,
    valid_tokens=valid.tokens,
    vocab_size=max(train.largest, valid.largest) + 1,
    bytes_per_token=source.bytes_per_token,
  )


def _hash(dtype: str, train: str, valid: str) -> str:
  return hashlib.sha256(f'{dtype} {train} {valid}'.encode()).hexdigest()
