"""The Python code of installed packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from trainers.docstrings import literals
from trainers.documents import Documents
from trainers.installed import codes
from trainers.installed import versions
from trainers.sources import PythonSource

# Comments and blank lines before the first statement.
_OPENING = re.compile(r'\A(?:[ \t]*(?:#[^\n]*)?\n)+')


def documents(source: PythonSource) -> Documents:
  """The files of the packages, each a document."""
  return Documents(
    name='python_source',
    parts={'valid': source.valid_packages, 'train': source.train_packages},
    made_from=versions(source),
    extract=_extract,
  )


def _extract(packages: Iterable[str]) -> Iterator[bytes]:
  for package in packages:
    for code in codes(package):
      text = _OPENING.sub('', _without_docstrings(code))
      yield text.replace('\0', '').encode(errors='replace')


def _without_docstrings(code: str) -> str:
  """The code less exactly what a corpus of docstrings takes from it."""
  kept, end = [], 0
  for literal in literals(code):
    kept.append(code[end : literal.start])
    end = literal.end
    if code.startswith('\n', end):  # Nothing else is on its last line.
      end += 1
  return ''.join([*kept, code[end:]])
