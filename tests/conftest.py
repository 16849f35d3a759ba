"""What holds for every test, set before JAX looks for devices."""

from __future__ import annotations

import os

# Tests say what they mean on any machine: CPU, and nothing compiled before.
# Programs that a test starts inherit both.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)
