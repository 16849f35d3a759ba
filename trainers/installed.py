"""Python files of installed packages; nothing is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib
from collections.abc import Iterator

from trainers.sources import Docstrings
from trainers.sources import PythonSource


def versions(source: Docstrings | PythonSource) -> dict[str, str]:
  """Each package's distribution and version; checks that all can be read."""
  distributions = importlib.metadata.packages_distributions()
  found = {}
  for field in ('train_packages', 'valid_packages'):
    for package in getattr(source, field):
      owners = sorted(set(distributions.get(package, ())))
      if not owners or importlib.util.find_spec(package) is None:
        raise ValueError(
          f'{type(source).__name__}.{field} must name installed packages by '
          f'their top-level import name, got {package!r}; install it or take '
          'it off the list.'
        )
      found[package] = ', '.join(
        f'{owner} {importlib.metadata.version(owner)}' for owner in owners
      )
  return found


def codes(package: str) -> Iterator[str]:
  """A package's Python files, in sorted order, every line end a newline.

  Folders called `test` or `tests` are left out.
  """
  for file in _python_files(package):
    yield file.read_bytes().decode(errors='replace').replace('\r\n', '\n')


def _python_files(package: str) -> list[pathlib.Path]:
  # For a top-level name this reads the import path only; nothing is imported.
  spec = importlib.util.find_spec(package)
  if spec is None:
    return []
  if spec.submodule_search_locations is None:  # A module in one file.
    file = pathlib.Path(spec.origin or '')
    return [file] if file.suffix == '.py' else []
  return [
    file
    for root in spec.submodule_search_locations
    for file in sorted(pathlib.Path(root).rglob('*.py'))
    if not {'test', 'tests'} & set(file.relative_to(root).parts[:-1])
  ]
