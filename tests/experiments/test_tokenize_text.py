"""Token files: lossless, split by file, and a corpus that trains."""

import numpy as np
import pytest
import sentencepiece

from experiments import tokenize_text
from trainers.corpus import materialise
from trainers.sources import TokenFile

TEXT = 'Two  spaces,\n\n\ta tab,\nnaïve café \u4f60\u597d and the rest. '


def write(folder, n=40):
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(n):
    words = rng.choice(TEXT.split(' '), 400)
    (folder / f'{i}.txt').write_text(' '.join(words) + TEXT, encoding='utf-8')


def test_tokens_decode_to_the_text_they_came_from(tmp_path):
  write(tmp_path / 'text')
  out = tmp_path / 'out'
  ratios = tokenize_text.tokenize(str(tmp_path / 'text'), '*.txt', out, 320)
  assert ratios['train'] > 1.5
  processor = sentencepiece.SentencePieceProcessor(
    model_file=str(out / 'tokenizer.model')
  )
  texts = set()
  for part in ('train', 'valid'):
    ids = np.fromfile(out / f'{part}.bin', np.uint16)
    ends = np.flatnonzero(ids == tokenize_text.END)
    for document in np.split(ids, ends + 1)[:-1]:
      texts.add(processor.decode(document[:-1].tolist()))
  files = {p.read_text('utf-8') for p in (tmp_path / 'text').iterdir()}
  assert texts == files
  corpus = materialise(
    TokenFile(
      train_path=str(out / 'train.bin'), valid_path=str(out / 'valid.bin')
    ),
    str(tmp_path / 'cache'),
  )
  assert corpus.vocab_size <= 320


def test_a_used_folder_and_too_little_text_are_refused(tmp_path):
  write(tmp_path / 'text', 30)
  (tmp_path / 'used').mkdir()
  (tmp_path / 'used' / 'x').write_text('x')
  folder = str(tmp_path / 'text')
  with pytest.raises(ValueError, match='used is not empty'):
    tokenize_text.tokenize(folder, '*.txt', tmp_path / 'used', 320)
  with pytest.raises(ValueError, match='--vocab_size=60000'):
    tokenize_text.tokenize(folder, '*.txt', tmp_path / 'new', 60_000)
