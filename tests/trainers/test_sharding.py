"""Where parameters, moments and batches lie, and that the numbers stay."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest
from flax import nnx
from jax.sharding import AbstractMesh
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from trainers.averaging import Lawa
from trainers.averaging import init_lawa
from trainers.config import MeshConfig
from trainers.config import ModelConfig
from trainers.model import Decoder
from trainers.sharding import AXES
from trainers.sharding import BATCH_AXES
from trainers.sharding import check_batch
from trainers.sharding import lay_out
from trainers.sharding import make_mesh
from trainers.sharding import state_shardings

ROOT = pathlib.Path(__file__).resolve().parents[2]
# An abstract mesh has axes but no devices: rules need no more.
MESH = AbstractMesh((2, 2, 2), AXES)
IN, OUT = P('fsdp', 'tensor'), P('tensor', 'fsdp')


def params_of(**changes: Any) -> dict:
  """Shapes of the weights of a small model."""
  sizes = {'vocab_size': 32, 'd_model': 16, 'n_layers': 3, 'n_heads': 2}
  config = ModelConfig(**({**sizes, 'd_ff': 24} | changes))
  return nnx.to_pure_dict(
    nnx.state(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
  )


def specs(tree: Any, mesh: AbstractMesh = MESH) -> dict[str, P]:
  """Path of every leaf -> how it is split."""
  flat = jax.tree_util.tree_flatten_with_path(state_shardings(tree, mesh))[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): sharding.spec
    for path, sharding in flat
  }


def test_each_weight_is_split_as_documented():
  found = specs(params_of(tie_embeddings=False, qk_norm=True, n_layers=1))
  assert found == {
    'embedding': OUT,
    'blocks/0/attention/query/kernel': IN,
    'blocks/0/attention/key/kernel': IN,
    'blocks/0/attention/value/kernel': IN,
    'blocks/0/attention/out/kernel': OUT,
    'blocks/0/attention/query_norm/scale': P(),
    'blocks/0/attention/key_norm/scale': P(),
    'blocks/0/attention_norm/scale': P(),
    'blocks/0/feed_forward/up/kernel': IN,
    'blocks/0/feed_forward/gate/kernel': IN,
    'blocks/0/feed_forward/down/kernel': OUT,
    'blocks/0/feed_forward_norm/scale': P(),
    'final_norm/scale': P(),
    'output/kernel': IN,
  }


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'tie_embeddings': False},
    {'activation': 'gelu', 'qk_norm': True},
    {'scan_layers': True},
    {'scan_layers': True, 'tie_embeddings': False, 'qk_norm': True},
  ],
  ids=str,
)
def test_no_matrix_of_any_variant_is_left_whole(changes: dict):
  found = specs(params_of(**changes))
  for path, spec in found.items():
    if path.endswith('scale'):
      assert not any(spec), path
    elif changes.get('scan_layers') and path.startswith('blocks/'):
      assert spec in (P(None, *IN), P(None, *OUT)), path
    else:
      assert spec in (IN, OUT), path


@pytest.mark.parametrize('scan_layers', [False, True])
def test_moments_lie_with_their_parameter(scan_layers: bool):
  params = params_of(scan_layers=scan_layers)
  of_params = specs(params)
  state = jax.eval_shape(optax.adamw(1e-3).init, params)
  of_state = specs(state)
  for moment in ('mu', 'nu'):
    for path, spec in of_params.items():
      assert of_state.pop(f'0/{moment}/{path}') == spec
  # What is left are counters.
  assert of_state == {'0/count': P()}


@pytest.mark.parametrize('scan_layers', [False, True])
def test_snapshots_lie_as_their_parameter(scan_layers: bool):
  params = params_of(scan_layers=scan_layers)
  lawa = Lawa(every_steps=10, window=3)
  ring = jax.eval_shape(lambda p: init_lawa(p, lawa), params)
  weights, snapshots = specs(params), specs({'lawa': ring})
  assert snapshots.pop('lawa/taken') == P()
  # The snapshots' own axis is not split; nor are the scales of norms.
  assert snapshots == {
    f'lawa/ring/{name}': P(None, *spec) if any(spec) else P()
    for name, spec in weights.items()
  }


def test_moments_of_a_group_lie_with_their_parameter():
  params = params_of()
  groups = jax.tree.map(lambda x: 'muon' if x.ndim == 2 else 'adam', params)
  transform = optax.partition(
    {'muon': optax.contrib.scale_by_muon(), 'adam': optax.scale_by_adam()},
    groups,
  )
  found = specs(jax.eval_shape(transform.init, params))
  query = 'blocks/2/attention/query/kernel'
  assert found[f'inner_states/muon/inner_state/mu/{query}'] == IN
  scale = 'inner_states/adam/inner_state/nu/final_norm/scale'
  assert found[scale] == P()


@pytest.mark.parametrize('scan_layers', [False, True])
def test_state_of_another_shape_than_its_parameter_is_copied(
  scan_layers: bool,
):
  # Adafactor keeps row and column means; of 3 stacked layers they have the
  # rank of one matrix, and 3 does not divide over anything.
  params = params_of(scan_layers=scan_layers)
  transform = optax.scale_by_factored_rms(min_dim_size_to_factor=8)
  state = jax.eval_shape(transform.init, params)
  shapes = {x.shape for x in jax.tree.leaves(state.v_row)}
  assert ((3, 16) if scan_layers else (16,)) in shapes
  for path, spec in specs(state).items():
    if 'v_row' in path or 'v_col' in path:
      assert not any(spec), path


def test_a_dimension_that_does_not_divide_is_named():
  said = (
    r'blocks/0/feed_forward/down/kernel: a dimension of 25 does not divide '
    r'over mesh axis tensor=2; change the axis or the size'
  )
  with pytest.raises(ValueError, match=said):
    specs(params_of(d_ff=25))
  with pytest.raises(
    ValueError, match=r'query/kernel: a dimension of 16 .* fsdp=3;'
  ):
    specs(
      {'query': {'kernel': jnp.ones((16, 9))}}, AbstractMesh((1, 3, 1), AXES)
    )
  # An axis of one device divides everything.
  assert specs(params_of(d_ff=25), AbstractMesh((8, 1, 1), AXES))


def test_mesh_takes_all_devices():
  mesh = make_mesh(MeshConfig())
  assert dict(mesh.shape) == {
    'data': jax.device_count(),
    'fsdp': 1,
    'tensor': 1,
  }
  assert mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize('sizes', [{'fsdp': 3}, {'data': 3}, {'tensor': 16}])
def test_mesh_that_does_not_fit_is_refused(sizes: dict):
  n = jax.device_count()
  said = f'does not use all of the {n} devices; their product must be {n}'
  with pytest.raises(ValueError, match=said):
    make_mesh(MeshConfig(**sizes))


def test_each_microbatch_divides_over_the_batch_axes():
  check_batch('data', 16, 1, MESH)
  check_batch('data', 16, 4, MESH)
  said = (
    r'batch_size must divide over 4 accumulation steps x 4 devices '
    r'\(data x fsdp\), got 24; the next that does is 32'
  )
  with pytest.raises(ValueError, match=said):
    check_batch('data', 24, 4, MESH)
  with pytest.raises(ValueError, match='got 6; the next that does is 8'):
    check_batch('data', 6, 1, MESH)


def test_lay_out_asks_only_where_our_mesh_is_set():
  x = jnp.ones((4, 3))
  split = jax.make_jaxpr(lambda x: lay_out(x, BATCH_AXES))
  assert 'sharding_constraint' not in str(split(x))
  other = jax.make_mesh((1,), ('rows',), axis_types=(AxisType.Auto,))
  with jax.set_mesh(other):
    assert 'sharding_constraint' not in str(split(x))
  with jax.set_mesh(make_mesh(MeshConfig())):
    assert 'sharding_constraint' in str(split(x))


# Losses and gradients of two models on meshes of 8 simulated devices, and on
# one device; what the compiled programs hold is counted in their text.
ON_EIGHT_DEVICES = """
import json
import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec as P
from trainers.config import MeshConfig, ModelConfig
from trainers.model import Decoder, next_token_loss
from trainers.sharding import BATCH_AXES, make_mesh, state_shardings

TIED = ModelConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4, d_ff=48)
SCANNED = ModelConfig(
  vocab_size=64, d_model=32, n_layers=2, n_heads=4, d_ff=48,
  activation='gelu', qk_norm=True, z_loss=1e-2, tie_embeddings=False,
  scan_layers=True, remat=True,
)
CASES = {
  'split': (TIED, MeshConfig(data=2, fsdp=2, tensor=2)),
  'fsdp': (TIED, MeshConfig(fsdp=8)),
  'scanned': (SCANNED, MeshConfig(data=1, fsdp=2, tensor=4)),
}
rng = np.random.default_rng(0)
tokens = rng.integers(0, 64, (16, 12), dtype=np.int32)
found = {}
for name, (config, mesh_config) in CASES.items():
  new = lambda: Decoder(config, rngs=nnx.Rngs(0))
  graph, state = nnx.split(nnx.eval_shape(new))
  # Of the size a trained model has, so that the loss depends on everything.
  params = jax.tree.map(
    lambda x: np.float32(rng.normal(0, .5, x.shape)), nnx.to_pure_dict(state)
  )
  grad = jax.value_and_grad(
    lambda p, t: next_token_loss(nnx.merge(graph, p), t)[0]
  )
  options = {'xla_backend_optimization_level': 0}
  loss, grads = jax.jit(grad, compiler_options=options)(params, tokens)
  mesh = make_mesh(mesh_config)
  shardings = state_shardings(params, mesh)
  with jax.set_mesh(mesh):
    step = jax.jit(
      grad,
      out_shardings=(NamedSharding(mesh, P()), shardings),
      compiler_options=options,
    )
    args = (
      jax.device_put(params, shardings),
      jax.device_put(tokens, NamedSharding(mesh, P(BATCH_AXES, None))),
    )
    program = step.lower(*args).compile()
    split_loss, split_grads = program(*args)
  pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(split_grads))
  found[name] = {
    'loss': float(loss),
    'loss error': abs(float(loss) - float(split_loss)),
    'gradient error': max(
      float(np.abs(a - b).max() / np.abs(a).max())
      for a, b in ((np.asarray(a), np.asarray(b)) for a, b in pairs)
    ),
    'embedding shard': shardings['embedding'].shard_shape((64, 32)),
    # Activations of all 16 sequences on one device, 11 tokens each.
    'whole batches': program.as_text().count('f32[16,11,'),
  }
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def on_eight_devices() -> tuple[dict, str]:
  """What the program above prints, and its warnings."""
  flags = '--xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-c', ON_EIGHT_DEVICES],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize('case', ['split', 'fsdp', 'scanned'])
def test_eight_devices_compute_what_one_does(
  on_eight_devices: tuple[dict, str], case: str
):
  found = on_eight_devices[0][case]
  assert found['loss'] > 4.2  # away from a guess, ln 64
  # float32 sums in another order.
  assert found['loss error'] < 1e-5 * found['loss']
  assert found['gradient error'] < 1e-4


def test_eight_devices_share_weights_and_batch(
  on_eight_devices: tuple[dict, str],
):
  found, warnings = on_eight_devices
  assert found['split']['embedding shard'] == [32, 16]
  assert found['fsdp']['embedding shard'] == [64, 4]
  assert found['scanned']['embedding shard'] == [16, 16]
  for case in found.values():
    assert case['whole batches'] == 0
  # XLA's words for copying an activation to all devices to change its layout.
  assert 'Involuntary full rematerialization' not in warnings
