"""Checks of the arguments that other frameworks' schedules are given by."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lrsched.base import Schedule


def check_known(
  where: str, given: Mapping[str, Any], known: Iterable[str]
) -> None:
  """Raises ValueError naming an argument that is not known, and those that are.

  Args:
    where: what the arguments are of, for messages.
    given: arguments by name.
    known: the names there are.
  """
  if not isinstance(given, Mapping):
    raise ValueError(f'{where} must be arguments by name, got {given!r}')
  if unknown := sorted(set(given) - set(known), key=str):
    raise ValueError(
      f'{where} has no argument {unknown[0]!r}; its arguments: '
      f'{", ".join(known) or "none"}'
    )


def call(
  where: str,
  build: Callable[..., Schedule],
  given: Mapping[str, Any],
  *first: Any,
) -> Schedule:
  """`build(*first, **given)`, once its keyword-only names hold all of `given`.

  Args:
    where: what is described, for messages.
    build: its keyword-only parameters are what may be given.
    given: arguments by name.
    *first: positional arguments that are not the user's.

  Raises:
    ValueError: naming an unknown or missing argument, and the known ones.
  """
  parameters = {
    name: p
    for name, p in inspect.signature(build).parameters.items()
    if p.kind is p.KEYWORD_ONLY
  }
  check_known(where, given, parameters)
  for name, p in parameters.items():
    if p.default is p.empty and name not in given:
      raise ValueError(
        f'{where} needs {name}; its arguments: {", ".join(parameters)}'
      )
  return build(*first, **given)


def check_steps(where: str, value: Any, *, low: int = 0) -> None:
  """Raises ValueError unless the value is a whole number of steps."""
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not whole or value < low:
    raise ValueError(f'{where} must be a whole number >= {low}, got {value!r}')


def check_real(
  where: str,
  value: Any,
  *,
  low: float = 0.0,
  high: float = math.inf,
  low_open: bool = False,
) -> None:
  """Raises ValueError unless the value is a finite number in its range."""
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  above = real and (value > low if low_open else value >= low)
  if not (above and math.isfinite(value) and value <= high):
    rule = f'{">" if low_open else ">="} {low:g}'
    rule += f' and <= {high:g}' if high < math.inf else ''
    raise ValueError(f'{where} must be a finite number {rule}, got {value!r}')


def check_one_of(where: str, value: Any, known: tuple[str, ...]) -> None:
  """Raises ValueError unless the value is one of the known names."""
  if value not in known:
    raise ValueError(
      f'{where} must be one of {", ".join(known)}, got {value!r}'
    )
