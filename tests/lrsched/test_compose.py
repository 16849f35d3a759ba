"""Warmup and Sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched


def test_sequence_is_its_pieces_rebased():
  first = lrsched.Linear(peak_lr=1.0, final_lr=0.5, total_steps=10)
  second = lrsched.Cosine(peak_lr=0.5, total_steps=20)
  both = lrsched.Sequence(schedules=(first, second), boundaries=(10,))
  lrs = both(jnp.arange(40))
  np.testing.assert_allclose(lrs[:10], first(jnp.arange(10)), rtol=1e-6)
  np.testing.assert_allclose(lrs[10:], second(jnp.arange(30)), rtol=1e-6)


def test_boundary_belongs_to_the_later_piece():
  both = lrsched.Sequence(
    schedules=(lrsched.Constant(lr=1.0), lrsched.Constant(lr=2.0)),
    boundaries=(5,),
  )
  assert [float(both(t)) for t in (4, 5)] == [1.0, 2.0]


def test_an_inactive_piece_cannot_poison_value_or_gradient():
  """A piece that is infinite outside its stretch, as a bare 1/sqrt is."""

  @lrsched.schedule
  class InverseOfWhatIsLeft(lrsched.Schedule):
    lr: lrsched.LR
    left_steps: lrsched.PositiveSteps

    def __call__(self, step):
      spec = lrsched.as_arrays(self)
      return spec.lr / (spec.left_steps - lrsched.as_step(step))

    def phases(self):
      return (lrsched.Phase('rise', 0, None),)

  both = lrsched.Sequence(
    schedules=(
      InverseOfWhatIsLeft(lr=1.0, left_steps=10),  # infinite at its step 10
      lrsched.Constant(lr=2.0),
    ),
    boundaries=(10,),
  )
  value, grad = jax.value_and_grad(lambda s: s(10), allow_int=True)(both)
  assert value == 2.0
  assert grad.schedules[0].lr == 0.0
  assert grad.schedules[1].lr == 1.0


def test_warmup_of_zero_steps_is_the_schedule_itself():
  """Optax's warmup_constant_schedule with 0 steps is 0 for ever."""
  inner = lrsched.Linear(peak_lr=1.0, total_steps=10)
  warm = lrsched.Warmup(schedule=inner, warmup_steps=0)
  np.testing.assert_array_equal(warm(jnp.arange(12)), inner(jnp.arange(12)))


def test_warmup_moves_at_once_and_meets_the_peak():
  warm = lrsched.Warmup(schedule=lrsched.Constant(lr=3e-4), warmup_steps=4)
  expected = np.float32(3e-4) * np.array([0.25, 0.5, 0.75, 1, 1], np.float32)
  np.testing.assert_allclose(warm(jnp.arange(5)), expected, rtol=1e-7)


def test_warmup_near_the_greatest_step_does_not_wrap():
  warm = lrsched.Warmup(
    schedule=lrsched.Constant(lr=1.0), warmup_steps=2**31 - 1
  )
  assert warm(2**31 - 1) == 1.0
  assert warm(2**30) == pytest.approx(0.5, rel=1e-6)


BAD = [
  (((), ()), 'one fewer than its schedules'),
  (((1, 1), ()), 'got 0 for 2'),
  (((1,), (5,)), 'got 1 for 1'),
  (((1, 1, 1), (5, 5)), r'boundaries\[1\] must be > boundaries\[0\]=5'),
  (((1, 1, 1), (5, 4)), r'boundaries\[1\] must be > boundaries\[0\]=5, got 4'),
  (((1, 1), (0,)), r'boundaries\[0\] must be a whole number >= 1'),
]


@pytest.mark.parametrize(('case', 'message'), BAD)
def test_sequence_refuses(case, message):
  lrs, boundaries = case
  pieces = tuple(lrsched.Constant(lr=lr) for lr in lrs)
  with pytest.raises(ValueError, match=message):
    lrsched.Sequence(schedules=pieces, boundaries=boundaries)


def test_a_piece_must_be_a_schedule():
  with pytest.raises(ValueError, match=r'schedules\[0\] must be a Schedule'):
    lrsched.Sequence(schedules=(0.1,), boundaries=())


def test_phases_of_a_cut_piece_end_at_the_boundary():
  both = lrsched.Sequence(
    schedules=(
      lrsched.WSD(peak_lr=1.0, warmup_steps=2, stable_steps=8, decay_steps=5),
      lrsched.Linear(peak_lr=1.0, total_steps=3),
    ),
    boundaries=(12,),
  )
  assert both.phases() == (
    ('warmup', 0, 2),
    ('stable', 2, 10),
    ('decay', 10, 12),
    ('decay', 12, 15),
  )


def test_phases_of_a_piece_without_a_warmup():
  wsd = lrsched.WSD(peak_lr=1.0, warmup_steps=0, stable_steps=9, decay_steps=9)
  both = lrsched.Sequence(
    schedules=(wsd, lrsched.Constant(lr=1.0)), boundaries=(12,)
  )
  assert both.phases()[:2] == (('warmup', 0, 0), ('stable', 0, 9))


def test_lengths_that_would_wrap_are_refused():
  long = lrsched.Linear(peak_lr=1.0, total_steps=2**31 - 1)
  with pytest.raises(ValueError, match='Warmup: the lengths must sum to'):
    lrsched.Warmup(schedule=long, warmup_steps=1)
  with pytest.raises(ValueError, match='Sequence: the lengths must sum to'):
    lrsched.Sequence(schedules=(long, long), boundaries=(1,))
