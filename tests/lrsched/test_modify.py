"""Scaled, Clipped, Product and Tied against the arithmetic they stand for."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched

STEPS = jnp.arange(130)
WSD = lrsched.WSD(
  peak_lr=1e-3, warmup_steps=10, stable_steps=70, decay_steps=20
)


def test_scaled_and_clipped():
  lrs = np.asarray(WSD(STEPS))
  scaled = lrsched.Scaled(schedule=WSD, factor=0.25)
  np.testing.assert_allclose(scaled(STEPS), 0.25 * lrs, rtol=1e-7)
  clipped = lrsched.Clipped(schedule=WSD, low_lr=2e-4, high_lr=8e-4)
  np.testing.assert_array_equal(
    clipped(STEPS), np.clip(lrs, np.float32(2e-4), np.float32(8e-4))
  )
  assert scaled.phases() == clipped.phases() == WSD.phases()


def test_product_multiplies_and_cuts_phases_at_every_edge():
  product = lrsched.Product(
    schedules=(WSD, lrsched.Step.of_30_60_90(peak_lr=1.0, total_steps=100))
  )
  stairs = np.select([STEPS < 30, STEPS < 60, STEPS < 90], [1, 0.1, 0.01], 1e-3)
  np.testing.assert_allclose(product(STEPS), WSD(STEPS) * stairs, rtol=1e-6)
  assert [(p.name, p.start, p.end) for p in product.phases()] == [
    ('warmup x stair', 0, 10),
    ('stable x stair', 10, 30),
    ('stable x stair', 30, 60),
    ('stable x stair', 60, 80),
    ('decay x stair', 80, 90),
    ('decay x stair', 90, 100),
    ('stair', 100, None),
  ]


def test_product_ends_with_its_last_factor():
  line = lambda n: lrsched.Linear(peak_lr=1.0, final_lr=0.5, total_steps=n)
  product = lrsched.Product(schedules=(line(10), line(20)))
  assert product.end_step == 20
  assert float(product(20)) == 0.25


def test_momentum_of_one_cycle_is_torchs():
  """0.95 at the least LR, 0.85 at the peak, by the same cosines."""
  cycle = lrsched.OneCycle.of_torch(max_lr=1.0, total_steps=100)
  momentum = lrsched.Tied(
    schedule=cycle, low_lr=0.04, high_lr=1.0, at_low=0.95, at_high=0.85
  )
  up = 0.85 + 0.1 * (1 + np.cos(np.pi * np.arange(31) / 30)) / 2
  np.testing.assert_allclose(momentum(jnp.arange(31)), up, rtol=1e-6)
  # Past the LR it began at, the momentum stays.
  assert float(momentum(100)) == pytest.approx(0.95)


def test_weight_decay_that_follows_the_lr_in_optax():
  decay = lrsched.Tied(
    schedule=WSD, low_lr=0.0, high_lr=1e-3, at_low=0.0, at_high=0.1
  )
  tx = optax.chain(optax.add_decayed_weights(decay), lrsched.scale_by_lr(WSD))
  params = jnp.asarray(2.0)
  state = tx.init(params)
  for t in range(100):
    update, state = tx.update(jnp.zeros(()), state, params)
    lr = float(WSD(t))
    np.testing.assert_allclose(update, -lr * 0.1 * lr / 1e-3 * 2, rtol=1e-5)


def test_momentum_in_optax_by_injection():
  momentum = lrsched.Tied(
    schedule=WSD, low_lr=0.0, high_lr=1e-3, at_low=0.95, at_high=0.85
  )
  tx = optax.inject_hyperparams(optax.sgd)(learning_rate=WSD, momentum=momentum)
  state = tx.init(jnp.ones(()))
  for t in range(3):
    _, state = tx.update(jnp.ones(()), state)
    np.testing.assert_allclose(
      state.hyperparams['momentum'], momentum(t), rtol=1e-6
    )


BAD = [
  (lambda: lrsched.Scaled(schedule=WSD, factor=-1), r'Scaled\.factor must be'),
  (
    lambda: lrsched.Scaled(schedule=1.0, factor=1),
    'schedule must be a Schedule',
  ),
  (
    lambda: lrsched.Clipped(schedule=WSD, low_lr=2.0, high_lr=1.0),
    r'Clipped\.low_lr must be at most high_lr=1\.0, got 2\.0',
  ),
  (lambda: lrsched.Product(schedules=()), 'at least one schedule'),
  (
    lambda: lrsched.Tied(
      schedule=WSD, low_lr=1.0, high_lr=1.0, at_low=0, at_high=1
    ),
    r'Tied\.high_lr must be above low_lr=1\.0, got 1\.0',
  ),
]


@pytest.mark.parametrize(('make', 'message'), BAD)
def test_bad_values_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_product_of_what_is_over_rests_from_the_start():
  over = lrsched.Shifted(
    schedule=lrsched.Linear(peak_lr=1.0, final_lr=0.5, total_steps=4),
    by_steps=4,
  )
  product = lrsched.Product(schedules=(over, over))
  assert product.phases() == (('rest', 0, 0),)
  assert float(product(0)) == 0.25
