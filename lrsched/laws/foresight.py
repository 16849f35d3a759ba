"""What a law expects, inside the training step.

`Outlook` holds what the host knows: parameters of a law and the rest of the
schedule. It is an argument of the step, so that a refit or another schedule
compiles nothing. `foresee` puts it together with the track of the LR so far.

In any training loop:

    lrs, warmup_steps = lr_of_updates(schedule, T)          # on the host
    outlook = outlook_of(fit, lrs, warmup_steps)
    ...
    track = tracked(track, lr, outlook.warmup_steps)        # in the step
    expected = foresee(fit.law, outlook, track)

The losses are those of `Law.predict` with every update counted, to 1e-5 nats
for the schedules of papers, to 1e-4 after eight full cosine cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrsched.laws.fitted import Fit
from lrsched.laws.law import Law
from lrsched.laws.path import Path
from lrsched.laws.path import nodes_of
from lrsched.laws.track import Knots
from lrsched.laws.track import Track
from lrsched.laws.track import ages_of
from lrsched.laws.track import without_one
from lrsched.shapes import DecayShape
from lrsched.shapes import LinearDecay

DECAY_KNOTS = 129
PLAN_KNOTS = 256
PLAN_TOLERANCE = 1e-4  # of the peak: how straight a plan is, to begin with


class Plan(NamedTuple):
  """A schedule as lines between some updates.

  Attributes:
    steps: int32 [n], rising; the last one repeats in slots not used.
    lrs: float32 [n].
    gaps: float32 [n] sum of the LRs since the knot before.
    areas: float32 [n] as in `Knots`.
    root_areas: float32 [n] as in `Knots`.
  """

  steps: jax.typing.ArrayLike
  lrs: jax.typing.ArrayLike
  gaps: jax.typing.ArrayLike
  areas: jax.typing.ArrayLike
  root_areas: jax.typing.ArrayLike


class Outlook(NamedTuple):
  """What the host knows; leaves are strongly typed, so that a new one fits.

  Attributes:
    params: float32 parameters of the law, by name.
    unit_lr: float32 [] LR that counts as 1 for the law.
    plan: the schedule that is running, to its end.
    warmup_steps: int32 [] updates of its warmup.
    decay_frac: float32 [] length of a decay that would begin now, as a share of
      the updates so far.
  """

  params: Mapping[str, Any]
  unit_lr: jax.typing.ArrayLike
  plan: Plan
  warmup_steps: jax.typing.ArrayLike
  decay_frac: jax.typing.ArrayLike


class Foreseen(NamedTuple):
  """Losses in nats, float32 [].

  Attributes:
    loss: after the last update.
    final_loss: at the end of the running schedule.
    decay_now_loss: at the end of a decay that begins with the next update.
  """

  loss: jax.Array
  final_loss: jax.Array
  decay_now_loss: jax.Array


def foresee(
  law: Law,
  outlook: Outlook,
  track: Track,
  decay: DecayShape = LinearDecay(),  # noqa: B008
) -> Foreseen:
  """What the law expects after the last update of a track.

  Args:
    law: static; its parameters are in the outlook.
    outlook: from `outlook_of`.
    track: with at least one update.
    decay: shape of the decay that would begin now, to an LR of 0.
  """
  step, lr = track.n - 1, track.knots.lrs[-1]
  past = _Nodes(
    (track.knots.steps - step).astype(jnp.float32),
    track.knots.lrs,
    -ages_of(track.knots),
    track.knots.areas,
    track.knots.root_areas,
  )
  plan = _ahead(outlook.plan, step, lr)
  length = jnp.maximum(
    jnp.round(outlook.decay_frac * track.n).astype(jnp.int32), 1
  )
  # Denser where the LR is low, as there a power of it bends.
  done = 1 - jnp.linspace(1.0, 0.0, DECAY_KNOTS) ** 2
  i = jnp.round(done * (length - 1)).astype(jnp.int32)
  lrs = lr * decay(i / length, jnp.zeros((), jnp.float32))
  now = _ahead(_lines(track.n + i, lrs), step, lr)
  origin = track.knots.sums[-1]
  at_end = lambda *nodes: _loss(law, outlook, origin, *nodes)
  return Foreseen(at_end(past), at_end(past, plan), at_end(past, now))


class _Nodes(NamedTuple):
  """Knots as seen from the last update, [n] float32; sums include the knot."""

  steps: jax.Array
  lrs: jax.Array
  sums: jax.Array
  areas: jax.Array
  root_areas: jax.Array


def _line_sum(n: Any, before: Any, lr: Any) -> jax.Array:
  """Sum of the LRs of `n` updates on a line to `lr`, the last included."""
  return jnp.where(n > 0, n * before + 0.5 * (n + 1) * (lr - before), 0.0)


def _line_areas(n: Any, before: Any, lr: Any) -> tuple[jax.Array, jax.Array]:
  """`areas` and `root_areas` of an LR that is a line over `n` updates."""
  n = n - 1 / jnp.maximum(n, 1)  # updates are discrete; one alone has no area
  x, y = jnp.sqrt(before), jnp.sqrt(lr)
  mean = (x**4 + x**3 * y + x**2 * y**2 + x * y**3 + y**4) / (x + y + 1e-30)
  root = 0.4 * mean - 0.25 * (x + y) * (before + lr)
  return n * (lr - before) ** 2 / 12, n * root


def _lines(steps: jax.Array, lrs: jax.Array) -> Plan:
  """A plan whose LR is on lines over the updates."""
  n = jnp.diff(steps, prepend=steps[:1])
  before = jnp.concatenate([lrs[:1], lrs[:-1]])
  gaps = _line_sum(n, before, lrs)
  return Plan(steps, lrs, gaps, *_line_areas(n, before, lrs))


def _ahead(plan: Plan, last_step: jax.Array, lr: jax.Array) -> _Nodes:
  """The knots of a plan after the last update, led by the next update.

  What was applied last need not be what the plan has there: the next update is
  a knot of its own. Knots before it are that knot again.
  """
  steps = (plan.steps - last_step).astype(jnp.float32)
  is_over = steps[-1] < 1
  first = jnp.where(is_over, 0.0, 1.0)
  first_lr = jnp.where(is_over, lr, jnp.interp(1.0, steps, plan.lrs))
  is_ahead = steps > first
  is_next = is_ahead & jnp.diff(is_ahead, prepend=False)
  lrs = jnp.where(is_ahead, plan.lrs, first_lr)
  n = steps - first
  to_next = (_line_sum(n, first_lr, lrs), *_line_areas(n, first_lr, lrs))
  gaps, areas, root_areas = (
    jnp.where(is_next, line, jnp.where(is_ahead, planned, 0.0))
    for line, planned in zip(to_next, plan[2:], strict=True)
  )
  led = lambda x, rest: jnp.concatenate([x[None], rest])
  none = jnp.zeros(())
  return _Nodes(
    steps=led(first, jnp.where(is_ahead, steps, first)),
    lrs=led(first_lr, lrs),
    sums=jnp.cumsum(led(first * first_lr, gaps)),
    areas=led(none, areas),
    root_areas=led(none, root_areas),
  )


def _loss(
  law: Law, outlook: Outlook, origin: jax.Array, *parts: _Nodes
) -> jax.Array:
  """The law's loss after the last of the nodes."""
  nodes = _Nodes(*map(jnp.concatenate, zip(*parts, strict=True)))
  unit = outlook.unit_lr
  lrs, sums = nodes.lrs / unit, nodes.sums / unit
  n = jnp.diff(nodes.steps)
  is_line = n > 0
  later = _shift(nodes, law.power(outlook.params)) / unit
  path = Path(
    steps=nodes.steps[-1:],
    lr_sums=sums[-1:],
    lrs=lrs[-1:],
    before=lrs[:-1],
    after=lrs[1:],
    during=jnp.where(is_line, jnp.diff(sums) / jnp.maximum(n, 1), lrs[1:]),
    first_steps=nodes.steps[:-1] + 1,
    last_steps=jnp.where(is_line, nodes.steps[1:], nodes.steps[:-1] + 1),
    first_sums=sums[:-1] + later,
    last_sums=jnp.where(is_line, sums[1:] - lrs[1:], sums[:-1]) + later,
    origin=(origin / unit)[None],
  )
  return law.at(outlook.params, path)[0]


def _shift(nodes: _Nodes, power: jax.typing.ArrayLike) -> jax.Array:
  """[n - 1] how much later a power of the LR changes than its line does.

  In LR sum, between the middles of the changes; at most half the line. Exact
  for the LR and its root, and on the line through these for other powers.
  """
  most = 0.5 * jnp.diff(nodes.sums)

  def of(values: jax.Array, areas: jax.Array) -> jax.Array:
    change = -jnp.diff(values)
    moved = jnp.abs(change) > 1e-9 * values.max()
    shift = areas[1:] / jnp.where(moved, change, 1.0)
    return jnp.clip(jnp.where(moved, shift, 0.0), -most, most)

  whole = of(nodes.lrs, nodes.areas)
  root = of(jnp.sqrt(nodes.lrs), nodes.root_areas)
  # A change counts from before its update; on a line of several, an update's
  # own LR is more or less than the last one's.
  n = jnp.maximum(jnp.diff(nodes.steps), 1)
  own = 0.25 * jnp.diff(nodes.lrs) * (n - 1) / n
  return root + (power - 0.5) / 0.5 * (whole - root) + own


def outlook_of(
  fit: Fit,
  lrs: np.ndarray,
  warmup_steps: int,
  *,
  decay_frac: float = 0.1,
) -> Outlook:
  """What the host knows of a run, for `foresee`.

  Args:
    fit: the law and its parameters.
    lrs: [T] LR of every update that is scheduled; see `lr_of_updates`.
    warmup_steps: updates of the warmup.
    decay_frac: length of a decay that would begin now, as a share of the
      updates so far; in (0, 1].

  Raises:
    ValueError: if the fit is for another convention on the warmup or another
      peak, or `decay_frac` is out of range.
  """
  if fit.warmup != 'true_sum':
    raise ValueError(
      "fit.warmup must be 'true_sum', which the training step follows, got "
      f'{fit.warmup!r}; fit again with it'
    )
  if fit.law.sized:
    raise ValueError(
      f'{type(fit.law).__name__} is not followed in a step; take the law of '
      'one size, by AnnealingOfSize.at_size'
    )
  if not 0 < decay_frac <= 1:
    raise ValueError(f'decay_frac must be in (0, 1], got {decay_frac}')
  fit.check_evidence(lrs, warmup_steps)
  return Outlook(
    params={k: np.float32(v) for k, v in fit.params.items()},
    unit_lr=np.float32(fit.law.unit(fit.peak_lr)),
    plan=_plan_of(lrs),
    warmup_steps=np.int32(warmup_steps),
    decay_frac=np.float32(decay_frac),
  )


def _plan_of(lrs: np.ndarray) -> Plan:
  """The knots that a loss at the end needs most."""
  ends, sums = np.asarray([len(lrs) - 1]), np.cumsum(lrs)
  steps = nodes_of(lrs / lrs.max(), ends, 1, PLAN_TOLERANCE)
  n, before = np.diff(steps, prepend=steps[0]), lrs[[steps[0], *steps[:-1]]]
  areas = map(np.asarray, _line_areas(n, before, lrs[steps]))
  zeros = np.zeros(len(steps))
  knots = Knots(steps, lrs[steps], sums[steps], zeros, zeros, *areas)
  while len(knots.steps) > PLAN_KNOTS:
    knots = without_one(knots)
  gaps = np.diff(knots.sums, prepend=knots.sums[0])
  unused = (0, PLAN_KNOTS - len(gaps))
  last = lambda x: np.pad(x, unused, mode='edge')
  none = lambda x: np.pad(x, unused).astype(np.float32)
  return Plan(
    steps=last(knots.steps).astype(np.int32),
    lrs=last(knots.lrs).astype(np.float32),
    gaps=none(gaps),
    areas=none(knots.areas),
    root_areas=none(knots.root_areas),
  )
