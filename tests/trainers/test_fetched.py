"""A fetched text is used where it lies, or the error says how to fetch it."""

import re

import pytest

from trainers import fetched
from trainers.corpus import materialise
from trainers.documents import write
from trainers.sources import Fetched

SOURCE = Fetched(name='letters')


def _command(cache):
  return f'python -m experiments.fetch --name=letters --cache_dir={cache}'


@pytest.fixture
def cache(tmp_path):
  write(
    fetched.files('letters', str(tmp_path)),
    {'packages': ['of letters']},
    {'valid': [b'aa', b'b'], 'train': [b'ccc', b'b', b'', b'ccc', b'd']},
    'letters',
  )
  return tmp_path


def test_it_is_used_in_place(cache):
  before = sorted(cache.rglob('*'))
  corpus = materialise(SOURCE, str(cache))
  folder = cache / 'fetched' / 'letters'
  assert corpus.train_path == str(folder / 'train.bin')
  assert (folder / 'valid.bin').read_bytes() == b'aa\0b\0'
  # Without what validation holds, duplicates and nothing.
  assert (folder / 'train.bin').read_bytes() == b'ccc\0d\0'
  assert (corpus.train_tokens, corpus.valid_tokens) == (6, 5)
  assert (corpus.vocab_size, corpus.bytes_per_token) == (256, 1.0)
  assert materialise(SOURCE, str(cache)) == corpus
  assert sorted(cache.rglob('*')) == before


@pytest.mark.parametrize('name', ['manifest.json', 'train.bin', 'valid.bin'])
def test_a_missing_one_names_the_command(cache, name):
  (cache / 'fetched' / 'letters' / name).unlink()
  with pytest.raises(ValueError, match=re.escape(_command(cache))) as error:
    materialise(SOURCE, str(cache))
  assert name in str(error.value)
  other = Fetched(name='numbers')
  with pytest.raises(ValueError, match=r"got 'numbers'.*--name=numbers "):
    materialise(other, str(cache))


def test_a_folder_with_a_space_is_quoted(tmp_path):
  with pytest.raises(ValueError, match=r"--cache_dir='.*my data'$"):
    materialise(SOURCE, str(tmp_path / 'my data'))


@pytest.mark.parametrize('name', ['manifest.json', 'train.bin', 'valid.bin'])
@pytest.mark.parametrize('damage', ['flip', 'cut', 'empty'])
def test_a_damaged_one_is_named_with_the_command(cache, name, damage):
  path = cache / 'fetched' / 'letters' / name
  content = bytearray(path.read_bytes())
  if damage == 'flip':
    content[0] ^= 1
  path.write_bytes({'flip': content, 'cut': content[:-3], 'empty': b''}[damage])
  with pytest.raises(ValueError, match=rf'{name} is damaged') as error:
    materialise(SOURCE, str(cache))
  assert _command(cache) in str(error.value)


@pytest.mark.parametrize('name', ['', '..', 'a/b', 'German'])
def test_a_name_is_no_path(name):
  with pytest.raises(ValueError, match=r'Fetched.name must be small letters'):
    Fetched(name=name)
