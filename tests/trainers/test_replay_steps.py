"""Training steps that replay: with margins on activations, and with views."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import lrsched
from tests.tiny import assert_same_bits
from tests.tiny import compilations
from tests.tiny import tiny_run
from trainers.config import MeshConfig
from trainers.corpus import materialise
from trainers.fixed_set import fixed_set
from trainers.fixed_set import replay_batch
from trainers.gere import GeRe
from trainers.optimizer import Optax
from trainers.optimizer import schedules_of
from trainers.sharding import make_mesh
from trainers.sources import TokenFile
from trainers.train_step import abstract_state
from trainers.train_step import init_state
from trainers.train_step import make_train_step
from trainers.train_step import place_batch
from trainers.train_step import schedule_arrays
from trainers.train_step import train_step_for
from trainers.views import Draw
from trainers.views import Views

PLAIN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
# With a learning rate of 1, SGD moves by the gradient itself.
SGD = {
  'optimizer': Optax(name='sgd', schedule=lrsched.Constant(lr=1.0)),
  'ema_decay': None,
}
BY_SGD = dataclasses.replace(PLAIN, **SGD)
GERE = GeRe(
  source=PLAIN.data.source, n_sequences=12, batch_size=4, weight='dynamic'
)
VIEWS = Views(n=4, corrupt_frac=0.3, kl_weight=2.0, kl_from_step=2)


def with_gere(run, **changes):
  return dataclasses.replace(run, gere=dataclasses.replace(GERE, **changes))


def with_views(run, **changes):
  views = dataclasses.replace(VIEWS, **changes)
  return dataclasses.replace(
    run, data=dataclasses.replace(run.data, views=views)
  )


@pytest.fixture(scope='module')
def mesh():
  return make_mesh(MeshConfig())


@functools.cache
def initialiser(by_sgd=False):
  """The first state of a run here, on the mesh, anew at each call."""
  run = BY_SGD if by_sgd else PLAIN
  abstract = abstract_state(run, make_mesh(MeshConfig()))
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(lambda: init_state(run, 0), out_shardings=shardings)


@pytest.fixture(scope='module')
def replay_set(mesh, tmp_path_factory):
  folder = tmp_path_factory.mktemp('tokens')
  paths = {}
  for i, part in enumerate(('train_path', 'valid_path')):
    paths[part] = str(folder / part)
    tokens = np.random.default_rng(i).integers(0, 64, 16 * 12 + 1)
    tokens.astype(np.uint16).tofile(paths[part])
  corpus = materialise(TokenFile(**paths), 'unused')
  params = initialiser()().params
  return fixed_set(with_gere(PLAIN), params, mesh, corpus)


def tokens_of(step, n=4):
  return np.random.default_rng(step).integers(0, 64, (n, 17), np.int32)


def schedules(run):
  return schedule_arrays(schedules_of(run.optimizer))


def draw(step):
  return Draw(np.uint32(0), np.int32(step))


def flat(tree):
  return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree)])


_compiled = {}


def moved(run, mesh, tokens, accum_steps=1, **extras):
  """Minus the update of one SGD step from the first weights, and metrics."""
  run = dataclasses.replace(run, **SGD)
  before = initialiser(by_sgd=True)()
  weights = flat(before.params)
  step = train_step_for(run, mesh)
  placed = place_batch(tokens, accum_steps, mesh)
  arguments = before, placed, schedules(run)
  if (step, placed.shape) not in _compiled:
    # It compiles for longer than it computes: the least optimisation is faster.
    program = step.lower(*arguments, **extras)
    options = {'xla_backend_optimization_level': 0}
    _compiled[step, placed.shape] = program.compile(options)
  after, metrics = _compiled[step, placed.shape](*arguments, **extras)
  return weights - flat(after.params), jax.device_get(metrics)


def assert_close(a, b):
  """Gradients that agree but for the order of float32 sums."""
  assert np.linalg.norm(b) > 0.01
  assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


def test_three_updates_replay_three_batches(mesh, replay_set):
  run = with_gere(PLAIN)
  with compilations() as compiled:
    step, state, rows = make_train_step(run, mesh), initialiser()(), []
    for t in range(3):
      tokens = place_batch(tokens_of(t), 1, mesh)
      replay = replay_batch(replay_set, t)
      state, metrics = step(state, tokens, schedules(run), replay=replay)
      rows.append(jax.device_get(metrics))
  assert compiled.count('jit(step)') == 1
  assert sorted(rows[0]) == [
    'gere_loss',
    'grad_norm',
    'loss',
    'lr',
    'replay_loss',
    'update_ratio',
  ]
  assert all(np.isfinite(list(row.values())).all() for row in rows)
  # The first update is the teacher's; rounding may carry one activation of 512
  # across a threshold, by less than a unit of the seventh digit.
  assert rows[0]['gere_loss'] < 1e-6
  assert 1e-4 < rows[1]['gere_loss'] < rows[2]['gere_loss']
  for row in rows:
    assert row['loss'] == pytest.approx(np.log(64), abs=0.2)
    assert row['replay_loss'] == pytest.approx(np.log(64), abs=0.2)


def test_without_margins_it_is_the_mean_of_two_losses(mesh, replay_set):
  replay = replay_set[1]
  new, of_new = moved(PLAIN, mesh, tokens_of(0))
  old, of_old = moved(PLAIN, mesh, np.asarray(replay.tokens_BxL1))
  both, metrics = moved(
    with_gere(PLAIN, weight=0.0), mesh, tokens_of(0), replay=replay
  )
  assert_close(both, (new + old) / 2)
  assert metrics['loss'] == pytest.approx(of_new['loss'], rel=1e-6)
  assert metrics['replay_loss'] == pytest.approx(of_old['loss'], rel=1e-6)


def test_three_updates_with_views(mesh):
  run = with_views(PLAIN)
  with compilations() as compiled:
    step, state, rows = make_train_step(run, mesh), initialiser()(), []
    for t in range(3):
      tokens = place_batch(tokens_of(t, 2), 1, mesh)
      state, metrics = step(state, tokens, schedules(run), draw=draw(t))
      rows.append(jax.device_get(metrics))
  assert compiled.count('jit(step)') == 1
  assert sorted(rows[0]) == [
    'grad_norm',
    'loss',
    'lr',
    'update_ratio',
    'views_kl',
    'views_loss',
  ]
  for row in rows:
    assert row['loss'] == pytest.approx(np.log(64), abs=0.2)
    assert row['views_loss'] == pytest.approx(np.log(64), abs=0.2)
    assert row['views_loss'] != row['loss']
    assert 1e-6 < row['views_kl'] < 0.1


def test_identical_views_train_as_the_windows_alone(mesh):
  run = with_views(PLAIN, corrupt_frac=0.0)
  plain, of_plain = moved(PLAIN, mesh, tokens_of(0))
  views, metrics = moved(run, mesh, tokens_of(0), draw=draw(5))
  assert_close(views, plain)
  assert metrics['loss'] == pytest.approx(of_plain['loss'], rel=1e-6)
  assert metrics['views_loss'] == pytest.approx(of_plain['loss'], rel=1e-6)


def test_the_divergence_counts_from_its_step_on(mesh):
  """With kl_from_step=2, the update before it is that of no divergence."""
  run, without = with_views(PLAIN), with_views(PLAIN, kl_weight=0.0)
  for step, same in ((1, True), (2, False)):
    asked, other = (
      moved(r, mesh, tokens_of(0), draw=draw(step))[0] for r in (run, without)
    )
    apart = np.linalg.norm(asked - other) / np.linalg.norm(other)
    assert (apart < 1e-6) == same, step
    assert same or apart > 1e-4


@pytest.fixture
def both(mesh, replay_set):
  """One update with margins and views, as a function of step and parts."""
  run = with_gere(with_views(PLAIN))

  def update(t, accum_steps=1):
    replay = replay_batch(replay_set, t)
    # A teacher whose margins most activations of the first weights violate.
    replay = replay._replace(hidden_BxLxD=-replay.hidden_BxLxD)
    extras = {'replay': replay, 'draw': draw(t)}
    return moved(run, mesh, tokens_of(0), accum_steps, **extras)

  return update


def test_margins_and_views_are_the_same_with_any_accumulation(both):
  """Views are drawn for the whole batch; replay is once an update."""
  (one, metrics), (four, of_four) = both(3), both(3, accum_steps=4)
  assert {'replay_loss', 'gere_loss', 'views_loss', 'views_kl'} < set(metrics)
  assert metrics['gere_loss'] > 0.1
  assert_close(four, one)
  for name, value in metrics.items():
    assert of_four[name] == pytest.approx(value, rel=1e-4), name


def test_an_update_is_a_function_of_its_step(both):
  assert_same_bits(both(7), both(7))
  assert np.any(both(7)[0] != both(8)[0])


def test_a_step_is_given_what_its_config_asks_for(mesh, replay_set):
  asked = [
    (PLAIN, {'replay': replay_set[0]}, 'replay must be given without'),
    (PLAIN, {'draw': draw(0)}, 'draw must be given without'),
    (with_gere(PLAIN), {}, 'replay must be given with RunConfig.gere'),
    (with_views(PLAIN), {}, 'draw must be given with DataConfig.views'),
  ]
  for run, extras, message in asked:
    tokens = place_batch(tokens_of(0, 2), 1, mesh)
    with pytest.raises(ValueError, match=message):
      make_train_step(run, mesh).lower(
        initialiser()(), tokens, schedules(run), **extras
      )


def test_what_replay_compiles_in_makes_another_step(mesh):
  runs = [
    PLAIN,
    with_gere(PLAIN),
    with_gere(PLAIN, weight=0.0),
    with_views(PLAIN),
    with_views(PLAIN, n=2),
    with_views(PLAIN, corrupt_frac=0.1),
    with_views(PLAIN, kl_weight=0.0),
    with_views(PLAIN, kl_from_step=9),
  ]
  steps = [train_step_for(run, mesh) for run in runs]
  assert len(set(map(id, steps))) == len(steps)
  seeds = with_views(
    dataclasses.replace(PLAIN, data=dataclasses.replace(PLAIN.data, seed=1))
  )
  assert train_step_for(seeds, mesh) is steps[3]
  smaller = with_gere(PLAIN, n_sequences=4)
  assert train_step_for(smaller, mesh) is steps[1]
