"""Ranks with paired intervals, against scipy's paired t-test."""

import numpy as np
import pytest
import scipy.stats

from experiments.ranking import ranked

RNG = np.random.default_rng(0)
HARDNESS = RNG.normal(3, 1, 40)  # of each sequence, the same for every model
LOSSES = {
  'worst': HARDNESS + 0.5 + RNG.normal(0, 0.1, 40),
  'best': HARDNESS + RNG.normal(0, 0.1, 40),
  'close': HARDNESS + 0.01 + RNG.normal(0, 0.1, 40),
}


def test_ranks_and_intervals_are_those_of_a_paired_t_test():
  places = ranked(LOSSES)
  means = [place.mean for place in places]
  assert means == sorted(means)
  assert [place.rank for place in places] == [1, 2, 3]
  best = LOSSES[places[0].name]
  for place in places[1:]:
    test = scipy.stats.ttest_rel(LOSSES[place.name], best)
    low, high = test.confidence_interval(0.95)
    # Equal but for the order of float64 sums.
    np.testing.assert_allclose(place.difference - place.half, low, atol=1e-12)
    np.testing.assert_allclose(place.difference + place.half, high, atol=1e-12)
    assert place.is_tie == (test.pvalue >= 0.05)


def test_a_tie_is_what_the_sequences_cannot_tell():
  ties = {place.name: place.is_tie for place in ranked(LOSSES)}
  assert ties == {'best': True, 'close': True, 'worst': False}


def test_pairing_sees_through_the_hardness_of_sequences():
  """Apart, the means differ by less than their own errors."""
  shifted = {'a': HARDNESS, 'b': HARDNESS + 0.1 + RNG.normal(0, 0.01, 40)}
  assert HARDNESS.std() / np.sqrt(40) > 0.1
  assert not ranked(shifted)[1].is_tie


def test_equal_models_tie():
  places = ranked({'a': HARDNESS, 'b': HARDNESS.copy()})
  assert places[1][2:] == (HARDNESS.mean(), 0.0, 0.0, True)


def test_the_interval_holds_the_truth_as_often_as_it_says():
  """1000 draws of a true difference of 0.2; 95 % cover, within 3 s.e."""
  rng, covered = np.random.default_rng(1), 0
  for _ in range(1000):
    low = rng.normal(0, 1, 10)
    places = ranked({'low': low, 'high': low + 0.2 + rng.normal(0, 0.1, 10)})
    sign = 1 if places[0].name == 'low' else -1
    covered += abs(sign * places[1].difference - 0.2) <= places[1].half
  assert abs(covered / 1000 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 1000)


@pytest.mark.parametrize('n', [1, 39])
def test_other_sequences_are_refused(n):
  with pytest.raises(ValueError, match='losses must be of the same sequences'):
    ranked({'a': HARDNESS[:n], 'b': HARDNESS[: n if n == 1 else 40]})
