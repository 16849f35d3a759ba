"""What holds for every schedule, over the registry of all of them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from tests.registry import SCHEDULES
from tests.registry import boundaries
from tests.tiny import compilations

T = 120  # past the end of every schedule of the registry
every = pytest.mark.parametrize('name', SCHEDULES)


def hard_steps(spec):
  edges = [b + d for b in boundaries(spec) for d in (-1, 0, 1)]
  return sorted({-1, 0, 1, *edges, 2**24 + 1, 2**31 - 1})


@every
def test_value_and_gradient_are_finite_everywhere(name):
  spec = SCHEDULES[name]
  value_and_grad = jax.jit(
    jax.value_and_grad(lambda s, t: s(t), allow_int=True)
  )
  for t in hard_steps(spec):
    lr, grad = value_and_grad(lrsched.as_arrays(spec), t)
    assert np.isfinite(lr), t
    assert lr >= 0, t
    assert lr.dtype == jnp.float32
    for leaf in jax.tree.leaves(grad):
      if leaf.dtype != jax.dtypes.float0:
        assert np.isfinite(leaf).all(), t


@every
def test_gradient_matches_a_finite_difference(name):
  """In float64, so that the difference is the derivative to 1e-6."""
  spec = SCHEDULES[name]
  with jax.enable_x64(True):
    steps = jnp.arange(T)
    real, whole = split_reals(lrsched.as_arrays(spec))
    total = lambda r: jnp.vdot(join(spec, r, whole)(steps), 1.0 + steps % 7)
    grad = jax.grad(total)(real)
    for i, leaf in enumerate(real):
      # Of a long table a few entries: each costs two evaluations.
      for k in range(0, leaf.size, max(1, leaf.size // 8)):
        value = float(leaf.ravel()[k])
        h = max(1e-6 * value, 1e-9)
        move = lambda h, i=i, k=k: [
          x.ravel().at[k].add(h).reshape(x.shape) if j == i else x
          for j, x in enumerate(real)
        ]
        # A floor at 0 has a derivative from above only.
        slope = (
          (total(move(h)) - total(move(-h))) / (2 * h)
          if value > h
          else (total(move(h)) - total(real)) / h
        )
        np.testing.assert_allclose(
          grad[i].ravel()[k], slope, rtol=1e-5, atol=1e-8
        )


def split_reals(spec):
  leaves = jax.tree.leaves(spec)
  is_real = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
  real = [x for x, r in zip(leaves, is_real, strict=True) if r]
  return real, [None if r else x for x, r in zip(leaves, is_real, strict=True)]


def join(spec, real, whole):
  real = iter(real)
  leaves = [next(real) if x is None else x for x in whole]
  return jax.tree.unflatten(jax.tree.structure(spec), leaves)


@every
def test_vmap_jit_scan_and_loop_agree(name):
  """To 1e-6: the same formula, fused differently."""
  spec = SCHEDULES[name]
  loop = np.asarray([spec(t) for t in range(T)])
  steps = jnp.arange(T)
  _, scanned = jax.lax.scan(lambda c, t: (c, spec(t)), 0, steps)
  close = dict(rtol=1e-6, atol=1e-12)
  np.testing.assert_allclose(spec(steps), loop, **close)
  np.testing.assert_allclose(jax.vmap(spec)(steps), loop, **close)
  np.testing.assert_allclose(jax.jit(spec)(steps), loop, **close)
  np.testing.assert_allclose(scanned, loop, **close)


@every
def test_a_call_outside_jit_compiles_nothing_again(name):
  """Not even in a log line: half a second each, where a loop is inside."""
  spec = SCHEDULES[name]
  spec(3)
  with compilations() as compiled:
    spec(4)
  assert compiled == []


@every
def test_sweep_of_values_and_lengths_traces_once(name):
  spec = SCHEDULES[name]
  traces = 0

  @jax.jit
  def at(spec, t):
    nonlocal traces
    traces += 1
    return spec(t)

  is_whole = lambda x: np.issubdtype(np.asarray(x).dtype, np.integer)
  changed = jax.tree.map(lambda x: x if is_whole(x) else 0.5 * x, spec)
  longer = jax.tree.map(lambda x: 2 * x if is_whole(x) else x, spec)
  for s in (spec, changed, longer):
    np.testing.assert_allclose(
      at(lrsched.as_arrays(s), 30), s(30), rtol=1e-6, atol=1e-12
    )
  assert traces == 1


@every
def test_vmap_over_the_leaves(name):
  spec = lrsched.as_arrays(SCHEDULES[name])
  batch = jax.tree.map(lambda x: jnp.stack([x, x]), spec)
  lrs = jax.vmap(lambda s: s(jnp.arange(T)))(batch)
  np.testing.assert_allclose(lrs[1], spec(jnp.arange(T)), rtol=1e-6)


@every
def test_json_round_trip_is_exact(name):
  spec = SCHEDULES[name]
  again = lrsched.from_json(lrsched.to_json(spec))
  assert again == spec
  assert repr(again) == repr(spec)
  assert hash(again) == hash(spec)


@every
def test_repr_is_python(name):
  spec = SCHEDULES[name]
  if 'sha256' in repr(spec):
    pytest.skip('a long table shows its hash')
  assert eval(repr(spec), vars(lrsched)) == spec


@every
def test_x64_computes_in_float64(name):
  spec = SCHEDULES[name]
  single = np.asarray(spec(jnp.arange(T)))
  with jax.enable_x64(True):
    double = spec(jnp.arange(T))
    assert double.dtype == jnp.float64
    peak = float(double.max())
    # 1e-7 of the peak: what float32 can hold next to a floor of 0.
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-7 * peak)


@every
def test_optax_takes_it_as_a_learning_rate(name):
  spec = SCHEDULES[name]
  tx = optax.sgd(spec)
  params = jnp.ones(2)
  state = tx.init(params)
  for t in range(3):
    update, state = tx.update(jnp.ones(2), state, params)
    np.testing.assert_allclose(update, -spec(t) * jnp.ones(2), rtol=1e-6)


@every
def test_bfloat16_updates_are_multiplied_in_float32(name):
  spec = SCHEDULES[name]
  tx = lrsched.scale_by_lr(spec)
  update = jnp.asarray([1.0, 3.0], jnp.bfloat16)
  scaled, state = tx.update(update, tx.init(update))
  assert scaled.dtype == jnp.bfloat16
  assert state.lr.dtype == jnp.float32
  exact = -np.float32(spec(0)) * np.asarray(update, np.float32)
  np.testing.assert_array_equal(scaled, exact.astype(jnp.bfloat16))


@every
def test_a_resumed_optimizer_goes_on_as_if_uninterrupted(name):
  """Through JSON and saved numbers, as a checkpoint would hold them."""
  spec = SCHEDULES[name]

  def walk(spec, state, n):
    tx, lrs = lrsched.scale_by_lr(spec), []
    for _ in range(n):
      _, state = tx.update(jnp.ones(()), state)
      lrs.append(float(lrsched.applied_lr(state)))
    return state, lrs

  first = lrsched.scale_by_lr(spec).init(jnp.ones(()))
  _, whole = walk(spec, first, 6)
  state, before = walk(spec, first, 3)
  text, saved = lrsched.to_json(spec), jax.tree.map(np.asarray, state)
  _, after = walk(lrsched.from_json(text), saved, 3)
  assert before + after == whole


@every
def test_phases_tile_the_steps(name):
  phases = SCHEDULES[name].phases()
  assert phases[0].start == 0
  for before, after in itertools.pairwise(phases):
    assert before.end == after.start
  assert SCHEDULES[name].end_step == phases[-1].end


@every
def test_it_rests_from_its_end_on(name):
  spec = SCHEDULES[name]
  if spec.end_step is not None:
    assert spec(spec.end_step) == spec(spec.end_step + 1000)


@every
def test_fields_cannot_be_set(name):
  spec = SCHEDULES[name]
  field = dataclasses.fields(spec)[0].name
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(spec, field, 1)


def test_registry_holds_every_schedule_of_the_library():
  public = {
    c
    for c in vars(lrsched).values()
    if isinstance(c, type) and issubclass(c, lrsched.Schedule)
  }
  assert {type(s) for s in SCHEDULES.values()} == public - {lrsched.Schedule}
