"""Lengths of decays and branches of a trunk, by a law."""

import functools

import numpy as np
import pytest

import lrsched
from lrsched import laws
from lrsched.laws.decays import best_decay
from lrsched.laws.decays import branch_points
from lrsched.laws.ends import end_loss
from tests.lrsched.laws.given_fits import PEAK
from tests.lrsched.laws.given_fits import every_law
from tests.lrsched.laws.given_fits import given

TOTAL, WARMUP = 24000, 2160


def wsd_loss(fit, steps, decay):
  spec = lrsched.WSD(
    peak_lr=PEAK,
    warmup_steps=WARMUP,
    stable_steps=TOTAL - WARMUP - steps,
    decay_steps=steps,
    decay=decay,
  )
  return end_loss(fit, laws.lr_of_updates(spec)[0], WARMUP)


@every_law
@pytest.mark.parametrize(
  'decay', [lrsched.LinearDecay(), lrsched.CosineDecay()]
)
def test_the_best_decay_is_a_minimum_with_its_range(name, decay):
  fit = given(name)
  best = best_decay(fit, TOTAL, PEAK, warmup_steps=WARMUP, decay=decay)
  loss = functools.partial(wsd_loss, fit, decay=decay)
  steps = best.schedule.decay_steps
  assert best.loss == loss(steps)
  # Candidates are taken to 1e-5 nats, which is flat over some updates.
  assert min(loss(int(0.9 * steps)), loss(int(1.1 * steps))) > best.loss
  # The ends of the range are those of the first 256 lengths, 4 % apart.
  assert loss(best.shortest_steps) < best.loss + 1.01e-3
  assert loss(best.longest_steps) < best.loss + 1.01e-3
  assert loss(int(0.94 * best.shortest_steps)) > best.loss + 1e-3
  assert loss(int(1.06 * best.longest_steps)) > best.loss + 1e-3


def test_branches_share_their_trunk():
  fit, budgets = given('Concave'), (8000, 16000, TOTAL)
  found = branch_points(fit, budgets, PEAK, warmup_steps=WARMUP)
  for total, start, best in zip(
    budgets, found.start_steps, found.decays, strict=True
  ):
    steps = best.schedule.decay_steps
    assert start == total - steps
    assert found.trunk.decay_from(start, steps) == best.schedule
  alone = best_decay(fit, TOTAL, PEAK, warmup_steps=WARMUP)
  assert found.decays[-1] == alone
  assert np.all(np.diff([best.loss for best in found.decays]) < 0)
  decays = sum(best.schedule.decay_steps for best in found.decays)
  assert found.n_updates == found.start_steps[-1] + decays
  assert found.n_separate_updates == 48000


def test_what_no_decay_can_be_chosen_for_is_refused():
  fit, rest = given('Concave'), {'peak_lr': PEAK, 'warmup_steps': WARMUP}
  with pytest.raises(ValueError, match='margin_nats must be >= 0, got -1'):
    best_decay(fit, TOTAL, **rest, margin_nats=-1)
  with pytest.raises(ValueError, match=r'WSD\.final_lr must be > 0 with'):
    best_decay(fit, TOTAL, **rest, decay=lrsched.ExponentialDecay())
  with pytest.raises(ValueError, match=r'peak LR must be .*, got 0\.001'):
    best_decay(fit, TOTAL, 1e-3, warmup_steps=WARMUP)
  with pytest.raises(ValueError, match='budgets_steps must hold at least one'):
    branch_points(fit, (), **rest)
  with pytest.raises(ValueError, match=r'and rise, got \[9000, 8000\]'):
    branch_points(fit, (9000, 8000), **rest)
  with pytest.raises(ValueError, match='total_steps must be at least'):
    branch_points(fit, (2000, 8000), **rest)
