"""Flat files of token ids."""

from __future__ import annotations

import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from trainers.sources import TokenFile

_CHUNK_BYTES = 1 << 24  # a multiple of every token size


class TokenCount(NamedTuple):
  """What is in one file of tokens."""

  sha256: str
  tokens: int
  largest: int


def counted(source: TokenFile) -> dict[str, TokenCount]:
  """Checks, hashes and counts the two files, without a copy.

  Raises:
    ValueError: if a file is missing, unreadable, empty or malformed, or if
      both hold the same.
  """
  parts = {
    'train': _count(source, 'train_path'),
    'valid': _count(source, 'valid_path'),
  }
  if parts['train'].sha256 == parts['valid'].sha256:
    raise ValueError(
      'TokenFile.valid_path must hold other tokens than train_path, got the '
      f'same content in {source.valid_path!r}; hold out a part of the text.'
    )
  return parts


def _count(source: TokenFile, field: str) -> TokenCount:
  path = pathlib.Path(getattr(source, field))
  width = np.dtype(source.dtype).itemsize
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
    digest, largest = _scan(path, source.dtype)
  except OSError as error:
    raise ValueError(
      f'{path} cannot be read ({error.strerror}); make it readable or take it '
      'out of the corpus.'
    ) from error
  if largest >= 2**31 - 1:
    raise ValueError(
      f'TokenFile.{field} must hold ids below 2^31 - 1, got {largest} in '
      f'{str(path)!r}; check TokenFile.dtype ({source.dtype}).'
    )
  return TokenCount(sha256=digest, tokens=size // width, largest=largest)


def _scan(path: pathlib.Path, dtype: str) -> tuple[str, int]:
  """SHA-256 in hex and largest token, in pieces that fit any memory."""
  digest, largest = hashlib.sha256(), 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      digest.update(chunk)
      largest = max(largest, int(np.frombuffer(chunk, dtype).max()))
  return digest.hexdigest(), largest
