"""Tokens, epochs and fractions become the documented number of steps."""

import re

import pytest

import lrsched
from trainers import horizon


@pytest.mark.parametrize(
  ('tokens', 'steps'),
  [(1, 1), (2048, 1), (2049, 2), (4096, 2), (2048 * 10**15 + 1, 10**15 + 1)],
)
def test_tokens_round_up(tokens, steps):
  assert horizon.steps_from_tokens(tokens, batch_size=16, seq_len=128) == steps


@pytest.mark.parametrize(
  ('epochs', 'steps'),
  [(1, 7), (2, 13), (0.5, 4), (1.6, 10), (0.001, 1), (8e15, 5 * 10**16)],
)
def test_epochs_round_up(epochs, steps):
  assert (
    horizon.steps_from_epochs(epochs, windows_per_epoch=100, batch_size=16)
    == steps
  )


@pytest.mark.parametrize(
  ('frac', 'total_steps', 'steps'),
  [
    (0.02, 1000, 20),
    (0.15, 10, 2),  # 1.5 as written, 1.4999... as a binary fraction.
    (0.25, 10, 3),
    (0.024, 100, 2),
    (0, 10, 0),
    (0.0, 10, 0),
    (1, 10, 10),
    (1.0, 2**53 + 1, 2**53 + 1),  # Not a float64.
    (0.1, 10**18 + 10, 10**17 + 1),
    (1e-05, 10**5, 1),
  ],
)
def test_fractions_round_to_the_nearest_step(frac, total_steps, steps):
  assert horizon.steps_from_frac(frac, total_steps=total_steps) == steps


@pytest.mark.parametrize('bad', [0, -1, 1e9, True, '7', None])
def test_counts_are_strict(bad):
  message = f'tokens must be an integer >= 1, got {bad!r}'
  with pytest.raises(ValueError, match=re.escape(message)):
    horizon.steps_from_tokens(bad, batch_size=1, seq_len=1)
  with pytest.raises(ValueError, match='batch_size must be'):
    horizon.steps_from_tokens(1, batch_size=bad, seq_len=1)
  with pytest.raises(ValueError, match='seq_len must be'):
    horizon.steps_from_tokens(1, batch_size=1, seq_len=bad)
  with pytest.raises(ValueError, match='windows_per_epoch must be'):
    horizon.steps_from_epochs(1, windows_per_epoch=bad, batch_size=1)
  with pytest.raises(ValueError, match='total_steps must be'):
    horizon.steps_from_frac(0.5, total_steps=bad)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), True, '0.5'])
def test_shares_are_numbers(bad):
  with pytest.raises(ValueError, match='frac must be a finite number'):
    horizon.steps_from_frac(bad, total_steps=10)
  with pytest.raises(ValueError, match='epochs must be a finite number'):
    horizon.steps_from_epochs(bad, windows_per_epoch=1, batch_size=1)


def test_shares_are_in_range():
  for bad in (-0.1, 1.01, 2):
    with pytest.raises(ValueError, match=r'frac must be in \[0, 1\]'):
      horizon.steps_from_frac(bad, total_steps=10)
  for bad in (0, -1.0):
    with pytest.raises(ValueError, match='epochs must be > 0'):
      horizon.steps_from_epochs(bad, windows_per_epoch=1, batch_size=1)


def test_a_share_never_vanishes_silently():
  assert horizon.steps_from_frac(0.05, total_steps=10) == 1
  with pytest.raises(ValueError, match=r'at least one step, got 0\.04 of'):
    horizon.steps_from_frac(0.04, total_steps=10)


RAMP = horizon.BatchRamp(boundaries=(10, 30), batch_sizes=(4, 8, 16))


def test_tokens_of_a_ramp_are_those_of_its_batches():
  """10 x 4 + 20 x 8 = 200 sequences before the full size of 16."""
  steps = lambda n: horizon.steps_from_tokens(
    n * 128, batch_size=16, seq_len=128, ramp=RAMP
  )
  assert [steps(n) for n in (1, 4, 40, 41, 200, 201, 216, 217)] == [
    *(1, 1, 10, 11, 30, 31, 31, 32)
  ]
  assert (
    horizon.steps_from_tokens(
      128 * 40 + 1, batch_size=16, seq_len=128, ramp=RAMP
    )
    == 11
  )


def test_a_schedule_on_a_ramp_ends_at_its_own_tokens():
  wsd = lrsched.WSD(
    peak_lr=1.0, warmup_steps=5, stable_steps=35, decay_steps=10
  )
  on_ramp = RAMP.schedule(wsd)
  asked = horizon.steps_from_tokens(
    50 * 16 * 128, batch_size=16, seq_len=128, ramp=RAMP
  )
  assert on_ramp.end_step == asked == 68
  assert [RAMP.size_at(t) for t in (0, 9, 10, 29, 30)] == [4, 4, 8, 8, 16]


def test_a_ramp_must_end_at_the_batch_size_and_rise():
  with pytest.raises(ValueError, match='must end with batch_size=32, got'):
    horizon.steps_from_tokens(1, batch_size=32, seq_len=1, ramp=RAMP)
  with pytest.raises(ValueError, match='must be one more than boundaries'):
    horizon.BatchRamp(boundaries=(10,), batch_sizes=(4,))
  with pytest.raises(ValueError, match=r'boundaries\[1\] must be > '):
    horizon.BatchRamp(boundaries=(10, 10), batch_sizes=(4, 8, 16))


def test_epochs_of_a_ramp():
  """Two passes over 160 windows: 320 sequences, 200 of them on the ramp."""
  assert (
    horizon.steps_from_epochs(
      2, windows_per_epoch=160, batch_size=16, ramp=RAMP
    )
    == 30 + 8
  )  # 120 / 16, rounded up


def test_a_budget_of_new_tokens_takes_more_updates_than_one_of_all():
  sizes = {'batch_size': 8, 'seq_len': 16}
  assert horizon.steps_from_tokens(12_800, **sizes) == 100
  assert horizon.steps_from_tokens(12_800, **sizes, share=0.8) == 125
  assert horizon.steps_from_tokens(12_800, **sizes, share=0.95) == 106  # 105.26
  # Decimals as written: 0.1 of 1000 updates is 100, not 99 or 101.
  assert horizon.steps_from_tokens(12_800, **sizes, share=0.1) == 1000
  ramp = horizon.BatchRamp(boundaries=(10,), batch_sizes=(4, 8))
  assert horizon.steps_from_tokens(12_800, **sizes, ramp=ramp, share=0.8) == 130
  for share in (0, -0.1, 1.01):
    with pytest.raises(ValueError, match=r'share must be in \(0, 1\]'):
      horizon.steps_from_tokens(100, **sizes, share=share)
