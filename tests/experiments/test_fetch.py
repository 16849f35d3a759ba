"""Fetching, from small packages made here: read, split, verified, made good."""

import gzip
import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from experiments import fetch
from experiments import german_sample
from experiments import package_texts
from experiments import packages
from trainers.corpus import materialise
from trainers.sources import Fetched


def _wheel(folder, members):
  """A wheel 'letters 1.0' in the folder of downloads, pinned."""
  downloads = folder / 'fetched' / 'downloads'
  downloads.mkdir(parents=True, exist_ok=True)
  file = downloads / 'letters-1.0-py3-none-any.whl'
  with zipfile.ZipFile(file, 'w') as wheel:
    for name, content in members.items():
      wheel.writestr(zipfile.ZipInfo(name), content)
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  return packages.Wheel('letters', '1.0', 'MIT', digest)


def _translations(n=40):
  return {
    f'homeassistant/components/{i}/translations/de.json': json.dumps(
      {'title': f'Titel {i}', 'more': {'b': f'Wort {i}', 'a': 'Überall'}}
    )
    for i in range(n)
  } | {'homeassistant/components/1/translations/en.json': '{"a": "English"}'}


def _text(wheel, read=package_texts.home_assistant):
  return fetch.Text('letters', (wheel,), read, valid_percent=20)


def _parts(cache):
  corpus = materialise(Fetched(name='letters'), str(cache))
  return [
    pathlib.Path(path).read_text('utf-8').split('\0')[:-1]
    for path in (corpus.train_path, corpus.valid_path)
  ]


def test_a_text_is_fetched_and_trains(tmp_path):
  text = _text(_wheel(tmp_path, _translations()))
  said = fetch.fetch('letters', text, str(tmp_path))
  assert 'it was not there, fetched into' in said
  train, valid = _parts(tmp_path)
  assert len(train) + len(valid) == 40
  assert 4 <= len(valid) <= 14
  assert not any('English' in document for document in train + valid)
  # A text that all say is kept once, and validation comes first.
  assert [d.count('Überall') for d in train] == [0] * len(train)
  assert sum(d.count('Überall') for d in valid) == 1
  assert any(d.startswith('Titel 0\nWort 0') for d in train + valid)


def test_the_manifest_says_where_it_is_from(tmp_path):
  wheel = _wheel(tmp_path, _translations())
  fetch.fetch('letters', _text(wheel), str(tmp_path))
  folder = tmp_path / 'fetched' / 'letters'
  record = json.loads((folder / 'manifest.json').read_text())
  assert record['made_from']['packages'] == [
    {
      'package': 'letters',
      'version': '1.0',
      'licence': 'MIT',
      'sha256': wheel.sha256,
    }
  ]
  (file,) = record['made_from']['files']
  assert file['file'] == 'letters-1.0-py3-none-any.whl'
  assert file['sha256'] == wheel.sha256
  for part in ('train', 'valid'):
    content = (folder / f'{part}.bin').read_bytes()
    assert record[part] == {
      'documents': content.count(b'\0'),
      'bytes': len(content),
      'sha256': hashlib.sha256(content).hexdigest(),
    }
  # Nothing else is left.
  assert len(list(folder.iterdir())) == 3
  assert len(list((tmp_path / 'fetched' / 'downloads').iterdir())) == 1


def test_a_second_call_verifies_and_changes_nothing(tmp_path):
  text = _text(_wheel(tmp_path, _translations()))
  fetch.fetch('letters', text, str(tmp_path))
  shutil.rmtree(tmp_path / 'fetched' / 'downloads')  # not needed again
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
  assert 'verified' in fetch.fetch('letters', text, str(tmp_path))
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')} == before


@pytest.mark.parametrize('name', ['manifest.json', 'train.bin', 'valid.bin'])
def test_a_damaged_text_is_fetched_again(tmp_path, name):
  text = _text(_wheel(tmp_path, _translations()))
  fetch.fetch('letters', text, str(tmp_path))
  before = _parts(tmp_path)
  (tmp_path / 'fetched' / 'letters' / name).write_bytes(b'{}')
  assert 'it was damaged' in fetch.fetch('letters', text, str(tmp_path))
  assert _parts(tmp_path) == before


def test_another_version_is_fetched_again(tmp_path):
  text = _text(_wheel(tmp_path, _translations()))
  fetch.fetch('letters', text, str(tmp_path))
  other = _text(_wheel(tmp_path, _translations(60)))
  said = fetch.fetch('letters', other, str(tmp_path))
  assert 'it was of another version' in said
  assert sum(map(len, _parts(tmp_path))) == 60


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path):
  wheel = _wheel(tmp_path, _translations())
  text = _text(wheel._replace(sha256='0' * 64))
  with pytest.raises(ValueError, match=rf'must have .*0, got {wheel.sha256}'):
    fetch.fetch('letters', text, str(tmp_path))
  assert not (tmp_path / 'fetched' / 'letters').exists()


def test_without_an_index_the_error_says_what_to_do(tmp_path, monkeypatch):
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
  monkeypatch.delenv('PIP_FIND_LINKS', raising=False)
  text = _text(packages.Wheel('lrsched-letters', '1.0', 'MIT', '0' * 64))
  with pytest.raises(ValueError, match='lrsched-letters could not') as error:
    fetch.fetch('letters', text, str(tmp_path))
  downloads = tmp_path / 'fetched' / 'downloads'
  assert 'pip download --no-deps' in str(error.value)
  assert f'put the file into {downloads} and start' in str(error.value)
  assert list(downloads.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').touch()
  text = _text(packages.BOTOCORE)
  with pytest.raises(ValueError, match=r'--cache_dir must be a folder that'):
    fetch.fetch('letters', text, str(tmp_path / 'file'))


def test_services_are_read_over_their_versions(tmp_path):
  def api(*texts):
    shapes = {str(i): {'documentation': t} for i, t in enumerate(texts)}
    return gzip.compress(
      json.dumps(
        {'documentation': '<p>Top.</p>', 'shapes': shapes, 'list': [shapes]}
      ).encode()
    )

  members = {
    'botocore/data/b/2020-01-01/service-2.json.gz': api('<p>One &amp; two'),
    'botocore/data/b/2021-01-01/service-2.json.gz': api('New.'),
    'botocore/data/a/2020-01-01/service-2.json.gz': api('<ul><li>x<li>y</ul>'),
    'botocore/data/a/2020-01-01/paginators-1.json': b'not read',
  }
  _wheel(tmp_path, members)
  file = next((tmp_path / 'fetched' / 'downloads').iterdir())
  assert package_texts.botocore([file]) == {
    'a': ['Top.', 'x', 'y', 'x', 'y'],
    'b': ['Top.', 'One & two', 'One & two', 'Top.', 'New.', 'New.'],
  }


def test_the_sample_is_the_longer_texts(tmp_path):
  # 61 characters, and 60.
  long = {i: f'{i:02} {"x" * 58}' for i in range(40)}
  members = {
    f'homeassistant/components/{i}/translations/de.json': json.dumps(
      {'a': text, 'b': text[1:]}
    )
    for i, text in long.items()
  }
  _wheel(tmp_path, members)
  file = next((tmp_path / 'fetched' / 'downloads').iterdir())
  german_sample.make(file, tmp_path / 'out')
  texts = []
  for part in ('train', 'valid'):
    content = (tmp_path / 'out' / f'german_sample.{part}.xz').read_bytes()
    documents = lzma.decompress(content).decode().split('\0')
    assert len(documents) > 1
    assert documents.pop() == ''
    texts += documents
  assert sorted(texts) == sorted(long.values())


def test_no_twelve_words_of_validation_are_in_training():
  shared = ' '.join(f'w{i}' for i in range(12))
  groups = {
    str(i): [f'own {i} text', f'before {i} {shared} after {i}', shared[:-4]]
    for i in range(40)
  }
  parts = package_texts.split(groups, 20)
  assert package_texts.split(groups, 20) == parts
  train, valid = (b'\n'.join(parts[p]).decode() for p in ('train', 'valid'))
  assert valid.count(shared) == len(parts['valid'])  # validation keeps its own
  assert train.count(shared) == 0
  assert train.count('own') == len(parts['train'])
  assert (train + valid).count(f'\n{shared[:-4]}') == 1  # 11 words, once
  # More names move none across the split.
  more = package_texts.split(groups | {'new': ['text']}, 20)
  old = {p: [d for d in more[p] if d != b'text'] for p in more}
  assert old == parts


@pytest.mark.skipif(shutil.which('dpkg-deb') is None, reason='of Debian')
def test_debian_packages_are_read(tmp_path):
  root = tmp_path / 'root'
  page = root / 'usr' / 'share' / 'man' / 'de' / 'man1' / 'x.1.gz'
  page.parent.mkdir(parents=True)
  page.write_bytes(gzip.compress(b'.SH NAME\nx \\- tut nichts\n'))
  # Another language's, and a link to a page, are not read.
  (root / 'usr' / 'share' / 'man' / 'fr').mkdir()
  (page.parent / 'y.1.gz').symlink_to('x.1.gz')
  help_page = root / 'usr' / 'share' / 'help' / 'de' / 'a.html'
  help_page.parent.mkdir(parents=True)
  help_page.write_text('<body><p>Hilfe</p></body>')
  (root / 'DEBIAN').mkdir()
  (root / 'DEBIAN' / 'control').write_text(
    'Package: letters-de\nVersion: 1\nArchitecture: all\n'
    'Maintainer: A <a@b>\nDescription: none\n'
  )
  (tmp_path / 'fetched' / 'downloads').mkdir(parents=True)
  file = tmp_path / 'fetched' / 'downloads' / 'letters-de_1_all.deb'
  subprocess.run(
    ['dpkg-deb', '--build', '--root-owner-group', root, file],
    check=True,
    capture_output=True,
  )
  assert package_texts.manuals([file]) == {
    'x.1.gz': ['NAME', 'x - tut nichts'],
    'usr/share/help/de/a.html': ['Hilfe'],
  }
  package = packages.DebianPackage('letters-de', 'MIT')
  folder = tmp_path / 'fetched' / 'downloads'
  assert packages.obtain(package, folder, tmp_path)[0] == file
  file.write_bytes(b'other')
  with pytest.raises(ValueError, match='is not a Debian package'):
    package_texts.manuals([file])


def test_a_machine_that_is_not_debian_is_told_so(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  text = fetch.TEXTS['german_manuals']
  with pytest.raises(ValueError, match='lacks apt-get and dpkg-deb'):
    fetch.fetch('german_manuals', text, str(tmp_path))
  assert 'lacks apt-get and dpkg-deb' in fetch.listed(str(tmp_path))


def test_the_program_lists_and_refuses(tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'experiments.fetch', *arguments],
      capture_output=True,
      text=True,
      cwd=pathlib.Path(fetch.__file__).parent.parent,
    )

  listed = run('--list', f'--cache_dir={tmp_path}')
  assert listed.returncode == 0
  for name in fetch.TEXTS:
    assert re.search(rf'^{name}: .*; is not there', listed.stdout, re.MULTILINE)
  assert run('--name=nothing').returncode != 0
  assert '--name=NAME, --name=all or --list' in run().stderr
  assert not (tmp_path / 'fetched').exists()
