"""Launches a run from a config file.

  python -m experiments.launch --config=experiments/wen2024_wsds.py \
    --workdir=runs/a --set=optimizer.schedule.peak_lr=1e-3

The same command again resumes the run where it was stopped. A decay branched
off a checkpoint of a WSD run is the same config with other lengths:

  python -m experiments.launch --config=CONFIG_WITH_WSD.py \
    --workdir=runs/b --branch_from=runs/a@900 --set=total_steps=1000 \
    --set=optimizer.schedule.stable_steps=870 \
    --set=optimizer.schedule.decay_steps=100

for a warmup of 30 steps: warmup and stable phase end at the branch.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.compiles import CompileCount
from experiments.flags import load_config
from experiments.flags import override
from trainers.metrics import read_metrics
from trainers.orders import STOP
from trainers.orders import Stopped
from trainers.train import run

CONFIG = flags.DEFINE_string(
  'config',
  None,
  'Python file whose get_config() returns a RunConfig.',
  required=True,
)
WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run.', required=True
)
SET = flags.DEFINE_multi_string(
  'set', [], 'Override, path.to.field=value; repeatable.'
)
BRANCH_FROM = flags.DEFINE_string(
  'branch_from', None, 'DIR@STEP: start as a branch of that checkpoint.'
)
CARRY = flags.DEFINE_enum(
  'carry',
  'all',
  list(lrsched.CARRIES),
  'What a branch takes along: no_optimizer begins with a new optimizer state, '
  'weights with step 0 too.',
)
INIT_FROM = flags.DEFINE_string(
  'init_from', None, 'An .npz of weights, by parameter path, to begin with.'
)
RESTORE = flags.DEFINE_enum(
  'restore',
  None,
  ['resume', 'replace'],
  'Demand a run in workdir; replace accepts another schedule or length.',
)
MULTIHOST = flags.DEFINE_bool(
  'multihost',
  False,
  'One of several processes of a run, on a pod or cluster.',
)
COMPILE_CACHE = flags.DEFINE_string(
  'compile_cache', 'compile-cache', 'Folder of compiled programs.'
)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; settings need --set=')
  logging.set_verbosity(logging.ERROR)  # of Orbax and jax; ours is printed
  compiles = CompileCount(COMPILE_CACHE.value)
  if MULTIHOST.value:
    # Its handler would swallow a SIGTERM that comes before the run listens.
    jax.config.update('jax_enable_preemption_service', False)
    jax.distributed.initialize()  # finds the others by the cluster's own means
  workdir = pathlib.Path(WORKDIR.value)
  try:
    result = run(
      override(load_config(CONFIG.value), SET.value),
      workdir,
      branch_from=BRANCH_FROM.value,
      carry=CARRY.value,  # type: ignore[arg-type]  # the enum checked it
      init_from=INIT_FROM.value,
      restore=RESTORE.value,  # type: ignore[arg-type]  # the enum checked it
    )
    # A decay that was begun on an order ends elsewhere than the config says.
    end_step = read_metrics(workdir)[1][-1]['step']
  except (ValueError, OSError, FloatingPointError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)
  except Stopped as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(128 + STOP)  # as of a process that the signal ended
  print(
    f'{workdir}: step {end_step}, validation loss '
    f'{result.mean:.4f} +- {result.standard_error:.4f} nats/token; {compiles}'
  )


if __name__ == '__main__':
  jax.config.config_with_absl()
  app.run(main)
