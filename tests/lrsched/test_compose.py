"""Warmup, Sequence, Chained and Rewarm."""

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


def test_exponential_warmup_rises_by_equal_ratios():
  warm = lrsched.Warmup(
    schedule=lrsched.Constant(lr=1e-3),
    warmup_steps=10,
    from_lr=1e-5,
    rise=lrsched.ExponentialDecay(),
  )
  expected = 1e-5 * 100 ** (np.arange(1, 11) / 10)
  np.testing.assert_allclose(warm(jnp.arange(10)), expected, rtol=1e-6)


@pytest.mark.parametrize('from_lr', [2e-4, 1e-3, 5e-3])
def test_warmup_from_an_lr_below_at_or_above(from_lr):
  warm = lrsched.Warmup(
    schedule=lrsched.Constant(lr=1e-3), warmup_steps=4, from_lr=from_lr
  )
  expected = from_lr + (1e-3 - from_lr) * np.asarray([0.25, 0.5, 0.75, 1, 1])
  np.testing.assert_allclose(warm(jnp.arange(5)), expected, rtol=1e-6)


def test_exponential_warmup_needs_something_to_rise_from():
  with pytest.raises(ValueError, match=r'Warmup\.from_lr must be > 0 with Exp'):
    lrsched.Warmup(
      schedule=lrsched.Constant(lr=1.0),
      warmup_steps=4,
      rise=lrsched.ExponentialDecay(),
    )


COSINE_THEN_LINE = lrsched.Chained(
  schedules=(
    lrsched.Warmup(
      schedule=lrsched.Cosine(peak_lr=1e-3, final_lr=1e-4, total_steps=900),
      warmup_steps=100,
    ),
    lrsched.Linear(peak_lr=7.0, total_steps=50),
  ),
  boundaries=(800,),
)


def test_chained_starts_each_piece_where_the_last_one_stands():
  first = COSINE_THEN_LINE.schedules[0]
  lrs = COSINE_THEN_LINE(jnp.arange(851))
  np.testing.assert_array_equal(lrs[:800], first(jnp.arange(800)))
  line = float(first(800)) * (1 - np.arange(51) / 50)
  np.testing.assert_allclose(lrs[800:], line, rtol=1e-6)


def test_chained_joins_stay_closed_in_a_sweep():
  jump = jax.jit(lambda s: s(800) / s.schedules[0](800))
  for peak_lr in (1e-3, 2e-3):
    spec = jax.tree.map(lambda x: x, COSINE_THEN_LINE)
    object.__setattr__(spec.schedules[0].schedule, 'peak_lr', peak_lr)
    assert float(jump(lrsched.as_arrays(spec))) == pytest.approx(1, rel=1e-6)


def test_chained_refuses_a_piece_that_starts_at_nothing():
  with pytest.raises(
    ValueError, match=r'Chained.schedules\[1\] must be above 0'
  ):
    lrsched.Chained(
      schedules=(
        lrsched.Constant(lr=1.0),
        lrsched.PiecewiseLinear(steps=(0, 5), lrs=(0.0, 1.0)),
      ),
      boundaries=(5,),
    )


def test_rewarm_is_old_run_then_warmup_then_new_schedule():
  """The 405M continual run of arXiv:2403.08763, a thousand times shorter."""
  before = lrsched.Warmup(
    schedule=lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=99),
    warmup_steps=1,
  )
  after = lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=90)
  run = lrsched.Rewarm(
    before=before, rewarm_step=100, warmup_steps=10, after=after
  )
  lrs = np.asarray(run(jnp.arange(210)))
  np.testing.assert_allclose(lrs[:100], before(jnp.arange(100)), rtol=1e-6)
  rise = 3e-5 + 2.7e-4 * np.arange(1, 11) / 10
  np.testing.assert_allclose(lrs[100:110], rise, rtol=1e-6)
  np.testing.assert_allclose(lrs[110:200], after(jnp.arange(90)), rtol=1e-6)
  assert run.end_step == 200
  assert [p.name for p in run.phases()] == [
    *('warmup', 'decay', 'warmup', 'decay')
  ]


def test_rewarm_without_warmup_jumps():
  run = lrsched.Rewarm(
    before=lrsched.Constant(lr=1.0),
    rewarm_step=5,
    warmup_steps=0,
    after=lrsched.Constant(lr=3.0),
  )
  assert [float(run(t)) for t in (4, 5)] == [1.0, 3.0]


def test_exponential_rewarm_needs_an_lr_to_rise_from():
  with pytest.raises(ValueError, match='LR at rewarm_step must be > 0'):
    lrsched.Rewarm(
      before=lrsched.Linear(peak_lr=1.0, total_steps=5),
      rewarm_step=5,
      warmup_steps=2,
      after=lrsched.Constant(lr=1.0),
      rise=lrsched.ExponentialDecay(),
    )


def test_stable_then_decay_of_octothinker():
  """arXiv:2506.20512 at 3B: 2e-5, then a cosine to a tenth in 5000 steps."""
  run = lrsched.Sequence(
    schedules=(
      lrsched.Constant(lr=2e-5),
      lrsched.Cosine(peak_lr=2e-5, final_lr=2e-6, total_steps=5000),
    ),
    boundaries=(50_000,),
  )
  values = [float(run(t)) for t in (0, 49_999, 50_000, 52_500, 55_000)]
  np.testing.assert_allclose(
    values, [2e-5, 2e-5, 2e-5, 1.1e-5, 2e-6], rtol=1e-6
  )


@pytest.mark.parametrize(
  'shape', [lrsched.LinearDecay(), lrsched.CosineDecay()]
)
def test_a_fall_to_nothing_is_a_fall_not_a_jump(shape):
  """OLMo-core's `override_decay` to 0 from wherever the LR is."""
  run = lrsched.Rewarm(
    before=lrsched.Constant(lr=1.0),
    rewarm_step=10,
    warmup_steps=10,
    after=lrsched.Constant(lr=0.0),
    rise=shape,
  )
  down = lrsched.WSD(
    peak_lr=1.0, warmup_steps=0, stable_steps=10, decay_steps=10, decay=shape
  )
  steps = jnp.arange(10, 25)
  # A warmup of W is at its target in update W-1, a decay in the one after.
  np.testing.assert_allclose(run(steps), down(steps + 1), atol=1e-7)
  slope = jax.grad(lambda s: s(14), allow_int=True)(run).before.lr
  assert float(slope) == pytest.approx(0.5, abs=1e-6)


def test_nested_rewarms_are_traced_in_no_time():
  spec = lrsched.Constant(lr=1.0)
  for i in range(12):
    spec = lrsched.Rewarm(
      before=spec,
      rewarm_step=10 * (i + 1),
      warmup_steps=2,
      after=lrsched.Constant(lr=1.0),
    )
  n = len(jax.make_jaxpr(lambda t: spec(t))(5).jaxpr.eqns)
  assert n < 12 * 200  # each doubles it where `before` is evaluated twice
