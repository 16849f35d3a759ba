"""Config files and overrides: from a command line to a checked config."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import pathlib
import sys
import traceback
from typing import Any

import lrsched
from trainers.config import RunConfig


def load_config(path: str) -> RunConfig:
  """What `get_config()` of a Python file returns.

  Raises:
    ValueError: if the file, the function or the config is missing or wrong.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise ValueError(f'--config: there is no file {path}')
  name = f'config_file_{file.stem}'
  spec = importlib.util.spec_from_file_location(name, file)
  if spec is None or spec.loader is None:
    raise ValueError(f'--config must be a Python file, got {path}')
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses of the file look it up
  try:
    spec.loader.exec_module(module)
    config = module.get_config()
  except Exception as error:
    # The file is the user's: whatever it raises, they need the place of it.
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == str(file)]
    where = f'{path}, line {lines[-1]}' if lines else path
    raise ValueError(
      f'--config: {where}: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, RunConfig):
    raise ValueError(
      f'--config: get_config() of {path} must return a RunConfig, got '
      f'{type(config).__name__}'
    )
  return config


def override(config: Any, settings: list[str]) -> Any:
  """The config with `path.to.field=value` settings, applied together.

  A path names fields of nested dataclasses, and items of tuples by number, as
  in `optimizer.schedule.schedules.1.peak_lr=1e-3`. A value is a Python literal
  (`1e-3`, `None`, `(1, 2)`, `{"kind": ...}`); anything else is text. A schedule
  may be replaced whole, by its JSON object. The config is built once, so
  settings that only fit together can be given together.

  Raises:
    ValueError: naming the setting, if a field is unknown or a value wrong.
  """
  tree: dict[str, Any] = {}
  for setting in settings:
    path, equals, text = setting.partition('=')
    if not equals or not path:
      raise ValueError(f'--set must be path.to.field=value, got {setting!r}')
    node = tree
    *parents, last = path.split('.')
    for name in parents:
      node = node.setdefault(name, {})
      if not isinstance(node, dict):
        raise ValueError(f'--set={setting}: {name} is set already')
    if last in node:
      raise ValueError(f'--set={setting}: {path} is set twice')
    node[last] = _Literal(_parse(text))
  return _replaced(config, tree, '') if tree else config


@dataclasses.dataclass(frozen=True)
class _Literal:
  """A value of a setting, told apart from the dict of a path's next names."""

  value: Any


def _parse(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError):
    return text


def _replaced(value: Any, tree: dict[str, Any], where: str) -> Any:
  if isinstance(value, tuple):
    items = {str(i): item for i, item in enumerate(value)}
    return tuple(_fields(items, tree, where).values())
  if not dataclasses.is_dataclass(value) or isinstance(value, type):
    raise ValueError(
      f'--set={where}.{next(iter(tree))}: {where} is {value!r}, which has no '
      'fields to set'
    )
  fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
  try:
    return type(value)(**_fields(fields, tree, where))
  except ValueError as error:
    if str(error).startswith('--set'):
      raise
    raise ValueError(f'--set={where or "..."}: {error}') from error


def _fields(
  fields: dict[str, Any], tree: dict[str, Any], where: str
) -> dict[str, Any]:
  for name, change in tree.items():
    path = f'{where}.{name}'.lstrip('.')
    if name not in fields:
      raise ValueError(
        f'--set={path}: there is no such field; known: {", ".join(fields)}'
      )
    old = fields[name]
    if not isinstance(change, _Literal):
      fields[name] = _replaced(old, change, path)
    elif isinstance(old, lrsched.Schedule) and isinstance(change.value, dict):
      # With its format version it is what `lrsched.to_json` writes.
      is_json = 'lrsched' in change.value
      fields[name] = (
        lrsched.from_json(json.dumps(change.value))
        if is_json
        else lrsched.from_dict(change.value, path)
      )
    else:
      fields[name] = change.value
  return fields
