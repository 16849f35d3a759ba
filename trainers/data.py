"""Batches of token windows: shuffled anew every epoch, and resumable.

Window `i` of a corpus is `tokens[i * L : i * L + L + 1]` for `L = seq_len`: it
predicts the L tokens after its first, so that consecutive windows share one
token and every token but the first of the file is predicted once per epoch.
"""

from __future__ import annotations

import grain
import numpy as np

from trainers.config import DataConfig
from trainers.corpus import Corpus


def _windows(path: str, dtype: str, seq_len: int) -> np.ndarray:
  """All windows as one view of the file, [n, seq_len + 1]; nothing is read."""
  # A plain array on top of the map: indexing np.memmap itself is slower.
  tokens = np.asarray(np.memmap(path, dtype=dtype, mode='r'))
  return np.lib.stride_tricks.sliding_window_view(tokens, seq_len + 1)[
    ::seq_len
  ]


def _count(part: str, tokens: int, seq_len: int) -> int:
  if tokens <= seq_len:
    raise ValueError(
      f'DataConfig.seq_len must be < the {tokens} tokens of the {part} part, '
      f'got {seq_len}; shorten the sequences or use a larger corpus.'
    )
  return (tokens - 1) // seq_len


def windows_per_epoch(corpus: Corpus, seq_len: int) -> int:
  """Sequences in one pass over the training part.

  Raises:
    ValueError: if the training part does not hold one window.
  """
  return _count('training', corpus.train_tokens, seq_len)


def train_iterator(
  corpus: Corpus,
  config: DataConfig,
  *,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[np.ndarray]:
  """Endless parts of batches of this process, for `next_batch` to join.

  A pure function of the arguments. A part is a whole batch, or the greatest
  size that all batches of a ramp are multiples of.

  Every window occurs exactly once per epoch, and a batch may straddle two
  epochs. The order depends on the seed and the corpus only, not on the number
  of processes: together they always hold the same sequences at a step.

  The iterator starts no thread. Its state (`get_state`, `set_state`, or saved
  as an Orbax checkpointable) is the number of parts drawn.

  Args:
    corpus: the materialised text or tokens.
    config: sequence length, global batch size and seed.
    process_index: which share of each batch, from 0.
    process_count: number of shares.

  Returns:
    An iterator over int32 arrays [part / process_count, seq_len + 1].

  Raises:
    ValueError: if a batch does not divide over the processes or the corpus
      does not hold one window.
  """
  n_windows = windows_per_epoch(corpus, config.seq_len)
  part = config.part_size()
  if part % process_count:
    raise ValueError(
      'DataConfig.batch_size must be a multiple of the number of processes, '
      f'got {config.ramp or config.batch_size} for {process_count}; change '
      'either.'
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index must be in 0..{process_count - 1}, got {process_index}.'
    )
  windows_NxL1 = _windows(corpus.train_path, corpus.dtype, config.seq_len)

  def read(numbers: list[int]) -> np.ndarray:
    return windows_NxL1[np.asarray(numbers)].astype(np.int32)

  # Grain shuffles epoch e with seed + e, so seed 1 would repeat seed 0 one
  # epoch ahead; hashed seeds are far apart.
  seed = int(np.random.SeedSequence(config.seed).generate_state(1)[0])
  # The pipeline carries window numbers and reads once per batch: half the time
  # of a source that reads window by window (0.26 against 0.55 ms for 16 x 129).
  return iter(
    grain.MapDataset.range(n_windows)
    .shuffle(seed=seed)
    .repeat()[process_index::process_count]
    .batch(part // process_count, batch_fn=read)
    # Reads come from the page cache: a thread pool only costs (3x the time).
    .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
  )


def next_batch(
  data: grain.DatasetIterator[np.ndarray], config: DataConfig, step: int
) -> np.ndarray:
  """This process's share of the batch of update `step`, int32."""
  parts = config.batch_size_at(step) // config.part_size()
  if parts == 1:
    return next(data)
  return np.concatenate([next(data) for _ in range(parts)])


def eval_batches(
  corpus: Corpus, seq_len: int, n_sequences: int, batch_size: int
) -> list[np.ndarray]:
  """A fixed sample of the validation part, the same for every run.

  Args:
    corpus: the materialised text or tokens.
    seq_len: tokens predicted per sequence.
    n_sequences: windows to take, evenly spaced over the file; no token is
      predicted twice.
    batch_size: sequences per batch; divides `n_sequences`.

  Returns:
    `n_sequences / batch_size` int32 arrays [batch_size, seq_len + 1].

  Raises:
    ValueError: if the corpus is too small or the batches are not whole.
  """
  available = _count('validation', corpus.valid_tokens, seq_len)
  if n_sequences < 1 or batch_size < 1 or n_sequences % batch_size:
    raise ValueError(
      'n_sequences must be a positive multiple of batch_size, '
      f'got {n_sequences} and {batch_size}.'
    )
  if n_sequences > available:
    raise ValueError(
      f'n_sequences must be <= {available}, the windows of {seq_len} tokens in '
      f'the validation part ({corpus.valid_path}), got {n_sequences}; evaluate '
      'on fewer sequences or hold out more text.'
    )
  windows_NxL1 = _windows(corpus.valid_path, corpus.dtype, seq_len)
  chosen = np.arange(n_sequences) * available // n_sequences
  sample = windows_NxL1[chosen].astype(np.int32)
  return np.split(sample, n_sequences // batch_size)
