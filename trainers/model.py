"""A decoder-only language model in flax.nnx, and its loss.

Weights are float32; matrix products run in `compute_dtype`; norms, softmax and
the loss are float32. Letters of shapes: B batch, L length, D model width,
N heads, H head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from trainers.config import ModelConfig
from trainers.sharding import BATCH_AXES
from trainers.sharding import lay_out

# Sizes by approximate parameter count, embeddings included. The first four read
# bytes; the others a 32k or 50k vocabulary.
PRESETS: dict[str, ModelConfig] = {
  '0.3m': ModelConfig(d_model=128, n_layers=2, n_heads=4, d_ff=192),
  '1m': ModelConfig(d_model=160, n_layers=3, n_heads=5, d_ff=448),
  '3m': ModelConfig(d_model=256, n_layers=4, n_heads=4, d_ff=640),
  '10m': ModelConfig(d_model=384, n_layers=6, n_heads=6, d_ff=1024),
  '30m': ModelConfig(
    vocab_size=32_768, d_model=384, n_layers=10, n_heads=6, d_ff=1024
  ),
  '125m': ModelConfig(
    vocab_size=50_304, d_model=768, n_layers=12, n_heads=12, d_ff=2048
  ),
  '350m': ModelConfig(
    vocab_size=50_304, d_model=1024, n_layers=24, n_heads=16, d_ff=2752
  ),
  '1b': ModelConfig(
    vocab_size=50_304,
    d_model=2048,
    n_layers=18,
    n_heads=16,
    d_ff=5504,
    compute_dtype='bfloat16',
    scan_layers=True,
    remat=True,
  ),
}


class Decoder(nnx.Module):
  """The network: token ids [B, L] to float32 logits [B, L, V].

  In two halves, so that one forward pass gives both: `hidden`, and `logits_of`
  what it returns.
  """

  def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
    self.config = config
    # Small, as in GPT-2: tied rows of order 1 would make the network start out
    # sure that each token repeats (a loss of 10 where ln 256 is 5.5).
    self.embedding = nnx.Param(
      0.02
      * jax.random.normal(rngs.params(), (config.vocab_size, config.d_model))
    )
    self.blocks: Any  # a list, or one block whose weights are stacked
    if config.scan_layers:
      make = nnx.vmap(lambda rngs: Block(config, rngs=rngs))
      self.blocks = make(rngs.split(config.n_layers))
    else:
      self.blocks = nnx.List(
        [Block(config, rngs=rngs) for _ in range(config.n_layers)]
      )
    self.final_norm = _norm(config.d_model, config, rngs)
    if not config.tie_embeddings:
      self.output = _linear(config.d_model, config.vocab_size, config, rngs)

  def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
    return self.logits_of(self.hidden(tokens_BxL))

  def hidden(self, tokens_BxL: jax.Array) -> jax.Array:
    """The last hidden state [B, L, D]: normed, in `compute_dtype`."""
    config = self.config
    dtype = jnp.dtype(config.compute_dtype)
    # Gathered over `fsdp` before the lookup: after it, XLA would copy the whole
    # batch to every device to change the layout.
    table_VxD = lay_out(self.embedding[...].astype(dtype), 'tensor')
    x_BxLxD = lay_out(table_VxD[tokens_BxL], BATCH_AXES)
    if config.scan_layers:
      graph, stacked = nnx.split(self.blocks)
      apply = _applied(graph, config)
      x_BxLxD, _ = jax.lax.scan(
        lambda x, block: (apply(block, x), None), x_BxLxD, stacked
      )
    else:
      for block in self.blocks:
        graph, state = nnx.split(block)
        x_BxLxD = _applied(graph, config)(state, x_BxLxD)
    return self.final_norm(x_BxLxD)

  def logits_of(self, x_BxLxD: jax.Array) -> jax.Array:
    """The logits that a last hidden state makes."""
    dtype = jnp.dtype(self.config.compute_dtype)
    matrix_DxV = (
      self.embedding[...].T
      if self.config.tie_embeddings
      else self.output.kernel[...]
    )
    return jnp.matmul(
      x_BxLxD, matrix_DxV.astype(dtype), preferred_element_type=jnp.float32
    )


def _applied(graph: Any, config: ModelConfig) -> Callable:
  """A block as a function of its weights, recomputed backward if asked."""

  def apply(state: Any, x_BxLxD: jax.Array) -> jax.Array:
    return lay_out(nnx.merge(graph, state)(x_BxLxD), BATCH_AXES)

  return jax.checkpoint(apply) if config.remat else apply


class Block(nnx.Module):
  """Attention and feed-forward, each on a normed copy of the stream."""

  def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
    self.attention_norm = _norm(config.d_model, config, rngs)
    self.attention = Attention(config, rngs=rngs)
    self.feed_forward_norm = _norm(config.d_model, config, rngs)
    self.feed_forward = FeedForward(config, rngs=rngs)

  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    x_BxLxD = x_BxLxD + self.attention(self.attention_norm(x_BxLxD))
    return x_BxLxD + self.feed_forward(self.feed_forward_norm(x_BxLxD))


class Attention(nnx.Module):
  """Causal multi-head attention with rotary positions.

  One matrix each for query, key and value: a fused one is no faster on a CPU
  (measured, 0.3m: within 2 %), and these split by heads over a tensor axis.
  """

  def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
    self.config = config
    width = config.d_model
    self.query = _linear(width, width, config, rngs)
    self.key = _linear(width, width, config, rngs)
    self.value = _linear(width, width, config, rngs)
    self.out = _linear(width, width, config, rngs, into_stream=True)
    if config.qk_norm:
      head_width = width // config.n_heads
      self.query_norm = _norm(head_width, config, rngs)
      self.key_norm = _norm(head_width, config, rngs)

  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    config = self.config
    heads = (*x_BxLxD.shape[:2], config.n_heads, -1)
    q_BxLxNxH = self.query(x_BxLxD).reshape(heads)
    k_BxLxNxH = self.key(x_BxLxD).reshape(heads)
    v_BxLxNxH = self.value(x_BxLxD).reshape(heads)
    if config.qk_norm:
      q_BxLxNxH = self.query_norm(q_BxLxNxH)
      k_BxLxNxH = self.key_norm(k_BxLxNxH)
    y_BxLxNxH = jax.nn.dot_product_attention(
      rotate(q_BxLxNxH, config.rope_base),
      rotate(k_BxLxNxH, config.rope_base),
      v_BxLxNxH,
      is_causal=True,
      implementation=attention_kernel(
        config, x_BxLxD.shape[1], jax.default_backend()
      ),
    )
    return self.out(y_BxLxNxH.reshape(x_BxLxD.shape))


def attention_kernel(
  config: ModelConfig, length: int, backend: str
) -> Literal['cudnn', 'xla']:
  """The attention of `jax.nn` to use on `backend`, as jax names it.

  cuDNN's trains in half precision only, on sequences of even length, with head
  widths that are multiples of 8, to 128 on every GPU that it runs on; jax
  raises on anything else.
  """
  width = config.d_model // config.n_heads
  fits = length % 2 == 0 and width % 8 == 0 and width <= 128
  half = config.compute_dtype == 'bfloat16'
  return 'cudnn' if backend == 'gpu' and half and fits else 'xla'


def rotate(x_BxLxNxH: jax.Array, base: float) -> jax.Array:
  """Rotary position embedding (arXiv:2104.09864), halves paired, in float32."""
  _, length, _, width = x_BxLxNxH.shape
  frequencies_K = base ** (-jnp.arange(width // 2) / (width // 2))
  angles_Lx1xK = jnp.arange(length)[:, None, None] * frequencies_K
  cos_Lx1xK, sin_Lx1xK = jnp.cos(angles_Lx1xK), jnp.sin(angles_Lx1xK)
  a, b = jnp.split(x_BxLxNxH.astype(jnp.float32), 2, axis=-1)
  turned = [a * cos_Lx1xK - b * sin_Lx1xK, b * cos_Lx1xK + a * sin_Lx1xK]
  return jnp.concatenate(turned, axis=-1).astype(x_BxLxNxH.dtype)


class FeedForward(nnx.Module):
  """SwiGLU (arXiv:2002.05202) or a two-layer GELU network."""

  def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
    self.gated = config.activation == 'swiglu'
    self.up = _linear(config.d_model, config.d_ff, config, rngs)
    if self.gated:
      self.gate = _linear(config.d_model, config.d_ff, config, rngs)
    self.down = _linear(
      config.d_ff, config.d_model, config, rngs, into_stream=True
    )

  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    h_BxLxF = self.up(x_BxLxD)
    if self.gated:
      return self.down(jax.nn.silu(self.gate(x_BxLxD)) * h_BxLxF)
    return self.down(jax.nn.gelu(h_BxLxF))


def _linear(
  fan_in: int,
  fan_out: int,
  config: ModelConfig,
  rngs: nnx.Rngs,
  into_stream: bool = False,
) -> nnx.Linear:
  """A matrix of std `1/sqrt(fan_in)`; less for what adds to the stream.

  The two additions of each block are scaled by `1/sqrt(2 n_layers)`, so that
  the variance of the stream does not grow with depth (GPT-2).
  """
  scale = 1 / (2 * config.n_layers) if into_stream else 1.0
  return nnx.Linear(
    fan_in,
    fan_out,
    use_bias=False,
    dtype=jnp.dtype(config.compute_dtype),
    kernel_init=nnx.initializers.variance_scaling(
      scale, 'fan_in', 'truncated_normal'
    ),
    rngs=rngs,
  )


def _norm(width: int, config: ModelConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
  return nnx.RMSNorm(width, dtype=jnp.dtype(config.compute_dtype), rngs=rngs)


def next_token_loss(
  model: Decoder, tokens_BxL1: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy of every token but the first, given those before it.

  Args:
    model: the network.
    tokens_BxL1: int32 [B, L + 1].

  Returns:
    The training loss, a float32 scalar: mean nats per token, plus
    `z_loss * mean(log Z ^ 2)` (arXiv:2204.02311, section 5); and the nats of
    each token, float32 [B, L], without that term.
  """
  logits_BxLxV = model(tokens_BxL1[:, :-1])
  return loss_of_logits(logits_BxLxV, tokens_BxL1, model.config.z_loss)


def loss_of_logits(
  logits_BxLxV: jax.Array, tokens_BxL1: jax.Array, z_loss: float
) -> tuple[jax.Array, jax.Array]:
  """`next_token_loss` of logits, whatever made them."""
  log_z_BxL = jax.nn.logsumexp(logits_BxLxV, axis=-1)
  targets_BxLx1 = tokens_BxL1[:, 1:, None]
  picked_BxL = jnp.take_along_axis(logits_BxLxV, targets_BxLx1, axis=-1)[..., 0]
  nats_BxL = log_z_BxL - picked_BxL
  loss = jnp.mean(nats_BxL)
  if z_loss > 0:
    loss = loss + z_loss * jnp.mean(log_z_BxL**2)
  return loss, nats_BxL


def parameter_count(config: ModelConfig) -> int:
  """Number of weights, embeddings included."""
  norms = (2 * config.n_layers + 1) * config.d_model
  if config.qk_norm:
    norms += 2 * config.n_layers * (config.d_model // config.n_heads)
  tables = 1 if config.tie_embeddings else 2
  table = config.vocab_size * config.d_model
  return config.n_layers * _block_matrices(config) + norms + tables * table


def _block_matrices(config: ModelConfig) -> int:
  matrices = 3 if config.activation == 'swiglu' else 2
  return 4 * config.d_model**2 + matrices * config.d_model * config.d_ff


def flops_per_token(config: ModelConfig, seq_len: int) -> float:
  """FLOPs of a training step per token, as model FLOP utilisation counts them.

  `6 N + 12 n_layers d_model seq_len` (arXiv:2204.02311, appendix B): `N` holds
  the matrices that multiply, with the output projection but not the embedding
  lookup; attention is counted in full, without its causal half, and nothing
  that remat computes again.
  """
  multiplying = config.n_layers * _block_matrices(config)
  multiplying += config.vocab_size * config.d_model
  attention = 12 * config.n_layers * config.d_model * seq_len
  return 6.0 * multiplying + attention
