"""What a batch costs the host: a mixture with replay against one corpus.

  python -m benchmarks.batch_cost

Batches of 16 windows of 129 bytes and of 256 of 1025, from the docstrings and
the German sample: one of each arm makes a pair, in alternating order.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app
from absl import flags

from benchmarks.step_overhead import machine
from benchmarks.step_overhead import median_ratio
from benchmarks.step_overhead import write_record
from trainers.config import DataConfig
from trainers.corpus import Corpus
from trainers.corpus import materialise
from trainers.data import Batches
from trainers.data import domains_of
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.sources import Docstrings
from trainers.sources import GermanSample

SIZES = ((16, 128), (256, 1024))
REPLAY = Mixture(
  domains={
    'docstrings': Domain(source=Docstrings(), share=0.25),
    'germansample': Domain(source=GermanSample()),
  }
)


def pairs(
  corpora: dict[str, Corpus], batch_size: int, seq_len: int, n: int
) -> np.ndarray:
  """Seconds of a batch, [n, 2]: of the mixture, and of one corpus."""
  arms = []
  for source in (REPLAY, Docstrings()):
    config = DataConfig(source=source, batch_size=batch_size, seq_len=seq_len)
    names = domains_of(config)
    arms.append(Batches({name: corpora[name] for name in names}, config))
  seconds = np.zeros((n, 2))
  for step in range(n):
    for i in (0, 1) if step % 2 else (1, 0):
      began = time.perf_counter()
      arms[i].next(step)
      seconds[step, i] = time.perf_counter() - began
  return seconds[n // 10 :]  # the first read pages in


def measure(n: int, cache_dir: str) -> dict[str, Any]:
  """Ratios and milliseconds for each size."""
  load = os.getloadavg()[0]
  corpora = {
    name: materialise(domain.source, cache_dir)
    for name, domain in REPLAY.domains.items()
  }
  results = []
  for batch_size, seq_len in SIZES:
    seconds = pairs(corpora, batch_size, seq_len, n)
    mixture_ms, plain_ms = 1e3 * np.median(seconds, axis=0)
    results.append(
      {
        'batch_size': batch_size,
        'seq_len': seq_len,
        'ratio': median_ratio(seconds)._asdict(),
        'mixture_ms': float(mixture_ms),
        'plain_ms': float(plain_ms),
      }
    )
  today = datetime.date.today().isoformat()
  return {'date': today, **machine(load), 'pairs': n, 'results': results}


def summary(record: dict[str, Any]) -> str:
  """The record as lines."""
  lines = []
  for result in record['results']:
    ratio = result['ratio']
    lines.append(
      f'{result["batch_size"]} x {result["seq_len"]}: mixture / one corpus '
      f'{ratio["median"]:.2f} [{ratio["low"]:.2f}, {ratio["high"]:.2f}], '
      f'{result["mixture_ms"]:.3f} against {result["plain_ms"]:.3f} ms'
    )
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  record = measure(flags.FLAGS.pairs, flags.FLAGS.cache_dir)
  print(summary(record))
  if flags.FLAGS.out:
    write_record(record, 'batch_cost', flags.FLAGS.out)


if __name__ == '__main__':
  flags.DEFINE_integer('pairs', 1000, 'Pairs of batches for each size.')
  flags.DEFINE_string('cache_dir', 'data-cache', 'Folder of corpora.')
  flags.DEFINE_string('out', None, 'Folder to write the record to.')
  app.run(main)
