"""The German that comes with the project is what its notice says."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.corpora import shared_pieces
from trainers import german_sample
from trainers.corpus import materialise
from trainers.sources import GermanSample

HASH = '803ff2dc9ad759dee9aaf96a3cf78951778538afefad0d3741fbbf365fb1a35e'


def _texts(path):
  return pathlib.Path(path).read_bytes().decode()


def _runs_of_12_words(text):
  lines = [line.split() for line in text.replace('\0', '\n').split('\n')]
  return {
    tuple(words[i : i + 12]) for words in lines for i in range(len(words) - 11)
  }


def test_it_is_the_text_that_was_published(tmp_path):
  corpus = materialise(GermanSample(), str(tmp_path))
  assert corpus.hash == HASH
  assert (corpus.train_tokens, corpus.valid_tokens) == (813_534, 113_791)
  assert (corpus.vocab_size, corpus.bytes_per_token) == (256, 1.0)
  assert materialise(GermanSample(), str(tmp_path)) == corpus


def test_it_is_german_in_documents(tmp_path):
  corpus = materialise(GermanSample(), str(tmp_path))
  for path, documents in ((corpus.train_path, 857), (corpus.valid_path, 96)):
    text = _texts(path)
    assert text.count('\0') == documents
    words = re.findall(r'\w+', text.lower())
    common = np.mean([w in {'die', 'der', 'und', 'nicht'} for w in words])
    assert common > 0.05  # 'the', 'and', 'of' and 'not': none
    assert 'the' not in words[:1000]


def test_validation_is_not_in_training(tmp_path):
  corpus = materialise(GermanSample(), str(tmp_path))
  train, valid = (
    _runs_of_12_words(_texts(path))
    for path in (corpus.train_path, corpus.valid_path)
  )
  assert len(valid) > 3000
  assert not train & valid
  # Fixed phrases recur; 0.6 % when this was written.
  pieces = shared_pieces(
    np.fromfile(corpus.train_path, np.uint8),
    np.fromfile(corpus.valid_path, np.uint8),
  )
  assert pieces < 0.02


def test_the_notice_travels_with_the_files():
  notice = next(
    path.with_name('german_sample.NOTICE')
    for path in german_sample.FILES.values()
  ).read_text()
  for said in (
    'Copyright The Home Assistant Authors',
    'Apache License, Version 2.0',
    'homeassistant 2026.11.0',
    'Changes:',
    *(path.name for path in german_sample.FILES.values()),
  ):
    assert said in notice
  assert sum(p.stat().st_size for p in german_sample.FILES.values()) < 450_000


def test_a_file_that_is_not_installed_is_named(tmp_path, monkeypatch):
  here = {p: tmp_path / f.name for p, f in german_sample.FILES.items()}
  shutil.copy(german_sample.FILES['valid'], here['valid'])
  monkeypatch.setattr(german_sample, 'FILES', here)
  with pytest.raises(ValueError, match=r'train.xz, which cannot be read.*inst'):
    materialise(GermanSample(), str(tmp_path / 'cache'))
