"""What a forecast is for: the schedule that one would pick by it.

The test curves of a group that end at the same step are a choice set. Runs of
one schedule (seeds) count as one, with the mean of their losses: what is chosen
is a schedule.

A final loss is the mean over the last five evaluations where these share an LR
(to 1 % of the peak), and the last evaluation alone where the LR still falls: an
earlier one has less of the decay, and a schedule that decays fast would look
worse than it ends. The forecast is averaged over the same evaluations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from lrsched.laws import Curve

LAST = 5  # evaluations
SAME_LR = 0.01  # of the peak
SEED_NOISE = 0.002  # nats: closer losses are no better and no worse


class Choice(NamedTuple):
  """Schedules of one length to pick from, with their final losses.

  Attributes:
    end_step: last update of all of them.
    names: of a curve of each.
    predicted: [n] nats.
    measured: [n] nats.
  """

  end_step: int
  names: list[str]
  predicted: np.ndarray
  measured: np.ndarray

  @property
  def picked(self) -> int:
    """The schedule that the forecast has lowest."""
    return int(np.argmin(self.predicted))

  @property
  def regret(self) -> float:
    """What picking by the forecast costs, in nats."""
    return float(self.measured[self.picked] - self.measured.min())

  @property
  def tau(self) -> float | None:
    """Kendall's rank correlation; None for a pair, 0 if nothing is ranked."""
    if len(self.names) < 3:
      return None
    tau = float(scipy.stats.kendalltau(self.predicted, self.measured).statistic)
    return 0.0 if np.isnan(tau) else tau

  def pairs(self) -> list[float]:
    """1 for each pair in the right order, 0 for a wrong one, else 1/2.

    Pairs whose measured losses differ by no more than SEED_NOISE are left out.
    """
    scores = []
    for i, j in itertools.combinations(range(len(self.names)), 2):
      apart = self.measured[i] - self.measured[j]
      if abs(apart) > SEED_NOISE:
        agrees = np.sign(self.predicted[i] - self.predicted[j]) * np.sign(apart)
        scores.append(float(0.5 + 0.5 * agrees))
    return scores


def final_loss(curve: Curve, losses: np.ndarray) -> float:
  """Of losses at a curve's evaluations, measured or predicted."""
  lrs = curve.lrs[curve.measured][-LAST:]
  shared = len(lrs) == LAST and np.ptp(lrs) <= SAME_LR * curve.peak_lr
  return float(losses[-LAST:].mean() if shared else losses[-1])


def choices(
  curves: Sequence[Curve], predictions: Sequence[np.ndarray]
) -> list[Choice]:
  """The choice sets among curves, by end.

  Args:
    curves: the test curves of a group.
    predictions: of each, the losses at its evaluations.
  """
  sets: dict[int, dict[bytes, list[tuple[str, float, float]]]] = {}
  for curve, predicted in zip(curves, predictions, strict=True):
    schedule = curve.lr_of_updates().tobytes()
    runs = sets.setdefault(int(curve.steps[-1]), {}).setdefault(schedule, [])
    measured = curve.losses[curve.measured]
    ends = final_loss(curve, predicted), final_loss(curve, measured)
    runs.append((curve.name, *ends))
  found = []
  for end_step, by_schedule in sorted(sets.items()):
    if len(by_schedule) > 1:
      schedules = list(by_schedule.values())
      means = [np.mean([run[1:] for run in runs], 0) for runs in schedules]
      predicted, measured = np.asarray(means).T
      names = [runs[0][0] for runs in schedules]
      found.append(Choice(end_step, names, predicted, measured))
  return found


def judge_choices(sets: Sequence[Choice]) -> dict[str, Any]:
  """Means over choice sets; None where there is nothing to choose.

  `regret` in nats, `tau` over sets of at least three, `pair_accuracy` over the
  pairs of all sets, and the sets themselves.
  """
  mean = lambda values: float(np.mean(values)) if values else None
  taus = [c.tau for c in sets if c.tau is not None]
  return {
    'regret': mean([c.regret for c in sets]),
    'tau': mean(taus),
    'pair_accuracy': mean([score for c in sets for score in c.pairs()]),
    'choice_sets': [
      {
        'end_step': c.end_step,
        'picked': c.names[c.picked],
        'best': c.names[int(np.argmin(c.measured))],
        'regret': c.regret,
        'tau': c.tau,
        'predicted': dict(zip(c.names, c.predicted.tolist(), strict=True)),
        'measured': dict(zip(c.names, c.measured.tolist(), strict=True)),
      }
      for c in sets
    ],
  }
