"""Optimizers: what can be configured, and the optax chain it becomes.

A chain ends in `lrsched.scale_by_lr`, the one place where a learning rate
multiplies. The schedules are arguments of `make_optimizer`, not taken from the
config, so that a compiled step can receive them as arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import Any

import jax
import optax
import optax.contrib

import lrsched
from trainers.fields import config
from trainers.fields import require
from trainers.fields import to_dict

Groups = dict[str, lrsched.Schedule | None]


@config
class AdamW:
  """AdamW with decoupled weight decay times the LR (optax's convention).

  Attributes:
    schedule: the learning rate.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: multiplies the LR; norm scales are not decayed.
    clip_norm: greatest global L2 norm of the gradient; None for no clipping.
    groups: schedules of parameters whose whole path matches a pattern (as in
      `lrsched.scale_by_group_lr`), None to freeze them; the others follow
      `schedule`. No parameter may match two.
  """

  schedule: lrsched.Schedule
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.1
  clip_norm: float | None = 1.0
  groups: Groups = dataclasses.field(default_factory=dict)

  def check(self) -> None:
    for name in ('b1', 'b2'):
      value = getattr(self, name)
      require(0 <= value < 1, f'AdamW.{name}', value, 'must be in [0, 1)')
    require(self.eps > 0, 'AdamW.eps', self.eps, 'must be > 0')
    _check_common(self)


@config
class Muon:
  """Muon on the matrices inside blocks, Adam on the rest, each with its own LR.

  Attributes:
    schedule: learning rate of Muon, for the matrices inside blocks.
    adam_schedule: learning rate of Adam, for embeddings, output and norms.
    beta: momentum of Muon (Nesterov).
    b1: decay of Adam's first moment.
    b2: decay of Adam's second moment.
    eps: added to the root of Adam's second moment.
    weight_decay: multiplies the LR of the group; norm scales are not decayed.
    clip_norm: greatest global L2 norm of the gradient; None for no clipping.

  Source: Jordan et al., Muon (2024); width scaling sqrt(max(1, out/in)).
  """

  schedule: lrsched.Schedule
  adam_schedule: lrsched.Schedule
  beta: float = 0.95
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.1
  clip_norm: float | None = 1.0

  def check(self) -> None:
    for name in ('beta', 'b1', 'b2'):
      value = getattr(self, name)
      require(0 <= value < 1, f'Muon.{name}', value, 'must be in [0, 1)')
    require(self.eps > 0, 'Muon.eps', self.eps, 'must be > 0')
    _check_common(self)


@config
class Optax:
  """Any optimizer of optax by name, its learning rate replaced by ours.

  Attributes:
    name: a function of `optax` or `optax.contrib` that takes `learning_rate`
      and is linear in it, such as 'lion', 'adafactor' or 'sgd'.
    schedule: the learning rate.
    arguments: further arguments of that function, by name.
    clip_norm: greatest global L2 norm of the gradient; None for no clipping.
    groups: as in `AdamW`.
  """

  name: str
  schedule: lrsched.Schedule
  arguments: dict = dataclasses.field(default_factory=dict)
  clip_norm: float | None = None
  groups: Groups = dataclasses.field(default_factory=dict)

  def check(self) -> None:
    require(
      'learning_rate' not in self.arguments,
      'Optax.arguments',
      self.arguments,
      'must not hold learning_rate: the schedule gives it',
    )
    try:
      json.dumps(to_dict(self.arguments), allow_nan=False)
    except (TypeError, ValueError) as error:
      raise ValueError(
        f'Optax.arguments must hold JSON values, got {self.arguments!r} '
        f"({error}); give a dtype by its name, such as 'bfloat16'"
      ) from error
    _check_common(self)
    try:
      tx = _named(self)
      # One update: line searches want the loss as well, which no step gives.
      matrix = jax.ShapeDtypeStruct((2, 2), 'float32')
      with contextlib.suppress(ValueError):  # a mask is of the weights' tree
        jax.eval_shape(lambda x: tx.update(x, tx.init(x), x), matrix)
    except (AttributeError, TypeError) as error:
      raise ValueError(
        f'Optax(name={self.name!r}, arguments={self.arguments!r}) is not a '
        f'call that optax takes, or not an optimizer of gradients: {error}'
      ) from error


def _check_common(self: AdamW | Muon | Optax) -> None:
  owner = type(self).__name__
  decay = getattr(self, 'weight_decay', 0.0)
  require(decay >= 0, f'{owner}.weight_decay', decay, 'must be >= 0')
  require(
    self.clip_norm is None or self.clip_norm > 0,
    f'{owner}.clip_norm',
    self.clip_norm,
    'must be > 0; None switches clipping off',
  )
  if groups := groups_of(self):
    lrsched.scale_by_group_lr(groups)  # raises if a pattern is not one


Optimizer = AdamW | Muon | Optax
Schedules = dict[str, lrsched.Schedule]
REST = '.*'  # the group of what is in no group: the main schedule's


def groups_of(optimizer: Optimizer) -> Groups:
  """The groups with a schedule of their own; {} if there are none."""
  return getattr(optimizer, 'groups', {})


def schedules_of(optimizer: Optimizer) -> Schedules:
  """The schedules of an optimizer by field name; 'schedule' is the main one.

  That of a group is named 'groups.' and its pattern; a frozen one has none.
  """
  fields = {
    f.name: getattr(optimizer, f.name) for f in dataclasses.fields(optimizer)
  }
  groups = {f'groups.{p}': s for p, s in groups_of(optimizer).items()}
  return {
    name: value
    for name, value in (fields | groups).items()
    if isinstance(value, lrsched.Schedule)
  }


def with_schedules(optimizer: Any, schedules: Schedules) -> Any:
  """The optimizer with other schedules, named as `schedules_of` names them."""
  fields: dict[str, Any] = {
    n: s for n, s in schedules.items() if not n.startswith('groups.')
  }
  if groups_of(optimizer):
    fields['groups'] = {
      pattern: schedules.get(f'groups.{pattern}')
      for pattern in groups_of(optimizer)
    }
  return dataclasses.replace(optimizer, **fields)


def make_optimizer(
  optimizer: Optimizer, schedules: Schedules
) -> optax.GradientTransformation:
  """The optax chain of a configured optimizer.

  Args:
    optimizer: the configuration.
    schedules: as `schedules_of(optimizer)` gives them; leaves may be traced.
  """
  parts = []
  if optimizer.clip_norm is not None:
    parts.append(optax.clip_by_global_norm(optimizer.clip_norm))
  if isinstance(optimizer, AdamW):
    parts.append(_adamw(optimizer, _times_lr(optimizer, schedules)))
  elif isinstance(optimizer, Muon):
    adam = lrsched.scale_by_lr(schedules['adam_schedule'])
    groups = {
      'muon': _muon(optimizer, schedules['schedule']),
      'adam': _adamw(optimizer, adam),
    }
    parts.append(optax.partition(groups, _muon_groups))
  else:
    parts.append(_optax(optimizer, _times_lr(optimizer, schedules)))
  return optax.chain(*parts)


def _times_lr(
  c: AdamW | Optax, schedules: Schedules
) -> optax.GradientTransformation:
  """The last link of a chain, with the groups that the config has."""
  if not c.groups:
    return lrsched.scale_by_lr(schedules['schedule'])
  groups = {p: schedules.get(f'groups.{p}') for p in c.groups}
  tx = lrsched.scale_by_group_lr({**groups, REST: schedules['schedule']})

  def init(params: Any) -> Any:
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = [_name(path) for path, _ in paths]
    found = {n: [p for p in c.groups if re.fullmatch(p, n)] for n in names}
    for name, patterns in found.items():
      # A config is compared and hashed without regard to the order of a dict,
      # so the order must not decide.
      rule = f'must take {name} once: exclude it from one by (?!PATH$)'
      require(len(patterns) < 2, 'optimizer.groups', patterns, rule)
    rule = 'must leave parameters to schedule: drop the group that follows it'
    require(not all(found.values()), 'optimizer.groups', [*c.groups], rule)
    return tx.init(params)

  return optax.GradientTransformation(init, tx.update)


def _adamw(c: AdamW | Muon, times_lr: optax.GradientTransformation) -> Any:
  return optax.chain(
    optax.scale_by_adam(b1=c.b1, b2=c.b2, eps=c.eps),
    optax.add_decayed_weights(c.weight_decay, mask=decays),
    times_lr,
  )


def _muon(c: Muon, schedule: lrsched.Schedule) -> Any:
  return optax.chain(
    optax.contrib.scale_by_muon(
      beta=c.beta, weight_dimension_numbers=_matrix_axes
    ),
    optax.stateless_with_tree_map(_scaled_by_width),
    optax.add_decayed_weights(c.weight_decay, mask=decays),
    lrsched.scale_by_lr(schedule),
  )


def _scaled_by_width(update: jax.Array, _: Any) -> jax.Array:
  # Muon's own rule for matrices that widen; optax keeps its version private.
  return update * max(1.0, update.shape[-1] / update.shape[-2]) ** 0.5


def _named(c: Optax) -> optax.GradientTransformation:
  where = optax if hasattr(optax, c.name) else optax.contrib
  return getattr(where, c.name)(learning_rate=1.0, **c.arguments)


def _optax(c: Optax, times_lr: optax.GradientTransformation) -> Any:
  # With a learning rate of 1 the named optimizer gives minus its direction; the
  # LR, and the sign, are then applied where every other one is.
  return optax.chain(_named(c), optax.scale(-1.0), times_lr)


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def decays(params: Any) -> Any:
  """Which parameters decay: all but the scales of norms."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: 'norm' not in _name(path), params
  )


def _is_matrix(path: Any) -> bool:
  """Whether Muon updates a parameter: the matrices inside blocks."""
  return 'blocks/' in _name(path) and _name(path).endswith('kernel')


def _muon_groups(params: Any) -> Any:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: 'muon' if _is_matrix(path) else 'adam', params
  )


def _matrix_axes(params: Any) -> Any:
  # Counted from the end, so that stacked layers are a batch of matrices.
  axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
  return jax.tree.map(lambda _: axes, params)


def applied_lrs(optimizer: Optimizer, opt_state: Any) -> dict:
  """The LRs of the last update, read from the state: one for each schedule.

  Those of groups are named 'lr/' and the pattern; a frozen one's is 0.
  """
  if groups_of(optimizer):
    lrs = lrsched.applied_lrs(opt_state)
    main = {'lr': lrs.pop(REST)}
    return main | {f'lr/{pattern}': lr for pattern, lr in lrs.items()}
  if not isinstance(optimizer, Muon):
    return {'lr': lrsched.applied_lr(opt_state)}
  groups = opt_state[-1].inner_states
  return {
    'lr': lrsched.applied_lr(groups['muon']),
    'lr_adam': lrsched.applied_lr(groups['adam']),
  }
