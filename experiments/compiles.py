"""The persistent compilation cache, and a count of what was not in it."""

from __future__ import annotations

import os
from typing import Any

import jax

MISS = '/jax/compilation_cache/cache_misses'
HIT = '/jax/compilation_cache/cache_hits'


class CompileCount:
  """Keeps every compiled program on disk, and counts hits and misses.

  Without minimum time or size, so that a resumed or branched run compiles
  nothing that the run before it had compiled.

  Attributes:
    misses: programs compiled in this process.
    hits: programs read from the cache.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    """Switches the cache on; call it before anything is compiled."""
    self.misses = self.hits = 0
    jax.config.update('jax_compilation_cache_dir', os.path.abspath(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    jax.monitoring.register_event_listener(self._count)

  def _count(self, event: str, **details: Any) -> None:
    del details
    self.misses += event == MISS
    self.hits += event == HIT

  def __str__(self) -> str:
    return f'{self.misses} programs compiled, {self.hits} from the cache'
