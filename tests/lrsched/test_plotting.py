"""plot: the drawn curve is the schedule, jumps included."""

import numpy as np
import pytest

import lrsched
from tests.registry import SCHEDULES
from tests.registry import WSDS


@pytest.mark.parametrize('name', SCHEDULES)
def test_the_curve_is_the_schedule(name):
  line = lrsched.plot(SCHEDULES[name], 120).lines[0]
  steps, lrs = line.get_xdata(), line.get_ydata()
  np.testing.assert_allclose(lrs, SCHEDULES[name](steps), rtol=1e-6, atol=1e-12)


def test_a_jump_is_drawn_where_it_is_in_a_long_run():
  long = lrsched.WSDS.of_cycle(
    peak_lr=1.0,
    final_lr=0.1,
    warmup_steps=0,
    cycle_ends=(500_000, 1_000_000),
    decay_frac=0.1,
  )
  steps = lrsched.plot(long).lines[0].get_xdata()
  assert {499_999, 500_000} <= set(steps.tolist())
  assert len(steps) < 3000


def test_decays_are_shaded():
  assert len(lrsched.plot(WSDS).patches) == 3


def test_an_endless_schedule_needs_a_length():
  with pytest.raises(ValueError, match='Constant has no end'):
    lrsched.plot(lrsched.Constant(lr=1.0))
  with pytest.raises(ValueError, match='total_steps must be >= 1, got 0'):
    lrsched.plot(lrsched.Constant(lr=1.0), 0)
