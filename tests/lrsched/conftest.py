"""The library's own code never relies on ranks being made equal silently."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(autouse=True)
def _ranks_are_explicit():
  with jax.numpy_rank_promotion('raise'):
    yield
