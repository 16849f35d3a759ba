"""Text and token files become a corpus, or one clear error."""

import hashlib
import json
import os
import pathlib

import numpy as np
import pytest

from tests.corpora import install
from tests.corpora import shared_pieces
from trainers import corpus as corpus_lib
from trainers import token_files
from trainers.sources import Docstrings
from trainers.sources import TextFolder
from trainers.sources import TokenFile

ALPHA = '''"""Module of the\u2212alpha package."""
# A comment with """ in it.
TEXT = """An assigned string is not documentation."""
x: int = 1
"""What x is."""


class Thing:
  r"""Raw \\\\alpha.

  Level.
    Indented more.
  """

  def method(self):
    \'\'\'Escaped \\x41.\'\'\'
    return "\'\'\'", 'not text'


def shared():
  """Said in both packages."""


def again():
  """What x is."""


add_newdoc(
  'function',
  """
  A compiled function.
  """,
)
f"""Formatted {x}."""
'''
BETA = '"""Module beta."""\ndef shared():\n  """Said in both packages."""\n'


@pytest.fixture
def packages(tmp_path, monkeypatch):
  folder = tmp_path / 'site'
  install(folder, 'lrsched_alpha', ALPHA)
  install(folder, 'lrsched_beta', BETA)
  tests = folder / 'lrsched_alpha' / 'tests'
  tests.mkdir()
  (tests / '__init__.py').write_text('"""Of tests."""')
  monkeypatch.syspath_prepend(folder)
  return folder


SOURCE = Docstrings(
  train_packages=('lrsched_alpha',), valid_packages=('lrsched_beta',)
)


def _bytes(path):
  return pathlib.Path(path).read_bytes()


def _state(folder):
  """What is in a folder, and when it was written."""
  return {p.name: p.stat().st_mtime_ns for p in pathlib.Path(folder).iterdir()}


def test_docstrings_are_extracted_and_separated(packages, tmp_path):
  corpus = corpus_lib.materialise(SOURCE, str(tmp_path / 'cache'))
  assert _bytes(corpus.valid_path).split(b'\0') == [
    b'Module beta.',
    b'Said in both packages.',
    b'',
  ]
  # Without what validation holds, the second 'What x is.' and tests/.
  assert _bytes(corpus.train_path).decode().split('\0') == [
    'Module of the\u2212alpha package.',
    'What x is.',
    'Raw \\\\alpha.\n\nLevel.\n  Indented more.',
    'Escaped A.',
    'A compiled function.',
    '',
  ]
  assert corpus.train_tokens == len(_bytes(corpus.train_path))
  assert corpus.valid_tokens == len(_bytes(corpus.valid_path))
  assert (corpus.dtype, corpus.vocab_size) == ('uint8', 256)
  assert corpus.bytes_per_token == 1.0


def test_the_record_says_what_the_text_is(packages, tmp_path):
  corpus = corpus_lib.materialise(SOURCE, str(tmp_path / 'cache'))
  record = json.loads(next((tmp_path / 'cache').glob('*.json')).read_text())
  assert record['made_from'] == {
    'lrsched_alpha': 'lrsched_alpha 1.0',
    'lrsched_beta': 'lrsched_beta 1.0',
  }
  assert record['train'] == {
    'documents': 5,
    'bytes': corpus.train_tokens,
    'sha256': hashlib.sha256(_bytes(corpus.train_path)).hexdigest(),
  }
  assert len(_state(tmp_path / 'cache')) == 3  # No temporary file is left.


def test_a_corpus_keeps_its_file_and_its_hash(packages, tmp_path):
  # A run that goes on compares the hash; the name spares a second extraction.
  corpus = corpus_lib.materialise(SOURCE, str(tmp_path / 'cache'))
  path = pathlib.Path(corpus.train_path)
  assert path.name == 'docstrings-a06e6390a4b2575e.train.bin'
  assert corpus.hash == (
    '331b85d621504ef7f5048380ad40f80aa4cca012575e54bf687b3b6d573e5bde'
  )


def test_a_second_call_reads_the_cache(packages, tmp_path):
  cache = tmp_path / 'cache'
  first = corpus_lib.materialise(SOURCE, str(cache))
  before = _state(cache)
  # The source is not looked at again under the same version ...
  install(packages, 'lrsched_beta', '"""Changed."""')
  assert corpus_lib.materialise(SOURCE, str(cache)) == first
  assert _state(cache) == before
  # ... and is under another; the old text stays.
  install(packages, 'lrsched_beta', '"""Changed."""', version='1.1')
  second = corpus_lib.materialise(SOURCE, str(cache))
  assert second.hash != first.hash
  assert _bytes(second.valid_path) == b'Changed.\0'
  assert _state(cache).items() > before.items()


def test_equal_text_has_an_equal_hash(packages, tmp_path):
  first = corpus_lib.materialise(SOURCE, str(tmp_path / 'one'))
  again = corpus_lib.materialise(SOURCE, str(tmp_path / 'two'))
  assert again.hash == first.hash
  swapped = Docstrings(
    train_packages=SOURCE.valid_packages, valid_packages=SOURCE.train_packages
  )
  assert corpus_lib.materialise(swapped, str(tmp_path)).hash != first.hash


@pytest.mark.parametrize('pattern', ['*.train.bin', '*.valid.bin', '*.json'])
@pytest.mark.parametrize('damage', ['flip', 'cut', 'empty'])
def test_a_damaged_cache_is_named(packages, tmp_path, pattern, damage):
  first = corpus_lib.materialise(SOURCE, str(tmp_path / 'cache'))
  victim = next((tmp_path / 'cache').glob(pattern))
  content = bytearray(victim.read_bytes())
  if damage == 'flip':
    content[len(content) // 2 if victim.suffix == '.bin' else 0] ^= 1
  victim.write_bytes(
    {'flip': content, 'cut': content[:-3], 'empty': b''}[damage]
  )
  with pytest.raises(ValueError, match=f'{victim.name} is damaged.*delete it'):
    corpus_lib.materialise(SOURCE, str(tmp_path / 'cache'))
  victim.unlink()  # The remedy works.
  assert corpus_lib.materialise(SOURCE, str(tmp_path / 'cache')) == first


def test_an_interrupted_call_is_made_good(packages, tmp_path):
  first = corpus_lib.materialise(SOURCE, str(tmp_path / 'cache'))
  # The record is written last.
  next((tmp_path / 'cache').glob('*.json')).unlink()
  pathlib.Path(first.valid_path).write_bytes(b'half')
  assert corpus_lib.materialise(SOURCE, str(tmp_path / 'cache')) == first


@pytest.mark.parametrize('field', ['train_packages', 'valid_packages'])
@pytest.mark.parametrize('name', ['lrsched_absent', 'lrsched_alpha.tests'])
def test_a_package_that_is_not_installed_is_named(
  packages, tmp_path, field, name
):
  lists = {
    'train_packages': ('lrsched_alpha',),
    'valid_packages': ('lrsched_beta',),
    field: (name,),
  }
  with pytest.raises(ValueError, match=rf'{field} .*{name}.*; install it or'):
    corpus_lib.materialise(Docstrings(**lists), str(tmp_path / 'cache'))
  assert not (tmp_path / 'cache').exists()


def test_packages_without_text_are_an_error(packages, tmp_path):
  install(packages, 'lrsched_empty', 'x = 1\n')
  install(packages, 'lrsched_copy', BETA)
  for train in ('lrsched_empty', 'lrsched_copy'):
    source = Docstrings(
      train_packages=(train,), valid_packages=('lrsched_beta',)
    )
    with pytest.raises(ValueError, match=f'train part of .*{train}.*none'):
      corpus_lib.materialise(source, str(tmp_path / 'cache'))


def test_the_default_corpus_is_large_and_does_not_leak(tmp_path):
  corpus = corpus_lib.materialise(Docstrings(), str(tmp_path))
  assert 8e6 < corpus.train_tokens < 16e6
  assert 0.5e6 < corpus.valid_tokens < 2e6
  train = np.fromfile(corpus.train_path, np.uint8)
  valid = np.fromfile(corpus.valid_path, np.uint8)
  assert 0 < np.mean(train == 0) < 0.01
  assert np.mean((train > 31) & (train < 127)) > 0.9  # Text in English.
  assert 0.001 < shared_pieces(train, valid) < 0.05


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / 'texts'
  (path / 'deep').mkdir(parents=True)
  for i in range(40):
    name = f'deep/{i}.txt' if i % 2 else f'{i}.txt'
    (path / name).write_bytes(b'text %d \xff\xe4' % i)
  (path / 'notes.md').write_bytes(b'other')
  return path


def _documents(path):
  return set(_bytes(path).split(b'\0')[:-1])


def test_a_folder_is_split_by_file(folder, tmp_path):
  source = TextFolder(path=str(folder), valid_percent=20)
  corpus = corpus_lib.materialise(source, str(tmp_path / 'cache'))
  train, valid = _documents(corpus.train_path), _documents(corpus.valid_path)
  assert train | valid == {b'text %d \xff\xe4' % i for i in range(40)}
  assert not train & valid
  assert 2 <= len(valid) <= 16
  assert corpus_lib.materialise(source, str(tmp_path / 'cache')) == corpus
  # A new file moves no other across the split, and is noticed.
  (folder / 'deep' / 'more.txt').write_bytes(b'more')
  grown = corpus_lib.materialise(source, str(tmp_path / 'cache'))
  assert _documents(grown.train_path) - {b'more'} == train
  assert _documents(grown.valid_path) - {b'more'} == valid
  assert grown.hash != corpus.hash


def test_a_changed_file_is_noticed(folder, tmp_path):
  source = TextFolder(path=str(folder), pattern='*', valid_percent=20)
  cache = folder / 'cache'  # A cache in the folder is not part of the text.
  first = corpus_lib.materialise(source, str(cache))
  assert corpus_lib.materialise(source, str(cache)) == first
  text = folder / '0.txt'
  text.write_bytes(text.read_bytes().replace(b'text', b'TEXT'))
  os.utime(text, ns=(0, 0))
  assert corpus_lib.materialise(source, str(cache)).hash != first.hash


def test_duplicate_files_do_not_leak(folder, tmp_path):
  for i in range(40):
    (folder / f'copy{i}.txt').write_bytes(b'text %d \xff\xe4' % i)
  source = TextFolder(path=str(folder), valid_percent=50)
  corpus = corpus_lib.materialise(source, str(tmp_path / 'cache'))
  train, valid = _documents(corpus.train_path), _documents(corpus.valid_path)
  assert not train & valid
  assert len(train) + len(valid) == 40
  assert _bytes(corpus.train_path).count(b'\0') == len(train)


def test_bad_folders_are_named(folder, tmp_path):
  def error(match, **fields):
    with pytest.raises(ValueError, match=match):
      corpus_lib.materialise(TextFolder(**fields), str(tmp_path / 'cache'))

  error('TextFolder.path must be an existing folder.*none', path='none')
  error('existing folder', path=str(folder / '0.txt'))
  error(r'pattern must match .*\*\.tex', path=str(folder), pattern='*.tex')
  error('leaves none to .* of 1 files', path=str(folder), pattern='*.md')
  (folder / 'deep' / 'broken.txt').symlink_to('nowhere')
  error('broken.txt cannot be read', path=str(folder))
  assert not (tmp_path / 'cache').exists()


def test_a_folder_of_empty_files_is_an_error(tmp_path):
  folder = tmp_path / 'texts'
  folder.mkdir()
  for i in range(40):
    (folder / f'{i}.txt').touch()
  with pytest.raises(ValueError, match=r'valid part of TextFolder.*found none'):
    corpus_lib.materialise(
      TextFolder(path=str(folder), valid_percent=50), str(tmp_path / 'cache')
    )


def test_a_cache_that_cannot_be_written_is_named(packages, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'cache_dir must be a folder.*choose'):
    corpus_lib.materialise(SOURCE, str(tmp_path / 'file'))


@pytest.fixture
def token_file(tmp_path):
  np.array([5, 0, 700], np.uint16).tofile(tmp_path / 'train.bin')
  np.array([900, 2], np.uint16).tofile(tmp_path / 'valid.bin')
  return TokenFile(
    train_path=str(tmp_path / 'train.bin'),
    valid_path=str(tmp_path / 'valid.bin'),
  )


def test_token_files_are_used_in_place(token_file, tmp_path, monkeypatch):
  corpus = corpus_lib.materialise(token_file, str(tmp_path / 'cache'))
  assert corpus._replace(hash='') == corpus_lib.Corpus(
    train_path=token_file.train_path,
    valid_path=token_file.valid_path,
    dtype='uint16',
    hash='',
    train_tokens=3,
    valid_tokens=2,
    vocab_size=901,
    bytes_per_token=None,
  )
  assert not (tmp_path / 'cache').exists()
  # The vocabulary covers both files, whichever holds the largest id.
  swapped = TokenFile(
    train_path=token_file.valid_path, valid_path=token_file.train_path
  )
  assert corpus_lib.materialise(swapped, '').vocab_size == 901
  # Read in pieces of one token, the result is the same.
  monkeypatch.setattr(token_files, '_CHUNK_BYTES', 2)
  assert corpus_lib.materialise(token_file, '') == corpus


def test_the_hash_covers_both_token_files_and_the_dtype(token_file):
  hashes = {corpus_lib.materialise(token_file, '').hash}
  for path in (token_file.train_path, token_file.valid_path):
    np.array([1, 2, 3, 4], np.uint16).tofile(path)
    if path == token_file.valid_path:
      np.array([4, 3, 2, 1], np.uint16).tofile(path)
    hashes.add(corpus_lib.materialise(token_file, '').hash)
  bytewise = TokenFile(
    train_path=token_file.train_path,
    valid_path=token_file.valid_path,
    dtype='uint8',
  )
  hashes.add(corpus_lib.materialise(bytewise, '').hash)
  assert len(hashes) == 4


@pytest.mark.parametrize('field', ['train_path', 'valid_path'])
def test_bad_token_files_are_named(token_file, field):
  path = pathlib.Path(getattr(token_file, field))

  def error(match, source=token_file):
    with pytest.raises(ValueError, match=match):
      corpus_lib.materialise(source, '')

  path.write_bytes(b'abc')
  error(f'{field} must hold whole tokens of 2 bytes.*got 3 bytes')
  path.write_bytes(b'')
  error(f'{field} must hold whole tokens of 2 bytes.*got 0 bytes')
  path.unlink()
  error(f'{field} must be an existing file')
  path.mkdir()
  error(f'{field} must be an existing file')


def test_token_ids_fit_int32(tmp_path):
  np.array([1, 2**31 - 1], np.uint32).tofile(tmp_path / 'train.bin')
  np.array([1, 2], np.uint32).tofile(tmp_path / 'valid.bin')
  source = TokenFile(
    train_path=str(tmp_path / 'train.bin'),
    valid_path=str(tmp_path / 'valid.bin'),
    dtype='uint32',
  )
  with pytest.raises(ValueError, match='train_path must hold ids below'):
    corpus_lib.materialise(source, '')


def test_validation_tokens_are_not_the_training_tokens(token_file):
  same = TokenFile(
    train_path=token_file.train_path, valid_path=token_file.train_path
  )
  with pytest.raises(ValueError, match='must hold other tokens'):
    corpus_lib.materialise(same, '')
