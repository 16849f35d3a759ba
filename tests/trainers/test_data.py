"""Batches: every window once per epoch, the same after any interruption."""

import json

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from trainers import corpus as corpus_lib
from trainers import data
from trainers.config import DataConfig
from trainers.config import TokenFile
from trainers.horizon import BatchRamp

SEQ_LEN = 4
N_WINDOWS = 10


@pytest.fixture
def corpus(tmp_path):
  """10 training windows and 5 of validation, each token a number of its own."""
  train, valid = tmp_path / 'train.bin', tmp_path / 'valid.bin'
  # Three tokens more than ten windows need: they are in none.
  np.arange(N_WINDOWS * SEQ_LEN + 4, dtype=np.uint16).tofile(train)
  np.arange(1000, 1000 + 5 * SEQ_LEN + 1, dtype=np.uint16).tofile(valid)
  source = TokenFile(train_path=str(train), valid_path=str(valid))
  return corpus_lib.materialise(source, str(tmp_path))


def _config(**changes):
  return DataConfig(**{'seq_len': SEQ_LEN, 'batch_size': 4, **changes})


def _numbers(batches):
  """Which windows, in order."""
  first = np.concatenate([np.asarray(batch)[:, 0] for batch in batches])
  assert not np.any(first % SEQ_LEN)
  return (first // SEQ_LEN).tolist()


def _draw(iterator, n_batches):
  return [next(iterator) for _ in range(n_batches)]


def test_windows_are_slices_of_the_file(corpus):
  tokens = np.fromfile(corpus.train_path, np.uint16)
  for batch in _draw(data.train_iterator(corpus, _config()), 5):
    assert batch.shape == (4, SEQ_LEN + 1)
    assert batch.dtype == np.int32
    for row in batch:
      np.testing.assert_array_equal(row, tokens[row[0] : row[0] + SEQ_LEN + 1])


def test_every_window_once_per_epoch_in_a_new_order(corpus):
  assert data.windows_per_epoch(corpus, SEQ_LEN) == N_WINDOWS
  # 4 does not divide 10: the third batch straddles two epochs.
  drawn = _numbers(_draw(data.train_iterator(corpus, _config()), 10))
  epochs = [drawn[i : i + N_WINDOWS] for i in range(0, 40, N_WINDOWS)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(N_WINDOWS))
  assert len(set(map(tuple, epochs))) == 4


def test_the_seed_decides(corpus):
  def order(seed):
    return _numbers(_draw(data.train_iterator(corpus, _config(seed=seed)), 10))

  assert order(3) == order(3)
  assert order(3) != order(4)
  # No seed is another one that started an epoch earlier.
  for seed in range(3):
    assert order(seed)[N_WINDOWS:] != order(seed + 1)[:-N_WINDOWS]
  assert order(2**32 - 1) != order(0)


@pytest.mark.parametrize('n_drawn', [0, 1, 2, 7])
def test_state_resumes_in_the_middle_of_an_epoch(corpus, n_drawn):
  iterator = data.train_iterator(corpus, _config())
  _draw(iterator, n_drawn)
  state = json.loads(json.dumps(iterator.get_state()))
  rest = _draw(iterator, 6)
  fresh = data.train_iterator(corpus, _config())
  _draw(fresh, 3)
  fresh.set_state(state)
  np.testing.assert_array_equal(_draw(fresh, 6), rest)


RAMP = BatchRamp(boundaries=(2, 3), batch_sizes=(2, 6, 4))


def test_batches_of_a_ramp_draw_the_same_windows_in_the_same_order(corpus):
  config = _config(ramp=RAMP)
  iterator = data.train_iterator(corpus, config)
  batches = [data.next_batch(iterator, config, t) for t in range(6)]
  assert [len(batch) for batch in batches] == [2, 2, 6, 4, 4, 4]
  plain = _draw(data.train_iterator(corpus, _config()), 6)
  assert _numbers(batches) == _numbers(plain)[:22]


def test_a_ramp_resumes_between_its_stages(corpus):
  config = _config(ramp=RAMP)
  iterator = data.train_iterator(corpus, config)
  draw = lambda it, steps: [data.next_batch(it, config, t) for t in steps]
  draw(iterator, range(3))
  state = json.loads(json.dumps(iterator.get_state()))
  rest = draw(iterator, range(3, 8))
  fresh = data.train_iterator(corpus, config)
  fresh.set_state(state)
  np.testing.assert_array_equal(draw(fresh, range(3, 8)), rest)


def test_state_survives_a_checkpoint(corpus, tmp_path):
  iterator = data.train_iterator(corpus, _config())
  _draw(iterator, 4)
  with ocp.training.Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    checkpointer.save_checkpointables(4, {'data': iterator})
  rest = _draw(iterator, 5)
  fresh = data.train_iterator(corpus, _config())
  with ocp.training.Checkpointer(tmp_path / 'checkpoints') as checkpointer:
    checkpointer.load_checkpointables(4, {'data': fresh})
  np.testing.assert_array_equal(_draw(fresh, 5), rest)


def test_processes_share_each_batch(corpus):
  whole = data.train_iterator(corpus, _config())
  halves = [
    data.train_iterator(corpus, _config(), process_index=index, process_count=2)
    for index in range(2)
  ]
  for _ in range(10):
    shares = [next(half) for half in halves]
    assert all(share.shape == (2, SEQ_LEN + 1) for share in shares)
    # As many windows as in the batch, none of them twice.
    assert sorted(_numbers(shares)) == sorted(_numbers([next(whole)]))


def test_bad_shapes_are_named(corpus):
  with pytest.raises(ValueError, match=r'batch_size must be .* got 4 for 3'):
    data.train_iterator(corpus, _config(), process_index=0, process_count=3)
  with pytest.raises(ValueError, match=r'process_index must be in 0\.\.1'):
    data.train_iterator(corpus, _config(), process_index=2, process_count=2)
  with pytest.raises(ValueError, match='seq_len must be < the 44 tokens of'):
    data.train_iterator(corpus, _config(seq_len=44))
  assert data.windows_per_epoch(corpus, 43) == 1
  with pytest.raises(ValueError, match='seq_len must be < the 44'):
    data.windows_per_epoch(corpus, 44)


def test_evaluation_takes_spaced_windows_without_overlap(corpus):
  batches = data.eval_batches(corpus, SEQ_LEN, 4, 2)
  assert [batch.shape for batch in batches] == [(2, SEQ_LEN + 1)] * 2
  assert all(batch.dtype == np.int32 for batch in batches)
  rows = np.concatenate(batches)
  np.testing.assert_array_equal(rows[:, 0] - 1000, [0, 4, 8, 12])
  np.testing.assert_array_equal(rows - rows[:, :1], [range(SEQ_LEN + 1)] * 4)
  # What is predicted is predicted once, and all of it if all is asked for.
  rows = np.concatenate(data.eval_batches(corpus, SEQ_LEN, 5, 5))
  assert sorted(rows[:, 1:].ravel()) == list(range(1001, 1000 + 21))
  # Few windows reach over the whole file.
  rows = np.concatenate(data.eval_batches(corpus, SEQ_LEN, 2, 1))
  np.testing.assert_array_equal(rows[:, 0] - 1000, [0, 2 * SEQ_LEN])


def test_evaluation_needs_enough_text(corpus):
  with pytest.raises(ValueError, match=r'n_sequences must be <= 5, .* got 6'):
    data.eval_batches(corpus, SEQ_LEN, 6, 2)
  with pytest.raises(ValueError, match='multiple of batch_size, got 4 and 3'):
    data.eval_batches(corpus, SEQ_LEN, 4, 3)
  with pytest.raises(ValueError, match='the 21 tokens of the validation part'):
    data.eval_batches(corpus, 21, 1, 1)
