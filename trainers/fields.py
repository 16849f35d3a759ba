"""What a config class is: a frozen dataclass that checks its own types."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal, dataclass_transform

import lrsched


def _fits(value: Any, kind: Any) -> bool:
  """Whether `value` may be stored in a field annotated `kind`."""
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, option) for option in typing.get_args(kind))
  if origin is Literal:
    return value in typing.get_args(kind)
  if origin is tuple:
    item = typing.get_args(kind)[0]
    return isinstance(value, tuple) and all(_fits(v, item) for v in value)
  if origin is dict:
    of_key, of_item = typing.get_args(kind)
    return isinstance(value, dict) and all(
      _fits(k, of_key) and _fits(v, of_item) for k, v in value.items()
    )
  if kind is Any:
    return True
  if kind is float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
  if kind is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, types.NoneType if kind is None else kind)


def _kind_name(kind: Any) -> str:
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    return ' or '.join(map(_kind_name, typing.get_args(kind)))
  if typing.get_origin(kind) is Literal:
    return ' or '.join(map(repr, typing.get_args(kind)))
  if typing.get_origin(kind) is tuple:
    return f'a tuple of {_kind_name(typing.get_args(kind)[0])}'
  if typing.get_origin(kind) is dict:
    return 'a dict of {} to {}'.format(*map(_kind_name, typing.get_args(kind)))
  names = {types.NoneType: 'None', float: 'a finite number'}
  return names.get(kind, kind.__name__)


def _check_types(self: Any) -> None:
  for name, kind in typing.get_type_hints(type(self)).items():
    value = getattr(self, name)
    if not _fits(value, kind):
      raise ValueError(
        f'{type(self).__name__}.{name} must be {_kind_name(kind)}, '
        f'got {value!r}'
      )


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type) -> type:
  """A frozen, keyword-only dataclass whose field types are checked."""
  rules = cls.__dict__.get('check')

  def __post_init__(self: Any) -> None:
    _check_types(self)
    if rules:
      rules(self)

  cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
  return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def require(good: bool, field: str, value: Any, rule: str) -> None:
  """Raises ValueError naming field, value and rule unless `good`."""
  if not good:
    raise ValueError(f'{field} {rule}, got {value!r}')


def to_dict(value: Any) -> Any:
  """A config as JSON values; dataclasses name their class under `kind`."""
  if isinstance(value, lrsched.Schedule):
    return lrsched.to_dict(value)
  if dataclasses.is_dataclass(value):
    names = [f.name for f in dataclasses.fields(value)]
    fields = {name: to_dict(getattr(value, name)) for name in names}
    return {'kind': type(value).__name__, **fields}
  if isinstance(value, dict):
    return {name: to_dict(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_dict(item) for item in value]
  return value
