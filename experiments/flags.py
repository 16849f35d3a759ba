"""Config files and overrides: from a command line to a checked config."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import lrsched
from trainers.config import RunConfig


def load_config(path: str) -> RunConfig:
  """What `get_config()` of a Python file returns.

  Raises:
    ValueError: if the file, the function or the config is missing or wrong.
  """
  file = pathlib.Path(path).absolute()  # as tracebacks name it
  if not file.is_file():
    raise ValueError(f'--config: there is no file {path}')
  name = f'config_file_{file.stem}'
  spec = importlib.util.spec_from_file_location(name, file)
  if spec is None:
    raise ValueError(f'--config must be a Python file, got {path}')
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses of the file look it up
  try:
    # From its text: nothing is written beside it, and no older code is found.
    code = compile(file.read_bytes(), str(file), 'exec')
    exec(code, module.__dict__)
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


SHOWN_SETTINGS = 3  # of an error that is of no one setting


class _Change(NamedTuple):
  """A setting on its way down the config.

  Attributes:
    text: the setting as it was given.
    rest: what is left of its path; None where it is to be set.
    value: what to set.
  """

  text: str
  rest: str | None
  value: Any


def override(config: Any, settings: Sequence[str]) -> Any:
  """The config with `path.to.field=value` settings, applied together.

  A path names fields of nested dataclasses, items of tuples by number, as in
  `optimizer.schedule.schedules.1.peak_lr=1e-3`, and items that a dict has by
  their keys, as in `data.source.domains.english.share=0.5`; of keys that hold
  dots the longest that fits is meant. A value is a Python literal (`1e-3`,
  `None`, `(1, 2)`, `{"kind": ...}`); anything else is text. A schedule may be
  replaced whole, by its JSON object, and so may the None of a frozen group. The
  config is built once, so settings that only fit together can be given
  together.

  Raises:
    ValueError: naming the setting, if a field is unknown or a value wrong.
  """
  changes = []
  for setting in settings:
    path, equals, text = setting.partition('=')
    if not equals or not path:
      raise ValueError(f'--set must be path.to.field=value, got {setting!r}')
    changes.append(_Change(setting, path, _parse(text)))
  return _replaced(config, changes, '') if changes else config


def _parse(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError):
    return text


def _replaced(value: Any, changes: list[_Change], where: str) -> Any:
  """The value with changes to what it holds; `where` is its own path."""
  if isinstance(value, tuple):
    items = {str(i): item for i, item in enumerate(value)}
    return tuple(_fields(items, changes, where).values())
  if isinstance(value, dict):
    return _items(value, changes, where)
  if not dataclasses.is_dataclass(value) or isinstance(value, type):
    name = str(changes[0].rest).partition('.')[0]
    raise ValueError(
      f'--set={where}.{name}: {where} is {value!r}, which has no fields to set'
    )
  fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
  try:
    return type(value)(**_fields(fields, changes, where))
  except ValueError as error:
    if str(error).startswith('--set'):
      raise
    given = f'--set={where}' if where else _given(changes)
    raise ValueError(f'{given}: {error}') from error


def _given(changes: list[_Change]) -> str:
  """The settings, to name them all where the fault may be of any."""
  shown = [f'--set={change.text}' for change in changes[:SHOWN_SETTINGS]]
  left = len(changes) - len(shown)
  return ' '.join(shown) + (f' and {left} more' if left else '')


def _fields(
  fields: dict[str, Any], changes: list[_Change], where: str
) -> dict[str, Any]:
  """Fields of a dataclass or items of a tuple, by name, with the changes."""
  by_name: dict[str, list[_Change]] = {}
  for change in changes:
    name, dot, rest = str(change.rest).partition('.')
    path = f'{where}.{name}'.lstrip('.')
    if name not in fields:
      raise ValueError(
        f'--set={path}: there is no such field; known: {", ".join(fields)}'
      )
    below = change._replace(rest=rest if dot else None)
    by_name.setdefault(name, []).append(below)
  return fields | {
    name: _changed(fields[name], below, f'{where}.{name}'.lstrip('.'))
    for name, below in by_name.items()
  }


def _items(
  items: dict[str, Any], changes: list[_Change], where: str
) -> dict[str, Any]:
  """A dict with changes to items that it has; its keys may hold dots."""
  by_key: dict[str, list[_Change]] = {}
  for change in changes:
    path = str(change.rest)
    fitting = [k for k in items if path == k or path.startswith(f'{k}.')]
    if not fitting:
      has_dots = any('.' in key for key in items)
      name = path if has_dots else path.partition('.')[0]
      known = ', '.join(items) or 'no items; set it whole in the config file'
      raise ValueError(
        f'--set={where}.{name}: there is no {name!r} in {where}; it has {known}'
      )
    key = max(fitting, key=len)
    rest = None if path == key else path[len(key) + 1 :]
    by_key.setdefault(key, []).append(change._replace(rest=rest))
  return items | {
    key: _changed(items[key], below, f'{where}.{key}', is_item=True)
    for key, below in by_key.items()
  }


def _changed(
  old: Any, changes: list[_Change], path: str, *, is_item: bool = False
) -> Any:
  """A field or an item as the settings that name it, or go below it, say."""
  if all(change.rest is not None for change in changes):
    return _replaced(old, changes, path)
  last = changes[-1]
  if len(changes) > 1:
    how = 'twice' if last.rest is None else 'already'
    raise ValueError(f'--set={last.text}: {path} is set {how}')
  new = last.value
  if not isinstance(new, dict):
    return new
  # A frozen group of parameters is a None that a schedule may take over.
  is_frozen = is_item and old is None and 'kind' in new
  is_schedule = is_frozen or isinstance(old, lrsched.Schedule)
  return _schedule(new, path) if is_schedule else new


def _schedule(spec: dict[str, Any], path: str) -> lrsched.Schedule:
  if 'lrsched' in spec:  # with its format version, as `lrsched.to_json` writes
    return lrsched.from_json(json.dumps(spec))
  return lrsched.from_dict(spec, path)
