"""What a paper claims of two arms, and whether runs over seeds bear it out.

A claim says that one arm's measure is lower than another's by more than a
margin that was fixed before the runs. With paired differences `d_i = higher_i -
lower_i` over `n` seeds, mean `m` and standard deviation `s`, the 90 % interval
is `m +- t s / sqrt(n)`, where `t` is the 95 % quantile of Student's t with
`n - 1` degrees of freedom. The claim

- held, if the whole interval is above the margin;
- did not hold, if the whole interval is below it;
- otherwise cannot be told at this scale.

Each claim is judged by itself: of twenty false ones that lie on their margins,
one is expected to be found held.

A negative margin says "not higher by more than": `margin=-0.02` is held if
`lower` is at most .02 above `higher`. Two such claims, either way round, say
that two arms are alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy

MIN_SEEDS = 3
COVERAGE = 0.9

# Arm, measure, and one value for each seed, in the order of the seeds.
Outcomes = Mapping[str, Mapping[str, Sequence[float]]]

HELD: Literal['held'] = 'held'
DID_NOT: Literal['did not hold'] = 'did not hold'
CANNOT_TELL: Literal['cannot tell at this scale'] = 'cannot tell at this scale'


class Claim(NamedTuple):
  """One inequality: `measure(higher) - measure(lower) > margin`.

  Attributes:
    paper: arXiv number.
    says: the claim in words.
    lower: arm whose measure should be lower.
    higher: arm whose measure should be higher.
    measure: name of what is compared, in its own unit.
    margin: what the difference must be beyond, in the unit of the measure.
  """

  paper: str
  says: str
  lower: str
  higher: str
  measure: str
  margin: float = 0.0


class Verdict(NamedTuple):
  """A claim and what the seeds say of it.

  Attributes:
    claim: what was claimed.
    differences: `higher - lower` for each seed.
    mean: their mean.
    spread: their standard deviation (of a sample: `n - 1`).
    low: lower end of the 90 % interval of the mean.
    high: upper end.
    outcome: 'held', 'did not hold' or 'cannot tell at this scale'.
  """

  claim: Claim
  differences: tuple[float, ...]
  mean: float
  spread: float
  low: float
  high: float
  outcome: Literal['held', 'did not hold', 'cannot tell at this scale']

  @property
  def could_see(self) -> float:
    """How far beyond the margin a mean difference had to be to be told."""
    return (self.high - self.low) / 2

  def __str__(self) -> str:
    claim = self.claim
    interval = f'[{self.low:+.4f}, {self.high:+.4f}]'
    text = (
      f'{self.outcome}: {claim.says} ({claim.measure}: {claim.higher} - '
      f'{claim.lower} = {self.mean:+.4f} {interval}, '
      f'margin {claim.margin:g}, {len(self.differences)} seeds'
    )
    if self.outcome == CANNOT_TELL:
      text += f'; {self.could_see:.4f} beyond the margin could be seen'
    return f'{text})'


def judge(claim: Claim, outcomes: Outcomes) -> Verdict:
  """Judges a claim over paired seeds.

  Raises:
    ValueError: if an arm or measure is missing, the seeds of the two arms are
      not as many, there are fewer than 3, or a value is not finite.
  """
  higher = _values(claim, claim.higher, outcomes)
  lower = _values(claim, claim.lower, outcomes)
  if len(higher) != len(lower):
    raise ValueError(
      f'{claim.measure} of {claim.higher} and {claim.lower} must have the same '
      f'seeds, got {len(higher)} and {len(lower)} values'
    )
  differences = higher - lower
  n = len(differences)
  mean, spread = float(differences.mean()), float(differences.std(ddof=1))
  quantile = float(scipy.stats.t.ppf((1 + COVERAGE) / 2, n - 1))
  half = quantile * spread / math.sqrt(n)
  low, high = mean - half, mean + half
  outcome: Any = CANNOT_TELL
  if low > claim.margin:
    outcome = HELD
  elif high < claim.margin:
    outcome = DID_NOT
  return Verdict(
    claim, tuple(differences.tolist()), mean, spread, low, high, outcome
  )


def _values(claim: Claim, arm: str, outcomes: Outcomes) -> np.ndarray:
  if arm not in outcomes or claim.measure not in outcomes[arm]:
    known = {name: sorted(values) for name, values in outcomes.items()}
    raise ValueError(
      f'{claim.says!r} needs {claim.measure} of {arm}; measured were {known}'
    )
  values = np.asarray(outcomes[arm][claim.measure], float)
  if len(values) < MIN_SEEDS:
    raise ValueError(
      f'{arm}: a claim needs at least {MIN_SEEDS} seeds, got {len(values)}'
    )
  if not np.isfinite(values).all():
    raise ValueError(
      f'{arm}: {claim.measure} must be finite, got {values.tolist()}'
    )
  return values


def both_ways(claim: Claim) -> tuple[Claim, Claim]:
  """The claim, and the one with its arms exchanged: together, 'alike'.

  Raises:
    ValueError: unless the margin is negative; else they exclude each other.
  """
  if claim.margin >= 0:
    raise ValueError(
      f'margin must be negative for arms to be alike, got {claim.margin}'
    )
  return claim, claim._replace(lower=claim.higher, higher=claim.lower)


def headline(
  outcomes: Outcomes, verdicts: Sequence[Verdict], notes: Sequence[str]
) -> dict[str, Any]:
  """`table.json` of a report: mean and spread of each arm, and the verdicts.

  An arm that has no such measure has an empty cell.
  """
  measures = list(dict.fromkeys(m for arm in outcomes.values() for m in arm))
  rows = [
    [name, *(_mean_and_spread(arm.get(m, ())) for m in measures)]
    for name, arm in outcomes.items()
  ]
  return {
    'columns': ['arm', *measures],
    'rows': rows,
    'notes': [
      'Mean over seeds; in brackets the standard deviation over seeds.',
      *map(str, verdicts),
      *notes,
    ],
  }


def _mean_and_spread(values: Sequence[float]) -> str:
  if not values:
    return ''
  spread = float(np.std(values, ddof=1))
  return f'{float(np.mean(values)):.4f} ({spread:.4f})'


def as_record(
  outcomes: Outcomes, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
  """Every value and verdict as JSON values."""
  return {
    'arms': {
      name: {
        measure: {
          'mean': float(np.mean(values)),
          'spread': float(np.std(values, ddof=1)),
          'values': list(values),
        }
        for measure, values in arm.items()
      }
      for name, arm in outcomes.items()
    },
    'claims': [
      {
        **verdict.claim._asdict(),
        'n': len(verdict.differences),
        'differences': list(verdict.differences),
        'mean': verdict.mean,
        'spread': verdict.spread,
        'interval90': [verdict.low, verdict.high],
        'could_see': verdict.could_see,
        'outcome': verdict.outcome,
      }
      for verdict in verdicts
    ],
  }
