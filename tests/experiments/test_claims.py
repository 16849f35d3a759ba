"""Claims over seeds, judged where the answer is known."""

import json
import math

import numpy as np
import pytest

from experiments import claims

CLAIM = claims.Claim('0000.00000', 'a ends lower', 'a', 'b', 'loss')


def outcomes(differences, base=(2.0, 2.3, 1.9, 2.2, 2.1)):
  """Two arms whose paired differences b - a are these."""
  a = list(base[: len(differences)])
  b = [x + d for x, d in zip(a, differences, strict=True)]
  return {'a': {'loss': a}, 'b': {'loss': b}}


def outcome(differences, margin=0.0):
  claim = CLAIM._replace(margin=margin)
  return claims.judge(claim, outcomes(differences)).outcome


def test_the_interval_is_students():
  """Differences 1, 2, 3: s = 1 and t(.95, 2) = 2.919986 (printed tables)."""
  verdict = claims.judge(CLAIM, outcomes([1.0, 2.0, 3.0]))
  half = 2.919986 / math.sqrt(3)
  assert verdict.mean == pytest.approx(2.0)
  assert verdict.spread == pytest.approx(1.0)
  assert (verdict.low, verdict.high) == pytest.approx(
    (2 - half, 2 + half), abs=1e-5
  )
  assert verdict.could_see == pytest.approx(half, abs=1e-5)


def test_the_sign_is_higher_minus_lower():
  assert outcome([0.10, 0.11, 0.12]) == 'held'
  assert outcome([-0.10, -0.11, -0.12]) == 'did not hold'
  assert outcome([0.10, -0.11, 0.02]) == 'cannot tell at this scale'


def test_the_whole_interval_must_be_beyond_the_margin():
  """Mean .11, half-width .017: between .093 and .127."""
  differences = [0.10, 0.11, 0.12]
  assert outcome(differences, margin=0.09) == 'held'
  assert outcome(differences, margin=0.10) == 'cannot tell at this scale'
  assert outcome(differences, margin=0.12) == 'cannot tell at this scale'
  assert outcome(differences, margin=0.13) == 'did not hold'


def test_pairs_count_not_the_spread_of_the_arms():
  """Arms spread by .15 over seeds; every pair differs by .01."""
  verdict = claims.judge(CLAIM, outcomes([0.010, 0.011, 0.009]))
  assert verdict.outcome == 'held'
  shuffled = outcomes([0.010, 0.011, 0.009])
  shuffled['b']['loss'].reverse()
  verdict = claims.judge(CLAIM, shuffled)
  assert verdict.outcome == 'cannot tell at this scale'


def test_a_difference_on_the_margin_is_not_beyond_it():
  values = {'a': {'loss': [1.0] * 3}, 'b': {'loss': [1.0] * 3}}
  assert claims.judge(CLAIM, values).outcome == 'cannot tell at this scale'


def test_two_negative_margins_say_that_arms_are_alike():
  forth, back = claims.both_ways(CLAIM._replace(margin=-0.02))
  near, far = outcomes([0.004, -0.003, 0.001]), outcomes([0.05, 0.06, 0.055])
  assert [claims.judge(c, near).outcome for c in (forth, back)] == [
    'held',
    'held',
  ]
  assert [claims.judge(c, far).outcome for c in (forth, back)] == [
    'held',
    'did not hold',
  ]
  with pytest.raises(ValueError, match='margin must be negative'):
    claims.both_ways(CLAIM)


def test_nine_of_ten_intervals_hold_the_mean():
  """3000 times 4 seeds: a standard error of .0055 about .9."""
  drawn = np.random.default_rng(0).normal(0.3, 0.1, size=(3000, 4))
  verdicts = [claims.judge(CLAIM, outcomes(row)) for row in drawn.tolist()]
  share = np.mean([v.low < 0.3 < v.high for v in verdicts])
  assert abs(share - 0.9) < 3 * 0.0055


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'a': {'loss': [1.0, 2.0]}, 'b': {'loss': [1.0, 2.0]}}, 'at least 3'),
    ({'a': {'loss': [1.0] * 3}}, "needs loss of b; measured were {'a'"),
    ({'a': {'loss': [1.0] * 3}, 'b': {'old': [1.0] * 3}}, 'needs loss of b'),
    ({'a': {'loss': [1.0] * 3}, 'b': {'loss': [1.0] * 4}}, 'same seeds'),
    ({'a': {'loss': [1.0] * 3}, 'b': {'loss': [1, 1, np.inf]}}, 'finite'),
  ],
)
def test_what_cannot_be_judged_is_refused(values, message):
  with pytest.raises(ValueError, match=message):
    claims.judge(CLAIM, values)


def test_a_verdict_says_what_could_have_been_seen():
  held = str(claims.judge(CLAIM, outcomes([0.10, 0.11, 0.12])))
  assert held == (
    'held: a ends lower (loss: b - a = +0.1100 [+0.0931, +0.1269], margin 0, '
    '3 seeds)'
  )
  unclear = str(claims.judge(CLAIM, outcomes([0.01, 0.02, -0.01])))
  assert unclear.startswith('cannot tell at this scale: a ends lower')
  assert unclear.endswith('0.0258 beyond the margin could be seen)')


def test_table_and_record_hold_every_arm_and_verdict():
  values = outcomes([0.10, 0.11, 0.12])
  values['c'] = {'old_loss': [1.0, 1.0, 1.3]}
  verdict = claims.judge(CLAIM, values)
  table = claims.headline(values, [verdict], ['a note'])
  assert table['columns'] == ['arm', 'loss', 'old_loss']
  assert [row[0] for row in table['rows']] == ['a', 'b', 'c']
  assert table['rows'][2] == ['c', '', '1.1000 (0.1732)']
  assert table['notes'][1:] == [str(verdict), 'a note']
  record = json.loads(json.dumps(claims.as_record(values, [verdict])))
  assert record['arms']['b']['loss']['values'] == values['b']['loss']
  [claim] = record['claims']
  assert claim['outcome'] == 'held'
  assert claim['differences'] == pytest.approx([0.10, 0.11, 0.12])
  assert claim['interval90'] == pytest.approx([verdict.low, verdict.high])
