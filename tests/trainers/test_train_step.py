"""One update is what its parts say it is, and is compiled once."""

import dataclasses

import jax
import numpy as np
import pytest

import lrsched
from tests.tiny import WSD
from tests.tiny import compilations
from tests.tiny import tiny_run
from trainers.config import LogConfig
from trainers.config import MeshConfig
from trainers.optimizer import AdamW
from trainers.optimizer import Muon
from trainers.optimizer import Optax
from trainers.optimizer import make_optimizer
from trainers.optimizer import schedules_of
from trainers.sharding import make_mesh
from trainers.sources import TokenFile
from trainers.train_step import TrainState
from trainers.train_step import abstract_state
from trainers.train_step import init_state
from trainers.train_step import make_train_step
from trainers.train_step import place_batch
from trainers.train_step import schedule_arrays
from trainers.train_step import train_step_for

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
# With a learning rate of 1, SGD moves by the gradient itself.
GRADIENT = dataclasses.replace(
  RUN,
  optimizer=Optax(name='sgd', schedule=lrsched.Constant(lr=1.0)),
  ema_decay=None,
  log=LogConfig(grad_norm_l1=True),
)


@pytest.fixture(scope='module')
def mesh():
  return make_mesh(MeshConfig())


def initialiser(config, mesh):
  """A function that returns the initial state, on the mesh, anew each time."""
  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))
  return jax.jit(
    lambda: init_state(config, config.seed), out_shardings=shardings
  )


@pytest.fixture(scope='module')
def initial(mesh):
  return initialiser(RUN, mesh)


@pytest.fixture(scope='module')
def gradient(mesh):
  """`(step, initial)` of the run whose update is minus the gradient."""
  return make_train_step(GRADIENT, mesh), initialiser(GRADIENT, mesh)


def batch(seed, mesh, accum_steps=1):
  tokens = np.random.default_rng(seed).integers(0, 64, (8, 17), np.int32)
  return place_batch(tokens, accum_steps, mesh)


def schedules(config):
  return schedule_arrays(schedules_of(config.optimizer))


def distance(tree, other):
  """The L2 norm of a difference, in float64."""
  pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
  squares = [np.sum((np.float64(a) - np.float64(b)) ** 2) for a, b in pairs]
  return np.sqrt(np.sum(squares))


def test_four_microbatches_are_the_full_batch(gradient, mesh):
  step, initial = gradient
  before = jax.device_get(initial())
  full, metrics = step(initial(), batch(0, mesh), schedules(GRADIENT))
  four, of_four = step(initial(), batch(0, mesh, 4), schedules(GRADIENT))
  # Float32 sums in another order: a few units in the last place.
  moved = distance(full.params, before.params)
  assert moved > 0.1
  assert distance(full.params, four.params) < 1e-6 * moved
  for name in metrics:
    assert of_four[name] == pytest.approx(float(metrics[name]), rel=1e-6)


def test_microbatches_are_the_rows_of_the_batch_in_order(mesh):
  tokens = np.arange(8 * 17, dtype=np.int32).reshape(8, 17)
  placed = place_batch(tokens, 4, mesh)
  np.testing.assert_array_equal(placed, tokens.reshape(4, 2, 17))
  assert placed.dtype == np.int32


def test_metrics_are_the_norms_of_what_moved(gradient, mesh):
  step, initial = gradient
  before = jax.device_get(initial())
  after, metrics = step(initial(), batch(1, mesh), schedules(GRADIENT))
  after = jax.device_get(after)
  zero = jax.tree.map(np.zeros_like, before.params)
  l2 = distance(before.params, after.params)
  l1 = sum(
    np.sum(np.abs(np.float64(a) - np.float64(b)))
    for a, b in zip(
      jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True
    )
  )
  assert metrics['grad_norm'] == pytest.approx(l2, rel=1e-5)
  assert metrics['grad_norm_l1'] == pytest.approx(l1, rel=1e-5)
  ratio = l2 / distance(after.params, zero)
  assert metrics['update_ratio'] == pytest.approx(ratio, rel=1e-5)
  assert metrics['lr'] == 1.0
  # Nothing was learned yet: about as good as guessing.
  assert metrics['loss'] == pytest.approx(np.log(64), abs=0.1)


def test_the_gradient_norm_is_the_one_before_clipping(gradient, mesh):
  step, initial = gradient
  before = jax.device_get(initial())
  _, metrics = step(initial(), batch(1, mesh), schedules(GRADIENT))
  optimizer = dataclasses.replace(GRADIENT.optimizer, clip_norm=1e-3)
  config = dataclasses.replace(GRADIENT, optimizer=optimizer)
  clipped = make_train_step(config, mesh)
  params = initial().params
  opt_state = make_optimizer(optimizer, schedules_of(optimizer)).init(params)
  start = TrainState(params, opt_state, None)
  after, of_clipped = clipped(start, batch(1, mesh), schedules(config))
  assert of_clipped['grad_norm'] == pytest.approx(float(metrics['grad_norm']))
  assert distance(before.params, after.params) == pytest.approx(1e-3, rel=1e-3)


def test_the_average_is_its_closed_form_and_the_lr_that_of_each_update(
  initial, mesh
):
  step = train_step_for(RUN, mesh)
  first, current, seen = jax.device_get(initial().params), initial(), []
  for t in range(5):
    current, metrics = step(current, batch(t, mesh), schedules(RUN))
    seen.append(jax.device_get(current.params))
    assert float(metrics['lr']) == pytest.approx(float(WSD(t)), rel=1e-6)
  decay = RUN.ema_decay
  expected = jax.tree.map(
    lambda start, *later: (
      decay**5 * np.float64(start)
      + sum(
        (1 - decay) * decay ** (4 - i) * np.float64(x)
        for i, x in enumerate(later)
      )
    ),
    first,
    *seen,
  )
  moved = distance(first, seen[-1])
  assert distance(current.ema, expected) < 1e-5 * moved


def test_the_state_is_donated_and_the_result_does_not_alias(initial, mesh):
  before = initial()
  after, _ = train_step_for(RUN, mesh)(before, batch(0, mesh), schedules(RUN))
  kept = [
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree_util.tree_flatten_with_path(before)[0]
    if not leaf.is_deleted()
  ]
  # All but one number, which the program does not read.
  assert kept == ['.opt_state[1][2].lr']
  pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after)]
  assert len(set(pointers)) == len(pointers)


def test_three_peaks_and_three_decay_starts_are_one_program(initial, mesh):
  # Another decay of the average: a program that no other test has compiled.
  run = dataclasses.replace(RUN, ema_decay=0.8)
  sweep = [
    dataclasses.replace(
      run,
      optimizer=AdamW(
        schedule=dataclasses.replace(WSD, peak_lr=peak_lr).decay_from(start, 7)
      ),
      total_steps=start + 7,
      checkpoint=dataclasses.replace(run.checkpoint, keep_steps=()),
    )
    for peak_lr in (1, 3e-3, 1e-4)
    for start in (11, 14, 20)
  ]
  initial()
  with compilations() as compiled:
    for config in sweep:
      step, current = train_step_for(config, mesh), initial()
      for t in range(2):
        current, metrics = step(current, batch(t, mesh), schedules(config))
        expected = config.optimizer.schedule.peak_lr * (t + 1) / 4
        assert float(metrics['lr']) == pytest.approx(expected, rel=1e-6)
  assert compiled == ['jit(step)']


DIFFERENT = {
  'model': {'model': dataclasses.replace(RUN.model, d_ff=48)},
  'b2': {'optimizer': AdamW(schedule=WSD, b2=0.9)},
  'clip_norm': {'optimizer': AdamW(schedule=WSD, clip_norm=None)},
  'kind': {'optimizer': Muon(schedule=WSD, adam_schedule=WSD)},
  'name': {'optimizer': Optax(name='sgd', schedule=WSD)},
  'other name': {'optimizer': Optax(name='lion', schedule=WSD)},
  'arguments': {
    'optimizer': Optax(name='sgd', schedule=WSD, arguments={'momentum': 0.9})
  },
  'frozen': {'optimizer': AdamW(schedule=WSD, groups={'embedding': None})},
  'group': {'optimizer': AdamW(schedule=WSD, groups={'embedding': WSD})},
  'pattern': {'optimizer': AdamW(schedule=WSD, groups={'.*kernel': WSD})},
  'no average': {'ema_decay': None},
  'average': {'ema_decay': 0.99},
  'l1': {'log': LogConfig(grad_norm_l1=True)},
}


def test_what_is_compiled_in_makes_another_step(mesh):
  configs = [RUN, *(dataclasses.replace(RUN, **c) for c in DIFFERENT.values())]
  steps = [train_step_for(config, mesh) for config in configs]
  assert len(set(map(id, steps))) == len(steps)
  again = [train_step_for(config, mesh) for config in configs]
  assert list(map(id, again)) == list(map(id, steps))


@pytest.mark.parametrize(
  'changes',
  [
    {'optimizer': AdamW(schedule=dataclasses.replace(WSD, peak_lr=1))},
    {'optimizer': AdamW(schedule=lrsched.Constant(lr=1e-3))},
    {'total_steps': 20},
    {'seed': 1},
    {'accum_steps': 2},
    {'data': dataclasses.replace(RUN.data, batch_size=16)},
    {'log': LogConfig(every_steps=7)},
  ],
)
def test_what_is_an_argument_does_not(mesh, changes):
  config = dataclasses.replace(RUN, **changes)
  assert train_step_for(config, mesh) is train_step_for(RUN, mesh)


def test_sweeps_of_groups_are_one_program(mesh):
  sweep = [
    dataclasses.replace(
      RUN,
      optimizer=AdamW(
        schedule=WSD,
        groups={
          'embedding': None,
          'blocks/.*': lrsched.Scaled(schedule=WSD, factor=factor),
        },
      ),
    )
    for factor in (0.5, 2, 0)
  ]
  start = initialiser(sweep[0], mesh)
  start()
  with compilations() as compiled:
    for config in sweep:
      step, current = train_step_for(config, mesh), start()
      for t in range(2):
        current, metrics = step(current, batch(t, mesh), schedules(config))
      factor = config.optimizer.groups['blocks/.*'].factor
      assert float(metrics['lr']) == pytest.approx(0.5e-2, rel=1e-6)
      assert float(metrics['lr/blocks/.*']) == pytest.approx(0.5e-2 * factor)
      assert float(metrics['lr/embedding']) == 0.0
  assert compiled == ['jit(step)']


def test_the_abstract_state_is_that_of_the_initial_one(initial, mesh):
  with compilations() as compiled:
    abstract = abstract_state(RUN, mesh)
  assert compiled == []
  state = initial()
  assert jax.tree.structure(abstract) == jax.tree.structure(state)
  for a, x in zip(
    jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True
  ):
    assert (a.shape, a.dtype, a.sharding) == (x.shape, x.dtype, x.sharding)
  assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {'float32'}


def test_initial_weights_are_a_function_of_the_seed(initial, mesh):
  state, again = initial(), initialiser(RUN, mesh)()
  other = initialiser(dataclasses.replace(RUN, seed=1), mesh)()
  assert distance(state, again) == 0
  assert distance(state.params, other.params) > 1
  assert distance(state.ema, state.params) == 0
