"""Batches of several corpora in exact shares, which may change over a run.

A batch of `B` sequences holds whole sequences of each domain, `B` in all.
Shares are exact decimals, so what is owed to a domain after any number of
updates is an exact fraction: less than a sequence if shares are constant or
domains three at most. If shares of more domains change, one can fall further
behind, as `apportioned` says.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from fractions import Fraction

from trainers.fields import config
from trainers.fields import require
from trainers.sources import Source

Knots = tuple[tuple[float, ...], ...]


@config
class Domain:
  """One corpus of a mixture.

  Attributes:
    source: the corpus.
    share: of every batch's sequences, in [0, 1]; or knots `(step, share)`, at
      rising steps, with straight lines between and the same share outside; None
      for what the other domains leave, which exactly one domain must take.
    subset: share of the corpus's windows that is used, the same ones in every
      epoch: several epochs of a part instead of one of the whole.
    from_start: where a branch begins, read a corpus that the run has seen
      before again from its first batch, in the same order; otherwise it goes on
      where it stood. A branch of the same mixture, such as a decay, goes on in
      any case.
  """

  source: Source
  share: float | Knots | None = None
  subset: float = 1.0
  from_start: bool = False

  def check(self) -> None:
    require(0 < self.subset <= 1, 'Domain.subset', self.subset, 'in (0, 1]')
    if self.share is None:
      return
    knots = _of(self)
    rule = 'must be pairs (step, share), steps whole, rising and >= 0'
    pairs = all(len(knot) == 2 and knot[0] == int(knot[0]) for knot in knots)
    require(bool(knots) and pairs, 'Domain.share', self.share, rule)
    steps = [knot[0] for knot in knots]
    rising = all(a < b for a, b in itertools.pairwise(steps))
    require(rising and steps[0] >= 0, 'Domain.share', self.share, rule)
    inside = all(0 <= knot[1] <= 1 for knot in knots)
    require(inside, 'Domain.share', self.share, 'must be in [0, 1]')


@config
class Mixture:
  """Corpora that every batch is drawn from.

  The domain whose share is None is the main one: the new data of a run that
  replays old data. Its loss is the run's `eval_loss`.

  Attributes:
    domains: by name; names are parts of metric and file names.
  """

  domains: dict[str, Domain]

  def check(self) -> None:
    field, names = 'Mixture.domains', sorted(self.domains)
    for name in names:
      check_name(field, name)
    rest = [name for name in names if self.domains[name].share is None]
    rule = 'must have one domain of share None, the rest'
    require(len(rest) == 1, field, rest, rule)
    # Between knots shares are linear, so their sum is greatest at one.
    knots = [knot for d in self.domains.values() for knot in _of(d)]
    for step in sorted({int(knot[0]) for knot in knots}):
      shares = shares_at(self.domains, step)
      require(
        shares[rest[0]] >= 0,
        field,
        {name: float(share) for name, share in shares.items()},
        f'must have shares of at most 1 together at step {step}',
      )


def check_name(field: str, name: str) -> None:
  """Raises ValueError unless `name` may be part of a file and a metric name."""
  rule = 'must have names of letters, digits, dots and dashes'
  require(re.fullmatch(r'\w[\w.-]*', name) is not None, field, name, rule)


def _of(domain: Domain) -> Knots:
  """The knots of a domain's share; none for the rest."""
  if domain.share is None:
    return ()
  if isinstance(domain.share, tuple):
    return domain.share
  return ((0, domain.share),)


def exact(number: float) -> Fraction:
  """The decimal that was written, not its nearest binary number."""
  return Fraction(repr(number))


def main_of(domains: Mapping[str, Domain]) -> str:
  """The name of the domain that takes what the others leave."""
  return next(name for name, d in domains.items() if d.share is None)


def shares_at(domains: Mapping[str, Domain], step: int) -> dict[str, Fraction]:
  """Every domain's share of the batch of update `step`; they sum to 1.

  Example:
    >>> from trainers.sources import Docstrings
    >>> old = Domain(source=Docstrings(), share=((100, 0.5), (200, 0.05)))
    >>> new = Domain(source=Docstrings(), share=None)
    >>> shares = shares_at({'old': old, 'new': new}, 150)
    >>> float(shares['old']), float(shares['new'])
    (0.275, 0.725)
  """
  shares = {
    name: _at(_of(domain), step)
    for name, domain in domains.items()
    if domain.share is not None
  }
  rest = 1 - sum(shares.values(), Fraction(0))
  return {name: shares.get(name, rest) for name in domains}


def _at(knots: Knots, step: int) -> Fraction:
  """A share that is linear between its knots."""
  before = [knot for knot in knots if knot[0] <= step]
  after = [knot for knot in knots if knot[0] > step]
  if not before or not after:
    return exact((before or after)[-1 if before else 0][1])
  (a, low), (b, high) = before[-1], after[0]
  frac = Fraction(step - int(a), int(b) - int(a))
  return exact(low) + (exact(high) - exact(low)) * frac


def apportioned(
  owed: Mapping[str, Fraction], shares: Mapping[str, Fraction], size: int
) -> dict[str, int]:
  """How many sequences of a batch each domain gives.

  A domain that is owed `e` from before is due `d = e + share * size`. It gives
  `floor(d)`, or none if it is ahead and `d < 0`; the sequences left over go to
  the domains that are due more and would be a whole one behind first, those of
  share 0 last (the rule of Tijdeman's chairman assignment problem, Discrete
  Mathematics 32, 1980). If several domains were ahead when their shares fell,
  more can be due than the batch has room for: then the domains that are left
  least behind give way, by a sequence at a time.

  What `k` domains are owed after a batch, in sequences, from 0 at first:

  - more than -1, whatever the shares, as none gives more than `ceil(d)`; since
    it sums to 0, less than `k - 1`;
  - less than 1 at constant shares, as some order of the sequences keeps to it
    (Tijdeman's theorem) and the earliest deadline first finds one;
  - less than 1 for `k <= 3`, whatever the shares: too much is due only if those
    ahead are so by a whole sequence together, and two are behind;
  - else, if shares change, at most 1.4 in 28,000 random runs; in searches for
    the worst, 1.5 for four domains, and for twelve 1.6 with linear knots and
    2.1 with shares that end in one update.

  Args:
    owed: by domain, sequences due from the batches before; they sum to 0.
    shares: by domain, in [0, 1]; they sum to 1.
    size: sequences of the batch.

  Returns:
    Sequences by domain; they sum to `size`.

  Example:
    >>> fifth = {'old': Fraction(1, 5), 'new': Fraction(4, 5)}
    >>> apportioned({'old': Fraction(0), 'new': Fraction(0)}, fifth, 8)
    {'old': 1, 'new': 7}
    >>> apportioned(
    ...   {'old': Fraction(3, 5), 'new': Fraction(-3, 5)}, fifth, 8
    ... )
    {'old': 2, 'new': 6}
  """
  due = {name: owed[name] + shares[name] * size for name in shares}
  counts = {name: max(0, math.floor(due[name])) for name in shares}

  def behind(name: str) -> Fraction:
    return due[name] - counts[name]

  def deadline(name: str) -> Fraction | float:
    """Batches, in sequences, until the domain would be one behind."""
    share = shares[name]
    return (1 - behind(name)) / share if share else math.inf

  waiting = sorted((n for n in shares if behind(n) > 0), key=deadline)
  left = size - sum(counts.values())
  for name in waiting[: max(left, 0)]:
    counts[name] += 1
  for _ in range(-left):
    counts[min((n for n in shares if counts[n]), key=behind)] -= 1
  assert sum(counts.values()) == size, (owed, shares, size)
  return counts
