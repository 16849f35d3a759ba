"""LAWA in the state: the right snapshots, in place, to the bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrsched.averaging import average
from tests.tiny import assert_same_bits
from tests.tiny import compilations
from trainers.averaging import Lawa
from trainers.averaging import LawaState
from trainers.averaging import init_lawa
from trainers.averaging import lawa_mean
from trainers.averaging import updated_lawa

LAWA = Lawa(every_steps=3, window=4)


def weights(step, dtype='float32'):
  """Weights of a run after an update; each number tells the step."""
  return {
    'a': {'kernel': jnp.full((4, 2), 1.0 + step / 64, dtype)},
    'b': [jnp.full(3, -float(step), dtype)],
  }


def program(config):
  """A donated step, as training has it: new weights, then the ring."""

  def step(state, new, i):
    _, lawa = state
    return new, updated_lawa(lawa, new, i + 1, config)

  return jax.jit(step, donate_argnums=0)


def after(steps, config=LAWA, dtype='float32', state=None, first=0):
  """The state after `steps` updates."""
  step = program(config)
  start = weights(0, dtype)
  state = state or (start, init_lawa(start, config))
  for i in range(first, steps):
    state = step(state, weights(i + 1, dtype), np.int32(i))
  return state


@pytest.mark.parametrize(
  ('steps', 'snapshots'),
  [
    (0, ()),
    (2, ()),
    (3, (3,)),
    (8, (3, 6)),
    (12, (3, 6, 9, 12)),
    (14, (3, 6, 9, 12)),
    (15, (6, 9, 12, 15)),
    (40, (30, 33, 36, 39)),
  ],
)
def test_the_mean_is_of_the_latest_snapshots(steps, snapshots):
  params, lawa = after(steps)
  assert lawa.taken == steps // 3
  # Sums of four numbers with few digits are exact in any order.
  found = jax.jit(lawa_mean)(lawa, params)
  if not snapshots:
    assert_same_bits(found, weights(steps))
    return
  trees = [weights(s) for s in snapshots]
  assert_same_bits(found, average(trees, [1 / len(trees)] * len(trees)))


def test_a_window_of_one_is_the_last_snapshot():
  params, lawa = after(8, Lawa(every_steps=5, window=1))
  assert_same_bits(lawa_mean(lawa, params), weights(5))


def test_a_mean_of_every_update_lags_by_nothing():
  params, lawa = after(6, Lawa(every_steps=1, window=1))
  assert_same_bits(lawa_mean(lawa, params), params)


def test_the_tree_never_changes_shape_or_dtype():
  start = weights(0, 'bfloat16')
  kinds = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  empty = init_lawa(start, LAWA)
  params, lawa = after(20, dtype='bfloat16')
  assert kinds(lawa) == kinds(empty)
  assert lawa.ring['a']['kernel'].shape == (4, 4, 2)
  assert kinds(lawa_mean(lawa, params)) == kinds(start)


def test_bfloat16_weights_are_averaged_in_float32():
  """A sum of five needs more digits than bfloat16 has, and is rounded once."""
  lawa = init_lawa(jnp.zeros(256, 'bfloat16'), Lawa(every_steps=1))
  taken = np.random.default_rng(0).uniform(1, 2, (5, 256))
  taken = jnp.asarray(taken, 'bfloat16')
  lawa = lawa._replace(ring=taken, taken=jnp.int32(5))
  exact = np.float64(taken).mean(0)
  found = lawa_mean(lawa, taken[0])
  np.testing.assert_array_equal(found, jnp.asarray(exact, 'bfloat16'))


def test_what_is_not_finite_leaves_with_its_snapshot():
  lawa = init_lawa(jnp.zeros(2), LAWA)
  update = jax.jit(functools.partial(updated_lawa, config=LAWA))
  for step in range(1, 16):
    params = jnp.full(2, np.nan if step == 3 else 1.0)
    lawa = update(lawa, params, step)
  np.testing.assert_array_equal(lawa_mean(lawa, params), 1.0)


def test_a_restored_ring_goes_on_to_the_bit():
  saved = jax.tree.map(np.asarray, after(7))
  params, lawa = jax.tree.map(jnp.asarray, saved)
  resumed = after(25, state=(params, LawaState(*lawa)), first=7)
  assert_same_bits(resumed, after(25))


def test_one_program_that_writes_in_place():
  step = program(LAWA)
  start = weights(0)
  state = (start, init_lawa(start, LAWA))
  new = weights(1)
  with compilations() as names:
    for i in range(15):
      state = step(state, jax.tree.map(jnp.copy, new), np.int32(i))
  assert names.count('jit(step)') + names.count('step') == 1, names
  size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
  big = {'w': jnp.zeros((256, 256))}
  args = (big, init_lawa(big, LAWA)), big, np.int32(0)
  compiled = step.lower(*args).compile()
  # Not a select, which would read and write where nothing is due.
  assert ' conditional(' in compiled.as_text()
  memory = compiled.memory_analysis()
  assert memory.alias_size_in_bytes >= size(args[0][1])
  # Less than the weights: neither a slot nor the ring is copied.
  assert memory.temp_size_in_bytes < size(big) / 4


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'every_steps': 0}, r'Lawa.every_steps must be >= 1, got 0'),
    ({'every_steps': 5, 'window': 0}, r'Lawa.window must be >= 1, got 0'),
    ({'every_steps': 2.5}, r'Lawa.every_steps must be int, got 2.5'),
  ],
)
def test_wrong_fields_are_named(fields, said):
  with pytest.raises(ValueError, match=said):
    Lawa(**fields)
