"""Forecast protocols: groups of curves to fit, and curves to forecast."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

from lrsched.laws import Curve

VARIABLE = 'LRSCHED_CURVES'


class Group(NamedTuple):
  """One entry of a protocol.

  Attributes:
    name: of the group.
    source: where its curves come from.
    fit: curves to fit.
    test: curves to forecast; their losses are for judging only.
  """

  name: str
  source: str
  fit: list[Curve]
  test: list[Curve]


def curves_folder() -> pathlib.Path:
  """The folder of public curves.

  Raises:
    ValueError: naming the variable, if it is not set or names no protocol.
  """
  folder = os.environ.get(VARIABLE)
  if not folder or not (pathlib.Path(folder) / 'protocol.json').is_file():
    raise ValueError(
      f'{VARIABLE} must name a folder with a protocol.json, got {folder!r}'
    )
  return pathlib.Path(folder)


def read_curve(path: pathlib.Path, warmup_steps: int | None = None) -> Curve:
  """A CSV file as a curve, named after its folder and file."""
  if not path.is_file():
    raise ValueError(f'there is no curve {path}')
  name = f'{path.parent.name}/{path.name}'
  return Curve.from_csv(path.read_text(), name=name, warmup_steps=warmup_steps)


def read_groups(protocol: pathlib.Path) -> list[Group]:
  """The groups of a protocol; paths are relative to its file.

  Raises:
    ValueError: if the file is not a protocol, or a curve cannot be read.
  """
  try:
    groups = json.loads(protocol.read_text())['groups']
    return [_group(protocol.parent, n, g) for n, g in groups.items()]
  except (
    OSError,
    KeyError,
    TypeError,
    AttributeError,
    json.JSONDecodeError,
  ) as error:
    raise ValueError(
      f'{protocol} is not a protocol ({type(error).__name__}: {error}); it '
      'must hold {"groups": {NAME: {"source", "warmup_steps", "fit", "test"}}}'
    ) from error


def _group(folder: pathlib.Path, name: str, given: dict[str, Any]) -> Group:
  read = lambda paths: [
    read_curve(folder / path, given['warmup_steps']) for path in paths
  ]
  fit, test = read(given['fit']), read(given['test'])
  if not fit or not test:
    raise ValueError(f'{name}: fit and test must each name a curve')
  for curve in test:
    if not curve.measured.size:
      raise ValueError(f'{curve.name}: a curve of test must have a loss')
  return Group(name=name, source=given['source'], fit=fit, test=test)


def data_sets(
  folder: pathlib.Path, exclude_source: str | None
) -> dict[str, list[Curve]]:
  """Every curve of the protocol's data sets (folders), by data set.

  Args:
    folder: of the protocol.
    exclude_source: a source whose data sets are left out.

  Raises:
    ValueError: if `exclude_source` is not a source of the protocol.
  """
  groups = json.loads((folder / 'protocol.json').read_text())['groups']
  sources = sorted({g['source'] for g in groups.values()})
  if exclude_source is not None and exclude_source not in sources:
    raise ValueError(
      f'exclude_source must be one of {", ".join(sources)}, got '
      f'{exclude_source!r}'
    )
  found: dict[str, int] = {}
  for group in groups.values():
    if group['source'] != exclude_source:
      for path in (*group['fit'], *group['test']):
        parent = pathlib.PurePosixPath(path).parent
        found[str(parent)] = group['warmup_steps']
  return {
    name: [
      read_curve(path, warmup_steps)
      for path in sorted((folder / name).glob('*.csv'))
    ]
    for name, warmup_steps in found.items()
  }
