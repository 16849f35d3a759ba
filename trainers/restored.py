"""The training state that a run begins with: new, restored or of given weights.

What a checkpoint holds and the config asks for is loaded; what only the config
asks for is made anew from the weights; the rest is not read.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lrsched
from lrsched import laws
from trainers import checkpoint
from trainers.config import RunConfig
from trainers.decided import decided
from trainers.fields import to_dict
from trainers.optimizer import Muon
from trainers.start import Start
from trainers.train_step import TrainState
from trainers.train_step import abstract_state
from trainers.train_step import init_params
from trainers.train_step import state_of


def new_state(config: RunConfig, mesh: Mesh) -> TrainState:
  """A state with new weights, as one program."""
  # Eager initialisation would compile dozens of small ones.
  make = lambda seed: state_of(config, init_params(config, seed))
  shardings = _shardings(abstract_state(config, mesh))
  return jax.jit(make, out_shardings=shardings)(np.uint32(config.seed))


def restored_state(config: RunConfig, mesh: Mesh, start: Start) -> TrainState:
  """The state of a checkpoint, as far as the start carries it.

  Raises:
    ValueError: if a saved tree differs from the one that the config makes,
      naming the paths.
  """
  assert start.root is not None
  assert start.metadata is not None
  abstract = abstract_state(config, mesh)
  trained = start.metadata['config']
  asked = {'params': abstract.params}
  if start.carry != 'weights':
    same_lawa = trained['lawa'] == to_dict(config.lawa)
    kept = {
      'ema': abstract.ema if trained['ema_decay'] else None,
      'lawa': abstract.lawa if same_lawa else None,
      'track': abstract.track if trained['forecast'] else None,
    }
    # What is None in the state has nothing to load.
    asked |= {name: tree for name, tree in kept.items() if tree is not None}
  regrouped = False
  if start.carry == 'all':
    as_saved = _with_groups_of(config, trained['optimizer'])
    regrouped = as_saved is not config
    asked['opt_state'] = abstract_state(as_saved, mesh).opt_state
  loaded = checkpoint.load(start.root, start.load_step, asked)
  if regrouped:
    opt_state = _regrouped(loaded['opt_state'], abstract.opt_state)
    loaded['opt_state'] = opt_state
  missing = [
    name
    for name, value in abstract._asdict().items()
    if value is not None and name not in loaded
  ]
  if missing:
    loaded |= _anew(config, mesh, loaded['params'], start.step, missing)
    if 'track' in missing and start.carry != 'weights':
      past = lrsched.Lineage.from_dict(start.metadata['lineage'])
      loaded['track'] = _track_of(decided(trained, past), start.step, mesh)
  return abstract._replace(**loaded)


def state_from_file(config: RunConfig, mesh: Mesh, path: str) -> TrainState:
  """A state with the weights of an .npz file, everything else anew.

  Args:
    config: the run.
    mesh: its devices.
    path: arrays named by the path of the parameter, such as
      'blocks/0/attention/query/kernel'; other names that begin with '_' are
      remarks of whoever wrote it.

  Raises:
    ValueError: naming the parameters that are missing, left over, or of
      another shape.
  """
  abstract = abstract_state(config, mesh).params
  try:
    with np.load(path, allow_pickle=False) as file:
      found = {n: file[n] for n in file.files if not n.startswith('_')}
  except (OSError, ValueError) as error:
    raise ValueError(
      f'--init_from must be an .npz of arrays by parameter path, such as '
      f'experiments.merge writes, got {path}, which cannot be read as one'
    ) from error
  paths, tree = jax.tree_util.tree_flatten_with_path(abstract)
  wanted = {
    jax.tree_util.keystr(where, simple=True, separator='/'): leaf
    for where, leaf in paths
  }
  lines = [
    f'{name}: {_shape(found.get(name))} -> {_shape(wanted.get(name))}'
    for name in [*found, *(n for n in wanted if n not in found)]
    if _shape(found.get(name)) != _shape(wanted.get(name))
  ]
  if lines:
    raise ValueError(
      f'--init_from: {path} holds other weights than this config makes '
      '(file -> config):\n  ' + '\n  '.join(lines)
    )
  arrays = [
    jax.make_array_from_callback(
      leaf.shape,
      leaf.sharding,
      found[name].astype(leaf.dtype).__getitem__,
    )
    for name, leaf in wanted.items()
  ]
  params = jax.tree.unflatten(tree, arrays)
  anew = _anew(config, mesh, params, 0, TrainState._fields)
  return TrainState(**anew)


def _shape(array: Any) -> str:
  return '(absent)' if array is None else str(list(array.shape))


def _shardings(tree: Any) -> Any:
  return jax.tree.map(lambda x: x.sharding, tree)


def _anew(
  config: RunConfig, mesh: Mesh, params: Any, step: int, names: Sequence[str]
) -> dict[str, Any]:
  """Fields of a new state around weights, whose next update is `step`."""

  # Only what is asked for takes memory beside what is loaded.
  def make(params: Any, step: jax.Array) -> dict[str, Any]:
    made = state_of(config, params, step)
    return {name: getattr(made, name) for name in names}

  abstract = abstract_state(config, mesh)
  shardings = _shardings({name: getattr(abstract, name) for name in names})
  return jax.jit(make, out_shardings=shardings)(params, np.int32(step))


def _with_groups_of(config: RunConfig, saved: dict[str, Any]) -> RunConfig:
  """The config with the groups of a saved optimizer, if they are others.

  Which groups are frozen, and what schedules others have, is not in the tree.
  """
  patterns = saved.get('groups', {}).keys()
  if isinstance(config.optimizer, Muon) or (
    patterns == config.optimizer.groups.keys()
  ):
    return config
  groups = dict.fromkeys(patterns)
  optimizer = dataclasses.replace(config.optimizer, groups=groups)
  return dataclasses.replace(config, optimizer=optimizer)


def _regrouped(opt_state: Any, abstract: Any) -> Any:
  """An optimizer state whose record of LRs begins anew, for other groups."""
  *before, (*links, old) = opt_state
  record = jax.tree.map(
    lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding),
    abstract[-1][-1],
  )
  return (*before, (*links, record._replace(step=old.step)))


def _track_of(trained: dict[str, Any], step: int, mesh: Mesh) -> laws.Track:
  """The track of a run that had none, up to a checkpoint."""
  spec = lrsched.from_dict(
    trained['optimizer']['schedule'], 'optimizer.schedule'
  )
  lrs, warmup_steps = laws.lr_of_updates(spec, step)

  @jax.jit
  def follow(lrs: jax.Array) -> laws.Track:
    add = lambda track, lr: (laws.tracked(track, lr, warmup_steps), None)
    return jax.lax.scan(add, laws.init_track(), lrs)[0]

  track = follow(np.asarray(lrs, np.float32))
  return jax.device_put(track, NamedSharding(mesh, P()))


def first_params(
  config: RunConfig, mesh: Mesh, root: pathlib.Path, step: int
) -> Any:
  """The weights that a run began with, from its first checkpoint."""
  abstract = abstract_state(config, mesh).params
  checkpoint.verify(root, step)
  return checkpoint.load(root, step, {'params': abstract})['params']
