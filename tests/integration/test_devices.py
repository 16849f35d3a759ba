"""One program on one device and on eight: the same losses."""

import numpy as np
import pytest

from tests.integration import tiny_run

TWENTY = (
  '--set=total_steps=20',
  '--set=optimizer.schedule.warmup_steps=2',
  '--set=checkpoint.keep_steps=()',
  '--set=eval.every_steps=10',
)
EIGHT = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
CUBE = ('--set=mesh.fsdp=2', '--set=mesh.tensor=2')  # and data=2, what is left


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  one = tiny_run.launch(folder, 'one', *TWENTY)
  assert one.returncode == 0, one.stderr
  cube = tiny_run.launch(folder, 'cube', *TWENTY, *CUBE, **EIGHT)
  assert cube.returncode == 0, cube.stderr
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('name', ['loss', 'eval_loss', 'grad_norm'])
def test_eight_devices_train_as_one(folder, name):
  """Sums in another order: 1e-4 over 20 float32 steps at a peak of 1e-3."""
  one, cube = (
    np.array([r[name] for r in tiny_run.rows_of(folder / run) if name in r])
    for run in ('one', 'cube')
  )
  assert len(one) == {'eval_loss': 2}.get(name, 20)
  np.testing.assert_allclose(cube, one, rtol=1e-4)


@pytest.mark.slow
def test_the_lr_is_the_same_to_the_bit(folder):
  one, cube = (
    [r['lr'] for r in tiny_run.rows_of(folder / run) if 'lr' in r]
    for run in ('one', 'cube')
  )
  assert one == cube


@pytest.mark.slow
def test_a_run_moves_to_another_mesh_when_asked_to(folder):
  """From eight devices to one, with its checkpoint; never by itself."""
  longer = [f.replace('total_steps=20', 'total_steps=25') for f in TWENTY]
  refused = tiny_run.launch(folder, 'cube', *longer)
  assert refused.returncode == 1
  assert 'config.mesh.fsdp: 2 -> 1' in refused.stderr
  done = tiny_run.launch(folder, 'cube', *longer, '--restore=replace')
  assert done.returncode == 0, done.stderr
  whole = tiny_run.launch(folder, 'one', *longer, '--restore=replace')
  assert whole.returncode == 0, whole.stderr
  one, cube = (
    np.array([r['loss'] for r in tiny_run.rows_of(folder / run) if 'loss' in r])
    for run in ('one', 'cube')
  )
  assert len(one) == 25
  np.testing.assert_allclose(cube, one, rtol=1e-4)


def test_a_batch_that_does_not_divide_is_refused_before_anything(folder):
  done = tiny_run.launch(
    folder, 'odd', '--set=data.batch_size=6', *TWENTY, *CUBE, **EIGHT
  )
  assert done.returncode == 1
  assert 'batch_size must divide over 1 accumulation steps x 4' in done.stderr
  assert not (folder / 'odd').exists()
