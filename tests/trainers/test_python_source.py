"""Code without its docstrings: what a corpus of docstrings does not hold."""

import pathlib

import numpy as np
import pytest

from tests.corpora import install
from tests.corpora import shared_pieces
from trainers.corpus import materialise
from trainers.docstrings import literals
from trainers.sources import Docstrings
from trainers.sources import PythonSource

GAMMA = '''# Copyright of gamma.
# Licence of gamma.

"""Module gamma."""

import os  # """Not a docstring."""

NAME = """An assigned string is code."""


class Thing:
  r"""Raw.

  Longer."""
  x: int = 1
  \'\'\'What x is.\'\'\'

  def method(self):
    """One line."""; return 0
'''
GAMMA_CODE = '''import os  # """Not a docstring."""

NAME = """An assigned string is code."""


class Thing:
  x: int = 1

  def method(self):
; return 0
'''
DELTA = '"""Module delta."""\ny = 2\n'
SOURCE = PythonSource(
  train_packages=('lrsched_gamma',), valid_packages=('lrsched_delta',)
)


@pytest.fixture
def packages(tmp_path, monkeypatch):
  folder = tmp_path / 'site'
  install(folder, 'lrsched_gamma', GAMMA)
  install(folder, 'lrsched_delta', DELTA)
  # A copy of validation, nothing but documentation, and tests: left out.
  for name, code in (
    ('copy', DELTA.replace('delta', 'copied')),
    ('empty', '# Nothing.\n"""Only text."""\n'),
    ('tests/test', 'assert True\n'),
  ):
    file = folder / 'lrsched_gamma' / f'{name}.py'
    file.parent.mkdir(exist_ok=True)
    file.write_text(code)
  monkeypatch.syspath_prepend(folder)
  return folder


def _documents(path):
  return pathlib.Path(path).read_bytes().decode().split('\0')


def test_code_is_a_file_without_docstrings_and_licence(packages, tmp_path):
  corpus = materialise(SOURCE, str(tmp_path / 'cache'))
  assert _documents(corpus.valid_path) == ['y = 2\n', '']
  assert _documents(corpus.train_path) == [GAMMA_CODE, '']
  assert list(literals(GAMMA_CODE)) == []
  assert (corpus.dtype, corpus.vocab_size) == ('uint8', 256)


def test_code_and_docstrings_of_a_package_are_two_corpora(packages, tmp_path):
  both = [
    materialise(kind(**vars(SOURCE)), str(tmp_path / 'cache'))
    for kind in (PythonSource, Docstrings)
  ]
  assert both[0].hash != both[1].hash
  assert materialise(SOURCE, str(tmp_path / 'cache')) == both[0]
  assert not set(_documents(both[0].train_path)) & {
    text for text in _documents(both[1].train_path) if text
  }


def test_bad_packages_are_named(packages, tmp_path):
  with pytest.raises(ValueError, match=r'PythonSource.train_packages must not'):
    PythonSource(train_packages=())
  with pytest.raises(ValueError, match=r"PythonSource.valid.*got \['rich'\]"):
    PythonSource(valid_packages=('rich',))
  source = PythonSource(train_packages=('lrsched_absent',))
  with pytest.raises(ValueError, match=r'PythonSource.train.*lrsched_absent'):
    materialise(source, str(tmp_path / 'cache'))


def test_the_default_code_is_large_and_does_not_leak(tmp_path):
  corpus = materialise(PythonSource(), str(tmp_path))
  assert 6e6 < corpus.train_tokens < 12e6
  assert 0.8e6 < corpus.valid_tokens < 2e6
  train = np.fromfile(corpus.train_path, np.uint8)
  valid = np.fromfile(corpus.valid_path, np.uint8)
  assert np.mean((train > 31) & (train < 127)) > 0.9
  # Idioms and decorators recur; 0.3 % when this was written.
  assert 0.0001 < shared_pieces(train, valid) < 0.01
  # It tells nothing about docstrings that were held out before, 0.03 %, not
  # even the package nearest to theirs, which comes first.
  small = Docstrings(train_packages=('rich',))  # for the same validation part
  held_out = np.fromfile(materialise(small, str(tmp_path)).valid_path, np.uint8)
  assert shared_pieces(train[:2_000_000], held_out) < 0.002
  named = {*Docstrings().train_packages, *Docstrings().valid_packages}
  own = {*PythonSource().train_packages, *PythonSource().valid_packages}
  assert not named & own
