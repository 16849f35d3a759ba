"""What holds for every test, set before JAX looks for devices."""

from __future__ import annotations

import os

import hypothesis

# Tests say what they mean on any machine: CPU, and nothing compiled before.
# Programs that a test starts inherit both.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)

# The same examples on every run, and no limit on the time one takes: a failure
# is then about the code, not about the machine or the day.
hypothesis.settings.register_profile(
  'repeatable', derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile('repeatable')
