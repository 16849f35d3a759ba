"""The end of a run, by a fitted law: what schedules are chosen by.

Only the loss after the last update is asked for, and a law needs no more for it
than the LR at some nodes with lines between them: `onward` makes a path of
these. It may be traced, so that the loss is differentiated in the LRs, or taken
for many schedules at once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.laws import problem
from lrsched.laws.concave import Concave
from lrsched.laws.fitted import Fit
from lrsched.laws.fitted import lr_of_updates
from lrsched.laws.path import Path
from lrsched.laws.path import path_of
from lrsched.laws.published import Functional
from lrsched.laws.published import MultiPower
from lrsched.shapes import DecayShape
from lrsched.staged import WSD

LAWS = (Concave, Functional, MultiPower)
# What is wrong with an optimum under the others.
JUMPS = {
  'Annealing': 'updates at a rate of 0 go on lowering its loss',
  'LossDrop': 'it has no memory of when the LR fell',
}
LEAST_STEPS = 100  # after the warmup
SHORT_FRAC = 0.01  # of a run: a decay this short is no decay


def check(
  fit: Fit,
  total_steps: int,
  peak_lr: float,
  warmup_steps: int,
  final_lr: float,
  decay: DecayShape,
) -> None:
  """Raises ValueError unless the fit can choose a schedule of this size."""
  name = type(fit.law).__name__
  if not isinstance(fit.law, LAWS):
    why = JUMPS.get(name, 'nothing is known of its optimum')
    raise ValueError(
      f'fit.law must be one of {", ".join(law.__name__ for law in LAWS)} to '
      f'choose a schedule by, got {name}: {why}, so that the best schedule '
      'under it is a jump of the LR; use auto'
    )
  if total_steps - warmup_steps < LEAST_STEPS:
    raise ValueError(
      f'total_steps must be at least warmup_steps + {LEAST_STEPS}, got '
      f'{total_steps} with warmup_steps={warmup_steps}'
    )
  # Raises what is wrong with the rest.
  WSD(
    peak_lr=peak_lr,
    final_lr=final_lr,
    warmup_steps=warmup_steps,
    stable_steps=0,
    decay_steps=total_steps - warmup_steps,
    decay=decay,
  )
  fit.check_evidence(np.full(1, peak_lr), 0)


def verdict_of(fit: Fit, decay_steps: int, total_steps: int) -> tuple[str, ...]:
  """What the fit left open, and what a decay of this length says of it."""
  if decay_steps >= SHORT_FRAC * total_steps:
    return fit.verdict
  return (
    *fit.verdict,
    f'the best decay takes the last {decay_steps} of {total_steps} updates: '
    'the fitted kernel has hardly any memory, and gains by it are not to be '
    'believed; fit curves with decays of several lengths',
  )


def warmed_up(
  total_steps: int, peak_lr: float, warmup_steps: int
) -> np.ndarray:
  """[W + 1] LRs of the warmup, and of one update at the peak."""
  linear = WSD(
    peak_lr=peak_lr,
    warmup_steps=warmup_steps,
    stable_steps=0,
    decay_steps=total_steps - warmup_steps,
  )
  return lr_of_updates(linear)[0][: warmup_steps + 1]


def start_of(fit: Fit, lrs: np.ndarray) -> Path:
  """The path of the LRs of `warmed_up`, with a point after the last."""
  unit, warmup_steps = fit.law.unit(fit.peak_lr), len(lrs) - 1
  return path_of(
    lrs,
    np.asarray([warmup_steps]),
    warmup_steps=warmup_steps,
    warmup=fit.warmup,
    reference_lr=unit,
    tolerance=problem.TOLERANCE * lrs[-1] / unit,
  )


def onward(start: Path, steps: jax.Array, lrs: jax.Array) -> Path:
  """The path to the end of a run, with one point there.

  Args:
    start: the path to the first node, with its point there.
    steps: [n] nodes, updates in float, not falling; equal ones count as one.
    lrs: [n] LRs there, lines in between; in the unit of the path.
  """
  n = jnp.diff(steps)
  before, after = lrs[:-1], lrs[1:]
  # The mean of the n updates that follow a node, on the line to the next.
  during = before + (after - before) * (n + 1) / (2 * jnp.maximum(n, 1))
  sums = start.lr_sums + jnp.append(0.0, jnp.cumsum(n * during))
  join = lambda old, new: jnp.concatenate([old, new])
  return start._replace(
    steps=steps[-1:],
    lr_sums=sums[-1:],
    lrs=lrs[-1:],
    before=join(start.before, before),
    after=join(start.after, after),
    during=join(start.during, during),
    first_steps=join(start.first_steps, steps[:-1] + 1),
    last_steps=join(start.last_steps, steps[1:]),
    first_sums=join(start.first_sums, sums[:-1]),
    last_sums=join(start.last_sums, sums[1:] - after),
  )


def end_loss(fit: Fit, lrs: np.ndarray, warmup_steps: int) -> float:
  """The loss after the last update, with every change of the LR counted."""
  losses = fit.law.predict(
    fit.params,
    lrs,
    np.asarray([len(lrs) - 1]),
    warmup_steps=warmup_steps,
    warmup=fit.warmup,
    peak_lr=fit.peak_lr,
  )
  return float(losses[0])
