"""Each configured optimizer is the optax one it names, with our schedule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from tests.tiny import WSD
from tests.tiny import tiny_run
from trainers.optimizer import AdamW
from trainers.optimizer import Muon
from trainers.optimizer import Optax
from trainers.optimizer import applied_lrs
from trainers.optimizer import make_optimizer
from trainers.optimizer import schedules_of
from trainers.sources import TokenFile
from trainers.train_step import init_state

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
COSINE = lrsched.Cosine(peak_lr=1e-2, total_steps=8)
SLOW = lrsched.Constant(lr=1e-4)


def random_tree(seed, scale=1.0):
  """Arrays with the names of a model of two blocks, of fewer kinds."""
  rng = np.random.default_rng(seed)
  array = lambda *shape: rng.normal(0, scale, shape).astype(np.float32)
  block = lambda: {
    'attention': {
      'query': {'kernel': array(4, 4)},
      'query_norm': {'scale': array(2)},
    },
    'attention_norm': {'scale': array(4)},
    'feed_forward': {'up': {'kernel': array(4, 16)}},
  }
  return {
    'blocks': {0: block(), 1: block()},
    'embedding': array(8, 4),
    'final_norm': {'scale': array(4)},
    'output': {'kernel': array(4, 8)},
  }


PARAMS = random_tree(0)
MATRICES = {
  f'blocks/{i}/{name}/kernel'
  for i in (0, 1)
  for name in ('attention/query', 'feed_forward/up')
}


def by_name(tree):
  paths = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in paths
  }


def walk(tx, params=PARAMS, n_steps=5, scale=1.0):
  """Parameters after some updates with random gradients, and the state."""
  grads = [random_tree(i + 1, scale) for i in range(n_steps)]

  @jax.jit
  def run(params, grads):
    def update(carry, grads):
      params, state = carry
      updates, state = tx.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(update, (params, tx.init(params)), grads)[0]

  stacked = jax.tree.map(lambda *g: np.stack(g), *grads)
  params, state = jax.device_get(run(params, stacked))
  return by_name(params), state


def ours(optimizer):
  return make_optimizer(optimizer, schedules_of(optimizer))


def assert_equal(a, b, rtol=1e-6):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_allclose(
      a[name], b[name], rtol=rtol, atol=1e-8, err_msg=name
    )


@pytest.mark.parametrize('clip_norm', [1e-4, None])
def test_adamw_is_optax_adamw_after_clipping(clip_norm):
  config = AdamW(
    schedule=COSINE,
    b1=0.8,
    b2=0.9,
    eps=1e-6,
    weight_decay=0.3,
    clip_norm=clip_norm,
  )
  theirs = optax.adamw(
    COSINE,
    b1=0.8,
    b2=0.9,
    eps=1e-6,
    weight_decay=0.3,
    mask=lambda tree: jax.tree_util.tree_map_with_path(
      lambda path, _: path[-1].key != 'scale', tree
    ),
  )
  if clip_norm is not None:
    theirs = optax.chain(optax.clip_by_global_norm(clip_norm), theirs)
  # Small gradients: Adam divides large ones, and their clipping, away.
  found, state = walk(ours(config), scale=1e-4)
  expected, _ = walk(theirs, scale=1e-4)
  assert_equal(found, expected)
  assert applied_lrs(config, state) == {'lr': COSINE(4)}


def test_weight_decay_leaves_norm_scales_alone():
  config = AdamW(schedule=lrsched.Constant(lr=0.1), weight_decay=0.5)
  after, _ = walk(ours(config), n_steps=1, scale=0.0)
  for name, before in by_name(PARAMS).items():
    factor = 1.0 if name.endswith('scale') else 1 - 0.1 * 0.5
    np.testing.assert_allclose(after[name], factor * before, rtol=1e-6)


MUON = Muon(schedule=COSINE, adam_schedule=SLOW, clip_norm=None)


def test_muon_updates_matrices_of_blocks_and_adam_the_rest():
  found, state = walk(ours(MUON))
  adam, _ = walk(ours(AdamW(schedule=SLOW, clip_norm=None)))
  same = {n for n in found if np.allclose(found[n], adam[n], rtol=1e-6, atol=0)}
  assert same == found.keys() - MATRICES
  assert applied_lrs(MUON, state) == {'lr': COSINE(4), 'lr_adam': SLOW(4)}


def test_the_matrices_of_muon_are_updated_as_by_optax():
  axes = optax.contrib.MuonDimensionNumbers()
  theirs = optax.contrib.muon(
    COSINE,
    weight_decay=0.1,
    muon_weight_dimension_numbers=lambda tree: jax.tree_util.tree_map_with_path(
      lambda path, x: axes if path[0].key == 'blocks' and x.ndim == 2 else None,
      tree,
    ),
  )
  found, _ = walk(ours(MUON))
  expected, _ = walk(theirs)
  assert_equal(
    {name: found[name] for name in MATRICES},
    {name: expected[name] for name in MATRICES},
  )


def test_muon_treats_stacked_layers_as_a_batch_of_matrices():
  stacked = np.random.default_rng(0).normal(0, 1, (3, 4, 6)).astype(np.float32)

  @jax.jit
  def update(x):
    tx = ours(MUON)
    tree = {'blocks': {'up': {'kernel': x}}}
    return tx.update(tree, tx.init(tree), tree)[0]['blocks']['up']['kernel']

  for i, found in enumerate(update(stacked)):
    np.testing.assert_allclose(found, update(stacked[i]), rtol=1e-3, atol=1e-6)


def test_muon_clips_the_gradient_before_it_is_shared_out():
  clipped = dataclasses.replace(MUON, clip_norm=1e-6, eps=1.0, weight_decay=0.0)
  after, _ = walk(ours(clipped), n_steps=1)
  moved = {
    n: np.linalg.norm(after[n] - before)
    for n, before in by_name(PARAMS).items()
  }
  # With so large an eps Adam follows the size of the gradient; Muon never does.
  assert moved['embedding'] < 1e-9
  assert min(moved[n] for n in MATRICES) > 1e-3


@pytest.mark.parametrize(
  'model', [{}, {'scan_layers': True}, {'activation': 'gelu'}]
)
def test_every_matrix_of_a_block_of_the_model_is_muons(model):
  config = dataclasses.replace(
    RUN, model=dataclasses.replace(RUN.model, n_layers=2, **model)
  )
  params = jax.eval_shape(lambda: init_state(config, config.seed).params)
  state = jax.eval_shape(ours(MUON).init, params)
  groups = state[-1].inner_states
  matrices = {n for n in by_name(params) if n.endswith('kernel')}
  assert matrices
  for group, expected in (
    ('muon', matrices),
    ('adam', by_name(params).keys() - matrices),
  ):
    held = by_name(groups[group])
    assert {n for n in by_name(params) if any(h.endswith(n) for h in held)} == (
      expected
    )


@pytest.mark.parametrize(
  ('name', 'arguments'),
  [
    ('lion', {'b1': 0.9, 'b2': 0.98, 'weight_decay': 0.1}),
    ('sgd', {'momentum': 0.9, 'nesterov': True}),
    ('adafactor', {'min_dim_size_to_factor': 4}),
    ('ademamix', {}),  # of optax.contrib
  ],
)
def test_an_optimizer_by_name_is_optaxs_own(name, arguments):
  where = optax if hasattr(optax, name) else optax.contrib
  theirs = getattr(where, name)(COSINE, **arguments)
  config = Optax(name=name, schedule=COSINE, arguments=arguments)
  found, state = walk(ours(config))
  expected, _ = walk(theirs)
  assert_equal(found, expected, rtol=1e-5)
  assert applied_lrs(config, state) == {'lr': COSINE(4)}


def test_an_optimizer_by_name_is_clipped_first():
  config = Optax(name='sgd', schedule=lrsched.Constant(lr=1.0), clip_norm=1e-2)
  after, _ = walk(ours(config), n_steps=1)
  squares = [np.sum((after[n] - x) ** 2) for n, x in by_name(PARAMS).items()]
  assert np.sqrt(np.sum(squares)) == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'name': 'adamx'}, r"Optax\(name='adamx'.*no attribute 'adamx'"),
    ({'name': 'scale_by_adam'}, "unexpected keyword argument 'learning_rate'"),
    ({'name': 'tree'}, 'not a call that optax takes'),
    ({'name': 'lbfgs'}, 'not an optimizer of gradients: .* missing'),
    ({'arguments': {'momentun': 0.9}}, "unexpected.*'momentun'"),
    ({'arguments': {'learning_rate': 1.0}}, 'must not hold learning_rate'),
    ({'arguments': {'accumulator_dtype': jnp.bfloat16}}, 'JSON values'),
    ({'arguments': {'momentum': float('nan')}}, 'JSON values'),
    ({'clip_norm': 0.0}, 'Optax.clip_norm must be > 0; None switches'),
  ],
)
def test_a_call_that_optax_does_not_take_is_an_error(changes, said):
  with pytest.raises(ValueError, match=said):
    Optax(**{'name': 'sgd', 'schedule': COSINE, **changes})


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (lambda: AdamW(schedule=WSD, b1=1.0), r'AdamW.b1 must be in \[0, 1\)'),
    (lambda: AdamW(schedule=WSD, b2=-0.1), r'AdamW.b2 must be in \[0, 1\)'),
    (lambda: AdamW(schedule=WSD, eps=0.0), 'AdamW.eps must be > 0'),
    (lambda: AdamW(schedule=WSD, weight_decay=-1.0), 'weight_decay must be'),
    (lambda: AdamW(schedule=WSD, clip_norm=-1.0), 'AdamW.clip_norm must be'),
    (lambda: dataclasses.replace(MUON, beta=1.0), 'Muon.beta must be in'),
    (lambda: dataclasses.replace(MUON, eps=-1.0), 'Muon.eps must be > 0'),
    (lambda: dataclasses.replace(MUON, weight_decay=-1), 'Muon.weight_decay'),
  ],
)
def test_a_value_out_of_range_is_an_error(make, said):
  with pytest.raises(ValueError, match=said):
    make()


def test_schedules_are_found_by_field():
  assert schedules_of(MUON) == {'schedule': COSINE, 'adam_schedule': SLOW}
  assert schedules_of(AdamW(schedule=WSD)) == {'schedule': WSD}


# Groups.

FAST = lrsched.Constant(lr=3e-2)
GROUPS = {'embedding': None, 'blocks/1/.*kernel': FAST}


def with_groups(config, groups=GROUPS):
  return dataclasses.replace(config, groups=groups)


@pytest.mark.parametrize(
  'config',
  [
    AdamW(schedule=COSINE, clip_norm=None),
    Optax(name='lion', schedule=COSINE, arguments={'weight_decay': 0.1}),
  ],
)
def test_a_group_moves_as_if_its_schedule_were_the_only_one(config):
  found, state = walk(ours(with_groups(config)))
  main, _ = walk(ours(config))
  fast, _ = walk(ours(dataclasses.replace(config, schedule=FAST)))
  matrices = {n for n in MATRICES if n.startswith('blocks/1/')}
  for name, before in by_name(PARAMS).items():
    expected = fast if name in matrices else main
    expected = before if name == 'embedding' else expected[name]
    np.testing.assert_array_equal(found[name], expected, err_msg=name)
  assert applied_lrs(with_groups(config), state) == {
    'lr': COSINE(4),
    'lr/embedding': 0,
    'lr/blocks/1/.*kernel': FAST(4),
  }


def test_without_groups_the_state_is_that_of_one_schedule():
  [_, (_, _, record)] = ours(AdamW(schedule=COSINE)).init(PARAMS)
  assert isinstance(record, lrsched.ScaleByLRState)


def test_schedules_of_groups_are_found_by_pattern():
  config = with_groups(AdamW(schedule=WSD))
  named = {'schedule': WSD, 'groups.blocks/1/.*kernel': FAST}
  assert schedules_of(config) == named


@pytest.mark.parametrize(
  ('groups', 'said'),
  [
    (
      {'embedding': 1e-3},
      'must be a dict of str to Schedule or None',
    ),
    ({3: FAST}, 'AdamW.groups must be a dict of str to Schedule or None'),
    ([FAST], 'AdamW.groups must be a dict of str to Schedule or None'),
    ({'(': FAST}, r"groups must be a regular expression, got '\('"),
  ],
)
def test_what_is_no_group_is_an_error(groups, said):
  with pytest.raises(ValueError, match=said):
    AdamW(schedule=COSINE, groups=groups)


@pytest.mark.parametrize(
  ('groups', 'said'),
  [
    ({'embeding': None}, r"groups\['embeding'\].* it matches no path, such as"),
    (
      {'.*norm/scale': None, 'blocks/0/.*': FAST},
      'optimizer.groups must take blocks/0/attention/query_norm/scale once: '
      r".* got \['\.\*norm/scale', 'blocks/0/\.\*'\]",
    ),
    ({'.*': FAST}, 'optimizer.groups must leave parameters to schedule: drop'),
  ],
)
def test_groups_must_fit_the_parameters(groups, said):
  tx = ours(AdamW(schedule=COSINE, groups=groups))
  with pytest.raises(ValueError, match=said):
    jax.eval_shape(tx.init, PARAMS)


def test_a_lookahead_takes_parameters_out_of_a_group():
  groups = {'.*norm/scale': None, '(?!.*norm/)blocks/0/.*': FAST}
  tx = ours(AdamW(schedule=COSINE, groups=groups))
  assert tx.init(PARAMS)
