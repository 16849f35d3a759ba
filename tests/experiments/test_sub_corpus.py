"""The part of a corpus that a reference model finds most likely."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

import lrsched
from experiments.sub_corpus import document_ends
from experiments.sub_corpus import lowest
from experiments.sub_corpus import mean_losses
from experiments.sub_corpus import write_sub_corpus
from tests.integration.tiny_run import environment
from tests.tiny import VOCAB_SIZE
from tests.tiny import tiny_run
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.model import next_token_loss
from trainers.optimizer import AdamW
from trainers.sources import TokenFile
from trainers.train import run
from trainers.train_step import graph_of
from trainers.train_step import init_params

END = 0
COUNTING = np.arange(1, VOCAB_SIZE)  # what the reference knows


def write_tokens(folder, train):
  """A source of these training tokens; validation counts."""
  folder.mkdir()
  paths = {part: folder / f'{part}.bin' for part in ('train', 'valid')}
  np.asarray(train, np.uint16).tofile(paths['train'])
  np.resize([*COUNTING, END], 1000).astype(np.uint16).tofile(paths['valid'])
  return TokenFile(
    train_path=str(paths['train']), valid_path=str(paths['valid'])
  )


def reference_run(source):
  return tiny_run(
    source,
    optimizer=AdamW(schedule=lrsched.Constant(lr=2e-2)),
    total_steps=60,
    ema_decay=None,
    eval=EvalConfig(every_steps=60, n_sequences=16, batch_size=16),
    checkpoint=CheckpointConfig(every_steps=60),
  )


# A window more or less, a token more or less, batches of 16 windows filled up.
@pytest.mark.parametrize('n', [17, 33, 600])
def test_every_token_but_the_first_is_scored_once(n, tmp_path):
  config = reference_run(write_tokens(tmp_path / 'tokens', COUNTING))
  rng = np.random.default_rng(n)
  tokens = rng.integers(1, VOCAB_SIZE, n).astype(np.uint16)
  tokens[rng.choice(n - 1, n // 6, replace=False)] = END
  ends = document_ends(tokens, END)
  params = init_params(config, 0)
  found = mean_losses(tokens, ends, config, params)

  model = nnx.merge(graph_of(config.model), params)
  length, places = config.data.seq_len, np.arange(1, n)
  starts = np.minimum((places - 1) // length * length, n - 1 - length)
  windows = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int32)
  _, of_windows = next_token_loss(model, windows)
  rows = np.arange(n - 1)
  nats = np.append(np.nan, np.asarray(of_windows)[rows, places - starts - 1])
  for loss, part in zip(found, np.split(nats, ends[:-1]), strict=True):
    scored = part[~np.isnan(part)]
    if len(scored):
      # float32 losses about 4; the same weights in other batches.
      np.testing.assert_allclose(loss, scored.mean(), rtol=1e-5)
    else:
      assert loss == np.inf  # a first document of one token


def test_documents_end_after_their_last_token():
  tokens = np.array([5, 0, 0, 7, 8])
  assert document_ends(tokens, 0).tolist() == [2, 3, 5]
  assert document_ends(tokens, 8).tolist() == [5]
  with pytest.raises(ValueError, match=r'--end_token must be .* got 9'):
    document_ends(tokens, 9)


def test_the_lowest_losses_are_kept_up_to_the_share():
  losses = np.array([3.0, 1.0, np.inf, 2.0])
  lengths = np.array([10, 40, 10, 40])
  assert lowest(losses, lengths, 0.4).tolist() == [False, True, False, False]
  assert lowest(losses, lengths, 0.85).tolist() == [False, True, False, True]
  assert lowest(losses, lengths, 1.0).all()
  with pytest.raises(ValueError, match='best document has 40'):
    lowest(losses, lengths, 0.39)


@pytest.fixture(scope='module')
def corpora(tmp_path_factory):
  """A trained reference, and a corpus of which every other document is like it.

  Documents are of random lengths; the others are random tokens.
  """
  folder = tmp_path_factory.mktemp('sub_corpus')
  known = write_tokens(folder / 'known', np.resize([*COUNTING, END], 4000))
  run(reference_run(known), folder / 'reference')
  rng = np.random.default_rng(1)
  documents = []
  for i in range(40):
    n = int(rng.integers(20, 60))
    start = int(rng.integers(1, VOCAB_SIZE - n)) if n < VOCAB_SIZE - 1 else 1
    other = rng.integers(1, VOCAB_SIZE, n)
    documents.append([*(other if i % 2 else np.arange(start, start + n)), END])
  source = write_tokens(folder / 'mixed', np.concatenate(documents))
  return folder, DataConfig(source=source, seq_len=16, batch_size=8), documents


@pytest.mark.slow
def test_what_the_reference_knows_is_kept_whole_and_in_order(corpora):
  folder, data, documents = corpora
  good = np.concatenate(documents[::2])
  (folder / 'config.py').write_text(
    'from tests.tiny import tiny_run\n'
    'from trainers.sources import TokenFile\n'
    'def get_config():\n'
    f'  return tiny_run({data.source!r})\n'
  )
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'experiments.sub_corpus'),
      *('--reference=reference@60', '--config=config.py', '--out=best'),
      f'--keep_frac={len(good) / sum(map(len, documents))}',
    ],
    cwd=folder,
    env=environment(),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  kept = np.fromfile(folder / 'best' / 'train.bin', np.uint16)
  np.testing.assert_array_equal(kept, good)
  valid = (folder / 'mixed' / 'valid.bin').read_bytes()
  assert (folder / 'best' / 'valid.bin').read_bytes() == valid
  record = json.loads((folder / 'best' / 'selection.json').read_text())
  assert record['documents'] == 20
  assert record['mean_loss'] < record['highest_loss']
  assert record['highest_loss'] < record['mean_loss_of_corpus']
  # What is printed is a source that trains.
  source = eval(done.stdout.split('\n')[1], {'TokenFile': TokenFile})
  assert source == TokenFile(
    train_path='best/train.bin', valid_path='best/valid.bin'
  )


@pytest.mark.parametrize(
  ('changed', 'says'),
  [
    ({'reference': 'reference@61'}, 'no checkpoint of step 61'),
    ({'reference': 'mixed@60'}, '--reference: there is no run in .*mixed'),
    ({'reference': 'reference'}, '--reference must be DIR@STEP'),
    ({'domain': 'web'}, r"--domain must be one of \['tokenfile'\], got 'web'"),
    ({'keep_frac': 1e-3}, '--keep_frac must leave one document'),
    ({'end_token': 63999}, '--end_token must be .* got 63999'),
    ({'out': 'mixed'}, '--out: there is .*mixed already'),
  ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(
  corpora, changed, says
):
  folder, data, _ = corpora
  given = {'reference': 'reference@60', 'domain': None, 'keep_frac': 0.5}
  given |= {'end_token': END, 'out': 'none'} | changed
  reference = f'{folder}/{given.pop("reference")}'
  out = folder / given.pop('out')
  with pytest.raises(ValueError, match=says):
    write_sub_corpus(reference, data, out=out, **given)
  assert not (folder / 'none').exists()


def test_a_reference_of_fewer_tokens_is_refused(corpora, tmp_path):
  folder, data, _ = corpora
  large = write_tokens(tmp_path / 'large', [*range(1, 200), END])
  data = dataclasses.replace(data, source=large)
  with pytest.raises(ValueError, match='vocabulary of 64 for ids up to 199'):
    write_sub_corpus(
      f'{folder}/reference@60', data, None, 0.5, END, folder / 'none'
    )
