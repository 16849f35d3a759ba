"""Batches: every window once per epoch, the same after any interruption."""

import json

import numpy as np
import pytest

from trainers import corpus as corpus_lib
from trainers import data
from trainers.config import DataConfig
from trainers.horizon import BatchRamp
from trainers.sources import TokenFile

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
  # Only the name of the source matters here.
  source = TokenFile(train_path='train.bin', valid_path='valid.bin')
  fields = {'source': source, 'seq_len': SEQ_LEN, 'batch_size': 4}
  return DataConfig(**fields | changes)


def _numbers(batches):
  """Which windows, in order."""
  first = np.concatenate([np.asarray(batch)[:, 0] for batch in batches])
  assert not np.any(first % SEQ_LEN)
  return (first // SEQ_LEN).tolist()


def _batches(corpus, **changes):
  return data.Batches({'tokenfile': corpus}, _config(**changes))


def _draw(batches, n_batches, first=0):
  return [batches.next(first + i) for i in range(n_batches)]


def _restored(batches, corpus, **changes):
  """Other batches, from the saved position of these."""
  position = json.loads(json.dumps(batches.position()))
  return data.Batches({'tokenfile': corpus}, _config(**changes), position)


def test_windows_are_slices_of_the_file(corpus):
  tokens = np.fromfile(corpus.train_path, np.uint16)
  for batch in _draw(_batches(corpus), 5):
    assert batch.shape == (4, SEQ_LEN + 1)
    assert batch.dtype == np.int32
    for row in batch:
      np.testing.assert_array_equal(row, tokens[row[0] : row[0] + SEQ_LEN + 1])


def test_every_window_once_per_epoch_in_a_new_order(corpus):
  assert data.windows_per_epoch(corpus, SEQ_LEN) == N_WINDOWS
  # 4 does not divide 10: the third batch straddles two epochs.
  batches = _batches(corpus)
  drawn = _numbers(_draw(batches, 10))
  epochs = [drawn[i : i + N_WINDOWS] for i in range(0, 40, N_WINDOWS)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(N_WINDOWS))
  assert len(set(map(tuple, epochs))) == 4
  assert batches.epochs() == {'tokenfile': 4.0}


def test_the_seed_decides(corpus):
  def order(seed):
    return _numbers(_draw(_batches(corpus, seed=seed), 10))

  assert order(3) == order(3)
  assert order(3) != order(4)
  # No seed is another one that started an epoch earlier.
  for seed in range(3):
    assert order(seed)[N_WINDOWS:] != order(seed + 1)[:-N_WINDOWS]
  assert order(2**32 - 1) != order(0)


@pytest.mark.parametrize('n_drawn', [0, 1, 2, 7])
def test_the_position_resumes_in_the_middle_of_an_epoch(corpus, n_drawn):
  batches = _batches(corpus)
  _draw(batches, n_drawn)
  fresh = _restored(batches, corpus)
  np.testing.assert_array_equal(_draw(fresh, 6), _draw(batches, 6))


RAMP = BatchRamp(boundaries=(2, 3), batch_sizes=(2, 6, 4))


def test_batches_of_a_ramp_draw_the_same_windows_in_the_same_order(corpus):
  batches = _draw(_batches(corpus, ramp=RAMP), 6)
  assert [len(batch) for batch in batches] == [2, 2, 6, 4, 4, 4]
  assert _numbers(batches) == _numbers(_draw(_batches(corpus), 6))[:22]


def test_a_ramp_resumes_between_its_stages(corpus):
  batches = _batches(corpus, ramp=RAMP)
  _draw(batches, 3)
  fresh = _restored(batches, corpus, ramp=RAMP)
  for step in range(3, 8):
    np.testing.assert_array_equal(fresh.next(step), batches.next(step))


def test_another_batch_size_goes_on_in_the_same_order(corpus):
  plain = _numbers(_draw(_batches(corpus), 6))
  batches = _batches(corpus)
  before = _numbers(_draw(batches, 3))
  after = _numbers(_draw(_restored(batches, corpus, batch_size=6), 2, first=3))
  assert before + after == plain


def test_processes_share_each_batch(corpus):
  whole = _batches(corpus)
  halves = [
    data.Batches(
      {'tokenfile': corpus}, _config(), process_index=index, process_count=2
    )
    for index in range(2)
  ]
  for step in range(10):
    shares = [half.next(step) for half in halves]
    assert all(share.shape == (2, SEQ_LEN + 1) for share in shares)
    # As many windows as in the batch, none of them twice.
    assert sorted(_numbers(shares)) == sorted(_numbers([whole.next(step)]))
  # What a checkpoint keeps is the same whatever the number of processes.
  assert halves[0].position() == halves[1].position() == whole.position()


def test_bad_shapes_are_named(corpus):
  def make(index, count, **changes):
    return data.Batches(
      {'tokenfile': corpus},
      _config(**changes),
      process_index=index,
      process_count=count,
    )

  with pytest.raises(
    ValueError, match=r'batch_size must be .* got \(4,\) for 3'
  ):
    make(0, 3)
  with pytest.raises(ValueError, match=r'process_index must be in 0\.\.1'):
    make(2, 2)
  with pytest.raises(ValueError, match='seq_len must be < the 44 tokens of'):
    make(0, 1, seq_len=44)
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
