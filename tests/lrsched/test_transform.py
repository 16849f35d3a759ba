"""scale_by_lr: the LR that multiplies is the LR that is recorded."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from tests.registry import SCHEDULES
from tests.registry import WSD


@pytest.mark.parametrize('name', SCHEDULES)
def test_recorded_lr_is_the_schedule_bit_for_bit(name):
  spec = SCHEDULES[name]
  tx = lrsched.scale_by_lr(spec)

  def body(state, _):
    updates, state = tx.update(jnp.float32(1.0), state)
    return state, (updates, lrsched.applied_lr(state))

  state, (updates, lrs) = jax.lax.scan(
    body, tx.init(jnp.float32(0.0)), length=110
  )
  assert state.step == 110
  np.testing.assert_array_equal(updates, -lrs)
  np.testing.assert_allclose(lrs, spec(jnp.arange(110)), rtol=1e-6, atol=1e-12)


def test_adamw_chain_equals_optax_adamw():
  """Same numbers as optax's own path through scale_by_learning_rate."""
  params = {'w': jnp.linspace(-1, 1, 12).reshape(3, 4)}
  ours = optax.chain(
    optax.scale_by_adam(),
    optax.add_decayed_weights(1e-2),
    lrsched.scale_by_lr(WSD),
  )
  theirs = optax.adamw(WSD, weight_decay=1e-2)
  a, b = ours.init(params), theirs.init(params)
  for t in range(5):
    grads = jax.tree.map(lambda p, t=t: jnp.sin(p + t), params)
    ua, a = ours.update(grads, a, params)
    ub, b = theirs.update(grads, b, params)
    np.testing.assert_array_equal(ua['w'], ub['w'])


def test_bfloat16_updates_are_multiplied_in_float32():
  """A bfloat16 LR of 3e-4 would be 0.18 % off, whatever the update."""
  tx = lrsched.scale_by_lr(lrsched.Constant(lr=3e-4))
  update = jnp.full(4, 1.0, jnp.bfloat16)
  out, state = tx.update(update, tx.init(update))
  assert out.dtype == jnp.bfloat16
  assert lrsched.applied_lr(state) == jnp.float32(3e-4)
  # 1.1875 * 3e-4 lands in another bfloat16 than 1.1875 * bf16(3e-4).
  update = jnp.full(4, 1.1875, jnp.bfloat16)
  out, _ = tx.update(update, tx.init(update))
  right = jnp.bfloat16(-np.float32(3e-4) * np.float32(1.1875))
  wrong = -jnp.bfloat16(3e-4) * jnp.bfloat16(1.1875)
  assert right != wrong
  np.testing.assert_array_equal(out, jnp.full(4, right))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_state_tree_never_changes(dtype):
  """Shape, dtype and weak type, or a scan and a jit cache would notice."""
  tx = lrsched.scale_by_lr(lambda step: 1e-3)  # a weak Python float
  update = jnp.ones(3, dtype)
  before = tx.init(update)
  _, after = tx.update(update, before)
  describe = lambda s: jax.tree.map(
    lambda x: (x.shape, x.dtype, x.weak_type), s
  )
  assert describe(before) == describe(after)


def test_accumulation_advances_once_per_update():
  tx = optax.MultiSteps(
    lrsched.scale_by_lr(lrsched.Linear(peak_lr=1.0, total_steps=4)), 3
  )
  params = jnp.zeros(())
  state = tx.init(params)
  seen = []
  for _ in range(9):
    _, state = tx.update(jnp.ones(()), state, params)
    seen.append(float(lrsched.applied_lr(state)))
  assert seen == [0, 0, 1, 1, 1, 0.75, 0.75, 0.75, 0.5]


def test_a_skipped_update_does_not_advance():
  tx = optax.apply_if_finite(
    lrsched.scale_by_lr(lrsched.Linear(peak_lr=1.0, total_steps=4)), 5
  )
  state = tx.init(jnp.zeros(()))
  seen = []
  for grad in (1.0, np.nan, 1.0):
    _, state = tx.update(jnp.asarray(grad), state)
    seen.append(float(lrsched.applied_lr(state)))
  assert seen == [1.0, 1.0, 0.75]


def test_applied_lr_needs_one_state():
  params = {'a': jnp.ones(()), 'b': jnp.ones(())}
  with pytest.raises(ValueError, match=r'found 0; end the optax chain'):
    lrsched.applied_lr(optax.adam(1e-3).init(params))
  two = optax.partition(
    {
      'a': lrsched.scale_by_lr(lrsched.Constant(lr=1.0)),
      'b': lrsched.scale_by_lr(lrsched.Constant(lr=2.0)),
    },
    {'a': 'a', 'b': 'b'},
  )
  _, state = two.update(params, two.init(params))
  with pytest.raises(ValueError, match='found 2; pass the state of one'):
    lrsched.applied_lr(state)
  assert lrsched.applied_lr(state.inner_states['b']) == 2.0


def test_a_number_is_not_a_schedule():
  with pytest.raises(ValueError, match=r'use Constant\(lr='):
    lrsched.scale_by_lr(1e-3)


def test_a_sweep_of_peaks_through_the_optimizer_compiles_once():
  traces = 0

  @jax.jit
  def step(params, state, spec):
    nonlocal traces
    traces += 1
    tx = optax.chain(optax.scale_by_adam(), lrsched.scale_by_lr(spec))
    updates, state = tx.update(jnp.ones(3), state, params)
    return optax.apply_updates(params, updates), state

  tx = optax.chain(optax.scale_by_adam(), lrsched.scale_by_lr(WSD))
  for peak_lr in (1e-3, 2e-3, 1):
    spec = lrsched.WSD(
      peak_lr=peak_lr, warmup_steps=1, stable_steps=5, decay_steps=2
    )
    params = jnp.zeros(3)
    state = tx.init(params)
    for _ in range(2):
      params, state = step(params, state, lrsched.as_arrays(spec))
    np.testing.assert_allclose(params, -2 * peak_lr * np.ones(3), rtol=1e-4)
  assert traces == 1


def test_gradient_with_respect_to_the_peak_flows_through_an_update():
  def loss_after(spec):
    tx = lrsched.scale_by_lr(spec)
    params = jnp.float32(2.0)
    updates, _ = tx.update(params, tx.init(params))  # of params^2 / 2
    return 0.5 * (params + updates) ** 2

  grad = jax.grad(loss_after)(lrsched.Constant(lr=0.1))
  assert float(grad.lr) == pytest.approx(-2.0 * 0.9 * 2.0, rel=1e-6)
