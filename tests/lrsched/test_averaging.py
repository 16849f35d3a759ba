"""Averages of weights are the decays they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from lrsched.averaging import average
from lrsched.averaging import ema_decay_of
from lrsched.averaging import ema_weights
from lrsched.averaging import merge_weights
from tests.registry import SHAPES

FLOOR = 0.1  # for shapes that need one


def floor_of(shape):
  return FLOOR if shape.needs_floor else 0.0


def factors_of(weights):
  """What an average multiplies the update of each segment by."""
  return np.cumsum(weights[::-1])[::-1][1:]


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('final_frac', [0.0, FLOOR, 1.0])
def test_coefficients_are_convex_and_sum_to_one(shape, final_frac):
  if shape.needs_floor and final_frac == 0:
    pytest.skip('needs a final LR')
  for n in (2, 3, 17):
    weights = merge_weights(shape, n, final_frac)
    assert weights.shape == (n,)
    assert weights.dtype == np.float64
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-15)
    # Never less than the end of the decay: it falls to there.
    assert weights[-1] >= final_frac - 1e-6


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_merged_weights_are_the_sum_of_decayed_updates(shape):
  """Any updates whatever, so also those of a linear model."""
  rng = np.random.default_rng(0)
  start, updates = rng.normal(size=7), rng.normal(size=(12, 7))
  checkpoints = start + np.concatenate([np.zeros((1, 7)), updates.cumsum(0)])
  weights = merge_weights(shape, 13, floor_of(shape))
  # float32 shape values, in an integral over each segment.
  edges = np.linspace(0, 1, 12 * 2000 + 1)
  middles = (edges[1:] + edges[:-1]) / 2
  mean = np.asarray(shape(middles, floor_of(shape)), float)
  mean = mean.reshape(12, 2000).mean(1)
  merged = average(list(checkpoints), weights)
  # 1e-5: both take the mean at points, of a shape that is float32.
  np.testing.assert_allclose(merged, start + mean @ updates, atol=1e-5)
  # With its own factors it is exact to the rounding of float64.
  exact = start + factors_of(weights) @ updates
  np.testing.assert_allclose(merged, exact, rtol=1e-13, atol=1e-13)


def test_known_coefficients():
  """Closed forms: the mean of 1 - s and of 1 - s^2 over thirds."""
  linear = merge_weights(lrsched.LinearDecay(), 4)
  np.testing.assert_allclose(linear, np.array([1, 2, 2, 1]) / 6, atol=1e-6)
  square = merge_weights(lrsched.SquareDecay(), 4)
  means = 1 - np.array([1, 7, 19]) / 27
  np.testing.assert_allclose(square, -np.diff([1, *means, 0]), atol=1e-6)
  half = merge_weights(lrsched.LinearDecay(), 4, 0.5)
  np.testing.assert_allclose(half, np.array([1, 2, 2, 7]) / 12, atol=1e-6)


def test_constant_lr_is_the_last_checkpoint():
  weights = merge_weights(lrsched.LinearDecay(), 5, 1.0)
  np.testing.assert_allclose(weights, [0, 0, 0, 0, 1], atol=1e-6)


def test_a_merge_is_a_decay_where_the_gradient_does_not_move():
  """On a linear loss the decayed run is the merged one, update by update.

  A checkpoint after every update, so that a segment is one update; its factor
  is the mean of a line, which the LR in the middle of the update has too.
  """
  slope, peak_lr, steps = np.array([1.0, -2.0]), 0.1, 20
  lr = lambda s: peak_lr * float(lrsched.LinearDecay()(s))
  stable = [np.zeros(2)]
  decayed = np.zeros(2)
  for i in range(steps):
    stable.append(stable[-1] - peak_lr * slope)
    decayed = decayed - lr((i + 0.5) / steps) * slope
  weights = merge_weights(lrsched.LinearDecay(), steps + 1)
  # float32 LRs of about 0.1 in a sum of 20.
  np.testing.assert_allclose(average(stable, weights), decayed, atol=1e-6)


def test_a_merge_forgets_noise_as_a_decay_does():
  """Noisy SGD on a quadratic: the merge beats the last weights as theory says.

  Weights that oscillate as an AR(1) of coefficient a = 1 - lr have variance
  lr^2 s^2 / (1 - a^2); a mean with coefficients c has c' R c of it, with the
  autocorrelation R = a^|i - j|.
  """
  lr, n, runs = 0.2, 40, 20_000
  a = 1 - lr
  noise = np.random.default_rng(1).normal(size=(300, runs))
  x, kept = np.zeros(runs), []
  for row in noise:
    x = a * x + lr * row
    kept.append(x)
  weights = merge_weights(lrsched.OneMinusSqrt(), n)
  merged = average(kept[-n:], weights)
  lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
  expected = weights @ a**lags @ weights
  # The variance of 20 000 normals is known to 1 % (one s.e.).
  np.testing.assert_allclose(merged.var() / x.var(), expected, rtol=0.05)
  assert expected < 0.35


def test_ema_weights_are_those_of_the_recursion():
  x = np.random.default_rng(2).normal(size=(9, 4))
  ema = x[0]
  for row in x[1:]:
    ema = 0.8 * ema + 0.2 * row
  weights = ema_weights(0.8, 9)
  np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-15)
  np.testing.assert_allclose(average(list(x), weights), ema, rtol=1e-13)
  np.testing.assert_array_equal(ema_weights(0.8, 1), [1.0])


@pytest.mark.parametrize('window', [2, 5, 99])
def test_an_ema_is_as_old_as_a_mean_of_its_window(window):
  n = 200 * window  # all but e^-400 of the average
  ages = np.arange(n - 1, -1, -1)
  age = ema_weights(ema_decay_of(window), n) @ ages
  np.testing.assert_allclose(age, (window - 1) / 2, rtol=1e-9)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32'])
def test_an_average_rounds_once(dtype):
  """In 16 bits, a running sum would lose what is added to it."""
  n = 1000
  trees = [{'a': [jnp.full((2, 3), 1.0 + i / n, dtype)]} for i in range(n)]
  mean = average(trees, [1 / n] * n)
  assert jax.tree.structure(mean) == jax.tree.structure(trees[0])
  assert mean['a'][0].dtype == dtype
  exact = np.mean([np.float64(t['a'][0][0, 0]) for t in trees])
  # float32 sums a thousand terms to about 1e-5; then one rounding.
  step = float(jnp.finfo(dtype).eps)
  np.testing.assert_allclose(np.float64(mean['a'][0]), exact, rtol=step + 2e-5)


def test_an_average_of_numpy_arrays_is_summed_in_float64():
  trees = [np.full(3, 1e8, np.float32), np.full(3, 1.0, np.float32)]
  mean = average([*trees, *trees], [0.5, 0.5, -0.5, 0.5])
  assert isinstance(mean, np.ndarray)
  assert mean.dtype == np.float32
  np.testing.assert_array_equal(mean, 1.0)  # float32 sums would give 0


def test_an_average_may_be_of_a_generator_and_in_a_program():
  trees = [{'w': jnp.full(2, float(i))} for i in range(4)]
  weights = merge_weights(lrsched.LinearDecay(), 4)
  direct = average((t for t in trees), weights)
  jitted = jax.jit(lambda ts: average(ts, weights))(trees)
  np.testing.assert_allclose(direct['w'], 1.5, rtol=1e-6)
  np.testing.assert_array_equal(jitted['w'], direct['w'])


ONE, TWO = {'w': np.ones(2)}, {'w': np.zeros(2)}


@pytest.mark.parametrize(
  ('call', 'said'),
  [
    (lambda: merge_weights('cosine', 3), 'decay must be a decay shape'),
    (lambda: merge_weights(lrsched.LinearDecay(), 1), 'n_checkpoints must'),
    (lambda: merge_weights(lrsched.LinearDecay(), 2.0), 'n_checkpoints must'),
    (lambda: merge_weights(lrsched.LinearDecay(), 3, 1.5), 'final_frac must'),
    (lambda: merge_weights(lrsched.InverseDecay(), 3), 'final_frac must be >'),
    (lambda: ema_weights(1.0, 3), r'decay must be in \(0, 1\)'),
    (lambda: ema_weights(0.5, 0), 'n must be a whole number >= 1'),
    (lambda: ema_decay_of(1), 'window must be a whole number >= 2'),
    (lambda: average([ONE, TWO], [0.5, 0.4]), 'must have sum 1, got 0.9'),
    (lambda: average([ONE, TWO], [0.5, np.nan]), 'must have sum 1, got nan'),
    (lambda: average([ONE], []), 'coefficients must be a list'),
    (lambda: average([ONE], [0.5, 0.5]), 'got 2 and fewer trees'),
    (lambda: average([ONE, TWO], [1.0]), 'got 1 and more trees'),
    (
      lambda: average([ONE, {'w': np.ones(3)}], [0.5, 0.5]),
      r'trees\[1\] must be as trees\[0\], got w: float64\[3\], not',
    ),
    (
      lambda: average([ONE, {'v': np.ones(2)}], [0.5, 0.5]),
      r'got w: \(absent\), not float64\[2\]',
    ),
    (
      lambda: average([{'n': np.ones(2, int)}], [1.0]),
      'must hold floating-point arrays, got int64 at n',
    ),
  ],
)
def test_what_does_not_fit_is_named(call, said):
  with pytest.raises(ValueError, match=said):
    call()


def test_a_shape_that_rises_is_refused():
  class Bump(lrsched.DecayShape):
    """Up to 2 and down."""

    def factor(self, done, left, ratio):
      return left * (1 + 4 * done)

  with pytest.raises(ValueError, match=r'must not rise.* checkpoints 0 and 2'):
    merge_weights(Bump(), 9)
