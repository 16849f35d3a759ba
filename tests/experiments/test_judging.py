"""Metrics and decisions, on curves whose answers are known."""

import numpy as np
import pytest

from experiments import decisions
from experiments import judging
from lrsched import laws


def test_metrics_are_those_of_the_papers():
  made = laws.Curve(
    steps=np.arange(4),
    lrs=np.ones(4),
    losses=np.asarray([np.nan, 4.0, 3.0, 2.0]),
    warmup_steps=0,
    name='a',
  )
  found = judging.metrics(made, np.asarray([4.0, 3.3, 1.8]))
  assert found == pytest.approx(
    dict(
      R2=1 - 0.13 / 2,
      MAE=0.5 / 3,
      RMSE=(0.13 / 3) ** 0.5,
      PredE=0.2 / 3,
      WorstE=0.1,
      FinalE=0.2,
      SmoothFinalE=0.1 / 3,
    )
  )


def test_a_miss_costs_twenty_times_its_size():
  score = judging.interval_score
  assert score(2.0, 2.5, 2.2) == pytest.approx(0.5)
  assert score(2.0, 2.5, 1.99) == pytest.approx(0.5 + 20 * 0.01)
  assert score(2.0, 2.5, 2.53) == pytest.approx(0.5 + 20 * 0.03)


def test_the_interval_score_is_least_at_the_true_quantiles():
  """Of a standard normal: 1.645 either way, not less and not more."""
  drawn = np.random.default_rng(0).normal(size=20_000)
  mean = lambda half: np.mean(
    [judging.interval_score(-half, half, y) for y in drawn.tolist()]
  )
  assert mean(1.645) < min(mean(1.3), mean(2.0))


def ending(name, losses, falls=False, end=99):
  """A curve with its last losses measured at ten updates' distance."""
  steps = np.arange(end + 1)
  column = np.full(len(steps), np.nan)
  column[end + 1 - 10 * len(losses) + 9 :: 10] = losses
  lrs = np.where(steps < 10, 0.5, 1.0)
  if falls:
    lrs = np.clip((end + 10 - steps) / 50, 0, 1)
  # Other LRs at first make it another schedule of the same end.
  lrs = np.where(steps == 0, 0.1 + 1e-3 * len(name), lrs)
  return laws.Curve(
    steps=steps, lrs=lrs, losses=column, warmup_steps=0, name=name
  )


def test_a_final_loss_is_a_mean_where_the_lr_is_level():
  losses = np.asarray([3.0, 2.9, 2.8, 2.7, 2.6, 2.0])
  level, falling = ending('level', losses), ending('falling', losses, True)
  assert decisions.final_loss(level, losses) == pytest.approx(2.6)
  assert decisions.final_loss(falling, losses) == 2.0
  assert decisions.final_loss(ending('a', losses[:3]), losses[:3]) == 2.8


def chosen(measured, predicted, seeds=1):
  curves = [
    ending('a' * (i + 1), [y + 1e-3 * (s - (seeds - 1) / 2)] * 5)
    for i, y in enumerate(measured)
    for s in range(seeds)
  ]
  forecasts = [np.full(5, p) for p in predicted for _ in range(seeds)]
  return decisions.choices(curves, forecasts)


def test_regret_is_what_the_picked_schedule_costs():
  [choice] = chosen([3.0, 2.9, 3.1, 2.95], [2.8, 2.85, 3.0, 2.9])
  assert choice.names[choice.picked] == 'a'
  assert choice.regret == pytest.approx(0.1)
  # Of six pairs, a-b and a-d are in the wrong order.
  assert choice.pairs() == [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
  assert choice.tau == pytest.approx((4 - 2) / 6)


def test_pairs_within_the_seed_noise_and_ties_prove_nothing():
  [choice] = chosen([3.0, 3.001, 2.9], [2.9, 3.0, 2.9])
  # The first pair is within the noise; the forecast ties the second.
  assert choice.pairs() == [0.5, 1.0]
  [blind] = chosen([3.0, 2.9, 2.8], [3.0, 3.0, 3.0])
  assert blind.tau == 0.0


def test_seeds_of_one_schedule_are_one_choice():
  [choice] = chosen([3.0, 2.9], [2.8, 2.9], seeds=3)
  assert len(choice.names) == 2
  assert choice.regret == pytest.approx(0.1)
  assert choice.tau is None


def test_a_choice_is_among_curves_of_one_length():
  curves = [
    ending('a', [3.0]),
    ending('bb', [2.9]),
    ending('ccc', [2.0], end=199),
  ]
  sets = decisions.choices(curves, [np.ones(1)] * 3)
  assert [choice.names for choice in sets] == [['a', 'bb']]
  found = decisions.judge_choices(sets)
  assert found['regret'] == pytest.approx(0.1)
  assert found['tau'] is None
  assert found['choice_sets'][0]['best'] == 'bb'
  alone = decisions.judge_choices(decisions.choices(curves[:1], [np.ones(1)]))
  assert alone == dict(
    regret=None, tau=None, pair_accuracy=None, choice_sets=[]
  )
