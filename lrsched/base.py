"""What a schedule is: a frozen, callable pytree whose fields are checked.

One index convention holds everywhere: `schedule(t)` is the learning rate of
update `t`, counted from 0. A warmup of `W` steps is `(t+1)/W`, so update 0
moves and update `W-1` is at the peak. A decay reaches its final value at its
end step, the first step after it, and the value holds from there on. Steps
before 0 read as 0.

A field is annotated with what it may hold (`LR`, `Steps`, `Schedule`, ...). The
annotation drives four things from one place: the check at construction, the
reading of JSON, the conversion to arrays, and which leaves are differentiable.
"""

from __future__ import annotations

import abc
import dataclasses
import typing
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from jaxtyping import Int

MAX_STEPS = 2**31 - 1  # steps are int32 unless x64 is on
MAX_REAL = float(np.finfo(np.float32).max)  # reals are float32 unless x64 is on
LEAST_REAL = float(np.finfo(np.float32).tiny)  # below it a program has 0

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Number:
  """A numeric leaf: its type and the range it must lie in.

  Attributes:
    whole: True for steps (int32 in a program), False for a real (float32).
    low: least value.
    high: greatest value.
    low_open: whether `low` itself is excluded.
  """

  whole: bool
  low: float
  high: float = MAX_REAL
  low_open: bool = False

  def rule(self) -> str:
    what = 'a whole number' if self.whole else 'a finite real number'
    low = f'{">" if self.low_open else ">="} {self.low:g}'
    if self.low_open and self.low == 0 and not self.whole:
      low += ' in float32'
    high = f' and <= {self.high:.10g}' if self.high < MAX_REAL else ''
    return f'{what} {low}{high}'

  def accepts(self, value: Any) -> bool:
    kind = jnp.integer if self.whole else jnp.number
    if isinstance(value, jax.core.Tracer):
      # Its value is not known yet: callers validate before they transform.
      return jnp.issubdtype(value.dtype, kind)
    if isinstance(value, (bool, np.bool_)):
      return False
    if isinstance(value, (int, float)):
      return self._in_range(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
      real = jnp.issubdtype(value.dtype, kind) and not jnp.issubdtype(
        value.dtype, jnp.complexfloating
      )
      if not real or isinstance(value, np.ma.MaskedArray):
        return False
      values = np.asarray(value).astype(object if self.whole else np.float64)
      return all(self._in_range(v) for v in values.ravel().tolist())
    return False

  def _in_range(self, value: int | float) -> bool:
    if self.whole and not isinstance(value, int):
      return False
    above = value > self.low if self.low_open else value >= self.low
    if self.low_open and self.low == 0 and not self.whole:
      above = value >= LEAST_REAL
    return above and value <= self.high

  def array(self, value: Any) -> jax.Array:
    return jnp.asarray(value, jnp.result_type(int if self.whole else float))


@dataclasses.dataclass(frozen=True)
class Table:
  """A leaf that holds many numbers: one array, not a leaf for each.

  Attributes:
    number: what each value must be.
    at_least: how many there must be.
  """

  number: Number
  at_least: int = 1

  def problem(self, value: Any) -> str | None:
    """What is wrong with a value, from its path on; None if nothing is."""
    if isinstance(value, jax.core.Tracer):
      ok = value.ndim >= 1 and self.number.accepts(value)
      return None if ok else f' must be a list, got {value!r}'
    is_list = isinstance(value, (list, tuple)) or np.ndim(value) == 1
    if not is_list or len(value) < self.at_least:
      return f' must be a list of at least {self.at_least}, got {value!r}'
    if not isinstance(value, (list, tuple)) and self.number.accepts(value):
      return None  # an array, at once
    for i, item in enumerate(value):
      if np.ndim(item) or not self.number.accepts(item):
        return f'[{i}] must be {self.number.rule()}, got {item!r}'
    return None

  def kept(self, value: Any) -> Any:
    """A read-only copy, as exact as JSON; -0 is written as 0."""
    if isinstance(value, jax.core.Tracer):
      return value
    if any(isinstance(v, jax.core.Tracer) for v in value):
      return jnp.stack([self.number.array(v) for v in value])
    dtype = np.int64 if self.number.whole else np.float64
    values = np.array(value, dtype) + dtype(0)
    values.flags.writeable = False
    return values

  def array(self, value: Any) -> jax.Array:
    return self.number.array(value)


# Kinds of leaves: Python numbers as given, arrays inside a program, hence Any.
# Reals are what a schedule is differentiable in; lengths are integers, whose
# cotangents are float0.
LR = Annotated[Any, Number(whole=False, low=0.0)]
Positive = Annotated[Any, Number(whole=False, low=0.0, low_open=True)]
Steps = Annotated[Any, Number(whole=True, low=0, high=MAX_STEPS)]
PositiveSteps = Annotated[Any, Number(whole=True, low=1, high=MAX_STEPS)]
LRTable = Annotated[Any, Table(Number(whole=False, low=0.0))]


class Phase(NamedTuple):
  """A named stretch of steps, `start <= t < end`; `end` None means open."""

  name: str
  start: int
  end: int | None


class Spec:
  """Common ground of schedules and decay shapes: a frozen pytree of numbers."""

  def check(self) -> None:
    """Rules that join fields; called at construction, once fields are valid.

    Fields may be tracers here: guard with `is_concrete`.
    """


class Schedule(Spec, abc.ABC):
  """A learning-rate schedule: `schedule(t)` is the LR of update `t`.

  Subclasses are made with the `schedule` decorator. They are callables from an
  integer step to a float32 LR (float64 under x64), so every optax optimizer
  takes one as its learning rate.
  """

  @abc.abstractmethod
  def __call__(
    self, step: Int[jax.typing.ArrayLike, '*shape']
  ) -> Float[jax.Array, '*shape']:
    """The LR of update `step` (integer, any shape): same shape, float32."""

  @abc.abstractmethod
  def phases(self) -> tuple[Phase, ...]:
    """The phases in order, as Python integers; needs concrete lengths."""

  @property
  def end_step(self) -> int | None:
    """First step from which the LR stays as it is; None if there is none."""
    return self.phases()[-1].end


KINDS: dict[str, type] = {}  # class name -> class, for reading JSON


_FIELDS: dict[type, dict[str, Any]] = {}


def field_kinds(cls: type) -> dict[str, Any]:
  """What each field of a spec class may hold, by field name, in order."""
  if cls not in _FIELDS:
    raise TypeError(f'{cls.__name__} must be made with @lrsched.schedule')
  return _FIELDS[cls]


def leaf_of(kind: Any) -> Any:
  """The `Number` or `Table` that a field holds; None if it holds a spec."""
  return kind.__metadata__[0] if hasattr(kind, '__metadata__') else None


@dataclass_transform(frozen_default=True, kw_only_default=True)
def schedule(cls: type[T]) -> type[T]:
  """Makes a class a spec: frozen, keyword-only, checked, a pytree, in JSON.

  Every field is a pytree child; only the class, the classes of nested specs and
  the lengths of tuples are structure. So a sweep over LRs, shape parameters or
  lengths runs one compiled program.

  Args:
    cls: a subclass of `Schedule` or `DecayShape` with annotated fields.

  Returns:
    The class, as a dataclass registered with jax and with the JSON reader.

  Raises:
    ValueError: if another class has that name: it would be ambiguous in JSON.

  Example:
    >>> @schedule
    ... class Sawtooth(Schedule):
    ...   peak_lr: LR
    ...   period_steps: PositiveSteps
    ...
    ...   def __call__(self, step):
    ...     spec = as_arrays(self)
    ...     done = as_step(step) % spec.period_steps
    ...     return spec.peak_lr * (1 - done / spec.period_steps)
    ...
    ...   def phases(self):
    ...     return (Phase('saw', 0, None),)
    >>> float(Sawtooth(peak_lr=1.0, period_steps=4)(5))
    0.75
  """
  old = KINDS.get(cls.__name__, cls)
  if (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
    raise ValueError(f'a spec named {cls.__name__} exists already; rename one')

  def __post_init__(self: Any) -> None:
    for name, kind in field_kinds(cls).items():
      value = getattr(self, name)
      _check_field(f'{cls.__name__}.{name}', value, kind)
      if isinstance(leaf_of(kind), Table):
        object.__setattr__(self, name, leaf_of(kind).kept(value))
    self.check()

  def __reduce__(self: Any) -> Any:
    # By way of the constructor: a copied or unpickled table is read-only too.
    return _made, (cls, {name: getattr(self, name) for name in _FIELDS[cls]})

  cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
  cls.__reduce__ = __reduce__  # type: ignore[method-assign]
  cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
  hints = typing.get_type_hints(cls, include_extras=True)
  _FIELDS[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
  KINDS[cls.__name__] = cls
  _register_pytree(cls)
  return cls


def _made(cls: type[T], fields: dict[str, Any]) -> T:
  return cls(**fields)


def _register_pytree(cls: type) -> None:
  names = tuple(f.name for f in dataclasses.fields(cls))

  def flatten_with_keys(self: Any) -> Any:
    keys = (jax.tree_util.GetAttrKey(name) for name in names)
    return tuple(zip(keys, flatten(self)[0], strict=True)), None

  def flatten(self: Any) -> Any:
    return tuple(getattr(self, name) for name in names), None

  def unflatten(_: None, children: Any) -> Any:
    # Not through __init__: jax unflattens with placeholders, axis numbers and
    # cotangents as leaves, which the checks would rightly refuse.
    self: Any = object.__new__(cls)
    for name, child in zip(names, children, strict=True):
      object.__setattr__(self, name, child)
    return self

  jax.tree_util.register_pytree_with_keys(
    cls, flatten_with_keys, unflatten, flatten
  )


def _check_field(where: str, value: Any, kind: Any) -> None:
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, tuple):
      raise ValueError(f'{where} must be a tuple, got {value!r}')
    for i, item in enumerate(value):
      _check_field(f'{where}[{i}]', item, typing.get_args(kind)[0])
  elif isinstance(leaf := leaf_of(kind), Table):
    if problem := leaf.problem(value):
      raise ValueError(f'{where}{problem}')
  elif leaf is not None:
    if not leaf.accepts(value):
      raise ValueError(f'{where} must be {leaf.rule()}, got {value!r}')
  elif not isinstance(value, kind):
    raise ValueError(
      f'{where} must be a {kind.__name__}, got {value!r} '
      f'({type(value).__name__})'
    )


def is_concrete(*values: Any) -> bool:
  """Whether all values are known numbers or tables (no tracer, no batch)."""
  return all(
    (
      isinstance(v, np.ndarray) and not v.flags.writeable
    )  # a table as a spec keeps it
    or (not isinstance(v, jax.core.Tracer) and np.ndim(v) == 0)
    for v in jax.tree.leaves(values)
  )


def check_total(where: str, *lengths: Any) -> None:
  """Raises ValueError unless known lengths sum to a step that fits int32."""
  if is_concrete(lengths) and sum(map(int, lengths)) > MAX_STEPS:
    raise ValueError(
      f'{where}: the lengths must sum to at most 2^31-1, got '
      f'{sum(map(int, lengths))}'
    )


def check_rises(where: str, steps: tuple[Any, ...]) -> None:
  """Raises ValueError unless known steps rise strictly."""
  if not is_concrete(steps):
    return
  field = where.rpartition('.')[2]
  for i in range(1, len(steps)):
    if steps[i] <= steps[i - 1]:
      raise ValueError(
        f'{where}[{i}] must be > {field}[{i - 1}]={steps[i - 1]}, got '
        f'{steps[i]}'
      )


def as_arrays(spec: T) -> T:
  """The spec with every leaf a strongly typed array: float32, and int32 steps.

  Under x64 they are float64 and int64. This is what a compiled step takes as
  an argument: specs that differ in values alone then share one program.

  Args:
    spec: a schedule or decay shape; leaves may be tracers.

  Returns:
    The same class and structure with array leaves.

  Example:
    >>> import lrsched
    >>> lrsched.as_arrays(lrsched.Constant(lr=1)).lr.dtype
    dtype('float32')
  """
  values = {
    name: _as_array(getattr(spec, name), kind)
    for name, kind in field_kinds(type(spec)).items()
  }
  out = object.__new__(type(spec))
  for name, value in values.items():
    object.__setattr__(out, name, value)
  return out


def _as_array(value: Any, kind: Any) -> Any:
  if typing.get_origin(kind) is tuple:
    return tuple(_as_array(v, typing.get_args(kind)[0]) for v in value)
  leaf = leaf_of(kind)
  return as_arrays(value) if leaf is None else leaf.array(value)


def as_step(step: jax.typing.ArrayLike) -> jax.Array:
  """The step as int32 (int64 under x64), not below 0.

  Raises:
    ValueError: if it is not an integer, or beyond the integer type.
  """
  dtype = jnp.result_type(int)
  most = jnp.iinfo(dtype).max
  if isinstance(step, (int, np.integer, np.ndarray)) and np.size(step):
    # jax would wrap these when it narrows them.
    if np.max(step) > most or np.min(step) < -most:
      raise ValueError(f'step must fit {dtype}, got {step}')
  step = jnp.asarray(step)
  if not jnp.issubdtype(step.dtype, jnp.integer):
    raise ValueError(f'step must be an integer, got dtype {step.dtype}')
  if jnp.iinfo(step.dtype).max > most:
    step = jnp.minimum(step, jnp.asarray(most, step.dtype))
  return jnp.maximum(step.astype(dtype), 0)


@jax.jit
def traced_once(schedule: Schedule, step: jax.Array) -> jax.Array:
  """`schedule(step)`, for schedules that need another one at two steps.

  Nested in one another they would be traced once for each path to them.
  """
  return schedule(step)


def turns_and_rest(
  step: jax.Array, period_steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`step // period` and `step % period` of steps that are not negative.

  Python's division floors; that costs four times as much as this one.
  """
  step, period = jnp.broadcast_arrays(step, period_steps)
  turns = jax.lax.div(step, period)
  return turns, step - turns * period


def warmup_factor(step: jax.Array, warmup_steps: jax.Array) -> jax.Array:
  """`min((t+1)/W, 1)`, and 1 throughout where `W` is 0; never wraps."""
  done = jnp.minimum(step, warmup_steps - 1) + 1
  ramp = done / jnp.maximum(warmup_steps, 1)
  return jnp.where(step < warmup_steps, ramp, jnp.ones_like(ramp))
