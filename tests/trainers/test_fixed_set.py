"""The fixed set: which sequences, what thresholds, and always the same bits."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from tests.tiny import assert_same_bits
from tests.tiny import tiny_run
from trainers.config import MeshConfig
from trainers.corpus import materialise
from trainers.fixed_set import fixed_set
from trainers.fixed_set import replay_batch
from trainers.fixed_set import replay_tokens
from trainers.gere import GeRe
from trainers.sharding import make_mesh
from trainers.sources import TokenFile
from trainers.train_step import graph_of
from trainers.train_step import init_state

LENGTH, N_WINDOWS = 16, 40


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A corpus of 40 windows."""
  folder = tmp_path_factory.mktemp('tokens')
  rng = np.random.default_rng(0)
  paths = {}
  for part in ('train', 'valid'):
    paths[part] = str(folder / f'{part}.bin')
    tokens = rng.integers(0, 64, N_WINDOWS * LENGTH + 1).astype(np.uint16)
    tokens.tofile(paths[part])
  return TokenFile(train_path=paths['train'], valid_path=paths['valid'])


@pytest.fixture(scope='module')
def run(source):
  return tiny_run(source, gere=GeRe(source=source, n_sequences=8, batch_size=2))


@pytest.fixture(scope='module')
def corpus(source):
  return materialise(source, 'unused')


@pytest.fixture(scope='module')
def params(run):
  return jax.jit(lambda: init_state(run, 3).params)()


@pytest.fixture(scope='module')
def replay_set(run, params, corpus):
  return fixed_set(run, params, make_mesh(MeshConfig()), corpus)


def changed(run, **changes):
  return dataclasses.replace(run, gere=dataclasses.replace(run.gere, **changes))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'n_sequences': 0}, 'GeRe.n_sequences must be >= 1, got 0'),
    ({'batch_size': 0}, 'GeRe.batch_size must be >= 1, got 0'),
    ({'batch_size': 3}, 'GeRe.batch_size must divide n_sequences=8, got 3'),
    ({'weight': -1.0}, "GeRe.weight must be >= 0 or 'dynamic', got -1.0"),
    ({'weight': 'dy'}, 'GeRe.weight must be a finite number or'),
  ],
)
def test_what_cannot_be_replayed_is_refused(run, changes, message):
  with pytest.raises(ValueError, match=message):
    changed(run, **changes)


def test_the_sequences_are_windows_spread_over_the_corpus(run, corpus):
  batches = replay_tokens(run, corpus)
  assert [b.shape for b in batches] == [(2, LENGTH + 1)] * 4
  tokens = np.fromfile(corpus.train_path, np.uint16)
  for i, sequence in enumerate(np.concatenate(batches)):
    start = 5 * i * LENGTH  # 8 of 40
    np.testing.assert_array_equal(sequence, tokens[start : start + LENGTH + 1])
  assert {b.dtype for b in batches} == {np.dtype('int32')}


def test_a_corpus_that_does_not_fit_is_refused(run, corpus):
  with pytest.raises(ValueError, match='n_sequences must be <= 40'):
    replay_tokens(changed(run, n_sequences=42), corpus)
  with pytest.raises(ValueError, match=r'ids below .*=64, got 70'):
    replay_tokens(run, corpus._replace(vocab_size=70))
  with pytest.raises(ValueError, match='gere must name'):
    replay_tokens(dataclasses.replace(run, gere=None), corpus)


def test_thresholds_are_a_deviation_from_the_mean(run, params, replay_set):
  hidden = np.concatenate([np.float64(r.hidden_BxLxD) for r in replay_set])
  assert hidden.shape == (8, LENGTH, 16)
  mean, std = hidden.mean((0, 1)), hidden.std((0, 1))
  for replay in replay_set:
    # float32 sums of 32 tokens, and the thresholds' own rounding.
    np.testing.assert_allclose(replay.low_D, mean - std, rtol=0, atol=1e-6)
    np.testing.assert_allclose(replay.high_D, mean + std, rtol=0, atol=1e-6)
  share = np.mean((hidden > mean - std) & (hidden < mean + std))
  assert 0.6 < share < 0.8  # 0.68 of a normal distribution


def test_activations_are_the_last_hidden_state(run, params, replay_set, corpus):
  tokens = np.concatenate(replay_tokens(run, corpus))
  model = nnx.merge(graph_of(run.model), params)
  hidden = jax.jit(model.hidden)(tokens[:, :-1])
  ours = np.concatenate([r.hidden_BxLxD for r in replay_set])
  # Another batch size: products may be summed in another order.
  np.testing.assert_allclose(ours, hidden, rtol=1e-5, atol=1e-6)
  held = np.concatenate([r.tokens_BxL1 for r in replay_set])
  np.testing.assert_array_equal(held, tokens)


def test_it_is_the_same_to_the_bit_when_made_again(
  run, params, replay_set, corpus
):
  jax.clear_caches()
  again = fixed_set(
    run, jax.tree.map(np.array, params), make_mesh(MeshConfig()), corpus
  )
  assert_same_bits(tuple(replay_set), tuple(again))


def test_activations_are_kept_in_the_compute_dtype(run, params, corpus):
  half = dataclasses.replace(run.model, compute_dtype='bfloat16')
  run = dataclasses.replace(run, model=half)
  replay = fixed_set(run, params, make_mesh(MeshConfig()), corpus)[0]
  assert replay.hidden_BxLxD.dtype == 'bfloat16'
  assert replay.low_D.dtype == replay.high_D.dtype == np.float32


def test_batches_come_in_order_and_again(replay_set):
  order = [replay_batch(replay_set, step) for step in range(14, 22)]
  assert [id(r) for r in order] == [id(replay_set[i]) for i in (2, 3, 0, 1) * 2]
