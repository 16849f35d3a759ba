"""from_optax: the table is the schedule, as the optimizer reads it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from lrsched.interop import from_optax

SCHEDULES = {
  'number': optax.constant_schedule(0.1),
  'linear': optax.linear_schedule(0.1, 0.0, 50, 10),
  'cosine': optax.cosine_decay_schedule(0.1, 80, alpha=0.1),
  'polynomial': optax.polynomial_schedule(0.1, 0.01, 2.0, 60, 20),
  'exponential': optax.exponential_decay(0.1, 10, 0.5, staircase=True),
  'pieces': optax.piecewise_constant_schedule(0.1, {30: 0.1, 60: 0.5}),
  'warmup cosine': optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 90),
  'one cycle': optax.cosine_onecycle_schedule(90, 0.1),
  'sgdr': optax.sgdr_schedule(
    [
      {'init_value': 0.0, 'peak_value': p, 'warmup_steps': 5, 'decay_steps': 30}
      for p in (0.1, 0.05, 0.02)
    ]
  ),
  'own, with a branch': lambda t: jax.lax.cond(
    t < 20, lambda t: t / 20, lambda t: 1.0, t
  ),
  'ours': lrsched.Cosine(peak_lr=0.1, total_steps=70),
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_each_value_is_the_one_of_a_compiled_update(name):
  schedule = SCHEDULES[name]
  table = from_optax(schedule, 95)
  compiled = jax.jit(lambda t: jnp.asarray(schedule(t), jnp.float32))
  theirs = [float(compiled(t)) for t in range(96)]
  assert len(table.lrs) == 96
  # One program for all steps may round the last bit another way than one for
  # each.
  np.testing.assert_allclose(table.lrs, theirs, rtol=5e-7, atol=1e-9)
  np.testing.assert_array_equal(
    table(jnp.arange(96)), table.lrs.astype(np.float32)
  )
  assert float(table(10**6)) == np.float32(table.lrs[-1])
  assert lrsched.from_json(lrsched.to_json(table)) == table


def test_all_steps_are_one_program():
  traced = []

  def schedule(t):
    traced.append(t)
    return 1.0 / (1 + t)

  from_optax(schedule, 500)
  assert len(traced) == 1
  assert traced[0].shape == ()  # as an optimizer's count


@pytest.mark.parametrize(
  ('schedule', 'total_steps', 'said'),
  [
    (0.1, 10, r'schedule must be callable, got 0\.1.*lrsched\.Constant'),
    (optax.constant_schedule(0.1), 0, 'total_steps must be a whole number'),
    (optax.constant_schedule(0.1), 1.5, 'total_steps must be a whole number'),
    (optax.linear_schedule(1.0, -1.0, 4), 4, r'got -0\.5 at step 3'),
    (lambda t: 1.0 / (3 - t), 4, 'got inf at step 3'),
    (lambda t: jnp.log(2.0 - t), 4, r'got -inf at step 2'),
    (lambda t: jnp.ones(3) * t, 4, r'one real number .* got float32\[3\]'),
    (lambda t: t * 1j, 4, 'one real number'),
    (lambda t: t > 2, 4, 'one real number'),
  ],
)
def test_refusals(schedule, total_steps, said):
  with pytest.raises(ValueError, match=said):
    from_optax(schedule, total_steps)
