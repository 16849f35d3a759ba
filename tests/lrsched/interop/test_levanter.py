"""from_levanter: what it refuses; its WSD-S is ours but for one update."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from lrsched.interop import from_levanter

POWER = {'type': 'power', 'batch_size': 1024, 'seq_length': 4096}


def test_its_inverse_decay_is_wsds_but_for_the_first_update_of_each():
  theirs = from_levanter(
    {
      'learning_rate': 1e-3,
      'warmup': 0,
      'decay': 0.1,
      'cycles': [300, 700],
      'lr_schedule': 'inv',
    },
    1000,
  )
  ours = lrsched.WSDS.of_cycle(
    peak_lr=1e-3,
    final_lr=1e-4,
    warmup_steps=0,
    cycle_ends=(300, 700, 1000),
    decay_frac=0.1,
  )
  steps = jnp.arange(1000)
  apart = np.flatnonzero(~np.isclose(theirs(steps), ours(steps), rtol=1e-5))
  assert apart.tolist() == [270, 660, 970]
  assert float(theirs(270)) == pytest.approx(7.692308e-4, rel=1e-6)
  assert float(theirs(271)) == float(theirs(270))


@pytest.mark.parametrize(
  ('config', 'said'),
  [
    ({'weight_decay': 0.1}, "no argument 'weight_decay'.*learning_rate"),
    ({'learning_rate': -1.0}, 'learning_rate must be'),
    ({'min_lr_ratio': 1.5}, 'min_lr_ratio must be .* <= 1'),
    ({'warmup': 1.5}, 'warmup must be a fraction up to 1 or whole steps'),
    ({'decay': -1}, 'decay must be'),
    ({'cooldown': 1.0}, 'cooldown must leave steps before it'),
    ({'lr_schedule': 'rsqrt'}, "must be one of constant, .* got 'rsqrt'"),
    ({'lr_schedule': {'exponent': 2}}, 'lr_schedule must be one of'),
    (
      {'lr_schedule': {'type': 'cosine', 'power': 2}},
      "lr_schedule cosine has no argument 'power'; its arguments: exponent",
    ),
    ({'lr_schedule': 'power'}, 'lr_schedule power needs batch_size'),
    ({'lr_schedule': POWER, 'warmup': 0}, 'its rate is not a number'),
    ({'lr_schedule': 'inv', 'min_lr_ratio': 0.0}, 'must be > 0 with inv'),
    (
      {'lr_schedule': {'type': 'inv_sqrt', 'timescale': 99.5}},
      'timescale must be a whole number',
    ),
    ({'cycles': 2, 'cycle_length': 10}, 'give only one of cycle_length'),
    ({'cycles': 0}, 'cycles must be a whole number >= 1'),
    ({'cycles': [300, 300]}, 'the end of cycle 2 must be .* >= 301'),
    ({'cycles': [300, 1001]}, 'the cycles must end by step 1000, got 1001'),
    ({'cycle_length': 0}, 'cycle_length in steps must be'),
    ({'cycle_length': [600, 600]}, 'the cycles must end by step 1000'),
  ],
)
def test_refusals(config, said):
  with pytest.raises(ValueError, match=said):
    from_levanter(config, 1000)
