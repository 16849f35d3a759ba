"""The config of a run, read back from what its checkpoints say of it."""

from __future__ import annotations

import dataclasses
import pathlib
import types
import typing
from typing import Any

import lrsched
from trainers.config import RunConfig
from trainers.decided import decided
from trainers.start import saved_metadata

# What a run adds to its config: the corpora that it found.
FOUND = {'corpora', 'eval_corpora'}


def config_at(workdir: pathlib.Path, step: int) -> RunConfig:
  """What a checkpoint was trained with, begun decays included.

  Raises:
    ValueError: if there is no whole checkpoint of that step, or this version
      cannot build its config.
  """
  metadata = saved_metadata(workdir, step)
  lineage = lrsched.Lineage.from_dict(metadata['lineage'])
  return config_of(decided(metadata['config'], lineage), f'{workdir}@{step}')


def config_of(saved: dict[str, Any], where: str) -> RunConfig:
  """A config from its JSON values, as they stand in `config.json`.

  Raises:
    ValueError: naming the place below `where`, if it is not of this version.
  """
  fields = {name: x for name, x in saved.items() if name not in FOUND}
  return _read(fields, RunConfig, where)


def _read(value: Any, kind: Any, where: str) -> Any:
  """A JSON value as what the annotation `kind` says."""
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    kind = _option(value, typing.get_args(kind))
  origin = typing.get_origin(kind)
  if origin is tuple and isinstance(value, list):
    item = typing.get_args(kind)[0]
    return tuple(_read(v, item, f'{where}[{i}]') for i, v in enumerate(value))
  if origin is dict and isinstance(value, dict):
    item = typing.get_args(kind)[1]
    return {k: _read(v, item, f'{where}.{k}') for k, v in value.items()}
  if kind is lrsched.Schedule:
    return lrsched.from_dict(value, where)
  if dataclasses.is_dataclass(kind):
    return _read_fields(value, kind, where)
  return value  # the config checks it


def _option(value: Any, kinds: tuple[Any, ...]) -> Any:
  """The kind among several that a JSON value can be of."""
  for kind in kinds:
    is_tuple = typing.get_origin(kind) is tuple
    if isinstance(value, list) and is_tuple:
      return kind
    if isinstance(value, dict) and (
      kind is lrsched.Schedule
      or getattr(kind, '__name__', None) == value.get('kind')
    ):
      return kind
  return Any


def _read_fields(value: Any, kind: Any, where: str) -> Any:
  """A config of class `kind` from its fields, by name."""
  names = {field.name for field in dataclasses.fields(kind)}
  is_config = isinstance(value, dict) and value.get('kind') == kind.__name__
  unknown = sorted(value.keys() - names - {'kind'}) if is_config else []
  if not is_config or unknown:
    found = f'fields {unknown}' if unknown else f'{value!r}'
    raise ValueError(
      f'{where} must be a {kind.__name__} of this version, got {found}'
    )
  hints = typing.get_type_hints(kind)
  fields = {
    name: _read(item, hints[name], f'{where}.{name}')
    for name, item in value.items()
    if name != 'kind'
  }
  try:
    return kind(**fields)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{where}: {error}') from error
