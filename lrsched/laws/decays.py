"""When to decay, by a fitted law: lengths of decays, branches of a trunk."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.laws.ends import check
from lrsched.laws.ends import end_loss
from lrsched.laws.ends import onward
from lrsched.laws.ends import start_of
from lrsched.laws.ends import verdict_of
from lrsched.laws.ends import warmed_up
from lrsched.laws.fitted import Fit
from lrsched.laws.fitted import lr_of_updates
from lrsched.laws.law import Law
from lrsched.laws.path import Path
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay
from lrsched.staged import WSD

LINEAR = LinearDecay()
LENGTHS = 256  # tried at once
NODES = 128  # of a decay


class BestDecay(NamedTuple):
  """The decay of a WSD schedule with the lowest predicted loss.

  Attributes:
    schedule: the WSD.
    loss: predicted after its last update, in nats.
    shortest_steps: of the decays that are as good but for the margin.
    longest_steps: of them.
    verdict: what the fit could not decide, in words; empty if nothing.
  """

  schedule: WSD
  loss: float
  shortest_steps: int
  longest_steps: int
  verdict: tuple[str, ...]


class Branches(NamedTuple):
  """One stable run, and a decay for each budget that branches off it.

  Attributes:
    trunk: the schedule of the longest budget; `trunk.decay_from` gives the
      others, by their start and length.
    start_steps: [n] the first update of each decay.
    decays: [n] each decay, as of a run of its own.
    n_updates: of the trunk to the last branch, and of all decays.
    n_separate_updates: of a run of its own for each budget.
  """

  trunk: WSD
  start_steps: tuple[int, ...]
  decays: tuple[BestDecay, ...]
  n_updates: int
  n_separate_updates: int


def best_decay(
  fit: Fit,
  total_steps: int,
  peak_lr: float,
  *,
  warmup_steps: int,
  final_lr: float = 0.0,
  decay: DecayShape = LINEAR,
  margin_nats: float = 1e-3,
) -> BestDecay:
  """The length of the decay of a WSD schedule that ends at the lowest loss.

      argmin_D L(T - 1),   lr(t) = peak d((t - T + D)/D, final/peak), t >= T - D

  Every length from 1 update to the whole run after the warmup is a candidate:
  256 in equal ratios, then 256 about the best of these.

  Args:
    fit: a fit of `Concave` (what `auto` gives), `Functional` or `MultiPower`.
    total_steps: T, of the run with its warmup; at least 100 more than that.
    peak_lr: of the stable phase; that of the fitted curves, to 2 %.
    warmup_steps: of the run, as in `lrsched.Warmup`.
    final_lr: that the decay would reach at update T, in [0, peak_lr].
    decay: its shape.
    margin_nats: loss by which a decay may miss the best and count as good,
      >= 0; seeds of one run differ by about 0.001.

  Raises:
    ValueError: if an argument is out of range, or the fit is of another law or
      peak.

  Example:
    >>> from lrsched import laws
    >>> params = dict(
    ...   L0=2.65, A=0.6, alpha=0.45, B=438.0, C=2.1, beta=0.6, gamma=0.66
    ... )
    >>> fit = laws.Fit.given(
    ...   laws.MultiPower(), params, peak_lr=3e-4, warmup='whole'
    ... )
    >>> best = best_decay(fit, 24000, 3e-4, warmup_steps=2000)
    >>> 2000 < best.shortest_steps < best.longest_steps < 5000
    True
  """
  if not margin_nats >= 0:
    raise ValueError(f'margin_nats must be >= 0, got {margin_nats}')
  check(fit, total_steps, peak_lr, warmup_steps, final_lr, decay)
  most = total_steps - warmup_steps
  start = start_of(fit, warmed_up(total_steps, peak_lr, warmup_steps))
  lrs = np.asarray([peak_lr, final_lr]) / fit.law.unit(fit.peak_lr)

  def losses_of(lengths: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
      return np.asarray(
        _losses(
          fit.law, fit.params, start, decay, lrs, float(total_steps), lengths
        )
      )

  lengths = np.geomspace(1, most, LENGTHS).round()
  losses = losses_of(lengths)
  i = int(np.argmin(losses))
  shorter, longer = lengths[max(i - 1, 0)], lengths[min(i + 1, LENGTHS - 1)]
  near = np.linspace(shorter, longer, LENGTHS).round()
  best_steps = int(near[np.argmin(losses_of(near))])
  schedule = WSD(
    peak_lr=peak_lr,
    final_lr=final_lr,
    warmup_steps=warmup_steps,
    stable_steps=most - best_steps,
    decay_steps=best_steps,
    decay=decay,
  )
  loss = end_loss(fit, lr_of_updates(schedule)[0], warmup_steps)
  worse = losses > loss + margin_nats
  first = int(np.flatnonzero(worse[:i])[-1]) + 1 if worse[:i].any() else 0
  last = i + int(np.argmax(worse[i:])) - 1 if worse[i:].any() else LENGTHS - 1
  return BestDecay(
    schedule=schedule,
    loss=loss,
    shortest_steps=min(int(lengths[first]), best_steps),
    longest_steps=max(int(lengths[last]), best_steps),
    verdict=verdict_of(fit, best_steps, total_steps),
  )


def branch_points(
  fit: Fit,
  budgets_steps: Sequence[int],
  peak_lr: float,
  *,
  warmup_steps: int,
  final_lr: float = 0.0,
  decay: DecayShape = LINEAR,
  margin_nats: float = 1e-3,
) -> Branches:
  """Where the decay of each budget should leave one stable run.

  A WSD schedule is the same for every budget until its decay begins; so one
  run at the peak, with a checkpoint at the start of each decay, replaces a run
  for each budget.

  Args:
    fit: as in `best_decay`.
    budgets_steps: lengths of the runs with their warmup, rising.
    peak_lr: as in `best_decay`.
    warmup_steps: as in `best_decay`.
    final_lr: as in `best_decay`.
    decay: as in `best_decay`.
    margin_nats: as in `best_decay`.

  Raises:
    ValueError: if the budgets are none or do not rise; else as `best_decay`.

  Example:
    >>> from lrsched import laws
    >>> params = dict(
    ...   L0=2.65, A=0.6, alpha=0.45, B=438.0, C=2.1, beta=0.6, gamma=0.66
    ... )
    >>> fit = laws.Fit.given(
    ...   laws.MultiPower(), params, peak_lr=3e-4, warmup='whole'
    ... )
    >>> found = branch_points(
    ...   fit, (12000, 24000), 3e-4, warmup_steps=2000
    ... )
    >>> found.n_separate_updates, found.n_updates < 30000
    (36000, True)
  """
  budgets = list(budgets_steps)
  if not budgets or any(np.diff(budgets) <= 0):
    raise ValueError(
      f'budgets_steps must hold at least one and rise, got {budgets}'
    )
  for total_steps in budgets:
    check(fit, total_steps, peak_lr, warmup_steps, final_lr, decay)
  decays = tuple(
    best_decay(
      fit,
      total_steps,
      peak_lr,
      warmup_steps=warmup_steps,
      final_lr=final_lr,
      decay=decay,
      margin_nats=margin_nats,
    )
    for total_steps in budgets
  )
  starts = tuple(
    total_steps - best.schedule.decay_steps
    for total_steps, best in zip(budgets, decays, strict=True)
  )
  return Branches(
    trunk=decays[-1].schedule,
    start_steps=starts,
    decays=decays,
    n_updates=max(starts) + sum(b.schedule.decay_steps for b in decays),
    n_separate_updates=sum(budgets),
  )


@functools.partial(jax.jit, static_argnums=0)
def _losses(
  law: Law,
  params: Mapping[str, jax.Array],
  start: Path,
  decay: DecayShape,
  peak_and_final_lr: jax.Array,
  total_steps: jax.Array,
  lengths: jax.Array,
) -> jax.Array:
  """[n] losses at the end of runs with decays of these lengths."""
  peak_lr, final_lr = peak_and_final_lr
  # Denser at the ends: some shapes fall steeply at first, and a power of the LR
  # bends where it is low.
  done = np.sin(0.5 * np.pi * np.linspace(0, 1, NODES)) ** 2

  def loss(length: jax.Array) -> jax.Array:
    i = jnp.round(done * (length - 1))
    lrs = peak_lr * decay(i / length, final_lr / peak_lr)
    steps = jnp.append(start.steps, total_steps - length + i)
    return law.at(params, onward(start, steps, jnp.append(peak_lr, lrs)))[0]

  return jax.vmap(loss)(lengths)
