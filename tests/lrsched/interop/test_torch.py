"""from_torch: what it refuses, and where it is documented to differ."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from lrsched.interop import from_torch

COSINE = ('CosineAnnealingLR', {'T_max': 10, 'eta_min': 0.1})
STEP = ('StepLR', {'step_size': 3})


def test_a_cosine_of_unknown_length_rests_at_its_floor():
  """With total_steps it rises again, as PyTorch does."""
  rests = from_torch(1.0, [COSINE])
  rises = from_torch(1.0, [COSINE], total_steps=21)
  assert rests == lrsched.Cosine(peak_lr=1.0, final_lr=0.1, total_steps=10)
  assert float(rests(20)) == pytest.approx(0.1)
  assert float(rises(20)) == pytest.approx(1.0)


def test_no_more_of_a_wave_is_written_than_the_run_comes_to():
  pieces = from_torch(1.0, [STEP, COSINE], [5], total_steps=15).schedules
  assert isinstance(pieces[1], lrsched.Cosine)


def test_one_cycle_rests_after_its_last_update():
  given = {'max_lr': 1.0, 'total_steps': 30}
  for pct_start in (0.3, 0.31):  # pieces, and a table
    cycle = from_torch(0.1, [('OneCycleLR', {**given, 'pct_start': pct_start})])
    assert float(cycle(29)) == pytest.approx(4e-6)
    assert float(cycle(30)) == float(cycle(1000)) == float(cycle(29))


def test_epochs_times_steps_are_total_steps():
  given = {'max_lr': 1.0, 'pct_start': 0.4}
  assert from_torch(
    0.1, [('OneCycleLR', {**given, 'epochs': 3, 'steps_per_epoch': 10})]
  ) == from_torch(0.1, [('OneCycleLR', {**given, 'total_steps': 30})])


def test_a_step_per_epoch():
  """As the docstring has it: k updates have the rate of their epoch."""
  spec = from_torch(1.0, [COSINE])
  epochs = lrsched.Sampled(
    schedule=lrsched.Stretched(schedule=spec, from_steps=1, to_steps=7),
    every_steps=7,
  )
  steps = jnp.arange(80)
  np.testing.assert_array_equal(epochs(steps), spec(steps // 7))


def test_a_sweep_of_imports_runs_one_program():
  run = jax.jit(lambda spec, t: spec(t))
  for lr, warmup in ((0.1, 5), (0.2, 7), (0.3, 9)):
    line = ('LinearLR', {'start_factor': 0.5, 'total_iters': warmup})
    spec = from_torch(lr, [line, COSINE, STEP], [warmup, warmup + 11])
    assert float(run(lrsched.as_arrays(spec), warmup)) == pytest.approx(lr)
  assert run._cache_size() == 1


@pytest.mark.parametrize(
  ('schedulers', 'said'),
  [
    ([], 'milestones must be one fewer'),
    ([STEP, STEP], 'milestones must be one fewer'),
    ([('ReduceLROnPlateau', {})], r'schedulers\[0\] must be one of ConstantLR'),
    ([('LambdaLR', {})], 'must be one of'),
    ([('StepLR', {'steps': 3})], "StepLR has no argument 'steps'.*step_size"),
    ([('StepLR', {})], 'StepLR needs step_size'),
    ([('StepLR', {'step_size': 0})], 'StepLR step_size must be a whole number'),
    ([('StepLR', {'step_size': 3, 'gamma': 1.1})], 'gamma must be .* <= 1'),
    ([('ExponentialLR', {'gamma': 0.0})], 'ExponentialLR gamma must be'),
    ([('ExponentialLR', {'gamma': float('nan')})], 'gamma must be a finite'),
    ([('ConstantLR', {'factor': 0.0})], 'ConstantLR factor must be'),
    ([('ConstantLR', {'total_iters': 0})], 'ConstantLR total_iters must be'),
    ([('LinearLR', {'start_factor': 0.0})], 'LinearLR start_factor must be'),
    ([('MultiStepLR', {'milestones': [3, 0]})], r'milestones\[1\] must be'),
    ([('CosineAnnealingLR', {'T_max': 9, 'eta_min': 2.0})], 'eta_min must be'),
    ([('CosineAnnealingWarmRestarts', {'T_0': 9})], 'give total_steps'),
    (
      [('CyclicLR', {'base_lr': 0.1, 'max_lr': 1.0, 'scale_fn': abs})],
      "no argument 'scale_fn'",
    ),
    (
      [('CyclicLR', {'base_lr': 0.1, 'max_lr': 1.0, 'mode': 'other'})],
      'CyclicLR mode must be one of triangular, triangular2, exp_range',
    ),
    ([('OneCycleLR', {'max_lr': 1.0})], 'OneCycleLR needs total_steps'),
    (
      [('OneCycleLR', {'max_lr': 1.0, 'total_steps': 10, 'pct_start': 0.1})],
      'must leave each leg a length',
    ),
    ([('ChainedScheduler', {'schedulers': []})], 'must not be empty'),
    (
      [('ChainedScheduler', {'schedulers': [('OneCycleLR', {})]})],
      r"schedulers\[0\] must be a factor .* got 'OneCycleLR', which sets it",
    ),
    ([('ChainedScheduler', {'schedulers': [COSINE]})], 'eta_min must be 0'),
  ],
)
def test_refusals(schedulers, said):
  with pytest.raises(ValueError, match=said):
    from_torch(1.0, schedulers)


@pytest.mark.parametrize('alone', ['OneCycleLR', 'ChainedScheduler'])
def test_classes_that_break_a_sequence_are_refused_in_one(alone):
  with pytest.raises(ValueError, match=f'{alone} must be the only one, as'):
    from_torch(1.0, [STEP, (alone, {})], [5])


@pytest.mark.parametrize(
  ('milestones', 'total_steps', 'said'),
  [
    ([0], None, r'milestones\[0\] must be a whole number >= 1'),
    ([5], 5, 'total_steps must be a whole number >= 6'),
  ],
)
def test_milestones_rise(milestones, total_steps, said):
  with pytest.raises(ValueError, match=said):
    from_torch(1.0, [STEP, STEP], milestones, total_steps=total_steps)


def test_a_run_beyond_what_torch_defines_is_refused():
  cycle = ('OneCycleLR', {'max_lr': 1.0, 'total_steps': 10})
  with pytest.raises(ValueError, match='at least that of the run, 11, got 10'):
    from_torch(1.0, [cycle], total_steps=11)
  chain = [STEP, ('CosineAnnealingLR', {'T_max': 10})]
  with pytest.raises(ValueError, match='PyTorch adds when it rises again'):
    from_torch(
      1.0, [('ChainedScheduler', {'schedulers': chain})], total_steps=20
    )
