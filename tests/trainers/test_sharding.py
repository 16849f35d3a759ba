"""Rules of the mesh: every parameter has one, and every misfit is named."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import lrsched
from trainers import sharding
from trainers.config import MeshConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.optimizer import AdamW
from trainers.optimizer import Muon
from trainers.train_step import init_state

TINY = ModelConfig(vocab_size=32, d_model=16, n_layers=2, n_heads=2, d_ff=24)
MESH = AbstractMesh((2, 2, 2), sharding.AXES)
CONSTANT = lrsched.Constant(lr=1e-3)


def specs(optimizer=None, **changes):
  """Path -> PartitionSpec of every leaf of a training state."""
  config = RunConfig(
    model=dataclasses.replace(TINY, **changes),
    optimizer=optimizer or AdamW(schedule=CONSTANT),
    total_steps=10,
    ema_decay=0.9,
  )
  shapes = jax.eval_shape(lambda: init_state(config))
  placed = sharding.state_shardings(shapes, MESH)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  leaves = zip(
    jax.tree_util.tree_flatten_with_path(shapes)[0],
    jax.tree.leaves(placed),
    strict=True,
  )
  return {name(path): (leaf, s.spec) for (path, leaf), s in leaves}


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'tie_embeddings': False},
    {'scan_layers': True},
    {'activation': 'gelu'},
  ],
  ids=str,
)
def test_every_matrix_is_split_over_both_axes(changes):
  for name, (leaf, spec) in specs(qk_norm=True, **changes).items():
    is_matrix = name.endswith(('kernel', 'embedding'))
    split_over = {axis for axis in spec if axis is not None}
    assert split_over == ({'fsdp', 'tensor'} if is_matrix else set()), name
    assert len(spec) in (0, leaf.ndim), name


def test_moments_and_average_lie_as_their_parameter():
  placed = specs()
  for name in ('blocks/0/attention/query/kernel', 'embedding'):
    found = [spec for path, (_, spec) in placed.items() if path.endswith(name)]
    assert len(found) == 4  # the parameter, two moments, the average
    assert len(set(found)) == 1


def test_muon_state_is_split_too():
  muon = Muon(schedule=CONSTANT, adam_schedule=CONSTANT)
  found = {
    spec
    for name, (_, spec) in specs(muon).items()
    if name.endswith('blocks/0/attention/out/kernel')
  }
  assert found == {P('tensor', 'fsdp')}


def test_layers_of_a_stack_are_not_split():
  _, spec = specs(scan_layers=True)['params/blocks/attention/query/kernel']
  assert spec == P(None, 'fsdp', 'tensor')


def test_a_dimension_that_does_not_divide_is_named():
  with pytest.raises(
    ValueError, match=r'embedding: a dimension of 33 does not'
  ):
    specs(vocab_size=33)


def test_mesh_must_use_all_devices():
  n = jax.device_count()
  with pytest.raises(ValueError, match=f'does not use all of the {n} devices'):
    sharding.make_mesh(MeshConfig(fsdp=n + 1))
  assert sharding.make_mesh(MeshConfig()).size == n


@pytest.mark.parametrize(
  ('batch_size', 'accum_steps', 'good'),
  [(4, 1, True), (8, 2, True), (6, 1, False), (4, 2, False)],
)
def test_batch_must_divide(batch_size, accum_steps, good):
  if good:
    sharding.check_batch(batch_size, accum_steps, MESH)
    return
  with pytest.raises(ValueError, match='the next that does is 8'):
    sharding.check_batch(batch_size, accum_steps, MESH)


EIGHT_DEVICES = """
import jax, numpy as np
from flax import nnx
from trainers import sharding
from trainers.config import MeshConfig, ModelConfig
from trainers.model import Decoder
config = ModelConfig(vocab_size=32, d_model=16, n_layers=2, n_heads=2, d_ff=24)
mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
graph, state = nnx.split(Decoder(config, rngs=nnx.Rngs(0)))
params = nnx.to_pure_dict(state)
placed = jax.device_put(params, sharding.state_shardings(params, mesh))
tokens = np.arange(4 * 8).reshape(4, 8) % 32
with jax.set_mesh(mesh):
  split = jax.jit(lambda p, t: nnx.merge(graph, p)(t))(placed, tokens)
whole = nnx.merge(graph, params)(tokens)
kernel = placed['blocks'][0]['attention']['query']['kernel']
assert kernel.addressable_shards[0].data.shape == (8, 8), kernel.sharding
np.testing.assert_allclose(split, whole, atol=1e-5)
print('equal on', jax.device_count())
"""


def test_forward_pass_on_eight_devices_is_that_of_one():
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-c', EIGHT_DEVICES],
    env={**os.environ, 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout == 'equal on 8\n', done.stderr
