"""The packages that texts are read from, and how their files are had.

A file is downloaded, not installed, and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple


class Wheel(NamedTuple):
  """One file of the Python package index, the same on every machine."""

  package: str
  version: str
  licence: str
  sha256: str


class DebianPackage(NamedTuple):
  """A package in the version of this machine's Debian, verified by apt-get."""

  package: str
  licence: str


Package = Wheel | DebianPackage

BOTOCORE = Wheel(
  package='botocore',
  version='1.44.5',
  licence='Apache-2.0',
  sha256='8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921',
)
HOME_ASSISTANT = Wheel(
  package='homeassistant',
  version='2026.11.0',
  licence='Apache-2.0',
  sha256='7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7',
)
GERMAN_MANUALS = (
  DebianPackage(package='manpages-de', licence='GPL-3.0-or-later'),
  DebianPackage(package='manpages-de-dev', licence='GPL-3.0-or-later'),
  DebianPackage(package='libreoffice-help-de', licence='MPL-2.0'),
)

# Data only: whether a wheel would run on this Python does not matter.
_PIP_DOWNLOAD = (
  *('download', '--no-deps', '--only-binary', ':all:'),
  '--ignore-requires-python',
)


def needs(package: Package) -> str:
  """What this machine lacks to have the package; empty if nothing."""
  if isinstance(package, Wheel):
    return ''
  missing = [t for t in ('apt-get', 'dpkg-deb') if shutil.which(t) is None]
  return f'{" and ".join(missing)}, of Debian' if missing else ''


def obtain(
  package: Package, downloads: pathlib.Path, folder: pathlib.Path
) -> tuple[pathlib.Path, str]:
  """The package's file and its SHA-256 in hex.

  Args:
    package: what to get.
    downloads: folder in which the file is used if somebody put it there.
    folder: where it is downloaded to otherwise.

  Raises:
    ValueError: if the file cannot be had, or is not the one that is pinned.
  """
  if isinstance(package, Wheel):
    name = f'{package.package}-{package.version}-py3-none-any.whl'
    arguments = [*_PIP_DOWNLOAD, f'{package.package}=={package.version}']
    command, run = ['pip', *arguments], [sys.executable, '-m', 'pip']
    run += ['--disable-pip-version-check', *arguments]
  else:
    name = f'{package.package}_*.deb'
    command = run = ['apt-get', 'download', package.package]
  files = sorted(downloads.glob(name))
  if not files:
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    if done.returncode:
      said = (done.stderr.strip() or done.stdout.strip()).split('\n')[-1]
      raise ValueError(
        f'{package.package} could not be downloaded ({said}); if this machine '
        f'has no network, run `{" ".join(command)}` on one that has, put the '
        f'file into {downloads} and start again'
      )
    files = sorted(folder.glob(name))
  file = files[-1]
  with file.open('rb') as opened:
    found = hashlib.file_digest(opened, 'sha256').hexdigest()
  if isinstance(package, Wheel) and found != package.sha256:
    raise ValueError(
      f'{file} must have the SHA-256 {package.sha256}, got {found}: it is '
      'damaged or another file; delete it and start again'
    )
  return file, found
