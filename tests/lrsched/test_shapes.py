"""Decay shapes against closed forms in float64 and published values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from tests.registry import SHAPES

S = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
E = math.e

# Six digits of each formula at S; the last two rows are the closed forms that
# Megatron-LM (2 * 0.5^s - 1) and dolomite-engine (A e^-s + B) compute.
GOLDEN = [
  (lrsched.LinearDecay(), 0.0, (1, 0.9, 0.75, 0.5, 0.25, 0.1, 0)),
  (lrsched.LinearDecay(), 0.1, (1, 0.91, 0.775, 0.55, 0.325, 0.19, 0.1)),
  (
    lrsched.CosineDecay(),
    0.0,
    (1, 0.975528, 0.853553, 0.5, 0.146447, 0.024472, 0),
  ),
  (
    lrsched.OneMinusSqrt(),
    0.0,
    (1, 0.683772, 0.5, 0.292893, 0.133975, 0.051317, 0),
  ),
  (lrsched.SquareDecay(), 0.0, (1, 0.99, 0.9375, 0.75, 0.4375, 0.19, 0)),
  (
    lrsched.MirrorCosine(),
    0.0,
    (1, 0.824472, 0.646447, 0.5, 0.353553, 0.175528, 0),
  ),
  (
    lrsched.ExponentialDecay(),
    0.1,
    (1, 0.794328, 0.562341, 0.316228, 0.177828, 0.125893, 0.1),
  ),
  (
    lrsched.InverseDecay(),
    0.1,
    (1, 0.526316, 0.307692, 0.181818, 0.129032, 0.109890, 0.1),
  ),
  (
    lrsched.HalfLife(halvings=1.0),
    0.0,
    (1, 0.866066, 0.681793, 0.414214, 0.189207, 0.071773, 0),
  ),
  (
    lrsched.HalfLife(halvings=math.log2(E)),
    0.0,
    (1, 0.849455, 0.650068, 0.377541, 0.165296, 0.061207, 0),
  ),
]


@pytest.mark.parametrize(('shape', 'ratio', 'values'), GOLDEN)
def test_published_values(shape, ratio, values):
  np.testing.assert_allclose(shape(jnp.asarray(S), ratio), values, atol=5.5e-7)


def test_dolomite_exponential_with_a_floor():
  shape = lrsched.HalfLife(halvings=math.log2(E))
  assert float(shape(0.5, 0.1)) == pytest.approx(0.439787, abs=5.5e-7)


@pytest.mark.parametrize(
  ('step', 'value'), [(1000, 0.870551), (5000, 0.5), (10000, 0.25)]
)
def test_minicpm_half_life_of_5000_steps(step, value):
  """`n` halvings down to `2^-n` of the peak are the plain `0.5^(t/h)`."""
  decay_steps, half_life_steps = 20_000, 5000
  halvings = decay_steps / half_life_steps
  wsd = lrsched.WSD(
    peak_lr=1.0,
    final_lr=0.5**halvings,
    warmup_steps=0,
    stable_steps=100,
    decay_steps=decay_steps,
    decay=lrsched.HalfLife(halvings=halvings),
  )
  assert float(wsd(100 + step)) == pytest.approx(value, rel=2e-6)


@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('ratio', [0.1, 0.5, 1.0])
def test_ends_are_exact(name, ratio):
  assert float(SHAPES[name](0.0, ratio)) == pytest.approx(1.0, abs=1e-7)
  assert SHAPES[name](1.0, ratio) == jnp.float32(ratio)


@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('ratio', [0.001, 0.3])
def test_never_rises(name, ratio):
  factors = np.asarray(SHAPES[name](jnp.linspace(0, 1, 1001), ratio))
  assert np.all(np.diff(factors) <= 1e-7)


CLOSED = {
  'linear': lambda s: 1 - s,
  'cosine': lambda s: np.sin(np.pi / 2 * (1 - s)) ** 2,
  'one_minus_sqrt': lambda s: 1 - np.sqrt(s),
  'square': lambda s: 1 - s * s,
  'mirror_cosine': lambda s: 2 * (1 - s) - np.sin(np.pi / 2 * (1 - s)) ** 2,
  'half_life': lambda s: 2 * 0.5**s - 1,
}


@pytest.mark.parametrize('name', CLOSED)
@pytest.mark.parametrize('decay_steps', [10, 1000, 100_000])
def test_relative_accuracy_to_the_last_step(name, decay_steps):
  """float32 within 5e-7 relative of float64, also where the LR is tiny."""
  wsd = lrsched.WSD(
    peak_lr=1.0,
    warmup_steps=0,
    stable_steps=0,
    decay_steps=decay_steps,
    decay=SHAPES[name],
  )
  left = np.unique(np.linspace(1, decay_steps, 500).astype(int))
  done = (decay_steps - left).astype(np.float64) / decay_steps
  expected = CLOSED[name](done)
  # 1 - x loses digits in float64 too: 1e-16 of 1 against the value itself.
  tolerance = 5e-7 + 1e-15 / expected.min()
  lr = np.asarray(wsd(jnp.asarray(decay_steps - left)))
  np.testing.assert_allclose(lr, expected, rtol=tolerance)


@pytest.mark.parametrize('halvings', [0.0, -1.0, 101.0, float('nan'), '1'])
def test_half_life_refuses(halvings):
  with pytest.raises(ValueError, match=r'HalfLife\.halvings must be'):
    lrsched.HalfLife(halvings=halvings)


@pytest.mark.parametrize('final_lr', [0.0, 1e-25, 1e-20, 1e-6])
@pytest.mark.parametrize('name', ['exponential', 'inverse'])
def test_gradient_of_a_vanishing_floor_is_finite(name, final_lr):
  """Traced, so that the check at construction cannot refuse 0."""

  def lr(final_lr, t):
    return lrsched.WSD(
      peak_lr=1e-3,
      final_lr=final_lr,
      warmup_steps=0,
      stable_steps=5,
      decay_steps=5,
      decay=SHAPES[name],
    )(t)

  for t in range(12):
    value, slope = jax.value_and_grad(lr)(jnp.float32(final_lr), t)
    assert np.isfinite(value), t
    assert np.isfinite(slope), t


@pytest.mark.parametrize('power', [0.5, 1.5])
def test_a_power_is_differentiable_in_the_longest_decays(power):
  """Where one step of 2^30 is nothing to a float32."""
  wsd = lrsched.WSD(
    peak_lr=1.0,
    warmup_steps=0,
    stable_steps=0,
    decay_steps=2**30,
    decay=lrsched.OneMinusPower(power=power),
  )
  slope = jax.jit(jax.grad(lambda s, t: s(t), allow_int=True))
  for t in (0, 1, 2**10, 2**29, 2**30 - 1, 2**30):
    assert np.isfinite(slope(wsd, t).decay.power), t
