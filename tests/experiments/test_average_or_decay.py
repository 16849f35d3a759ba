"""What the comparison of averages and decays says of points it is given."""

import itertools
import json
import re

import numpy as np
import pytest

from experiments import average_or_decay
from experiments.average_or_decay import DECAY_STEPS
from experiments.average_or_decay import END_STEPS
from experiments.average_or_decay import GAP_STEPS
from experiments.average_or_decay import PEAK_LRS
from experiments.average_or_decay import Point
from experiments.average_or_decay import config_of
from experiments.average_or_decay import merged_steps
from experiments.average_or_decay import summary
from experiments.average_or_decay import trunk_of


def points(predicted):
  """Decayed losses 1, 2, 3 for the three LRs; others as a function of it."""
  return [
    Point(
      peak_lr,
      seed,
      end,
      {
        'decayed': i + 1 + 0.1 * seed,
        'ema': i + 1 + 0.1 * seed,
        'lawa': -(i + 1 + 0.1 * seed),
        'merged': i + 1.01 + 0.1 * seed,
        'last': predicted(i, seed),
      },
    )
    for (i, peak_lr), seed, end in itertools.product(
      enumerate(PEAK_LRS), (0, 1), END_STEPS
    )
  ]


def test_a_predictor_that_is_right_and_one_that_is_the_reverse():
  found = summary(points(lambda i, seed: i + 2 + 0.1 * seed))
  assert found['ema'] == {'bias': 0, 'spread': 0, 'rank': 1, 'picks': 1}
  assert found['lawa']['rank'] == pytest.approx(-1)
  assert found['lawa']['picks'] == 0
  assert found['last']['bias'] == pytest.approx(1)
  assert found['merged']['bias'] == pytest.approx(0.01)
  assert found['merged']['spread'] == pytest.approx(0, abs=1e-12)


def test_spread_rank_and_picks_of_a_predictor_that_errs_once():
  # For seed 1, the first LR seems worse than the second, and nothing else.
  wrong = lambda i, seed: 2.2 if (i, seed) == (0, 1) else i + 1 + 0.1 * seed
  found = summary(points(wrong))['last']
  off = np.repeat([1.1, 0, 0, 0, 0, 0], 3)
  assert found['bias'] == pytest.approx(off.mean())
  assert found['spread'] == pytest.approx(off.std(ddof=1))
  assert found['picks'] == 0.5
  # Decayed 1 1.1 2 2.1 3 3.1; predicted 1 2.2 2 2.1 3 3.1: ranks 1 4 2 3 5 6.
  squares = 0 + 4 + 1 + 1
  assert found['rank'] == pytest.approx(1 - 6 * squares / (6 * 35))


def test_windows_end_where_the_decay_does():
  assert merged_steps(1000) == [800, 840, 880, 920, 960, 1000]
  config = config_of(trunk_of(1e-3), END_STEPS[-1], 0)
  assert config.lawa.every_steps * config.lawa.window == DECAY_STEPS
  for end in END_STEPS:
    assert end % GAP_STEPS == 0  # LAWA's last snapshot is the end's weights
    assert merged_steps(end)[-1] == end


@pytest.mark.slow
def test_the_whole_on_a_few_updates(tmp_path, monkeypatch, capsys):
  """Two LRs and one end; the numbers are those of the runs."""
  sizes = {'PEAK_LRS': (1e-3, 1e-2), 'WARMUP_STEPS': 5, 'END_STEPS': (30,)}
  for name, value in sizes.items():
    monkeypatch.setattr(average_or_decay, name, value)
  monkeypatch.setattr(average_or_decay, 'DECAY_STEPS', 10)
  monkeypatch.setattr(average_or_decay, 'GAP_STEPS', 2)
  monkeypatch.chdir(tmp_path)  # the corpus is extracted there
  found = [
    *average_or_decay.points_of(1e-3, 0, tmp_path),
    *average_or_decay.points_of(1e-2, 0, tmp_path),
  ]
  average_or_decay.show(found, summary(found))
  shown = capsys.readouterr().out
  for point in found:
    name = f'{point.peak_lr:g}_0'
    assert re.search(rf'{point.peak_lr:g} .*{point.loss["decayed"]:.4f}', shown)
    rows = (tmp_path / f'decay_{name}_30' / 'metrics.jsonl').read_text()
    last = json.loads(rows.splitlines()[-1])
    assert last['eval_loss'] == point.loss['decayed']
    # A mean of five and one of six over the same updates.
    assert point.loss['merged'] == pytest.approx(point.loss['lawa'], abs=0.05)
    assert point.loss['merged'] != point.loss['last']
