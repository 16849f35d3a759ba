"""Makes the German sample that the project carries.

  python -m experiments.german_sample --out=trainers

Texts of more than 60 characters out of what `experiments.fetch --name=german`
takes in full, held out alike.
"""

from __future__ import annotations

import lzma
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from absl import app
from absl import flags

from experiments import package_texts
from experiments import packages
from experiments.fetch import TEXTS
from trainers.german_sample import FILES

LONGER_THAN = 60  # what is shorter is names of fields and of their values


def make(wheel: pathlib.Path, out: pathlib.Path) -> None:
  """Writes the two parts, each document followed by byte 0."""
  text = TEXTS['german']
  groups = {
    name: [t for t in texts if len(t) > LONGER_THAN]
    for name, texts in text.read([wheel]).items()
  }
  parts = package_texts.split(groups, text.valid_percent)
  out.mkdir(parents=True, exist_ok=True)
  for part, documents in parts.items():
    content = b''.join(document + b'\0' for document in documents if document)
    (out / FILES[part].name).write_bytes(
      lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
    )


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  out = pathlib.Path(flags.FLAGS.out)
  try:
    with tempfile.TemporaryDirectory() as folder:
      into = pathlib.Path(folder)
      wheel, _ = packages.obtain(packages.HOME_ASSISTANT, out, into)
      make(wheel, out)
  except (OSError, ValueError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.DEFINE_string('out', None, 'Folder to write.', required=True)
  app.run(main)
