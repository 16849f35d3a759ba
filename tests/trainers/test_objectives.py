"""What an update minimises, against what its parts say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trainers.config import ModelConfig
from trainers.model import Decoder
from trainers.model import next_token_loss
from trainers.objectives import Replay
from trainers.objectives import of_replay
from trainers.objectives import of_views
from trainers.threshold_margin import threshold_margin_loss
from trainers.train_step import graph_of
from trainers.views import ViewBatch

MODEL = ModelConfig(
  vocab_size=32, d_model=16, n_layers=1, n_heads=2, d_ff=24, z_loss=0.1
)
GRAPH = graph_of(MODEL)
N_WINDOWS, N_VIEWS, LENGTH = 4, 3, 8
TOKENS = np.random.default_rng(0).integers(
  0, 32, (N_WINDOWS, LENGTH + 1), np.int32
)

fast_jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


@functools.cache
def params_of(seed):
  make = lambda: Decoder(MODEL, rngs=nnx.Rngs(seed))
  return fast_jit(lambda: nnx.to_pure_dict(nnx.state(make(), nnx.Param)))()


@fast_jit
def plain(params, tokens):
  return next_token_loss(nnx.merge(GRAPH, params), tokens)


@fast_jit
def logits_and_hidden(params, inputs):
  model = nnx.merge(GRAPH, params)
  return model(inputs), model.hidden(inputs)


@fast_jit
def views(params, batch, kl_weight):
  return of_views(nnx.merge(GRAPH, params), batch, kl_weight)


@functools.partial(fast_jit, static_argnums=2)
def replay_gradient(params, replay, weight, new):
  objective = lambda p: of_replay(nnx.merge(GRAPH, p), replay, weight, new)
  return jax.value_and_grad(objective, has_aux=True)(params)


@fast_jit
def part_gradients(params, replay):
  """Gradients of the replayed loss and of the threshold-margin loss."""

  def margin(p):
    hidden = nnx.merge(GRAPH, p).hidden(replay.tokens_BxL1[:, :-1])
    return threshold_margin_loss(hidden, *replay[1:])

  loss = lambda p: next_token_loss(nnx.merge(GRAPH, p), replay.tokens_BxL1)[0]
  return jax.grad(loss)(params), jax.grad(margin)(params)


def test_identical_views_are_a_run_without_them():
  inputs = np.repeat(TOKENS[:, None, :-1], N_VIEWS, axis=1)
  params = params_of(0)
  objective, metrics = views(params, ViewBatch(TOKENS, inputs), 10.0)
  expected, _ = plain(params, TOKENS)
  # Products of three times as many rows may be summed in another order.
  assert float(metrics['loss']) == pytest.approx(float(expected), rel=1e-6)
  assert float(metrics['views_loss']) == pytest.approx(
    float(expected), rel=1e-6
  )
  assert float(metrics['views_kl']) == pytest.approx(0, abs=1e-6)
  assert float(objective) == pytest.approx(float(expected), rel=1e-5)


def test_views_equal_loops():
  rng = np.random.default_rng(1)
  inputs = rng.integers(0, 32, (N_WINDOWS, N_VIEWS, LENGTH), np.int32)
  inputs[:, 0] = TOKENS[:, :-1]
  params = params_of(0)
  objective, metrics = views(params, ViewBatch(TOKENS, inputs), 0.5)
  nats, squares, divergences = [], [], []
  for window, tokens in enumerate(TOKENS):
    logs = []
    for view in range(N_VIEWS):
      logits, _ = logits_and_hidden(params, inputs[window, view][None])
      z = np.float64(logits[0])
      log_z = np.log(np.exp(z).sum(-1))
      logs.append(z - log_z[:, None])
      # Whatever a view reads, it predicts the window.
      nats.append(-logs[-1][np.arange(LENGTH), tokens[1:]].mean())
      squares.append((log_z**2).mean())
    divergences += [
      (np.exp(logs[0]) * (logs[0] - log_p)).sum(-1).mean() for log_p in logs[1:]
    ]
  views_loss = np.mean(nats) + 0.1 * np.mean(squares)
  first = np.mean(nats[::N_VIEWS]) + 0.1 * np.mean(squares[::N_VIEWS])
  assert float(metrics['loss']) == pytest.approx(first, rel=1e-5)
  assert float(metrics['views_loss']) == pytest.approx(views_loss, rel=1e-5)
  # Differences of logarithms of order 3, of 7 digits each.
  kl = np.mean(divergences)
  assert kl > 1e-3
  assert float(metrics['views_kl']) == pytest.approx(kl, rel=1e-3)
  assert float(objective) == pytest.approx(views_loss + 0.5 * kl, rel=1e-5)


@pytest.fixture(scope='module')
def replay():
  """A batch whose teacher is another network."""
  _, hidden = logits_and_hidden(params_of(1), TOKENS[:, :-1])
  mean, std = np.mean(hidden, (0, 1)), np.std(hidden, (0, 1))
  return Replay(TOKENS, hidden, mean - std, mean + std)


def test_hidden_and_logits_are_those_of_one_pass():
  logits, hidden = logits_and_hidden(params_of(0), TOKENS[:, :-1])
  assert hidden.shape == (N_WINDOWS, LENGTH, 16)
  # The norm's scale is still 1: what it returns has a root mean square of 1.
  np.testing.assert_allclose(np.mean(hidden**2, -1), 1, rtol=1e-3)
  table = np.float64(params_of(0)['embedding'])
  expected = np.float64(hidden) @ table.T
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('weight', [0.0, 2.0, 'dynamic'])
def test_replay_is_half_of_its_loss_and_the_margin(replay, weight):
  params, new = params_of(0), jnp.float32(7.0)
  (objective, metrics), gradient = replay_gradient(params, replay, weight, new)
  loss = float(plain(params, TOKENS)[0])
  _, hidden = logits_and_hidden(params, TOKENS[:, :-1])
  margin = float(threshold_margin_loss(hidden, *map(jnp.asarray, replay[1:])))
  assert margin > 0.1
  assert float(metrics['replay_loss']) == pytest.approx(loss, rel=1e-5)
  assert float(metrics['gere_loss']) == pytest.approx(margin, rel=1e-5)
  scale = (7.0 + loss) / 2 / margin if weight == 'dynamic' else weight
  assert float(objective) == pytest.approx(loss / 2 + scale * margin, rel=1e-5)
  # A dynamic weight is a constant to the gradient.
  of_loss, of_margin = part_gradients(params, replay)
  expected = jax.tree.map(lambda a, b: a / 2 + scale * b, of_loss, of_margin)
  for x, y in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize('weight', [100.0, 'dynamic'])
def test_a_network_that_is_its_teacher_learns_from_the_tokens_only(weight):
  params = params_of(0)
  inputs = TOKENS[:, :-1]
  _, hidden = logits_and_hidden(params, inputs)
  mean, std = np.mean(hidden, (0, 1)), np.std(hidden, (0, 1))
  replay = Replay(TOKENS, hidden, mean - std, mean + std)
  (objective, metrics), gradient = replay_gradient(
    params, replay, weight, jnp.float32(7.0)
  )
  # Other programs may round an activation across a threshold: none is near.
  assert float(metrics['gere_loss']) == 0
  assert float(objective) == pytest.approx(
    float(metrics['replay_loss']) / 2, rel=1e-6
  )
  of_loss, _ = part_gradients(params, replay)
  for x, y in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(of_loss), strict=True
  ):
    np.testing.assert_allclose(x, y / 2, atol=1e-5 * np.abs(y).max())
