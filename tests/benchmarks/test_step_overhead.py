"""The benchmark compares what it says, and its statistics are right."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import lrsched
from benchmarks import step_overhead


def test_the_interval_is_of_the_first_column_over_the_second():
  rng = np.random.default_rng(1)
  shared = rng.lognormal(size=400)  # a machine that is now fast, now slow
  noise = rng.normal(1.03, 0.02, size=400)
  ratio = step_overhead.median_ratio(np.stack([noise * shared, shared], 1))
  assert ratio.low < 1.03 < ratio.high
  # Normal theory: 1.96 * sqrt(pi / 2) * 0.02 / sqrt(400) = 0.0025 to each side.
  assert 0.0015 < (ratio.high - ratio.low) / 2 < 0.0035


def test_an_arm_of_other_learning_rates_is_refused():
  spec = step_overhead.wsd(1e-3, decay_start=50, total_steps=100)
  step_overhead.optax_wsd(spec)
  other = dataclasses.replace(spec, decay=lrsched.CosineDecay())
  with pytest.raises(ValueError, match='the LRs to compare must agree'):
    step_overhead.optax_wsd(other)


@pytest.mark.slow
def test_both_arms_train_alike():
  spec = step_overhead.wsd(1e-3, decay_start=50, total_steps=100)
  moved = []
  for arm in (step_overhead.ours(spec), step_overhead.theirs(spec)):
    graph, state, tokens = step_overhead.start(arm, step_overhead.SWEEP_MODEL)
    before = jax.tree.map(np.array, state[0])
    step = step_overhead.make_step(arm, graph)
    for _ in range(3):
      state, _ = step(state, tokens, *arm.schedules)
    leaves = jax.tree.leaves(jax.tree.map(np.subtract, state[0], before))
    moved.append(np.concatenate([leaf.ravel() for leaf in leaves]))
  apart = np.linalg.norm(moved[0] - moved[1]) / np.linalg.norm(moved[0])
  # Rounding makes 3e-6; half the clipping 2e-4, other moments 6e-3.
  assert apart < 1e-4


@pytest.mark.slow
def test_a_sweep_compiles_one_program_with_ours_and_nine_with_optax():
  assert step_overhead.programs_of_sweep(step_overhead.ours) == 1
  assert step_overhead.programs_of_sweep(step_overhead.theirs) == 9
