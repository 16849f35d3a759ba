"""Two processes of one run, joined over a local socket."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.integration import tiny_run

PROGRAM = """
import pathlib, sys
import jax
port, rank, steps = sys.argv[1:]
jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank))
from experiments.flags import override
from tests.integration import tiny_run
from trainers.train import run
config = tiny_run.override_for_eight_steps()
settings = ['checkpoint.every_steps=4', f'total_steps={steps}']
restore = None if steps == '4' else 'replace'
run(override(config, settings), pathlib.Path('two'), restore=restore)
"""


def run_two(folder, steps):
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    port = listener.getsockname()[1]
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', PROGRAM, str(port), str(rank), str(steps)],
      cwd=folder,
      env=tiny_run.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(2)
  ]
  for process in processes:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume(tmp_path):
  """Four updates, then four more from the checkpoint that both wrote."""
  tiny_run.write_text(tmp_path)
  run_two(tmp_path, 4)
  run_two(tmp_path, 8)
  settings = [
    '--set=total_steps=8',
    '--set=optimizer.schedule.warmup_steps=2',
    '--set=checkpoint.keep_steps=()',
    '--set=eval.every_steps=4',
  ]
  one = tiny_run.launch(tmp_path, 'one', *settings)
  assert one.returncode == 0, one.stderr
  for name in ('loss', 'eval_loss'):
    a, b = (
      np.array([r[name] for r in tiny_run.rows_of(tmp_path / run) if name in r])
      for run in ('one', 'two')
    )
    assert len(a) == len(b) == {'loss': 8, 'eval_loss': 2}[name]
    # Sums in another order.
    np.testing.assert_allclose(b, a, rtol=1e-4)
