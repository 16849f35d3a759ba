"""Schedules as JSON, and the difference between two of them.

The text holds every field under its own name, the class under `kind`, and a
format version under `lrsched`. Reading is strict: an unknown, missing or
repeated key, a wrong type or a value out of range is one ValueError that names
the field. Numbers round-trip exactly.
"""

from __future__ import annotations

import json
import typing
from typing import Any

import jax
import numpy as np

from lrsched.base import KINDS
from lrsched.base import Schedule
from lrsched.base import Spec
from lrsched.base import Table
from lrsched.base import field_kinds
from lrsched.base import leaf_of

FORMAT_VERSION = 1
MAX_DEPTH = 32  # of nested specs; far beyond use, far below Python's recursion


def to_dict(spec: Spec) -> dict[str, Any]:
  """The spec as JSON values: `kind` and every field.

  Args:
    spec: a schedule or decay shape with concrete leaves.

  Raises:
    ValueError: if a leaf is not a single number (a tracer, or a batch).

  Example:
    >>> from lrsched.elementary import Constant
    >>> to_dict(Constant(lr=0.1))
    {'kind': 'Constant', 'lr': 0.1}
  """
  out: dict[str, Any] = {'kind': type(spec).__name__}
  for name, kind in field_kinds(type(spec)).items():
    n_axes = 1 if isinstance(leaf_of(kind), Table) else 0
    out[name] = _plain(f'{out["kind"]}.{name}', getattr(spec, name), n_axes)
  return out


def _plain(where: str, value: Any, n_axes: int = 0) -> Any:
  if isinstance(value, Spec):
    return to_dict(value)
  if isinstance(value, tuple):
    return [_plain(f'{where}[{i}]', item) for i, item in enumerate(value)]
  if isinstance(value, (int, float)):
    return value
  if isinstance(value, jax.core.Tracer) or np.ndim(value) != n_axes:
    one = 'a known list' if n_axes else 'a single known number'
    raise ValueError(f'{where} must be {one} to be written, got {value!r}')
  return np.asarray(value).tolist()


def from_dict(data: Any, where: str = 'schedule') -> Schedule:
  """The schedule that `to_dict` wrote.

  Args:
    data: `kind` and every field of that kind.
    where: name of the value, for messages.

  Raises:
    ValueError: naming the field, if the data is not a valid schedule.

  Example:
    >>> from_dict({'kind': 'Constant', 'lr': 0.1})
    Constant(lr=0.1)
  """
  return _read(data, Schedule, where, 0)


def _read(data: Any, kind: Any, where: str, depth: int) -> Any:
  if depth > MAX_DEPTH:
    raise ValueError(f'{where}: specs are nested deeper than {MAX_DEPTH}')
  if isinstance(leaf_of(kind), Table):
    if not isinstance(data, list):
      raise ValueError(f'{where} must be a list, got {_short(data)}')
    return data  # its values and ranges are the constructor's to check
  if leaf_of(kind) is not None:
    if not isinstance(data, (int, float)):
      raise ValueError(f'{where} must be a number, got {_short(data)}')
    return data
  if typing.get_origin(kind) is tuple:
    if not isinstance(data, list):
      raise ValueError(f'{where} must be a list, got {_short(data)}')
    item = typing.get_args(kind)[0]
    return tuple(
      _read(d, item, f'{where}[{i}]', depth) for i, d in enumerate(data)
    )
  return _read_spec(data, kind, where, depth)


def _read_spec(data: Any, kind: type, where: str, depth: int) -> Any:
  if not isinstance(data, dict):
    raise ValueError(f'{where} must be an object, got {_short(data)}')
  known = {n: c for n, c in KINDS.items() if issubclass(c, kind)}
  name = data.get('kind')
  cls = known.get(name) if isinstance(name, str) else None
  if cls is None:
    raise ValueError(
      f'{where}.kind must be one of {", ".join(sorted(known))}, '
      f'got {_short(name)}'
    )
  kinds = field_kinds(cls)
  if unknown := sorted(set(data) - set(kinds) - {'kind'}):
    raise ValueError(
      f'{where}.{_short(unknown[0], quote=False)} is not a field of {name}; '
      f'its fields: {", ".join(kinds)}'
    )
  if missing := sorted(set(kinds) - set(data)):
    raise ValueError(f'{where}.{missing[0]} is missing; {name} needs it')
  values = {
    field: _read(data[field], k, f'{where}.{field}', depth + 1)
    for field, k in kinds.items()
  }
  try:
    return cls(**values)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error


def _short(value: Any, quote: bool = True) -> str:
  text = repr(value) if quote else str(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def to_json(schedule: Schedule) -> str:
  """The schedule as one line of JSON, with the format version.

  Raises:
    ValueError: if a leaf is not a single known number.

  Example:
    >>> from lrsched.elementary import Constant
    >>> to_json(Constant(lr=0.1))
    '{"lrsched": 1, "kind": "Constant", "lr": 0.1}'
  """
  return json.dumps({'lrsched': FORMAT_VERSION, **to_dict(schedule)})


def from_json(text: str) -> Schedule:
  """The schedule that `to_json` wrote.

  Args:
    text: JSON with `lrsched` (the format version), `kind` and every field.

  Raises:
    ValueError: naming the field, if the text is not a valid schedule.

  Example:
    >>> from_json('{"lrsched": 1, "kind": "Constant", "lr": 0.1}')
    Constant(lr=0.1)
  """
  if not isinstance(text, str):
    raise ValueError(f'a schedule must be JSON text, got {type(text).__name__}')
  try:
    data = json.loads(
      text,
      object_pairs_hook=_unique,
      # Longer integers are out of every range; as floats the field's own
      # check can say so, where int() would fail without naming it.
      parse_int=lambda s: int(s) if len(s) <= 20 else float(s),
    )
  except RecursionError as error:
    raise ValueError('schedule: JSON is nested too deeply') from error
  except json.JSONDecodeError as error:
    raise ValueError(f'schedule: not JSON: {error}') from error
  if not isinstance(data, dict):
    raise ValueError(f'schedule must be an object, got {_short(data)}')
  version = data.pop('lrsched', None)
  if type(version) is not int or version != FORMAT_VERSION:
    raise ValueError(
      f'schedule.lrsched must be the format version {FORMAT_VERSION}, '
      f'got {_short(version)}'
    )
  return from_dict(data)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  out: dict[str, Any] = {}
  for key, value in pairs:
    if key in out:
      raise ValueError(f'schedule: key {_short(key)} is given twice')
    out[key] = value
  return out


def diff(saved: Any, asked: Any, where: str = 'schedule') -> tuple[str, ...]:
  """The differences of two JSON values, a line each: `path: saved -> asked`.

  Args:
    saved: what `to_dict` wrote, or any JSON value.
    asked: the same of the other one.
    where: the path of both.

  Returns:
    One line for each leaf that differs; empty if they are equal.

  Example:
    >>> diff({'lr': 0.1, 'steps': [1, 2]}, {'lr': 0.2, 'steps': [1, 3]})
    ('schedule.lr: 0.1 -> 0.2', 'schedule.steps[1]: 2 -> 3')
  """
  if isinstance(saved, dict) and isinstance(asked, dict):
    keys = [*saved, *(k for k in asked if k not in saved)]
    gone = '(absent)'
    return tuple(
      line
      for k in keys
      for line in diff(saved.get(k, gone), asked.get(k, gone), f'{where}.{k}')
    )
  if isinstance(saved, list) and isinstance(asked, list):
    if saved != asked and (_is_table(saved) or _is_table(asked)):
      return (f'{where}: {_table_diff(saved, asked)}',)
    if len(saved) == len(asked):
      pairs = enumerate(zip(saved, asked, strict=True))
      return tuple(
        line for i, (s, a) in pairs for line in diff(s, a, f'{where}[{i}]')
      )
  if saved == asked:
    return ()
  return (f'{where}: {_leaf(saved)} -> {_leaf(asked)}',)


def _is_table(values: list[Any]) -> bool:
  return len(values) > 16 and not isinstance(values[0], (dict, list))


def _table_diff(saved: list[Any], asked: list[Any]) -> str:
  """One line for two long lists of numbers."""
  pairs = enumerate(zip(saved, asked, strict=False))
  changed = [i for i, (a, b) in pairs if a != b]
  n, m = len(saved), len(asked)
  lengths = f'{n} values -> {m} values, '
  if not changed:
    return f'{lengths}the first {min(n, m)} equal'
  i = changed[0]
  text = f'{len(changed)} of {min(n, m)} values differ, the first at [{i}]: '
  return ('' if n == m else lengths) + f'{text}{saved[i]} -> {asked[i]}'


def _leaf(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value)
