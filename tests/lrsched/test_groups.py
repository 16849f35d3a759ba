"""scale_by_group_lr: each parameter by the LR of the first pattern it fits."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from tests.registry import WSD

SLOW = lrsched.Scaled(schedule=WSD, factor=0.1)
FALLING = lrsched.Linear(peak_lr=1.0, total_steps=4)
GROUPS = {'embedding': None, 'blocks/0/.*': SLOW, '.*': WSD}


def params(dtype=jnp.float32):
  one = lambda *shape: jnp.ones(shape, dtype)
  return {
    'embedding': one(5, 2),
    'blocks': [{'kernel': one(2, 2)}, {'kernel': one(2, 2)}],
    'out': {'bias': one(5), 'embedding': one(2)},
  }


def by_path(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in leaves
  }


def test_each_parameter_moves_by_the_recorded_lr_of_its_group():
  tx = lrsched.scale_by_group_lr(GROUPS)

  def body(state, _):
    updates, state = tx.update(params(), state)
    return state, (updates, lrsched.applied_lrs(state))

  state, (updates, lrs) = jax.lax.scan(body, tx.init(params()), length=110)
  assert state.step == 110
  steps = np.arange(110)
  np.testing.assert_array_equal(lrs['embedding'], np.zeros(110))
  np.testing.assert_allclose(lrs['blocks/0/.*'], SLOW(steps), rtol=1e-6)
  np.testing.assert_allclose(lrs['.*'], WSD(steps), rtol=1e-6)
  moved = by_path(jax.tree.map(lambda u: u.reshape(110, -1), updates))
  decided = {
    'embedding': 'embedding',
    'blocks/0/kernel': 'blocks/0/.*',
    'blocks/1/kernel': '.*',
    'out/bias': '.*',
    'out/embedding': '.*',  # a pattern matches the whole path
  }
  assert moved.keys() == decided.keys()
  for path, pattern in decided.items():
    expected = np.broadcast_to(-lrs[pattern][:, None], moved[path].shape)
    np.testing.assert_array_equal(moved[path], expected, err_msg=path)


def test_one_group_is_scale_by_lr_bit_for_bit():
  one = optax.chain(optax.scale_by_adam(), lrsched.scale_by_lr(WSD))
  all_of_it = optax.chain(
    optax.scale_by_adam(), lrsched.scale_by_group_lr({'.*': WSD})
  )
  for dtype in (jnp.float32, jnp.bfloat16):
    grads = jax.tree.map(lambda x: jnp.sin(x * 3), params(dtype))
    a, b = one.init(grads), all_of_it.init(grads)
    for _ in range(5):
      ua, a = one.update(grads, a)
      ub, b = all_of_it.update(grads, b)
      jax.tree.map(np.testing.assert_array_equal, ua, ub)
    assert lrsched.applied_lr(a) == lrsched.applied_lrs(b)['.*'] > 0


def test_bfloat16_updates_are_multiplied_in_float32():
  tx = lrsched.scale_by_group_lr({'.*': lrsched.Constant(lr=3e-4)})
  update = jnp.full(4, 1.1875, jnp.bfloat16)
  out, _ = tx.update(update, tx.init(update))
  right = jnp.bfloat16(-np.float32(3e-4) * np.float32(1.1875))
  assert right != -jnp.bfloat16(3e-4) * jnp.bfloat16(1.1875)
  np.testing.assert_array_equal(out, jnp.full(4, right))
  assert out.dtype == jnp.bfloat16


@pytest.mark.parametrize('gradient', [1.0, np.nan, np.inf])
def test_a_frozen_group_stays_bit_for_bit(gradient):
  """Also where weight decay or a gradient without a value comes first."""
  tx = optax.chain(
    optax.scale_by_adam(),
    optax.add_decayed_weights(0.5),
    lrsched.scale_by_group_lr({'a': None, 'b': lrsched.Constant(lr=0.1)}),
  )
  before = {'a': jnp.linspace(-1, 1, 7), 'b': jnp.linspace(-1, 1, 7)}
  after, state = before, tx.init(before)
  for _ in range(3):
    grads = {'a': jnp.full(7, gradient), 'b': jnp.ones(7)}
    updates, state = tx.update(grads, state, after)
    np.testing.assert_array_equal(updates['a'], np.zeros(7))
    after = optax.apply_updates(after, updates)
  np.testing.assert_array_equal(after['a'], before['a'])
  assert np.all(after['b'] != before['b'])
  assert np.all(np.isfinite(after['b']))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_state_tree_never_changes(dtype):
  """Shape, dtype, weak type and order, also where a group is unfrozen."""
  describe = lambda s: (
    jax.tree.structure(s),
    [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(s)],
  )
  states = []
  for first in (None, lambda step: 1e-3):  # a weak Python float
    tx = lrsched.scale_by_group_lr({'embedding': first, '.*': WSD})
    states.append(tx.init(params(dtype)))
    _, state = tx.update(params(dtype), states[-1])
    states.append(jax.jit(tx.update)(params(dtype), state)[1])
  assert all(describe(s) == describe(states[0]) for s in states)
  assert states[-1].step == 2


def test_one_count_advances_once_per_update_for_all_groups():
  tx = optax.MultiSteps(
    lrsched.scale_by_group_lr({'a': lrsched.Constant(lr=2.0), 'b': FALLING}), 2
  )
  tree = {'a': jnp.ones(()), 'b': jnp.ones(())}
  state = tx.init(tree)
  seen = []
  for _ in range(6):
    _, state = tx.update(tree, state, tree)
    lrs = lrsched.applied_lrs(state)
    seen.append((float(lrs['a']), float(lrs['b'])))
  assert seen == [(0, 0), (2, 1), (2, 1), (2, 0.75), (2, 0.75), (2, 0.5)]


def test_layerwise_decay_is_scaled_schedules():
  n_layers = 3
  groups = {
    f'blocks/{i}/.*': lrsched.Scaled(schedule=FALLING, factor=0.5**depth)
    for i, depth in enumerate(reversed(range(n_layers)))
  }
  tree = {'blocks': [{'kernel': jnp.ones(2)} for _ in range(n_layers)]}
  tx = lrsched.scale_by_group_lr(groups)
  updates, _ = tx.update(tree, tx.init(tree))
  moved = [-float(block['kernel'][0]) for block in updates['blocks']]
  assert moved == [0.25, 0.5, 1.0]


PATTERNS = ('out/.*', 'embedding', 'blocks/.*')  # not sorted


def test_a_sweep_of_peaks_and_factors_compiles_once():
  traces = 0

  @jax.jit
  def step(tree, state, specs):
    nonlocal traces
    traces += 1
    tx = lrsched.scale_by_group_lr({p: specs[p] for p in PATTERNS})
    updates, state = tx.update(params(), state)
    return optax.apply_updates(tree, updates), state

  for peak_lr in (0.25, 0.5, 1):
    base = lrsched.Linear(peak_lr=peak_lr, total_steps=4)
    scaled = lambda factor, base=base: lrsched.as_arrays(
      lrsched.Scaled(schedule=base, factor=factor)
    )
    specs = {
      'out/.*': scaled(2 * peak_lr),
      'embedding': None,
      'blocks/.*': scaled(1),
    }
    tx = lrsched.scale_by_group_lr(specs)
    tree, state = params(), tx.init(params())
    for _ in range(2):
      tree, state = step(tree, state, specs)
    lrs = lrsched.applied_lrs(state)
    assert list(lrs) == list(PATTERNS)
    assert float(lrs['out/.*']) == 0.75 * peak_lr * 2 * peak_lr
    assert float(lrs['embedding']) == 0.0
    assert float(lrs['blocks/.*']) == 0.75 * peak_lr
  assert traces == 1


def test_patterns_that_jax_has_sorted_are_an_error():
  """'.*' would come first, and take everything, if nobody looked."""
  groups = {'embedding': SLOW, '.*': WSD}
  state = lrsched.scale_by_group_lr(groups).init(params())

  @jax.jit
  def step(state, specs):
    return lrsched.scale_by_group_lr(specs).update(params(), state)[1]

  with pytest.raises(ValueError, match=r"\['embedding', '\.\*'\], in that"):
    step(state, groups)
  assert step(state, OrderedDict(groups)).step == 1


def test_the_state_of_other_groups_is_an_error():
  state = lrsched.scale_by_group_lr({'.*': WSD}).init(params())
  tx = lrsched.scale_by_group_lr(GROUPS)
  with pytest.raises(ValueError, match='must have the patterns of the state'):
    tx.update(params(), state)


def test_gradient_with_respect_to_a_factor_flows_through_an_update():
  def moved(spec):
    tx = lrsched.scale_by_group_lr({'a': spec, 'b': FALLING})
    tree = {'a': jnp.float32(3.0), 'b': jnp.float32(1.0)}
    updates, _ = tx.update(tree, tx.init(tree))
    return updates['a'] + updates['b']

  grad = jax.grad(moved, allow_int=True)(
    lrsched.Scaled(schedule=FALLING, factor=0.5)
  )
  assert float(grad.factor) == -3.0


@pytest.mark.parametrize(
  ('groups', 'said'),
  [
    (
      {'embedding': WSD},
      r"cover every parameter, but 4 of 5 match no pattern: 'blocks/0/kernel', "
      r"'blocks/1/kernel', 'out/bias', \.\.\.; .* a last '\.\*'",
    ),
    (
      {'out/.*': WSD, 'blocks/.*': WSD},
      "1 of 5 match no .*: 'embedding';",
    ),
    (
      {'embeding': None, '.*': WSD},
      r"groups\['embeding'\] must be .* it matches no path, such as 'blocks/0/",
    ),
    (
      {'.*': WSD, 'embedding': None},
      r"groups\['embedding'\] must be the first match of a parameter, but "
      r"'\.\*' before it takes all that it matches; move it up, or remove it",
    ),
    (
      {'.*0.*': WSD, 'blocks/1.*': WSD, 'blocks/.*': WSD, '.*': WSD},
      r"groups\['blocks/\.\*'\].*'\.\*0\.\*', 'blocks/1\.\*' before it",
    ),
  ],
)
def test_patterns_must_cover_all_and_each_decide_for_one(groups, said):
  """Found from shapes alone."""
  tx = lrsched.scale_by_group_lr(groups)
  with pytest.raises(ValueError, match=said):
    jax.eval_shape(tx.init, jax.eval_shape(params))


@pytest.mark.parametrize(
  ('groups', 'said'),
  [
    ({}, 'groups must map patterns of paths to schedules, got {}'),
    (WSD, 'groups must map patterns of paths to schedules, got WSD'),
    ({'a': 1e-3}, r"groups\['a'\] must .* got 0.001; .* use Constant\(lr="),
    ({'(': WSD}, r"must be a regular expression, got '\(' \(missing"),
    ({3: WSD}, 'must be a regular expression, got 3'),
  ],
)
def test_what_is_no_group_is_an_error(groups, said):
  with pytest.raises(ValueError, match=said):
    lrsched.scale_by_group_lr(groups)


def test_applied_lrs_needs_one_state():
  with pytest.raises(ValueError, match='found 0; end the optax chain with'):
    lrsched.applied_lrs(lrsched.scale_by_lr(WSD).init(params()))
  state = lrsched.scale_by_group_lr({'.*': WSD}).init(params())
  with pytest.raises(ValueError, match='found 2; pass the part'):
    lrsched.applied_lrs((state, state))
