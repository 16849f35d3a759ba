"""Every kind against its formula as printed, in float64 numpy.

Written the way the papers print them, not the way the library computes them:
`1 + cos(pi t/T)` where the library has a squared sine. Under x64 they agree to
1e-6 relative; in float32 to 1e-5, or 1e-7 of the peak next to a floor of 0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from tests.registry import SCHEDULES

T = np.arange(140)


def half_cosine(s):
  return 0.5 * (1 + np.cos(np.pi * s))


def inverse_sqrt_cooldown(x, alpha):
  h = lambda x: 1 / np.sqrt(1 + alpha * x) - 1
  return 1 - h(x) / h(1)


SHAPES = {
  'LinearDecay': lambda s, r, d: r + (1 - r) * (1 - s),
  'CosineDecay': lambda s, r, d: r + (1 - r) * half_cosine(s),
  'OneMinusSqrt': lambda s, r, d: r + (1 - r) * (1 - np.sqrt(s)),
  'OneMinusPower': lambda s, r, d: r + (1 - r) * (1 - s**d.power),
  'SquareDecay': lambda s, r, d: r + (1 - r) * (1 - s**2),
  'MirrorCosine': lambda s, r, d: r + (1 - r) * (2 * (1 - s) - half_cosine(s)),
  'ExponentialDecay': lambda s, r, d: r**s,
  'HalfLife': lambda s, r, d: (
    r + (1 - r) * (2 ** (d.halvings * (1 - s)) - 1) / (2**d.halvings - 1)
  ),
  'InverseDecay': lambda s, r, d: 1 / (s / r + (1 - s)),
  'InverseSqrtDecay': lambda s, r, d: (
    r + (1 - r) * inverse_sqrt_cooldown(s, d.alpha)
  ),
  'PowerOfLeft': lambda s, r, d: r + (1 - r) * (1 - s) ** d.power,
  'ReflectedExponential': lambda s, r, d: (
    r + (1 - r) * (1 - s) / ((1 - d.beta) + d.beta * (1 - s))
  ),
}


def decayed(shape, peak, final, t, start, length):
  """`peak` before the decay, `final` after it, in between the shape."""
  s = np.clip((t - start) / length, 0, 1)
  value = peak * SHAPES[type(shape).__name__](s, final / peak, shape)
  return np.where(s >= 1, final, value)


def warmed(t, warmup_steps, lr):
  ramp = np.minimum((t + 1) / max(warmup_steps, 1), 1)
  return lr * np.where(t < warmup_steps, ramp, 1)


def over_all(p, t, shape):
  return decayed(shape, p.peak_lr, p.final_lr, t, 0, p.total_steps)


def wsd(p, t, final=None):
  start = p.warmup_steps + p.stable_steps
  final = p.final_lr if final is None else final
  lr = decayed(p.decay, p.peak_lr, final, t, start, p.decay_steps)
  return warmed(t, p.warmup_steps, lr)


def wsds(p, t):
  i = np.minimum(np.searchsorted(p.cycle_ends, t, side='right'), 10**6)
  out = np.full(t.shape, float(p.final_lr))
  for k, (end, n) in enumerate(zip(p.cycle_ends, p.decay_steps, strict=True)):
    lr = decayed(p.decay, p.peak_lr, p.final_lr, t, end - n, n)
    out = np.where(i == k, lr, out)
  return warmed(t, p.warmup_steps, out)


def power(p, t):
  eta = lambda n: np.minimum(
    p.peak_lr, p.batch_size * p.amplitude * n**p.exponent
  )
  tokens = np.maximum(t, max(p.warmup_steps, 1)) * float(p.tokens_per_step)
  lr = eta(tokens)
  if p.decay_steps:
    start = p.warmup_steps + p.stable_steps
    at_start = eta(max(start, 1) * float(p.tokens_per_step))
    down = decayed(p.decay, at_start, p.final_lr, t, start, p.decay_steps)
    lr = np.where(t >= start, down, lr)
  return warmed(t, p.warmup_steps, lr)


def infinite(p, t):
  cooled = p.warmup_steps + p.cooldown_steps
  constant_until = cooled + p.const_steps
  down = decayed(
    p.cooldown, p.peak_lr, p.const_lr, t, p.warmup_steps, p.cooldown_steps
  )
  x = np.clip((t - constant_until) / p.anneal_steps, 0, 1)
  anneal = p.const_lr * (p.final_lr / p.const_lr) ** x
  return warmed(t, p.warmup_steps, np.where(t < cooled, down, anneal))


def cosine_restarts(p, t):
  out = np.full(t.shape, float(p.final_lr))
  starts = (0, *p.cycle_ends)
  for i, end in enumerate(p.cycle_ends):
    peak = max(p.final_lr, p.peak_lr * p.peak_factor**i)
    s = (t - starts[i]) / (end - starts[i])
    lr = p.final_lr + (peak - p.final_lr) * half_cosine(s)
    out = np.where((t >= starts[i]) & (t < end), lr, out)
  return out


def one_cycle(p, t):
  down_end = p.up_steps + p.down_steps
  low = p.initial_lr if p.tail_steps else p.final_lr
  up = decayed(p.shape, p.peak_lr, p.initial_lr, p.up_steps - t, 0, p.up_steps)
  lr = decayed(p.shape, p.peak_lr, low, t, p.up_steps, p.down_steps)
  if p.tail_steps:
    tail = decayed(p.shape, low, p.final_lr, t, down_end, p.tail_steps)
    lr = np.where(t >= down_end, tail, lr)
  return np.where(t < p.up_steps, up, lr)


def triangular(p, t):
  period = p.up_steps + p.down_steps
  within = t % period
  rise, fall = within / p.up_steps, (period - within) / p.down_steps
  height = np.where(within < p.up_steps, rise, fall)
  scale = p.peak_factor ** (t // period)
  return p.low_lr + (p.peak_lr - p.low_lr) * scale * height


def step(p, t):
  factors = np.asarray((1.0, *p.factors))
  return p.peak_lr * factors[np.searchsorted(p.boundaries, t, side='right')]


def warmup(p, t):
  w = p.warmup_steps
  lr = exact(p.schedule, np.maximum(t - w, 0))
  if not w:
    return lr
  s = 1 - np.minimum(t + 1, w) / w
  peak = exact(p.schedule, np.zeros(1, int))[0]
  ratio = p.from_lr / peak
  rise = peak * SHAPES[type(p.rise).__name__](s, ratio, p.rise)
  return np.where(t < w, rise, lr)


def sequence(p, t):
  out = exact(p.schedules[0], t)
  for start, piece in zip(p.boundaries, p.schedules[1:], strict=True):
    out = np.where(t >= start, exact(piece, np.maximum(t - start, 0)), out)
  return out


def chained(p, t):
  out, level, begin = exact(p.schedules[0], t), 1.0, 0
  pieces = zip(p.boundaries, p.schedules, p.schedules[1:], strict=False)
  for start, before, piece in pieces:
    at = lambda s, i: exact(s, np.asarray([i]))[0]
    level = level * at(before, start - begin) / at(piece, 0)
    later = level * exact(piece, np.maximum(t - start, 0))
    out, begin = np.where(t >= start, later, out), start
  return out


def rewarm(p, t):
  from_lr = exact(p.before, np.asarray([p.rewarm_step]))[0]
  later = lrsched.Warmup(
    schedule=p.after,
    warmup_steps=p.warmup_steps,
    from_lr=float(from_lr),
    rise=p.rise,
  )
  after = warmup(later, np.maximum(t - p.rewarm_step, 0))
  return np.where(t < p.rewarm_step, exact(p.before, t), after)


def between(schedule, place):
  whole = np.floor(place).astype(int)
  f = place - whole
  return (1 - f) * exact(schedule, whole) + f * exact(schedule, whole + 1)


def ramped(p, t):
  sizes = np.asarray(p.batch_sizes)
  of_update = sizes[np.searchsorted(p.boundaries, np.arange(200), 'right')]
  samples = np.concatenate([[0], np.cumsum(of_update)])
  return between(p.schedule, samples[t] / sizes[-1])


def tied(p, t):
  f = (exact(p.schedule, t) - p.low_lr) / (p.high_lr - p.low_lr)
  return p.at_low + (p.at_high - p.at_low) * np.clip(f, 0, 1)


FORMULAS = {
  'Constant': lambda p, t: np.full(t.shape, float(p.lr)),
  'Linear': lambda p, t: over_all(p, t, lrsched.LinearDecay()),
  'Cosine': lambda p, t: over_all(p, t, lrsched.CosineDecay()),
  'Polynomial': lambda p, t: over_all(p, t, lrsched.PowerOfLeft(power=p.power)),
  'REX': lambda p, t: over_all(p, t, lrsched.ReflectedExponential(beta=p.beta)),
  'Exponential': lambda p, t: np.maximum(
    p.final_lr, p.peak_lr * p.factor ** (t / p.every_steps)
  ),
  'InverseSqrt': lambda p, t: p.peak_lr / np.sqrt(1 + t / p.timescale_steps),
  'InverseTime': lambda p, t: p.peak_lr / (1 + t / p.timescale_steps),
  'Power': power,
  'WSD': wsd,
  'WSDS': wsds,
  'WSDC': lambda p, t: wsd(p, t, final=p.const_lr),
  'Infinite': infinite,
  'CosineRestarts': cosine_restarts,
  'OneCycle': one_cycle,
  'Triangular': triangular,
  'Step': step,
  'Tabulated': lambda p, t: p.lrs[np.minimum(t, len(p.lrs) - 1)],
  'PiecewiseLinear': lambda p, t: np.interp(t, p.steps, p.lrs),
  'Warmup': warmup,
  'Sequence': sequence,
  'Chained': chained,
  'Rewarm': rewarm,
  'Scaled': lambda p, t: p.factor * exact(p.schedule, t),
  'Clipped': lambda p, t: np.clip(exact(p.schedule, t), p.low_lr, p.high_lr),
  'Product': lambda p, t: math.prod(exact(s, t) for s in p.schedules),
  'Tied': tied,
  'Stretched': lambda p, t: between(p.schedule, t * p.from_steps / p.to_steps),
  'Shifted': lambda p, t: exact(p.schedule, t + p.by_steps),
  'Sampled': lambda p, t: exact(p.schedule, t // p.every_steps * p.every_steps),
  'Ramped': ramped,
}


def exact(spec, t):
  return FORMULAS[type(spec).__name__](spec, t)


@pytest.mark.parametrize('name', SCHEDULES)
def test_the_formula_in_float64(name):
  spec = SCHEDULES[name]
  expected = exact(spec, T)
  peak = expected.max()
  with jax.enable_x64(True):
    double = np.asarray(spec(jnp.asarray(T)))
  # Next to 0 the formula as printed has no digits left: 1e-15 of the peak.
  np.testing.assert_allclose(double, expected, rtol=1e-6, atol=1e-15 * peak)
  single = np.asarray(spec(jnp.asarray(T)))
  np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-7 * peak)


def test_405m_cosine_of_ibrahim_et_al():
  """arXiv:2403.08763: 3e-4 to 3e-5, at a quarter, a half, three quarters."""
  cosine = lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=1000)
  values = [float(cosine(t)) for t in (250, 500, 750)]
  expected = [2.604594e-4, 1.65e-4, 6.954058e-5]
  np.testing.assert_allclose(values, expected, rtol=5e-7)


def test_best_lr_of_the_power_law_at_ten_trillion_tokens():
  """arXiv:2408.13359, Eq. 5: 10T tokens at batch 1024 come to 0.0011."""
  power = lrsched.Power(
    peak_lr=1.0,
    amplitude=4.6,
    exponent=-0.51,
    batch_size=1024,
    tokens_per_step=10_000_000,
  )
  assert float(power(1_000_000)) == pytest.approx(0.001104, abs=5e-7)


def test_minicpm_half_lives_to_a_tenth():
  """arXiv:2404.06395: 0.5^(t/5000) is a tenth after 16 610 steps."""
  wsd = lrsched.WSD(
    peak_lr=1.0,
    final_lr=0.5 ** (16_610 / 5000),
    warmup_steps=0,
    stable_steps=0,
    decay_steps=16_610,
    decay=lrsched.HalfLife(halvings=16_610 / 5000),
  )
  values = [float(wsd(t)) for t in (1000, 5000, 10_000, 16_610)]
  np.testing.assert_allclose(values, [0.870551, 0.5, 0.25, 0.1], atol=5e-6)


def test_cosine_cut_short_then_a_line_to_zero():
  """A cosine from 3e-4 to a tenth stands at 6.14e-5 after 0.7786 of it."""
  cosine = lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=10_000)
  run = lrsched.Chained(
    schedules=(cosine, lrsched.Linear(peak_lr=1.0, total_steps=100)),
    boundaries=(7786,),
  )
  assert float(run(7786)) == pytest.approx(6.14e-5, rel=1e-3)
  assert float(run(7836)) == pytest.approx(3.07e-5, rel=1e-3)
  assert float(run(7886)) == 0.0
