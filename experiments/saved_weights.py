"""The weights of a run's checkpoints, and the config they were trained with."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from experiments.saved_config import config_of
from trainers import checkpoint
from trainers.config import MeshConfig
from trainers.config import RunConfig
from trainers.sharding import make_mesh
from trainers.start import check_saved
from trainers.start import checkpoints_of
from trainers.start import saved_metadata
from trainers.train_step import abstract_state


class Saved(NamedTuple):
  """What a run's folder says of the weights it holds.

  Attributes:
    root: folder of the checkpoints.
    run_id: of the lineage.
    config: of the last of the checkpoints.
    hashes: of the corpora that were trained on, by name.
  """

  root: pathlib.Path
  run_id: str
  config: RunConfig
  hashes: dict[str, str]


def read_saved(
  workdir: pathlib.Path, steps: Sequence[int], field: str = 'steps'
) -> Saved:
  """Verifies checkpoints of a run, and reads what made them.

  Raises:
    ValueError: if one is missing or damaged, or this version cannot build the
      config.
  """
  for step in steps:
    check_saved(workdir, step, field)  # before any is read through
  *_, metadata = [saved_metadata(workdir, step) for step in steps]
  trained = metadata['config']
  return Saved(
    root=checkpoints_of(workdir),
    run_id=metadata['lineage']['run_id'],
    config=config_of(trained, f'{workdir}@{steps[-1]}'),
    hashes={name: found['hash'] for name, found in trained['corpora'].items()},
  )


def load_params(saved: Saved, step: int) -> Any:
  """The weights of a verified checkpoint, in NumPy arrays."""
  # On this machine's devices, whatever the mesh of the run was.
  abstract = abstract_state(saved.config, make_mesh(MeshConfig()))
  loaded = checkpoint.load(saved.root, step, {'params': abstract.params})
  return jax.device_get(loaded['params'])
