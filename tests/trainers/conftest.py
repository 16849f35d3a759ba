"""A small run folder, to plan launches on."""

import shutil

import pytest

from tests.trainers.starts import write_run


@pytest.fixture(scope='session')
def written(tmp_path_factory):
  """A run with checkpoints of 0, 10 and 20, not to be written to."""
  folder = tmp_path_factory.mktemp('runs') / 'a'
  write_run(folder, (0, 10, 20))
  return folder


@pytest.fixture
def workdir(written, tmp_path):
  """A copy of it."""
  shutil.copytree(written, tmp_path / 'a')
  return tmp_path / 'a'
