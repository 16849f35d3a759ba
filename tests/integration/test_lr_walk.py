"""One value walked from the flag to the parameters: the peak LR."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from experiments.flags import override
from tests.integration.tiny_run import get_config
from tests.integration.tiny_run import override_for_eight_steps
from tests.integration.tiny_run import rows_of
from tests.integration.tiny_run import write_text
from trainers.optimizer import AdamW
from trainers.optimizer import Optax
from trainers.optimizer import applied_lrs
from trainers.optimizer import make_optimizer
from trainers.optimizer import schedules_of
from trainers.train import run
from trainers.train_step import schedule_arrays

FLAGS = [
  'optimizer.schedule.peak_lr=3.7e-3',
  'optimizer.schedule.warmup_steps=7',
  'optimizer.schedule.stable_steps=13',
  'optimizer.schedule.decay_steps=10',
  'total_steps=30',
  'checkpoint.keep_steps=()',
]


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_logged_lr_schedule_and_movement_agree(dtype):
  """SGD on a linear loss: the parameters move by LR times a known gradient.

  They are reset to 0 before each step, or the rounding of their sum would be
  measured. A power of two as gradient makes bfloat16 exact but for the LR.
  """
  config = override(get_config(), FLAGS)
  spec = config.optimizer.schedule
  optimizer = Optax(name='sgd', schedule=spec)
  slope = jnp.asarray([1.0, -2.0, 0.5], dtype)

  @jax.jit
  def step(opt_state, schedules):
    tx = make_optimizer(optimizer, schedules)
    params = jnp.zeros(3, dtype)
    grads = jax.grad(lambda p: jnp.vdot(slope, p))(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  schedules = schedule_arrays(schedules_of(optimizer))
  opt_state = make_optimizer(optimizer, schedules).init(jnp.zeros(3, dtype))
  rounding = 1e-6 if dtype == jnp.float32 else 2.0**-8
  for t in range(35):
    params, opt_state = step(opt_state, schedules)
    logged = float(applied_lrs(optimizer, opt_state)['lr'])
    moved = -np.asarray(params, np.float64) / np.asarray(slope, np.float64)
    assert logged == pytest.approx(float(spec(t)), rel=1e-6)
    np.testing.assert_allclose(moved, logged, rtol=rounding)
  assert logged == 0.0
  assert float(spec(6)) == pytest.approx(3.7e-3, rel=1e-6)


CALLS: list[object] = []


@lrsched.schedule
class Watched(lrsched.Schedule):
  """A linear decay that keeps what it is called with."""

  peak_lr: lrsched.LR
  total_steps: lrsched.PositiveSteps

  def __call__(self, step):
    CALLS.append(step)
    spec = lrsched.as_arrays(self)
    left = jnp.maximum(spec.total_steps - step, 0)
    return spec.peak_lr * left / spec.total_steps

  def phases(self):
    return (lrsched.Phase('watched', 0, int(self.total_steps)),)


def watched(total_steps):
  config = override_for_eight_steps()
  schedule = Watched(peak_lr=1e-3, total_steps=total_steps)
  optimizer = AdamW(schedule=schedule)
  return dataclasses.replace(
    config, optimizer=optimizer, total_steps=total_steps
  )


def test_training_traces_the_schedule_and_never_calls_it(tmp_path, monkeypatch):
  """What is logged was applied: no second evaluation could differ from it."""
  write_text(tmp_path)
  monkeypatch.chdir(tmp_path)
  CALLS.clear()
  run(watched(8), tmp_path / 'run')
  # Once in the training step; once for the LR that is printed at the start.
  assert len(CALLS) == 2
  assert all(isinstance(step, jax.core.Tracer) for step in CALLS)
  run(watched(12), tmp_path / 'longer')
  assert len(CALLS) == 2
  for name, total_steps in (('run', 8), ('longer', 12)):
    logged = [r['lr'] for r in rows_of(tmp_path / name) if 'lr' in r]
    expected = [1e-3 * (1 - t / total_steps) for t in range(total_steps)]
    assert logged == pytest.approx(expected, rel=1e-6)
