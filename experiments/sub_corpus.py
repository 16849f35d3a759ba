"""Writes the part of a corpus that a reference model finds most likely.

  python -m experiments.sub_corpus --reference=runs/reference@2000 \
    --config=config.py --domain=python --keep_frac=0.1 --out=best_python

The corpus is that of a domain of the config; the reference, a run on text of
the quality that is wanted. The training documents with the lowest mean loss are
kept whole and in their order, up to the share of the tokens that is asked for.
The validation part stays as it is, so that losses compare. To go on with only
the high-quality part of the new data is a remedy against the stability gap
(arXiv:2406.14833).

The lowest losses are also those of text that repeats itself: read some of what
was kept (`selection.json` says what it is) before training on it.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging
from flax import nnx

from experiments.flags import load_config
from experiments.flags import override
from experiments.saved_weights import Saved
from experiments.saved_weights import load_params
from experiments.saved_weights import read_saved
from trainers.config import DataConfig
from trainers.config import RunConfig
from trainers.corpus import Corpus
from trainers.corpus import materialise
from trainers.data import domains_of
from trainers.mixture import main_of
from trainers.model import next_token_loss
from trainers.sources import TokenFile
from trainers.start import parse_branch
from trainers.train_step import graph_of


def document_ends(tokens: np.ndarray, end: int) -> np.ndarray:
  """Where each document ends: the index after its last token, int [documents].

  Raises:
    ValueError: if no token is `end`.
  """
  ends = np.flatnonzero(tokens == end) + 1
  if not len(ends):
    raise ValueError(
      f'--end_token must be the id after every document, got {end}, which is '
      'not in the corpus'
    )
  # What follows the last end is a document too.
  return ends if ends[-1] == len(tokens) else np.append(ends, len(tokens))


def mean_losses(
  tokens: np.ndarray, ends: np.ndarray, config: RunConfig, params: Any
) -> np.ndarray:
  """The reference's loss on each document, nats per token, float [documents].

  The corpus is read in windows of the reference's length, as it is trained on,
  so a document follows on the one before it. Each token but the very first is
  predicted once; a document of which nothing is predicted has an infinite loss.

  Args:
    tokens: of the corpus, longer than a window.
    ends: of the documents.
    config: of the reference: its network, its length, its batches.
    params: its weights.
  """
  graph, length = graph_of(config.model), config.data.seq_len
  size = config.eval.batch_size
  loss = jax.jit(lambda p, x: next_token_loss(nnx.merge(graph, p), x)[1])
  windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)
  sums, counts = np.zeros(len(ends)), np.zeros(len(ends), int)
  for begin in range(0, len(tokens) - 1, size * length):
    firsts = np.arange(begin, len(tokens) - 1, length)[:size]
    # The last window begins earlier, to be whole, and so does what fills up the
    # batch: what they predict again is not counted.
    starts = np.minimum(firsts, len(windows) - 1)
    filled = np.append(starts, np.repeat(starts[-1:], size - len(starts)))
    nats = np.asarray(loss(params, windows[filled].astype(np.int32)))
    places = starts[:, None] + np.arange(1, length + 1)
    is_new = places > firsts[:, None]
    document = np.searchsorted(ends, places[is_new], side='right')
    sums += np.bincount(document, nats[: len(starts)][is_new], len(ends))
    counts += np.bincount(document, minlength=len(ends))
  return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def lowest(
  losses: np.ndarray, lengths: np.ndarray, keep_frac: float
) -> np.ndarray:
  """Which documents of lowest loss fit the share of tokens: bool [documents].

  Raises:
    ValueError: if the share does not hold even the first of them.
  """
  order = np.argsort(losses, kind='stable')
  budget = keep_frac * lengths.sum()
  kept = order[np.cumsum(lengths[order]) <= budget]
  if not len(kept):
    raise ValueError(
      f'--keep_frac must leave one document at least, got {keep_frac}, that is '
      f'{budget:.0f} tokens; the best document has {lengths[order[0]]}'
    )
  chosen = np.zeros(len(losses), bool)
  chosen[kept] = True
  return chosen


def select(
  corpus: Corpus, saved: Saved, step: int, end_token: int, keep_frac: float
) -> tuple[np.ndarray, dict[str, Any]]:
  """The training tokens that are kept, and a record of how they were chosen.

  Raises:
    ValueError: if the corpus does not fit the reference, or nothing is left.
  """
  config = saved.config
  if corpus.vocab_size > config.model.vocab_size:
    raise ValueError(
      f'--reference must know every token of the corpus, got a vocabulary of '
      f'{config.model.vocab_size} for ids up to {corpus.vocab_size - 1}; use a '
      'run on such tokens'
    )
  tokens = np.asarray(np.memmap(corpus.train_path, corpus.dtype, mode='r'))
  if len(tokens) <= config.data.seq_len:
    raise ValueError(
      f'the corpus must be longer than a sequence of --reference, '
      f'{config.data.seq_len} tokens, got {len(tokens)}'
    )
  ends = document_ends(tokens, end_token)
  lengths = np.diff(ends, prepend=0)
  losses = mean_losses(tokens, ends, config, load_params(saved, step))
  chosen = lowest(losses, lengths, keep_frac)
  scored = np.isfinite(losses)
  record = {
    'reference': {'run_id': saved.run_id, 'step': step},
    'corpus': corpus.hash,
    'keep_frac': keep_frac,
    'documents': int(chosen.sum()),
    'documents_of_corpus': len(chosen),
    'tokens': int(lengths[chosen].sum()),
    'tokens_of_corpus': len(tokens),
    'mean_loss': float(np.average(losses[chosen], weights=lengths[chosen])),
    'mean_loss_of_corpus': float(
      np.average(losses[scored], weights=lengths[scored])
    ),
    'highest_loss': float(losses[chosen].max()),
  }
  return tokens[np.repeat(chosen, lengths)], record


def write_sub_corpus(
  reference: str,
  data: DataConfig,
  domain: str | None,
  keep_frac: float,
  end_token: int,
  out: pathlib.Path,
) -> tuple[TokenFile, dict[str, Any]]:
  """Writes the part of a corpus into a new folder.

  Args:
    reference: `DIR@STEP`, the run that scores.
    data: with the domain whose corpus it is, and the cache.
    domain: its name; None for the main one.
    keep_frac: share of the training tokens, in (0, 1].
    end_token: id after every document.
    out: the folder.

  Returns:
    The source to train on, and the record in `selection.json`.

  Raises:
    ValueError: if anything does not fit; nothing was written.
  """
  if out.exists():
    raise ValueError(f'--out: there is {out} already; name a new folder')
  workdir, step = parse_branch(reference, '--reference')
  domains = domains_of(data)
  name = domain or main_of(domains)
  if name not in domains:
    raise ValueError(f'--domain must be one of {[*domains]}, got {name!r}')
  saved = read_saved(workdir, [step], '--reference')
  corpus = materialise(domains[name].source, data.cache_dir)
  kept, record = select(corpus, saved, step, end_token, keep_frac)
  out.mkdir(parents=True)
  source = TokenFile(
    train_path=str(out / 'train.bin'),
    valid_path=str(out / 'valid.bin'),
    dtype=corpus.dtype,  # type: ignore[arg-type]  # a corpus has one of them
    bytes_per_token=corpus.bytes_per_token,
  )
  kept.tofile(source.train_path)
  shutil.copyfile(corpus.valid_path, source.valid_path)
  text = json.dumps(record, indent=1)
  (out / 'selection.json').write_text(text + '\n')
  return source, record


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; settings need --set=')
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  try:
    source, record = write_sub_corpus(
      given.reference,
      override(load_config(given.config), given.set).data,
      given.domain,
      given.keep_frac,
      given.end_token,
      pathlib.Path(given.out),
    )
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
  print(
    f'{given.out}: {record["documents"]} of {record["documents_of_corpus"]} '
    f'documents, {record["tokens"]} of {record["tokens_of_corpus"]} tokens; '
    f'mean loss {record["mean_loss"]:.4f}, of all '
    f'{record["mean_loss_of_corpus"]:.4f}\n{source}'
  )


if __name__ == '__main__':
  flags.DEFINE_string('reference', None, 'Run: DIR@STEP.', required=True)
  flags.DEFINE_string('config', None, 'As of a launch.', required=True)
  flags.DEFINE_multi_string('set', [], 'Override, path.to.field=value.')
  flags.DEFINE_string(
    'domain', None, 'Of the config; its main one if not given.'
  )
  flags.DEFINE_float(
    'keep_frac', None, 'Of the tokens.', 0.0, 1.0, required=True
  )
  flags.DEFINE_integer('end_token', 0, 'Id after every document; 0 of text.')
  flags.DEFINE_string('out', None, 'Folder to write.', required=True)
  app.run(main)
