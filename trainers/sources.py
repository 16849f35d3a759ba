"""Where text or tokens come from: the sources that a corpus is made of."""

from __future__ import annotations

import re
from typing import Literal

from trainers.fields import config
from trainers.fields import require


@config
class Docstrings:
  """Docstrings of installed packages, as bytes: nothing to download.

  Attributes:
    train_packages: top-level import names whose docstrings are trained on.
    valid_packages: whole packages held out for validation.
  """

  train_packages: tuple[str, ...] = ('numpy', 'scipy', 'jax', 'matplotlib')
  valid_packages: tuple[str, ...] = ('optax', 'flax')

  def check(self) -> None:
    _check_packages(self)


@config
class PythonSource:
  """Python code of installed packages, as bytes: nothing to download.

  Files without what `Docstrings` takes from them, the docstrings, and without
  the comment they open with, a licence mostly: the code is what is new after
  docstrings, and no docstring held out of another corpus comes back in it.

  The defaults, 9 MB, are packages of the extra `train`, and none that
  `Docstrings` trains on or holds out.

  Attributes:
    train_packages: top-level import names whose code is trained on.
    valid_packages: whole packages held out for validation.
  """

  train_packages: tuple[str, ...] = ('orbax', 'fontTools', 'grain', 'rich')
  valid_packages: tuple[str, ...] = ('PIL', 'jinja2')

  def check(self) -> None:
    _check_packages(self)


def _check_packages(source: Docstrings | PythonSource) -> None:
  kind = type(source).__name__
  for name in ('train_packages', 'valid_packages'):
    value = getattr(source, name)
    require(len(value) > 0, f'{kind}.{name}', value, 'must not be empty')
  both = set(source.train_packages) & set(source.valid_packages)
  require(
    not both,
    f'{kind}.valid_packages',
    sorted(both),
    'must not be trained on: remove from one of the two lists',
  )


@config
class GermanSample:
  """German that comes with the project, 0.9 MB, as bytes.

  Sentences of a user interface; `trainers/german_sample.NOTICE` says whose.
  """


@config
class Fetched:
  """A text that `python -m experiments.fetch --name=NAME` has put on disk.

  It is used where that program wrote it, in `<cache_dir>/fetched/NAME`.

  Attributes:
    name: as that program lists it, such as `'api_documentation'`.
  """

  name: str

  def check(self) -> None:
    require(
      re.fullmatch('[a-z0-9_]+', self.name) is not None,
      'Fetched.name',
      self.name,
      'must be small letters, digits and _',
    )


@config
class TextFolder:
  """Every text file under a folder, as bytes; whole files are held out.

  Attributes:
    path: the folder; files are found recursively, in sorted order.
    pattern: which files, a glob on the file name.
    valid_percent: share of files held out, chosen by a hash of their relative
      path, so that adding files never moves one across the split.
  """

  path: str
  pattern: str = '*.txt'
  valid_percent: int = 5

  def check(self) -> None:
    require(
      1 <= self.valid_percent <= 50,
      'TextFolder.valid_percent',
      self.valid_percent,
      'must be in 1..50',
    )


@config
class TokenFile:
  """Two flat binary files of token ids, such as a tokenizer's `.bin` output.

  Attributes:
    train_path: file of the training tokens.
    valid_path: file of the validation tokens.
    dtype: element type of both.
    bytes_per_token: bytes of text that a validation token stands for on
      average; with it, losses are logged in bits per byte too.
  """

  train_path: str
  valid_path: str
  dtype: Literal['uint8', 'uint16', 'uint32'] = 'uint16'
  bytes_per_token: float | None = None

  def check(self) -> None:
    ratio = self.bytes_per_token
    require(
      ratio is None or ratio > 0,
      'TokenFile.bytes_per_token',
      ratio,
      'must be > 0',
    )


Source = (
  Docstrings | PythonSource | GermanSample | Fetched | TextFolder | TokenFile
)
