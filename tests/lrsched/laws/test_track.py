"""The law in the training step against the law with every update counted."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from lrsched import laws
from lrsched.laws.track import KNOTS

PEAK_LR = 1e-3
N, W = 3000, 150

LAWS = {
  'concave': (
    laws.Concave(),
    {
      'L0': 2.5,
      'A': 0.5,
      'a': 0.45,
      'K': 0.22,
      'w': 0.73,
      'C': 1000.0,
      'b': 0.4,
      'g': 0.0,
      'q': 0.66,
    },
  ),
  'multi_power': (
    laws.MultiPower(),
    {
      'L0': 2.5,
      'A': 0.5,
      'alpha': 0.45,
      'B': 400.0,
      'C': 2.0,
      'beta': 0.58,
      'gamma': 0.64,
    },
  ),
  'functional': (
    laws.Functional(),
    {
      'L0': 2.5,
      'A': 0.5,
      'alpha': 0.45,
      'c2': 200.0,
      'c3': 1.0,
      'c4': 100.0,
      'gamma': 0.5,
    },
  ),
  'annealing': (
    laws.Annealing(),
    {'L0': 2.5, 'A': 0.5, 'alpha': 0.45, 'C': 0.5, 'lam': 0.999},
  ),
}


def warm(schedule: lrsched.Schedule) -> lrsched.Warmup:
  return lrsched.Warmup(schedule=schedule, warmup_steps=W)


def wsd(**fields) -> lrsched.WSD:
  return lrsched.WSD(
    peak_lr=PEAK_LR,
    warmup_steps=W,
    stable_steps=N - W - 600,
    decay_steps=600,
    **fields,
  )


SCHEDULES = {
  'constant': warm(lrsched.Constant(lr=PEAK_LR)),
  'cosine': warm(lrsched.Cosine(peak_lr=PEAK_LR, total_steps=N - W)),
  'wsd': wsd(),
  'wsd_sqrt': wsd(decay=lrsched.OneMinusSqrt()),
  'two_stages': warm(
    lrsched.Sequence(
      schedules=(
        lrsched.Constant(lr=PEAK_LR),
        lrsched.Constant(lr=0.3 * PEAK_LR),
      ),
      boundaries=(1200,),
    )
  ),
  'wsds': lrsched.WSDS.of_total(
    peak_lr=PEAK_LR,
    final_lr=0.1 * PEAK_LR,
    warmup_steps=W,
    cycle_ends=(400, 800, 1500, N),
    decay_frac=0.1,
  ),
}


def given(name: str) -> laws.Fit:
  law, params = LAWS[name]
  fit = laws.Fit.given(law, params, peak_lr=PEAK_LR)
  return dataclasses.replace(fit, has_rises=True)


@functools.partial(jax.jit, static_argnums=0)
def followed(law, outlook, lrs):
  """The track after every update, and what is foreseen there."""

  def step(track, lr):
    track = laws.tracked(track, lr, outlook.warmup_steps)
    return track, laws.foresee(law, outlook, track)

  return jax.lax.scan(step, laws.init_track(), lrs)


def float32_lrs(spec: lrsched.Schedule, n: int = N) -> np.ndarray:
  return np.asarray(spec(jnp.arange(n)), np.float32)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('name', LAWS)
def test_in_the_step_it_is_what_every_update_counted_gives(name, schedule):
  fit, lrs = given(name), float32_lrs(SCHEDULES[schedule])
  outlook = laws.outlook_of(fit, lrs.astype(np.float64), W)
  _, foreseen = followed(fit.law, outlook, lrs)
  exact = functools.partial(
    fit.law.predict, fit.params, warmup_steps=W, peak_lr=PEAK_LR
  )
  at = np.arange(W + 1, N, 119)
  losses = exact(lrs, at)
  # Knots stand for updates between them to this.
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
  close(foreseen.loss[at], losses)
  end = exact(lrs, [N - 1])[0]
  close(foreseen.final_loss[W:], end)
  if schedule not in ('constant', 'cosine'):
    return
  for t in (400, 2200):
    length = round(float(np.float32(0.1) * np.float32(t + 1)))
    decay = lrs[t] * (1 - np.arange(length) / length)
    now = exact(np.r_[lrs[: t + 1], decay], [t + length])[0]
    close(foreseen.decay_now_loss[t], now)


def test_eight_cosine_cycles_are_foreseen_to_a_tenth_of_seed_noise():
  ends = tuple(range(350, N - W, 357))
  cycles = lrsched.CosineRestarts(
    peak_lr=PEAK_LR, final_lr=0.1 * PEAK_LR, cycle_ends=ends
  )
  fit, n = given('concave'), ends[-1] + W
  lrs = float32_lrs(warm(cycles), n)
  outlook = laws.outlook_of(fit, lrs.astype(np.float64), W)
  _, foreseen = followed(fit.law, outlook, lrs)
  at = np.arange(W + 1, n, 101)
  exact = fit.law.predict(fit.params, lrs, at, warmup_steps=W, peak_lr=PEAK_LR)
  np.testing.assert_allclose(foreseen.loss[at], exact, rtol=0, atol=1e-4)


def test_the_final_loss_is_of_the_lr_as_applied_and_the_schedule_from_there():
  """A run whose first half had another schedule than the one running now."""
  fit = given('concave')
  old, new = float32_lrs(SCHEDULES['cosine']), float32_lrs(SCHEDULES['wsd'])
  outlook = laws.outlook_of(fit, new.astype(np.float64), W)
  half = N // 2
  _, foreseen = followed(fit.law, outlook, old[:half])
  lrs = np.r_[old[:half], new[half:]]
  end = fit.law.predict(
    fit.params, lrs, [N - 1], warmup_steps=W, peak_lr=PEAK_LR
  )
  np.testing.assert_allclose(foreseen.final_loss[-1], end[0], atol=2e-5)


def test_the_sum_of_lrs_keeps_its_digits():
  """A plain float32 sum is off by 0.2 % by then."""
  lr, n = np.float32(3.337e-4), 200_000

  @jax.jit
  def follow(lr):
    add = lambda track, _: (laws.tracked(track, lr, 0), None)
    return jax.lax.scan(add, laws.init_track(), length=n)[0]

  knots = jax.tree.map(np.float64, follow(lr).knots)
  total = knots.sums[-1] + knots.rests[-1]
  np.testing.assert_allclose(total, n * np.float64(lr), rtol=1e-7)
  assert (np.sort(knots.steps) == knots.steps).all()
  assert knots.steps[-1] == n - 1


def test_the_track_never_changes_shape_or_type():
  track = laws.init_track()
  after = jax.jit(laws.tracked)(track, 1e-3, 10)
  describe = lambda tree: jax.tree.map(
    lambda x: (x.shape, x.dtype, x.weak_type), tree
  )
  assert describe(after) == describe(track)
  assert track.knots.steps.shape == (KNOTS,)


def test_jumps_stay_however_long_ago():
  lrs = np.full(5 * KNOTS, PEAK_LR, np.float32)
  lrs[50:] *= 0.5
  lrs[70:] *= 0.1
  outlook = laws.outlook_of(given('concave'), np.full(len(lrs), PEAK_LR), 0)
  track, _ = followed(laws.Concave(), outlook, lrs)
  assert {0, 49, 50, 69, 70, len(lrs) - 1} <= set(track.knots.steps.tolist())


def test_an_outlook_refuses_what_the_fit_says_nothing_about():
  fit, lrs = given('concave'), float32_lrs(SCHEDULES['wsd']).astype(np.float64)
  with pytest.raises(ValueError, match='peak LR must be that'):
    laws.outlook_of(fit, 2 * lrs, W)
  with pytest.raises(ValueError, match='decay_frac must be in'):
    laws.outlook_of(fit, lrs, W, decay_frac=0.0)
  whole = dataclasses.replace(fit, warmup='whole')
  with pytest.raises(ValueError, match="must be 'true_sum'"):
    laws.outlook_of(whole, lrs, W)


def test_in_anyones_loop():
  """A plain optax loop follows the LR that was applied."""
  spec, fit = SCHEDULES['wsd'], given('concave')
  tx = optax.chain(optax.scale_by_adam(), lrsched.scale_by_lr(spec))
  lrs, warmup_steps = laws.lr_of_updates(spec)
  outlook = laws.outlook_of(fit, lrs, warmup_steps)

  @jax.jit
  def step(params, opt_state, track, outlook):
    grads = jax.grad(lambda x: jnp.sum(x**2))(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    lr = lrsched.applied_lr(opt_state)
    track = laws.tracked(track, lr, outlook.warmup_steps)
    foreseen = laws.foresee(fit.law, outlook, track)
    return optax.apply_updates(params, updates), opt_state, track, foreseen

  params, track = jnp.ones(3), laws.init_track()
  opt_state = tx.init(params)
  for _ in range(W + 20):
    params, opt_state, track, foreseen = step(params, opt_state, track, outlook)
  assert step._cache_size() == 1
  [end] = fit.forecast(spec, [N - 1]).mean
  np.testing.assert_allclose(foreseen.final_loss, end, atol=1e-4)
  # Another schedule and other parameters compile nothing.
  other = {name: 1.01 * value for name, value in fit.params.items()}
  fit = laws.Fit.given(fit.law, other, peak_lr=PEAK_LR)
  lrs, warmup_steps = laws.lr_of_updates(SCHEDULES['cosine'])
  step(params, opt_state, track, laws.outlook_of(fit, lrs, warmup_steps))
  assert step._cache_size() == 1
