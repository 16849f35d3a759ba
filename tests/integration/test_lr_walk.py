"""One value walked from the flag to the parameters: the peak LR."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from experiments.flags import override
from tests.integration.tiny_run import get_config
from trainers.optimizer import Optax
from trainers.optimizer import applied_lrs
from trainers.optimizer import make_optimizer
from trainers.optimizer import schedules_of
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


def test_the_step_evaluates_the_schedule_once():
  """No other place could apply it, or log something else."""
  calls = 0

  @lrsched.schedule
  class Counted(lrsched.Schedule):
    lr: lrsched.LR

    def __call__(self, step):
      nonlocal calls
      calls += 1
      return lrsched.Constant(lr=self.lr)(step)

    def phases(self):
      return (lrsched.Phase('constant', 0, None),)

  optimizer = Optax(name='sgd', schedule=Counted(lr=0.1))
  tx = make_optimizer(optimizer, schedules_of(optimizer))
  state = tx.init(jnp.zeros(2))
  _, state = tx.update(jnp.ones(2), state, jnp.zeros(2))
  lrsched.applied_lr(state)
  assert calls == 1
