"""A real run with a batch ramp: its schedule, its samples, and its restart."""

import dataclasses

import numpy as np
import pytest

import lrsched
from tests.integration import tiny_run
from trainers.horizon import BatchRamp
from trainers.train import run

RAMP = BatchRamp(boundaries=(8, 16), batch_sizes=(2, 4, 8))
# In updates of 8 sequences: 5 + 19 + 6 = 30, of which the ramp's 16 see 6.
FULL = lrsched.WSD(peak_lr=1e-3, warmup_steps=5, stable_steps=19, decay_steps=6)


def config_of(total_steps):
  config = tiny_run.get_config()
  schedule = RAMP.schedule(FULL)
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, ramp=RAMP),
    optimizer=dataclasses.replace(config.optimizer, schedule=schedule),
    total_steps=total_steps,
    checkpoint=dataclasses.replace(
      config.checkpoint, every_steps=12, keep_steps=()
    ),
  )


@pytest.mark.slow
def test_a_run_with_a_ramp_ends_with_its_decay_and_resumes(
  tmp_path, monkeypatch
):
  tiny_run.write_text(tmp_path)
  monkeypatch.chdir(tmp_path)
  total_steps = RAMP.schedule(FULL).end_step
  assert total_steps == 16 + 30 - 6
  whole = tmp_path / 'whole'
  run(config_of(total_steps), whole)
  rows = tiny_run.rows_of(whole)
  train = [r for r in rows if 'lr' in r]
  expected = RAMP.schedule(FULL)(np.arange(total_steps))
  np.testing.assert_allclose([r['lr'] for r in train], expected, rtol=1e-6)
  assert 0 < train[-1]['lr'] < 2e-4  # one update above 0
  # 30 full batches of 8 sequences were seen, whatever the ramp.
  data = tiny_run.state_of(whole, total_steps)['data']
  assert data == 30 * 8

  # Stopped inside the second stage, and started again.
  stopped = tmp_path / 'stopped'
  run(config_of(15), stopped)
  run(config_of(total_steps), stopped, restore='replace')
  a = tiny_run.state_of(whole, total_steps)
  b = tiny_run.state_of(stopped, total_steps)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_schedule_on_another_ramp_is_refused():
  config = config_of(30)
  with pytest.raises(
    ValueError, match=r'optimizer\.schedule must have the ramp'
  ):
    dataclasses.replace(
      config, data=dataclasses.replace(config.data, ramp=None)
    )


def test_a_ramp_inside_another_schedule_is_found():
  config = config_of(30)
  other = BatchRamp(boundaries=(4,), batch_sizes=(4, 8)).schedule(FULL)
  schedule = lrsched.Scaled(schedule=other, factor=0.5)
  optimizer = dataclasses.replace(config.optimizer, schedule=schedule)
  with pytest.raises(ValueError, match='its Ramped 0 must have the ramp'):
    dataclasses.replace(config, optimizer=optimizer)
