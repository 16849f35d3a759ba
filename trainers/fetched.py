"""Where fetched texts lie, and what to do if one does not."""

from __future__ import annotations

import pathlib
import shlex

from trainers.documents import Files


def files(name: str, cache_dir: str) -> Files:
  """The files of a fetched text."""
  folder = pathlib.Path(cache_dir).resolve() / 'fetched' / name
  return Files(
    record=folder / 'manifest.json',
    valid=folder / 'valid.bin',
    train=folder / 'train.bin',
  )


def require_all(name: str, cache_dir: str) -> None:
  """Raises ValueError unless the text was fetched into this folder."""
  missing = [p for p in files(name, cache_dir) if not p.is_file()]
  if missing:
    raise ValueError(
      f'Fetched.name must be a text that was fetched, got {name!r}, but there '
      f'is no file {missing[0]}; {remedy(name, cache_dir)}'
    )


def remedy(name: str, cache_dir: str) -> str:
  """The command that puts the text there, or there again."""
  folder = shlex.quote(cache_dir)
  return f'run: python -m experiments.fetch --name={name} --cache_dir={folder}'
