"""The German that comes with the project: see `german_sample.NOTICE`."""

from __future__ import annotations

import hashlib
import lzma
import pathlib
from collections.abc import Iterable, Iterator

from trainers.documents import Documents

FILES = {
  part: pathlib.Path(__file__).with_suffix(f'.{part}.xz')
  for part in ('valid', 'train')
}


def documents() -> Documents:
  """What each integration of the software says, a document.

  Raises:
    ValueError: if a file is not in the installation.
  """
  made_from = {}
  for path in FILES.values():
    try:
      content = path.read_bytes()
    except OSError as error:
      raise ValueError(
        f'GermanSample needs {path}, which cannot be read ({error.strerror}); '
        'install the project again.'
      ) from error
    made_from[path.name] = hashlib.sha256(content).hexdigest()
  return Documents(
    name='german_sample',
    parts={part: [path.name] for part, path in FILES.items()},
    made_from=made_from,
    extract=_extract,
  )


def _extract(names: Iterable[str]) -> Iterator[bytes]:
  for name in names:
    path = pathlib.Path(__file__).with_name(name)
    # As they are kept in a cache: byte 0 after each.
    yield from lzma.decompress(path.read_bytes()).split(b'\0')
