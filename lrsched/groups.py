"""Parameter groups with an LR each, named by patterns of parameter paths."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrsched.transform import ScaleByLRState
from lrsched.transform import minus_lr_times
from lrsched.transform import only_state

SHOWN = 3  # paths that an error names


class ScaleByGroupLRState(NamedTuple):
  """State of `scale_by_group_lr`.

  Attributes:
    step: shape (), int32; updates made so far.
    lrs: by pattern, in the order that decides, shape (), float32: the LR of the
      update that produced this state; 0 before the first, and for a frozen
      group. An `OrderedDict`, as jax sorts the keys of a `dict`.
  """

  step: jax.Array
  lrs: OrderedDict[str, jax.Array]


def scale_by_group_lr(
  groups: Mapping[str, Callable[[Any], jax.typing.ArrayLike] | None],
) -> optax.GradientTransformation:
  """Multiplies each update by minus the LR of its group; None freezes a group.

      update_p <- -groups[first pattern that matches p](step) * update_p

  The last link of an optax chain, as `scale_by_lr` is, with one count of steps
  for all groups. A pattern is a regular expression that must match the whole
  path of a parameter (`re.fullmatch`), written 'blocks/0/query/kernel': were
  part of a path enough, 'embedding' would also take 'position_embedding', and
  nobody would be told. Patterns are tried in their order. Every parameter must
  match one, and every pattern must decide for a parameter; both are checked
  when the state is made, which `jax.eval_shape` does without computing.

  The update of a frozen parameter is exactly 0 whatever comes before in the
  chain: decayed weights, or a gradient that is not finite. Its gradient still
  counts in a clipping by global norm, and its moments still take memory and
  still follow the gradient, so that a run may unfreeze it (the state has the
  same tree). Where neither is wanted, `optax.partition` with
  `optax.set_to_zero()` for the frozen label keeps no moments.

  LRs that are a multiple of one schedule, such as `0.9**depth` by layer or
  `base_width / width` for hidden matrices, are `Scaled` schedules.

  To sweep schedules in one program, pass them into the compiled step and build
  the chain there. The patterns are static, and their order has to survive:
  write `{p: specs[p] for p in PATTERNS}` there, or pass an `OrderedDict`.

  Args:
    groups: pattern to schedule (integer step to LR), or to None.

  Returns:
    A gradient transformation with a `ScaleByGroupLRState`.

  Raises:
    ValueError: if a pattern is not a regular expression or a value neither a
      schedule nor None. From `init` and `update`: if a parameter matches no
      pattern, or a pattern is the first match of none. From `update`: if the
      patterns are not those of the state, in their order.

  Example:
    >>> import lrsched
    >>> base = lrsched.Constant(lr=0.5)
    >>> tx = scale_by_group_lr(
    ...   {
    ...     'embedding': None,
    ...     '.*/bias': lrsched.Scaled(schedule=base, factor=0.2),
    ...     '.*': base,
    ...   }
    ... )
    >>> one = jnp.ones(())
    >>> params = {'embedding': one, 'out': {'bias': one, 'kernel': one}}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> jax.tree.map(float, updates)
    {'embedding': 0.0, 'out': {'bias': -0.1, 'kernel': -0.5}}
    >>> {p: float(lr) for p, lr in applied_lrs(state).items()}
    {'embedding': 0.0, '.*/bias': 0.1, '.*': 0.5}
  """
  _check_groups(groups)
  groups = dict(groups)

  def init(params: optax.Params) -> ScaleByGroupLRState:
    _patterns_of(params, tuple(groups))
    dtype = jnp.result_type(float)
    return ScaleByGroupLRState(
      step=jnp.zeros((), jnp.int32),
      lrs=OrderedDict((pattern, jnp.zeros((), dtype)) for pattern in groups),
    )

  def update(
    updates: optax.Updates,
    state: ScaleByGroupLRState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, ScaleByGroupLRState]:
    del params
    if [*groups] != [*state.lrs]:
      raise ValueError(
        f'groups must have the patterns of the state, {[*state.lrs]}, in that '
        f'order, got {[*groups]}; jax sorts a dict that is an argument of a '
        'compiled function: rebuild it there in order, or pass an OrderedDict'
      )
    lrs = OrderedDict(
      (pattern, jnp.asarray(0 if lr is None else lr(state.step), old.dtype))
      for (pattern, lr), old in zip(
        groups.items(), state.lrs.values(), strict=True
      )
    )

    def scaled(update: jax.Array, pattern: str) -> jax.Array:
      if groups[pattern] is None:
        return jnp.zeros_like(update)
      return minus_lr_times(lrs[pattern], update)

    updates = jax.tree.map(
      scaled, updates, _patterns_of(updates, tuple(groups))
    )
    step = optax.safe_increment(state.step)
    return updates, ScaleByGroupLRState(step=step, lrs=lrs)

  return optax.GradientTransformation(init, update)


def applied_lrs(opt_state: optax.OptState) -> dict[str, jax.Array]:
  """The LR of each group in the last update, read from the state.

  Args:
    opt_state: an optimizer state that holds one `ScaleByGroupLRState`.

  Returns:
    float32 scalars by pattern, in the order that decides; 0 before the first
    update, and always for a frozen group.

  Raises:
    ValueError: if the state holds none, or several.

  Example:
    >>> import lrsched
    >>> tx = scale_by_group_lr({'.*': lrsched.Constant(lr=0.1)})
    >>> _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    >>> float(applied_lrs(state)['.*'])
    0.1
  """
  state = only_state(
    opt_state,
    ScaleByGroupLRState,
    if_none='end the optax chain with scale_by_group_lr(groups)',
    if_several='pass the part of the state with one of them',
  )
  return dict(state.lrs)


def at_step(opt_state: optax.OptState, step: jax.typing.ArrayLike) -> Any:
  """An optimizer state whose schedules go on at an update.

  For an optimizer that begins anew inside a run: its moments are fresh, but its
  next update is not the run's first.

  Args:
    opt_state: a state that holds one or more of `scale_by_lr` or
      `scale_by_group_lr`, such as `tx.init(params)`.
    step: updates made so far, >= 0.

  Returns:
    The same tree, with `step` in each of them.

  Raises:
    ValueError: if it holds none.

  Example:
    >>> import lrsched
    >>> falling = lrsched.Linear(peak_lr=1.0, total_steps=4)
    >>> tx = lrsched.scale_by_lr(falling)
    >>> state = at_step(tx.init(jnp.ones(2)), 3)
    >>> _, state = tx.update(jnp.ones(2), state)
    >>> float(lrsched.applied_lr(state))
    0.25
  """
  _lr_states(opt_state)

  def moved(x: Any) -> Any:
    if not _is_lr_state(x):
      return x
    return x._replace(step=jnp.asarray(step, x.step.dtype))

  return jax.tree.map(moved, opt_state, is_leaf=_is_lr_state)


def steps_done(opt_state: optax.OptState) -> jax.Array:
  """Updates made so far, as `scale_by_lr` or `scale_by_group_lr` counts them.

  Args:
    opt_state: a state that holds one or more of them, which count alike.

  Returns:
    int32 scalar.

  Raises:
    ValueError: if it holds none.

  Example:
    >>> import lrsched
    >>> tx = lrsched.scale_by_lr(lrsched.Constant(lr=0.1))
    >>> _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    >>> int(steps_done(state))
    1
  """
  return _lr_states(opt_state)[0].step


def _is_lr_state(x: Any) -> bool:
  return isinstance(x, (ScaleByLRState, ScaleByGroupLRState))


def _lr_states(opt_state: optax.OptState) -> list[Any]:
  leaves = jax.tree.leaves(opt_state, is_leaf=_is_lr_state)
  found = [leaf for leaf in leaves if _is_lr_state(leaf)]
  if not found:
    raise ValueError(
      'opt_state must hold the state of scale_by_lr or scale_by_group_lr, '
      'found neither; end the optax chain with one'
    )
  return found


def _check_groups(groups: Any) -> None:
  if not isinstance(groups, Mapping) or not groups:
    raise ValueError(
      f'groups must map patterns of paths to schedules, got {groups!r}'
    )
  for pattern, schedule in groups.items():
    try:
      if not isinstance(pattern, str):
        raise TypeError('not text')
      re.compile(pattern)
    except (re.error, TypeError) as error:
      raise ValueError(
        'each key of groups must be a regular expression, got '
        f'{pattern!r} ({error})'
      ) from error
    if schedule is not None and not callable(schedule):
      raise ValueError(
        f'groups[{pattern!r}] must map a step to an LR, or be None to freeze '
        f'the group, got {schedule!r}; for one fixed LR use Constant(lr=...)'
      )


def _patterns_of(tree: Any, patterns: tuple[str, ...]) -> Any:
  """The tree with each leaf's pattern in its place; checks the coverage."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
  paths = [
    jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in leaves
  ]
  matching = [[p for p in patterns if re.fullmatch(p, path)] for path in paths]
  left = [path for path, m in zip(paths, matching, strict=True) if not m]
  if left:
    raise ValueError(
      f'groups must cover every parameter, but {len(left)} of {len(paths)} '
      f'match no pattern: {_some(left)}; add one that matches the whole path, '
      "or a last '.*' for all the rest"
    )
  first = [found[0] for found in matching]
  for pattern in patterns:
    if pattern not in first:
      _raise_dead(pattern, paths, matching)
  return jax.tree.unflatten(structure, first)


def _raise_dead(
  pattern: str, paths: list[str], matching: list[list[str]]
) -> None:
  takers = dict.fromkeys(found[0] for found in matching if pattern in found)
  if takers:
    why = f'{_some([*takers])} before it takes all that it matches; move it up'
  else:
    why = f'it matches no path, such as {_some(paths)}; correct it'
  raise ValueError(
    f'groups[{pattern!r}] must be the first match of a parameter, but {why}, '
    'or remove it'
  )


def _some(names: list[str]) -> str:
  shown = ', '.join(map(repr, names[:SHOWN]))
  return shown + (', ...' if len(names) > SHOWN else '')
