"""The text in packages: members of archives read as data, never run.

Each reader returns texts by the name of what they belong to, a service or a
page, in the order of those names. `split` makes them a corpus.
"""

from __future__ import annotations

import collections
import gzip
import io
import json
import pathlib
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.markup import html_lines
from experiments.markup import roff_paragraphs
from trainers.documents import held_out

Groups = dict[str, list[str]]

RUN_WORDS = 12


def split(groups: Groups, valid_percent: int) -> dict[str, list[bytes]]:
  """Documents of the 'valid' and 'train' part, one for each name.

  Whole names are held out, by a hash. A text is kept where it occurs first, and
  a training text only if no 12 words in a row are in a validation text: texts
  of one package repeat one another, word for word or nearly so.
  """
  seen: set[str] = set()
  held_runs: set[str] = set()
  parts: dict[str, list[bytes]] = {'valid': [], 'train': []}
  for part, documents in parts.items():
    for name, texts in sorted(groups.items()):
      if held_out(name.encode(), valid_percent) != (part == 'valid'):
        continue
      kept = []
      for text in texts:
        if not text or text in seen:
          continue
        seen.add(text)
        runs = list(_runs(text))
        if part == 'valid':
          held_runs.update(runs)
        elif not held_runs.isdisjoint(runs):
          continue
        kept.append(text)
      # Byte 0 separates documents, so none may hold it.
      documents.append('\n'.join(kept).replace('\0', '').encode())
  return parts


def _runs(text: str) -> Iterator[str]:
  words = text.split()
  for i in range(len(words) - RUN_WORDS + 1):
    yield ' '.join(words[i : i + RUN_WORDS])


def botocore(files: Sequence[pathlib.Path]) -> Groups:
  """What the AWS API says about each service, in English."""
  groups: Groups = collections.defaultdict(list)
  with zipfile.ZipFile(files[0]) as wheel:
    for member in sorted(wheel.namelist()):
      # A service may have several versions, in folders.
      path = pathlib.PurePosixPath(member)
      if path.match('botocore/data/*/*/service-2.json.gz'):
        api = json.loads(gzip.decompress(wheel.read(member)))
        for text in _under(api, 'documentation'):
          groups[path.parts[2]] += html_lines(text)
  return groups


def _under(value: Any, key: str) -> Iterator[str]:
  """Every text under that key, at any depth."""
  if isinstance(value, list):
    for item in value:
      yield from _under(item, key)
  elif isinstance(value, dict):
    for name, item in value.items():
      if name == key and isinstance(item, str):
        yield item
      else:
        yield from _under(item, key)


def home_assistant(files: Sequence[pathlib.Path]) -> Groups:
  """What Home Assistant says to its users, by integration, in German."""
  groups = {}
  with zipfile.ZipFile(files[0]) as wheel:
    for member in sorted(wheel.namelist()):
      path = pathlib.PurePosixPath(member)
      if path.match('homeassistant/components/*/translations/de.json'):
        groups[path.parts[2]] = list(_leaves(json.loads(wheel.read(member))))
  return groups


def _leaves(value: Any) -> Iterator[str]:
  """Every text of nested JSON objects."""
  if isinstance(value, str):
    yield value
  else:
    for item in value.values():
      yield from _leaves(item)


def manuals(files: Sequence[pathlib.Path]) -> Groups:
  """Manual pages and help pages of Debian packages."""
  groups = {}
  for file in files:
    for path, content in _members(file):
      if path.match('man/de/man*/*.gz'):
        page = gzip.decompress(content).decode(errors='replace')
        groups[path.name] = roff_paragraphs(page)
      elif path.match('*.html') and 'help' in path.parts:
        groups[str(path)] = html_lines(content.decode(errors='replace'))
  return groups


def _members(
  file: pathlib.Path,
) -> Iterator[tuple[pathlib.PurePosixPath, bytes]]:
  """The files that a Debian package would install, by path."""
  command = ['dpkg-deb', '--fsys-tarfile', str(file)]
  done = subprocess.run(command, capture_output=True)
  if done.returncode:
    said = done.stderr.decode(errors='replace').strip()
    raise ValueError(f'{file} is not a Debian package ({said}); delete it')
  with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
    for member in sorted(archive.getmembers(), key=lambda m: m.name):
      if data := member.isfile() and archive.extractfile(member):
        yield pathlib.PurePosixPath(member.name), data.read()
