"""The decoder against a second implementation in numpy, and its properties."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trainers.config import ModelConfig
from trainers.model import PRESETS
from trainers.model import Decoder
from trainers.model import attention_kernel
from trainers.model import flops_per_token
from trainers.model import next_token_loss
from trainers.model import parameter_count
from trainers.model import rotate

TINY = ModelConfig(vocab_size=32, d_model=16, n_layers=2, n_heads=2, d_ff=24)
FULL = dataclasses.replace(
  TINY, activation='gelu', qk_norm=True, tie_embeddings=False, z_loss=0.1
)
VARIANTS = pytest.mark.parametrize('config', [TINY, FULL], ids=['tiny', 'full'])
STARTS = {
  'tied': PRESETS['0.3m'],
  'untied, scanned': dataclasses.replace(
    PRESETS['0.3m'], tie_embeddings=False, scan_layers=True
  ),
}
BATCH, LENGTH = 3, 9
TOKENS = np.random.default_rng(0).integers(0, 32, (BATCH, LENGTH + 1))

# A test compiles for longer than it computes: the least optimisation is faster.
fast_jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def changed(config: ModelConfig, **changes: Any) -> ModelConfig:
  return dataclasses.replace(config, **changes)


def new_params(config: ModelConfig) -> dict:
  return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(0))))


@functools.cache
def params_of(config: ModelConfig) -> dict:
  """Weights as training starts."""
  return fast_jit(lambda: new_params(config))()


def random_params(config: ModelConfig) -> dict:
  """Weights that make every part matter: norm scales too, and the logits."""
  draw = np.random.default_rng(1).normal

  def leaf(path: Any, x: jax.ShapeDtypeStruct) -> jax.Array:
    is_scale = 'scale' in jax.tree_util.keystr(path)
    return jnp.float32(draw(1.0 if is_scale else 0.0, 0.3, x.shape))

  shapes = jax.eval_shape(lambda: new_params(config))
  return jax.tree_util.tree_map_with_path(leaf, shapes)


def stacked(params: dict) -> dict:
  """Unrolled weights as `scan_layers` holds them."""
  blocks = list(params['blocks'].values())
  return params | {'blocks': jax.tree.map(lambda *x: np.stack(x), *blocks)}


@functools.cache
def compiled(config: ModelConfig) -> tuple[Callable, Callable, Callable]:
  """Functions of weights and tokens: logits; loss and nats; loss, gradient."""
  make = lambda: Decoder(config, rngs=nnx.Rngs(0))
  graph = nnx.split(nnx.eval_shape(make))[0]
  logits = lambda params, tokens: nnx.merge(graph, params)(tokens)
  losses = lambda params, tokens: next_token_loss(
    nnx.merge(graph, params), tokens
  )
  loss = lambda params, tokens: losses(params, tokens)[0]
  return logits, fast_jit(losses), fast_jit(jax.value_and_grad(loss))


def logits_function(config: ModelConfig) -> Callable:
  return compiled(config)[0]


def loss_function(config: ModelConfig) -> Callable:
  return compiled(config)[1]


def grad_function(config: ModelConfig) -> Callable:
  return compiled(config)[2]


def value_and_grad(config: ModelConfig, params: dict) -> tuple[Any, Any]:
  return grad_function(config)(params, TOKENS)


def assert_close(a: Any, b: Any, rtol: float) -> None:
  """Each leaf within `rtol` of the largest entry of its counterpart."""
  leaves = jax.tree_util.tree_flatten_with_path(a)[0]
  for (path, x), y in zip(leaves, jax.tree.leaves(b), strict=True):
    scale = np.abs(y).max()
    assert np.abs(x - y).max() <= rtol * scale, jax.tree_util.keystr(path)


# A second implementation: float64, loops over heads and positions, rotations
# as complex numbers.


def np_norm(x: np.ndarray, scale: Any) -> np.ndarray:
  mean_square = np.mean(x**2, axis=-1, keepdims=True)
  return x / np.sqrt(mean_square + 1e-6) * np.float64(scale)


def np_rotate(x: np.ndarray, position: int, base: float) -> np.ndarray:
  half = len(x) // 2
  z = x[:half] + 1j * x[half:]
  z = z * np.exp(1j * position * base ** (-np.arange(half) / half))
  return np.concatenate([z.real, z.imag])


def np_attention(x_LxD: np.ndarray, w: dict, c: ModelConfig) -> np.ndarray:
  width = c.d_model // c.n_heads
  out = np.zeros_like(x_LxD)
  for head in range(c.n_heads):
    part = slice(head * width, (head + 1) * width)
    q, k, v = (
      x_LxD @ np.float64(w[name]['kernel'])[:, part]
      for name in ('query', 'key', 'value')
    )
    if c.qk_norm:
      q = np_norm(q, w['query_norm']['scale'])
      k = np_norm(k, w['key_norm']['scale'])
    for i in range(len(x_LxD)):
      q_i = np_rotate(q[i], i, c.rope_base)
      scores = [
        q_i @ np_rotate(k[j], j, c.rope_base) / math.sqrt(width)
        for j in range(i + 1)
      ]
      weights = np.exp(scores - np.max(scores))
      out[i, part] = weights / weights.sum() @ v[: i + 1]
  return out @ np.float64(w['out']['kernel'])


def np_feed_forward(x: np.ndarray, w: dict, c: ModelConfig) -> np.ndarray:
  up, down = (np.float64(w[name]['kernel']) for name in ('up', 'down'))
  h = x @ up
  if c.activation == 'gelu':
    cubic = math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)
    return (0.5 * h * (1 + np.tanh(cubic))) @ down
  gate = x @ np.float64(w['gate']['kernel'])
  return (gate / (1 + np.exp(-gate)) * h) @ down


def np_nats_and_log_z(
  params: dict, tokens: np.ndarray, c: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
  """For one sequence, [L + 1] -> [L] and [L]."""
  x = np.float64(params['embedding'])[tokens[:-1]]
  for w in params['blocks'].values():
    normed = np_norm(x, w['attention_norm']['scale'])
    x = x + np_attention(normed, w['attention'], c)
    normed = np_norm(x, w['feed_forward_norm']['scale'])
    x = x + np_feed_forward(normed, w['feed_forward'], c)
  x = np_norm(x, params['final_norm']['scale'])
  matrix = (
    params['embedding'].T if c.tie_embeddings else params['output']['kernel']
  )
  logits = x @ np.float64(matrix)
  top = logits.max(axis=-1)
  log_z = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
  return log_z - logits[np.arange(len(x)), tokens[1:]], log_z


@VARIANTS
def test_loss_equals_numpy(config: ModelConfig):
  params = random_params(config)
  loss, nats = loss_function(config)(params, TOKENS)
  both = [np_nats_and_log_z(params, row, config) for row in TOKENS]
  expected, log_z = np.swapaxes(both, 0, 1)
  assert nats.shape == (BATCH, LENGTH)
  # float32 sums against float64 over two layers of order-1 weights.
  np.testing.assert_allclose(nats, expected, rtol=2e-5, atol=2e-4)
  expected_loss = expected.mean() + config.z_loss * (log_z**2).mean()
  np.testing.assert_allclose(loss, expected_loss, rtol=2e-5)


def test_gradients_reach_no_later_token():
  config = changed(TINY, tie_embeddings=False)
  logits = logits_function(config)
  weights = random_params(config)
  # Distinct tokens: a row of the embedding is then one position of the input.
  tokens = np.arange(8)[None]

  def logit(embedding: jax.Array, position: int) -> jax.Array:
    params = weights | {'embedding': embedding}
    return logits(params, tokens)[0, position, 3]

  each_output = fast_jit(jax.vmap(jax.grad(logit), (None, 0)))
  by_output = each_output(weights['embedding'], np.arange(8))
  size_OxI = np.abs(by_output[:, :8]).max(axis=-1)
  assert np.all(size_OxI[np.triu_indices(8, 1)] == 0)
  assert np.all(size_OxI[np.tril_indices(8)] > 0)


def test_rotated_products_depend_on_distance_only():
  q, k = np.random.default_rng(2).normal(size=(2, 8)).astype(np.float32)
  everywhere = (1, 50, 1, 1)
  q_at, k_at = (
    rotate(jnp.tile(x, everywhere), 10_000.0)[0, :, 0] for x in (q, k)
  )
  products = np.asarray(q_at @ k_at.T)
  for distance in (-20, -1, 0, 1, 7):
    along = np.diagonal(products, distance)
    np.testing.assert_allclose(along, along[0], atol=1e-5)
  np.testing.assert_allclose(products[0, 0], q @ k, rtol=1e-6)
  # ... and they do depend on it.
  assert np.ptp(products[0]) > 0.1


@pytest.mark.parametrize('remat', [False, True])
@VARIANTS
def test_scanned_layers_equal_unrolled(config: ModelConfig, remat: bool):
  params = random_params(config)
  scanned = changed(config, scan_layers=True, remat=remat)
  loss, grads = value_and_grad(config, params)
  scanned_loss, scanned_grads = value_and_grad(scanned, stacked(params))
  np.testing.assert_allclose(scanned_loss, loss, rtol=1e-6)
  assert_close(scanned_grads, stacked(grads), rtol=1e-4)


def test_scanned_layers_start_out_different():
  blocks = params_of(STARTS['untied, scanned'])['blocks']
  query = blocks['attention']['query']['kernel']
  assert query.shape == (2, 128, 128)
  assert np.abs(query[0] - query[1]).max() > 0.1


@pytest.mark.parametrize('scan_layers', [False, True])
def test_remat_changes_the_program_not_the_numbers(scan_layers: bool):
  plain = changed(FULL, scan_layers=scan_layers)
  recomputed = changed(plain, remat=True)
  params = random_params(plain)

  def products(config: ModelConfig) -> int:
    """Matrix products of loss and gradient, as written."""
    text = grad_function(config).lower(params, TOKENS).as_text()
    return text.count('stablehlo.dot_general')

  assert products(recomputed) > products(plain)
  loss, grads = value_and_grad(plain, params)
  loss_again, grads_again = value_and_grad(recomputed, params)
  np.testing.assert_allclose(loss_again, loss, rtol=1e-6)
  assert_close(grads_again, grads, rtol=1e-4)


@VARIANTS
def test_bfloat16_computes_but_does_not_store(config: ModelConfig):
  half = changed(config, compute_dtype='bfloat16')
  shapes = jax.eval_shape(lambda: new_params(half))
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {np.dtype('float32')}
  params = random_params(half)
  logits = jax.eval_shape(logits_function(half), params, TOKENS)
  assert logits.dtype == np.float32
  loss, nats = loss_function(half)(params, TOKENS)
  assert loss.dtype == nats.dtype == np.float32
  _, grads = value_and_grad(half, params)
  assert {x.dtype for x in jax.tree.leaves(grads)} == {np.dtype('float32')}
  exact, _ = loss_function(config)(params, TOKENS)
  # bfloat16 has 8 bits: close, and not the same program.
  np.testing.assert_allclose(loss, exact, rtol=1e-2)
  assert loss != exact


@pytest.mark.parametrize(
  ('compute_dtype', 'short'), [('float32', 'f32'), ('bfloat16', 'bf16')]
)
def test_products_read_the_compute_dtype(compute_dtype: str, short: str):
  config = changed(TINY, compute_dtype=compute_dtype)
  weights = jax.eval_shape(lambda: new_params(config))
  text = jax.jit(logits_function(config)).lower(weights, TOKENS).as_text()
  lines = re.findall(r'stablehlo.dot_general .*: \((.*)\) ->', text)
  # A layer: seven weights, the scores and their sum of values. Then the output.
  assert len(lines) == 2 * (7 + 2) + 1
  assert set(re.findall(r'x([a-z]+\d+)>', ' '.join(lines))) == {short}


@pytest.mark.parametrize(
  ('changes', 'length', 'backend', 'kernel'),
  [
    ({}, 128, 'gpu', 'cudnn'),
    ({}, 128, 'cpu', 'xla'),
    ({}, 127, 'gpu', 'xla'),
    ({'compute_dtype': 'float32'}, 128, 'gpu', 'xla'),
    ({'d_model': 24}, 128, 'gpu', 'xla'),
    ({'d_model': 512}, 128, 'gpu', 'xla'),
  ],
)
def test_cudnn_is_asked_for_what_it_takes_only(
  changes: dict, length: int, backend: str, kernel: str
):
  config = dataclasses.replace(TINY, compute_dtype='bfloat16')
  config = dataclasses.replace(config, **changes)
  assert attention_kernel(config, length, backend) == kernel


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'tie_embeddings': False},
    {'qk_norm': True},
    {'activation': 'gelu'},
    {'scan_layers': True, 'qk_norm': True, 'tie_embeddings': False},
  ],
  ids=str,
)
def test_parameter_count_counts_the_weights(changes: dict):
  config = changed(TINY, **changes)
  leaves = jax.tree.leaves(jax.eval_shape(lambda: new_params(config)))
  assert parameter_count(config) == sum(x.size for x in leaves)


def test_parameter_count_by_hand():
  # 2 layers x (4 16x16 + 3 16x24 + 2 norms of 16), a norm, a table of 32x16.
  assert parameter_count(TINY) == 2 * (1024 + 1152 + 32) + 16 + 512
  untied = changed(TINY, tie_embeddings=False)
  assert parameter_count(untied) - parameter_count(TINY) == 32 * 16


@pytest.mark.parametrize('name', PRESETS)
def test_preset_has_the_size_of_its_name(name: str):
  size = float(name[:-1]) * {'m': 1e6, 'b': 1e9}[name[-1]]
  assert abs(parameter_count(PRESETS[name]) / size - 1) <= 0.2


def test_presets_are_those_documented():
  names = ['0.3m', '1m', '3m', '10m', '30m', '125m', '350m', '1b']
  assert list(PRESETS) == names
  assert PRESETS['0.3m'].vocab_size == PRESETS['1m'].vocab_size == 256


def test_flops_by_hand():
  # 6 for each multiplying weight: 2 layers of 4 16x16 + 3 16x24, 16x32 out;
  # attention 12 x 2 layers x 16 wide x 10 long.
  by_hand = 6 * (2 * (4 * 256 + 3 * 384) + 512) + 12 * 2 * 16 * 10
  assert flops_per_token(TINY, 10) == by_hand
  # A lookup multiplies nothing, so untying adds nothing; nor does remat.
  assert flops_per_token(changed(TINY, tie_embeddings=False), 10) == by_hand
  assert flops_per_token(changed(TINY, remat=True), 10) == by_hand
  gelu = changed(TINY, activation='gelu')
  assert by_hand - flops_per_token(gelu, 10) == 6 * 2 * 384


def test_z_loss_is_added_to_the_loss_and_its_gradient_only():
  plain, weighted = changed(TINY, z_loss=0.0), changed(TINY, z_loss=0.3)
  params = random_params(TINY)
  logits = logits_function(TINY)

  def penalty(p: dict) -> jax.Array:
    z = jnp.sum(jnp.exp(logits(p, TOKENS[:, :-1])), axis=-1)
    return 0.3 * jnp.mean(jnp.log(z) ** 2)

  nats = [loss_function(c)(params, TOKENS)[1] for c in (plain, weighted)]
  np.testing.assert_array_equal(nats[0], nats[1])
  loss, grads = value_and_grad(plain, params)
  loss_with, grads_with = value_and_grad(weighted, params)
  added, added_grads = fast_jit(jax.value_and_grad(penalty))(params)
  np.testing.assert_allclose(loss_with, loss + added, rtol=1e-5)
  assert_close(grads_with, jax.tree.map(jnp.add, grads, added_grads), 1e-4)


@pytest.mark.parametrize('name', ['query', 'key'])
@pytest.mark.parametrize('qk_norm', [False, True])
def test_qk_norm_takes_out_the_size_of_queries_and_keys(
  qk_norm: bool, name: str
):
  config = changed(TINY, qk_norm=qk_norm)
  params = random_params(config)
  logits = fast_jit(logits_function(config))
  before = logits(params, TOKENS)
  for block in params['blocks'].values():
    kernel = block['attention'][name]['kernel']
    block['attention'][name]['kernel'] = 10 * kernel
  moved = np.abs(logits(params, TOKENS) - before).max()
  assert moved < 1e-3 if qk_norm else moved > 0.1


@pytest.mark.parametrize('name', STARTS)
def test_first_loss_is_that_of_a_guess(name: str):
  config = STARTS[name]
  tokens = np.random.default_rng(3).integers(0, 256, (8, 65))
  loss, _ = loss_function(config)(params_of(config), tokens)
  # Logits of a normed vector of width d are normal with variance d * std^2,
  # which costs half of it: E log sum exp = ln V + variance / 2.
  variance = 128 * 0.02**2 if config.tie_embeddings else 1.0
  assert abs(loss - (math.log(256) + variance / 2)) < 0.05


def test_weights_start_out_with_the_documented_spread():
  params = params_of(STARTS['untied, scanned'])
  attention, feed_forward = (
    params['blocks'][name] for name in ('attention', 'feed_forward')
  )
  into_stream = 1 / math.sqrt(2 * 2)
  expected = [
    (params['embedding'], 0.02),
    (params['output']['kernel'], 128**-0.5),
    (attention['query']['kernel'], 128**-0.5),
    (attention['key']['kernel'], 128**-0.5),
    (attention['value']['kernel'], 128**-0.5),
    (attention['out']['kernel'], 128**-0.5 * into_stream),
    (feed_forward['up']['kernel'], 128**-0.5),
    (feed_forward['gate']['kernel'], 128**-0.5),
    (feed_forward['down']['kernel'], 192**-0.5 * into_stream),
  ]
  for weights, std in expected:
    np.testing.assert_allclose(weights.std(), std, rtol=0.03)
  flat = jax.tree_util.tree_flatten_with_path(params)[0]
  scales = [x for path, x in flat if 'scale' in jax.tree_util.keystr(path)]
  assert len(scales) == 3
  assert all(np.all(x == 1) for x in scales)
