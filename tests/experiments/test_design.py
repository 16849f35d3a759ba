"""The programs that forecast and design, from the recorded curves."""

import os
import pathlib
import subprocess
import sys

import pytest

import lrsched
from lrsched import laws

ROOT = pathlib.Path(__file__).resolve().parents[2]
CURVES = ROOT / 'experiments' / 'curves'


def run(*arguments, environment=None):
  return subprocess.run(
    [sys.executable, '-m', *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  path = tmp_path_factory.mktemp('fit') / 'fit.json'
  curves = [CURVES / f'{n}_seed0.csv' for n in ('constant', 'cosine_short')]
  result = run(
    'experiments.forecast',
    f'--curves={",".join(map(str, curves))}',
    f'--schedule={CURVES / "wsd_long.json"}',
    f'--save={path}',
  )
  assert result.returncode == 0, result.stderr
  [line] = [x for x in result.stdout.splitlines() if x.startswith('loss after')]
  low, high = map(float, line.partition('[')[2].rstrip(']').split(','))
  text = (CURVES / 'wsd_long_seed0.csv').read_text()
  assert low < laws.Curve.from_csv(text).losses[-1] < high
  return path


@pytest.mark.slow
def test_a_design_is_a_schedule(saved):
  spec, picture = saved.parent / 'designed.json', saved.parent / 'designed.png'
  result = run(
    'experiments.design',
    f'--fit={saved}',
    '--total_steps=3000',
    '--warmup_steps=100',
    f'--out={spec}',
    f'--plot={picture}',
  )
  assert result.returncode == 0, result.stderr
  assert 'nats below a cosine to' in result.stdout
  assert 'nats below WSD with its best linear decay' in result.stdout
  designed = lrsched.from_json(spec.read_text())
  assert designed.end_step == 3000
  assert picture.stat().st_size > 0


def test_branches_of_a_trunk(saved):
  # As a user has it: jax looks for every backend, and logs which there is not.
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_PLATFORMS'}
  result = run(
    'experiments.design',
    f'--fit={saved}',
    '--warmup_steps=100',
    '--budgets=2000,1000',
    environment=environment,
  )
  assert result.returncode == 0, result.stderr
  assert 'Unable to initialize backend' not in result.stderr
  assert '3000 by a run for each budget' in result.stdout


def test_bad_input_is_one_line(saved):
  for arguments, message in (
    ((f'--fit={saved}',), '--total_steps must be given, or --budgets'),
    (('--fit=missing.json', '--total_steps=900'), 'missing.json is not a fit'),
    (
      (f'--fit={saved}', '--total_steps=900', '--peak_lr=1'),
      'peak',
    ),
  ):
    result = run('experiments.design', *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert 'Traceback' not in result.stderr


def test_recorded_curves_are_of_their_specs():
  for path in sorted(CURVES.glob('*_seed*.csv')):
    curve = laws.Curve.from_csv(path.read_text(), name=path.name)
    spec_path = CURVES / f'{path.stem.partition("_seed")[0]}.json'
    spec = lrsched.from_json(spec_path.read_text())
    lrs, _ = laws.lr_of_updates(spec, int(curve.steps[-1]) + 1)
    assert abs(curve.lr_of_updates() - lrs).max() < 2e-4 * curve.peak_lr
