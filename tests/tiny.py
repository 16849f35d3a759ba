"""A run small enough for a test to train it, and how tests compare things."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import lrsched
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.optimizer import AdamW
from trainers.sources import TokenFile

VOCAB_SIZE = 64
WSD = lrsched.WSD(peak_lr=1e-2, warmup_steps=4, stable_steps=16, decay_steps=10)


def tiny_run(source: TokenFile, **changes: Any) -> RunConfig:
  """30 updates of a 6k-parameter model; `changes` are fields of RunConfig."""
  config = RunConfig(
    model=ModelConfig(
      vocab_size=VOCAB_SIZE, d_model=16, n_layers=1, n_heads=2, d_ff=32
    ),
    data=DataConfig(source=source, seq_len=16, batch_size=8),
    optimizer=AdamW(schedule=WSD),
    total_steps=30,
    ema_decay=0.9,
    eval=EvalConfig(every_steps=10, n_sequences=16, batch_size=16),
    checkpoint=CheckpointConfig(every_steps=5, keep_steps=(14,)),
    log=LogConfig(every_steps=1),
  )
  return dataclasses.replace(config, **changes)


def assert_same_bits(a: Any, b: Any) -> None:
  """Raises AssertionError naming the first leaf that differs in a bit."""
  leaves = jax.tree_util.tree_flatten_with_path(a)[0]
  for (path, x), y in zip(leaves, jax.tree.leaves(b), strict=True):
    same = np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert same, jax.tree_util.keystr(path)


def fingerprint(folder: pathlib.Path) -> dict[str, str]:
  """Every folder and file below a folder, with the hash of the content."""
  return {
    path.relative_to(folder).as_posix(): hashlib.sha256(
      path.read_bytes() if path.is_file() else b''
    ).hexdigest()
    for path in sorted(folder.rglob('*'))
  }


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
  """Names of the functions that are compiled inside the context."""
  names: list[str] = []

  def listen(event: str, seconds: float, **details: Any) -> None:
    del seconds
    if event == '/jax/core/compile/backend_compile_duration':
      names.append(details.get('fun_name', '?'))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield names
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
