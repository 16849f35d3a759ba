"""The device mesh, and how batches and parameters lie on it.

Axes: `data` copies the weights, `fsdp` splits them and gathers them for use,
`tensor` splits the matrix products. Batches are split over `data` and `fsdp`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trainers.config import MeshConfig

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')

# By the last names of a parameter's path. Matrices into a block's inside are
# split by columns (heads, hidden units), those back to the stream by rows, so
# that one reduction a layer half is all the `tensor` axis costs.
INWARD = P('fsdp', 'tensor')
OUTWARD = P('tensor', 'fsdp')
RULES = {
  'embedding': OUTWARD,
  'query/kernel': INWARD,
  'key/kernel': INWARD,
  'value/kernel': INWARD,
  'out/kernel': OUTWARD,
  'up/kernel': INWARD,
  'gate/kernel': INWARD,
  'down/kernel': OUTWARD,
  'output/kernel': INWARD,
  'norm/scale': P(),
}


def make_mesh(config: MeshConfig) -> Mesh:
  """The mesh over all devices of all processes.

  Raises:
    ValueError: if the axes do not multiply to the number of devices.
  """
  n = jax.device_count()
  fixed = config.fsdp * config.tensor
  data = config.data if config.data is not None else max(1, n // fixed)
  if data * fixed != n:
    raise ValueError(
      f'mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} '
      f'does not use all of the {n} devices; their product must be {n}'
    )
  shape = (data, config.fsdp, config.tensor)
  # Auto: XLA chooses the layout of activations. jax.make_mesh defaults to
  # Explicit, where the embedding lookup fails.
  return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)


def check_batch(
  name: str, batch_size: int, accum_steps: int, mesh: Mesh
) -> None:
  """Raises ValueError unless each microbatch divides over the batch axes.

  Args:
    name: the config that holds the batch size, 'data' or 'eval'.
    batch_size: sequences over all devices and accumulation steps.
    accum_steps: microbatches.
    mesh: the devices.
  """
  ways = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if batch_size % (accum_steps * ways):
    raise ValueError(
      f'{name}.batch_size must divide over {accum_steps} accumulation steps x '
      f'{ways} devices (data x fsdp), got {batch_size}; the next that does is '
      f'{-(-batch_size // (accum_steps * ways)) * accum_steps * ways}'
    )


def check_processes(mesh: Mesh) -> None:
  """Raises ValueError if two processes would each feed the same sequences.

  A process feeds its own share of the batch to its devices, so the devices of
  one share, which the tensor axis joins, must belong to one process.
  """
  ways = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  groups = mesh.devices.reshape(ways, -1)
  for group in groups:
    if len({device.process_index for device in group}) > 1:
      raise ValueError(
        f'mesh.tensor={mesh.shape["tensor"]} joins devices of several '
        'processes; it must divide the devices of one'
      )
  if ways % jax.process_count():
    raise ValueError(
      f'mesh.data x mesh.fsdp = {ways} must divide over '
      f'{jax.process_count()} processes'
    )


def state_shardings(tree: Any, mesh: Mesh) -> Any:
  """The sharding of every leaf of a training state.

  A leaf that is a parameter, or has one's path as its last names (moments,
  averages), is split by `RULES`; anything else is copied. Stacked layers and
  stacked snapshots have a leading axis each, which is not split.

  Args:
    tree: arrays or their shapes.
    mesh: what they will lie on.

  Raises:
    ValueError: naming path, dimension and axis where one does not divide.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(mesh, _spec(path, leaf.shape, mesh)), tree
  )


def _spec(path: Any, shape: tuple[int, ...], mesh: Mesh) -> P:
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  rule = next((s for end, s in RULES.items() if name.endswith(end)), P())
  stacked = re.search(r'(^|/)blocks/[^0-9]', name) is not None
  whole = stacked + name.startswith('lawa/ring/')  # leading axes, not split
  # Another rank is not a copy of the weight: what an optimizer keeps instead of
  # one, such as Adafactor's row and column means.
  if len(shape) != whole + len(rule):
    return P()
  spec = P(*(None,) * whole, *rule)
  for size, axis in zip(shape, spec, strict=True):
    if axis is not None and size % mesh.shape[axis]:
      raise ValueError(
        f'{name}: a dimension of {size} does not divide over mesh axis '
        f'{axis}={mesh.shape[axis]}; change the axis or the size'
      )
  return spec


def lay_out(x: jax.Array, *axes: str | tuple[str, ...]) -> jax.Array:
  """Fixes the layout of an activation on the mesh of `jax.set_mesh`.

  Left alone, XLA keeps a weight's `fsdp` split in the activations it makes and
  so copies the batch over that axis: every device computed every sequence.

  Args:
    x: the activation.
    axes: mesh axes of its leading dimensions; the others are not split.

  Returns:
    `x`, as it is where no mesh with our axes is set.
  """
  if not set(AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
    return x
  return jax.lax.with_sharding_constraint(x, P(*axes))
