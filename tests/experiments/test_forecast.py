"""The forecast program: one user's curves, and a protocol."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import lrsched
from experiments import forecast
from experiments import judging
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


def read_flags(**values):
  """The program's flags as if given, in this process."""
  flags.FLAGS.mark_as_parsed()
  return flagsaver.flagsaver(**values)


@pytest.mark.slow
def test_a_schedule_is_forecast_from_two_files(folder, tmp_path, capsys):
  """And again from the saved fit, to the digit."""
  spec = tmp_path / 'spec.json'
  spec.write_text(lrsched.to_json(schedule('linear', 5000)))
  files = ','.join(
    str(folder / 'one' / f'{k}.csv') for k in ('constant', 'cosine')
  )
  picture, saved = tmp_path / 'forecast.png', tmp_path / 'fit.json'
  done = run(
    f'--curves={files}',
    f'--schedule={spec}',
    f'--plot={picture}',
    f'--save={saved}',
  )
  assert done.returncode == 0, done.stderr
  assert 'law: Concave: L0 ' in done.stdout
  [line] = [s for s in done.stdout.splitlines() if s.startswith('loss after')]
  assert line.startswith('loss after update 4999: ')
  predicted = float(line.split()[4])
  rows = (folder / 'one' / 'linear.csv').read_text().split()
  assert predicted == pytest.approx(float(rows[-1].split(',')[2]), abs=0.01)
  assert picture.stat().st_size > 10_000
  capsys.readouterr()
  with read_flags(fit=str(saved), schedule=str(spec)):
    forecast.main(['forecast'])
  assert line in capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_curves_may_be_of_any_format(folder, tmp_path):
  """A W&B export of two runs is fitted as the two files are."""
  made = [
    laws.Curve.from_csv((folder / 'one' / f'{k}.csv').read_text(), name=k)
    for k in ('constant', 'cosine')
  ]
  lines = [
    'Step,' + ','.join(f'{c.name} - {m}' for c in made for m in ['lr', 'loss'])
  ]
  for t in range(max(len(c.steps) for c in made)):
    cells = []
    for c in made:
      there = t < len(c.steps)
      cells.append(repr(float(c.lrs[t])) if there else '')
      known = there and not np.isnan(c.losses[t])
      cells.append(repr(float(c.losses[t])) if known else '')
    lines.append(f'{t},' + ','.join(cells))
  export = tmp_path / 'export.csv'
  export.write_text('\n'.join(lines))
  with read_flags(curves=[str(export)]):
    read = forecast.own_curves()
  for given, found in zip(made, read, strict=True):
    np.testing.assert_array_equal(found.lr_of_updates(), given.lr_of_updates())
    np.testing.assert_array_equal(found.losses, given.losses)
    assert (found.name, found.warmup_steps) == (given.name, given.warmup_steps)


@pytest.mark.slow
def test_a_protocol_is_judged_for_every_law(folder, tmp_path, capsys):
  out, picture = tmp_path / 'out.json', tmp_path / 'out.png'
  with read_flags(plot=str(picture)):
    forecast.judge_protocol(folder / 'protocol.json', out)
  result = json.loads(out.read_text())
  assert result['priors'] == 'shipped'
  assert set(result['groups']) == {'one', 'two', 'three'}
  for group in result['groups'].values():
    assert list(group) == [
      *('annealing', 'multi_power', 'functional', 'loss_drop', 'concave'),
      'auto',
    ]
    for found in group.values():
      assert set(judging.METRICS) < set(found)
      assert 0 <= found['coverage90'] <= 1
      assert found['fit_seconds'] > 0
      ends = [c['end'] for c in found['per_curve'].values()]
      for end in ends:
        assert end['low'] < end['predicted'] < end['high']
      assert found['FinalE'] == pytest.approx(
        np.mean([abs(end['predicted'] - end['measured']) for end in ends])
      )
      assert found['end_interval_score90'] == pytest.approx(
        np.mean([end['interval_score90'] for end in ends])
      )
      # The test curves are of 5000 and 4000 updates: nothing to choose from.
      assert found['regret'] is None
      assert found['choice_sets'] == []
    assert group['auto']['FinalE'] < 0.01
  said = capsys.readouterr()
  assert 'one: done (1 of 3)' in said.err
  assert 'SmoothFinalE' in said.out
  assert picture.stat().st_size > 10_000


def test_each_group_is_judged_without_its_own_source(folder, monkeypatch):
  asked = []
  pooled = laws.pool(protocol.data_sets(folder, None))
  monkeypatch.setattr(
    laws, 'pool', lambda sets: asked.append(sorted(sets)) or pooled
  )
  monkeypatch.setattr(judging, 'PUBLISHED', {})
  judging.judge_all(folder / 'protocol.json', 'shipped', 'each')
  assert asked == [['three', 'two'], ['one', 'three'], ['one', 'two']]


BAD = [
  (dict(), 'give either --protocol or --curves'),
  (dict(protocol='none.json', out='x'), 'none.json is not a protocol'),
  (
    dict(protocol='pyproject.toml', out='x'),
    'pyproject.toml is not a protocol',
  ),
  (dict(curves=['none.csv']), 'there is no none.csv'),
  (
    dict(fit='pyproject.toml', save='x'),
    'pyproject.toml is not a fit that --save wrote',
  ),
  (dict(fit='x', save='none/fit.json'), '--save: there is no folder for none/'),
]


@pytest.mark.parametrize(('values', 'message'), BAD)
def test_bad_flags_are_one_line(values, message, capsys):
  with read_flags(**values), pytest.raises(SystemExit) as stopped:
    forecast.main(['forecast'])
  assert stopped.value.code == 1
  [line] = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ')
  assert message in line


def test_an_unknown_law_is_refused_with_those_known():
  done = run('--curves=none.csv', '--law=mpl')
  assert done.returncode == 1
  assert 'should be one of' in done.stderr
  assert 'Traceback' not in done.stderr


def test_a_law_that_refuses_is_named(folder):
  """Group and law, where one of them stops a protocol."""
  groups = json.loads((folder / 'protocol.json').read_text())['groups']
  only_constant = {**groups['one'], 'fit': ['one/constant.csv']}
  path = folder / 'refused.json'
  path.write_text(json.dumps({'groups': {'single': only_constant}}))
  with pytest.raises(ValueError, match='single, annealing: no curve decays'):
    judging.judge_all(path, 'shipped', None)


@pytest.mark.slow
@pytest.mark.skipif(not CURVES, reason='LRSCHED_CURVES names no curves')
def test_auto_forecasts_curves_of_sources_it_has_not_seen(monkeypatch):
  """Mean error at the end <= 0.0055 nats; the best published law: 0.016."""
  monkeypatch.setattr(judging, 'PUBLISHED', {})
  path = protocol.curves_folder() / 'protocol.json'
  judged = judging.judge_all(path, 'shipped', 'each')
  groups = [one.results['auto'] for one in judged]
  assert np.mean([g['FinalE'] for g in groups]) <= 0.0055
  assert 0.85 <= np.mean([g['end_coverage90'] for g in groups]) <= 0.95
