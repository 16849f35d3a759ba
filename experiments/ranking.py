"""Models ranked by their losses on the same evaluation sequences.

The difference `d_i` of a model from the best one on sequence `i` has the mean
`m` and the sample standard deviation `s`; the interval is `m +- t s / sqrt(n)`
with the 97.5 % quantile `t` of Student's t with `n - 1` degrees of freedom. It
is of the sequences, not of seeds, and the best was chosen on them too: a lead
that is barely outside is flattered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy

from trainers.evaluate import paired_standard_error

COVERAGE = 0.95


class Place(NamedTuple):
  """Where a model stands among others.

  Attributes:
    name: of the model.
    rank: 1 for the lowest mean loss.
    mean: its loss, nats per token.
    difference: from the lowest, >= 0.
    half: half of the interval of the difference.
    is_tie: whether it is the best, or the interval holds 0.
  """

  name: str
  rank: int
  mean: float
  difference: float
  half: float
  is_tie: bool


def ranked(losses: Mapping[str, np.ndarray]) -> list[Place]:
  """The models from the lowest mean loss to the highest.

  Args:
    losses: by model, float [sequences], of the same sequences in one order.

  Raises:
    ValueError: if the models were not evaluated on as many sequences, or on
      fewer than two.
  """
  sizes = {name: len(values) for name, values in losses.items()}
  if len(set(sizes.values())) != 1 or min(sizes.values()) < 2:
    raise ValueError(
      'losses must be of the same sequences, at least two, for all models; got '
      f'{sizes}; was one evaluated with another eval.n_sequences?'
    )
  means = {name: float(np.mean(x, dtype=float)) for name, x in losses.items()}
  order = sorted(means, key=lambda name: means[name])
  best, n = order[0], sizes[order[0]]
  quantile = float(scipy.stats.t.ppf((1 + COVERAGE) / 2, n - 1))
  places = []
  for rank, name in enumerate(order, start=1):
    difference = means[name] - means[best]
    half = quantile * paired_standard_error(losses[name], losses[best])
    is_tie = difference <= half
    places.append(Place(name, rank, means[name], difference, half, is_tie))
  return places
