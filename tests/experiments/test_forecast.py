"""The forecast program: one user's curves, and a protocol."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import lrsched
from experiments import forecast
from experiments import protocol
from lrsched import laws
from tests.lrsched.laws.test_fit import KINDS
from tests.lrsched.laws.test_fit import TRUE
from tests.lrsched.laws.test_fit import curve
from tests.lrsched.laws.test_fit import schedule

CURVES = os.environ.get('LRSCHED_CURVES')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Curves of two sources, as files, with a protocol."""
  folder = tmp_path_factory.mktemp('curves')
  groups = {}
  for name, offset in (('one', 0.0), ('two', 0.3), ('three', 0.1)):
    params = {**TRUE['Concave'], 'L0': 2.6 + offset, 'K': 0.22 + offset / 10}
    (folder / name).mkdir()
    for kind, total in (*KINDS, ('linear', 5000)):
      made = curve(laws.Concave(), params, kind, total, noise=3e-4)
      (folder / name / f'{kind}.csv').write_text(made.to_csv())
    paths = lambda *kinds, name=name: [f'{name}/{kind}.csv' for kind in kinds]
    groups[name] = {
      'source': f'source_{name}',
      'warmup_steps': 100,
      'fit': paths('constant', 'cosine'),
      'test': paths('linear', 'stair'),
    }
  (folder / 'protocol.json').write_text(json.dumps({'groups': groups}))
  return folder


def run(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.forecast', *flags],
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_schedule_is_forecast_from_two_files(folder, tmp_path):
  spec = tmp_path / 'spec.json'
  spec.write_text(lrsched.to_json(schedule('linear', 5000)))
  files = ','.join(
    str(folder / 'one' / f'{k}.csv') for k in ('constant', 'cosine')
  )
  picture = tmp_path / 'forecast.png'
  done = run(f'--curves={files}', f'--schedule={spec}', f'--plot={picture}')
  assert done.returncode == 0, done.stderr
  assert 'law: Concave: L0 ' in done.stdout
  [line] = [s for s in done.stdout.splitlines() if s.startswith('loss after')]
  assert line.startswith('loss after update 4999: ')
  predicted = float(line.split()[4])
  rows = (folder / 'one' / 'linear.csv').read_text().split()
  assert predicted == pytest.approx(float(rows[-1].split(',')[2]), abs=0.01)
  assert picture.stat().st_size > 10_000


def test_a_protocol_is_judged_for_every_law(folder, capsys):
  result = forecast.judge_all(folder / 'protocol.json', 'shipped', None)
  assert set(result['groups']) == {'one', 'two', 'three'}
  for group in result['groups'].values():
    assert list(group) == [
      *('annealing', 'multi_power', 'functional', 'loss_drop', 'concave'),
      'auto',
    ]
    for found in group.values():
      assert set(forecast.METRICS) < set(found)
      assert 0 <= found['coverage90'] <= 1
      assert found['fit_seconds'] > 0
      for per_curve in found['per_curve'].values():
        end = per_curve['end']
        assert end['low'] < end['predicted'] < end['high']
        assert per_curve['FinalE'] == pytest.approx(
          abs(end['predicted'] - end['measured'])
        )
    assert group['auto']['FinalE'] < 0.01
  assert 'one: done' in capsys.readouterr().err


def test_each_group_is_judged_without_its_own_source(folder, monkeypatch):
  asked = []
  pooled = laws.pool(protocol.data_sets(folder, None))
  monkeypatch.setattr(
    laws, 'pool', lambda sets: asked.append(sorted(sets)) or pooled
  )
  monkeypatch.setattr(forecast, 'PUBLISHED', {})
  forecast.judge_all(folder / 'protocol.json', 'shipped', 'each')
  assert asked == [['three', 'two'], ['one', 'three'], ['one', 'two']]


BAD = [
  ((), 'give either --protocol or --curves'),
  (('--protocol=none.json', '--out=x'), 'none.json is not a protocol'),
  (('--curves=none.csv',), 'there is no curve none.csv'),
  (('--curves=none.csv', '--law=mpl'), 'should be one of'),
]


@pytest.mark.parametrize(('flags', 'message'), BAD)
def test_bad_flags_are_one_line(flags, message):
  done = run(*flags)
  assert done.returncode == 1
  assert message in done.stderr
  assert 'Traceback' not in done.stderr


def test_metrics_are_those_of_the_papers():
  made = laws.Curve(
    steps=np.arange(4),
    lrs=np.ones(4),
    losses=np.asarray([np.nan, 4.0, 3.0, 2.0]),
    warmup_steps=0,
    name='a',
  )
  found = protocol.metrics(made, np.asarray([4.0, 3.3, 1.8]))
  assert found == pytest.approx(
    dict(
      R2=1 - 0.13 / 2,
      MAE=0.5 / 3,
      RMSE=(0.13 / 3) ** 0.5,
      PredE=0.2 / 3,
      WorstE=0.1,
      FinalE=0.2,
    )
  )


@pytest.mark.slow
@pytest.mark.skipif(not CURVES, reason='LRSCHED_CURVES names no curves')
def test_auto_forecasts_curves_of_sources_it_has_not_seen(monkeypatch):
  """Mean error at the end <= 0.0055 nats; the best published law: 0.016."""
  monkeypatch.setattr(forecast, 'PUBLISHED', {})
  path = protocol.curves_folder() / 'protocol.json'
  result = forecast.judge_all(path, 'shipped', 'each')
  groups = [group['auto'] for group in result['groups'].values()]
  assert np.mean([g['FinalE'] for g in groups]) <= 0.0055
  assert 0.85 <= np.mean([g['end_coverage90'] for g in groups]) <= 0.95
