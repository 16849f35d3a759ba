"""audit: a log is equal to its schedule, or the cause is named by a test."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

import lrsched
from experiments import audit
from experiments import deviations
from experiments.logged import Reading
from tests.integration import tiny_run
from trainers.train import run as train

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEAK = 3e-3
WSD = lrsched.WSD(
  peak_lr=PEAK,
  final_lr=1e-4,
  warmup_steps=20,
  stable_steps=50,
  decay_steps=30,
)
COSINE = lrsched.Warmup(
  schedule=lrsched.Cosine(peak_lr=PEAK, total_steps=80), warmup_steps=20
)
STEPS = np.arange(100)


def lrs_of(schedule, steps=STEPS):
  return np.asarray(schedule(np.asarray(steps)), np.float64)


@pytest.fixture
def report(tmp_path):
  """Audits LRs against a schedule."""

  def audited(schedule, lrs, steps=STEPS, tolerance=1e-4, **reading):
    spec, log = tmp_path / 'spec.json', tmp_path / 'log.csv'
    spec.write_text(lrsched.to_json(schedule))
    lines = [f'{t},{float(x)!r}' for t, x in zip(steps, lrs, strict=True)]
    log.write_text('\n'.join(['step,lr', *lines]))
    return audit.audit(log, spec, tolerance, Reading(**reading))

  return audited


def causes_in(text):
  label = 'likely cause: '
  lines = [line.strip() for line in text.splitlines()]
  return [line.removeprefix(label) for line in lines if label in line]


@pytest.mark.parametrize('schedule', [WSD, COSINE])
def test_an_equal_log_is_equal(report, schedule):
  equal, text = report(schedule, lrs_of(schedule))
  assert equal
  assert text.startswith('log: 100 rows compared, of steps 0..99\n')
  assert text.endswith('\n  equal')


def test_the_rounding_of_float32_at_the_end_of_a_decay_is_equal(report):
  steps = np.arange(103)
  cosine = 0.5 * (1 + np.cos(np.float32(np.pi) * (steps - 20) / np.float32(80)))
  lrs = np.where(steps < 100, np.float32(PEAK) * cosine.astype(np.float32), 0)
  lrs[:20] = lrs_of(COSINE)[:20]
  lrs[-3:] = 6e-8 * PEAK  # what is left of 1 - 1 there
  equal, text = report(COSINE, lrs, steps)
  assert equal, text
  lrs[-3:] = 1e-5 * PEAK
  assert not report(COSINE, lrs, steps)[0]


def test_the_first_and_the_worst_deviation_are_told(report):
  lrs = lrs_of(WSD)
  lrs[40] *= 1.001
  lrs[80] *= 1.5
  equal, text = report(WSD, lrs)
  assert not equal
  assert 'worst relative deviation 0.5, at step 80; tolerance 0.0001' in text
  assert 'first deviation at step 40: logged 0.003003, spec 0.003' in text
  assert text.endswith('no known cause fits')
  # The tolerance decides, on both sides of the deviation.
  lrs[80] = lrs_of(WSD)[80]
  assert report(WSD, lrs, tolerance=1.1e-3)[0]
  assert not report(WSD, lrs, tolerance=0.9e-3)[0]


@pytest.mark.parametrize('schedule', [WSD, COSINE])
@pytest.mark.parametrize(
  ('by', 'remedy', 'text'),
  [
    (1, {'next_lr': True}, 'log equals spec(t+1): off by one, the LR logged'),
    (-1, {'first_step': 1}, 'log equals spec(t-1): off by one, the steps of'),
  ],
)
@pytest.mark.parametrize('every', [1, 7])
def test_off_by_one_is_named_and_its_remedy_works(
  report, schedule, by, remedy, text, every
):
  steps = STEPS[1::every]
  lrs = lrs_of(schedule, steps + by)
  equal, said = report(schedule, lrs, steps)
  assert not equal
  assert text in causes_in(said)[0]
  assert report(schedule, lrs, steps, **remedy)[0]


def test_off_by_one_is_told_by_the_decay_alone(report):
  steps = STEPS[30:]  # from the stable phase on
  (cause,) = causes_in(report(WSD, lrs_of(WSD, steps - 1), steps)[1])
  assert cause.startswith('the log equals spec(t-1): off by one')


@pytest.mark.parametrize('factor', [0.5, 8.0])
def test_a_constant_factor_is_named(report, factor):
  (cause,) = causes_in(report(COSINE, factor * lrs_of(COSINE))[1])
  assert cause.startswith(f'the log is {factor:g} times the spec: another peak')


def test_a_factor_that_begins_late_is_named_with_its_step(report):
  lrs = lrs_of(COSINE)
  lrs[35:] *= 2
  (cause,) = causes_in(report(COSINE, lrs)[1])
  assert cause.startswith('from step 35 on the log is 2 times the spec')


@pytest.mark.parametrize('schedule', [WSD, COSINE])
def test_a_warmup_from_zero_is_named(report, schedule):
  lrs = np.where(STEPS < 20, PEAK * STEPS / 20, lrs_of(schedule))
  (cause,) = causes_in(report(schedule, lrs)[1])
  assert cause.startswith('the warmup of the log is t/20, from LR 0 at step 0')


def test_a_schedule_begun_again_is_named_with_its_step(report):
  lrs = lrs_of(COSINE, np.where(STEPS < 60, STEPS, STEPS - 60))
  (cause,) = causes_in(report(COSINE, lrs)[1])
  assert cause == (
    'from step 60 on the log equals spec(t-60): the schedule began again at '
    'step 60'
  )


def test_a_schedule_begun_again_between_two_rows_is_told_too(report):
  steps = STEPS[::3]
  lrs = lrs_of(COSINE, np.where(steps < 61, steps, steps - 61))
  (cause,) = causes_in(report(COSINE, lrs, steps)[1])
  assert cause.endswith('spec(t-61): the schedule began again at step 61')


@pytest.mark.parametrize(('by', 'said'), [(-17, 'behind'), (9, 'ahead')])
def test_a_restart_with_another_count_is_named(report, by, said):
  lrs = lrs_of(COSINE, np.where(STEPS < 60, STEPS, STEPS + by))
  (cause,) = causes_in(report(COSINE, lrs)[1])
  assert cause.startswith(
    f'from step 60 on the log equals spec(t{by:+d}): its step was {abs(by)} '
    f'{said}'
  )


def test_of_shifts_within_the_tolerance_the_closest_is_named(report):
  steps = STEPS[:75]
  lrs = lrs_of(COSINE, np.where(steps < 60, steps, steps - 17))
  (cause,) = causes_in(report(COSINE, lrs, steps, tolerance=0.05)[1])
  assert 'spec(t-17)' in cause


@pytest.mark.parametrize('row', [3, 200])
def test_a_cause_must_fit_every_row(report, row):
  schedule = lrsched.Cosine(peak_lr=PEAK, total_steps=400)
  steps = np.arange(300)
  lrs = lrs_of(schedule, steps + 5)
  assert 'spec(t+5)' in report(schedule, lrs, steps)[1]
  lrs[row] *= 1.001
  assert report(schedule, lrs, steps)[1].endswith('no known cause fits')


def test_an_lr_held_from_a_checkpoint_is_named_with_its_step(report):
  lrs = lrs_of(COSINE)
  lrs[60:] = lrs[50]
  (cause,) = causes_in(report(COSINE, lrs)[1])
  assert cause.startswith(f'the log stays at {lrs[50]:.6g} in steps 60..99')
  assert 'an LR that the spec had at step 50' in cause
  # Held for a while only, and at an LR that is from nowhere.
  lrs = lrs_of(COSINE)
  lrs[60:70] = 2 * PEAK
  (cause,) = causes_in(report(COSINE, lrs)[1])
  assert 'in steps 60..69, an LR that the spec never had' in cause


@pytest.mark.parametrize(
  ('digits', 'said'), [('.1e', '2 significant digits'), ('.5f', '5 decimals')]
)
def test_printed_digits_are_named(report, digits, said):
  lrs = [float(f'{lr:{digits}}') for lr in lrs_of(COSINE)]
  equal, text = report(COSINE, lrs)
  assert not equal
  assert f'the log is the spec rounded to {said}' in causes_in(text)[-1]


def test_noise_has_no_cause(report):
  noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(100)
  for schedule in (WSD, COSINE, lrsched.Constant(lr=1e-3)):
    equal, text = report(schedule, noise * lrs_of(schedule))
    assert not equal
    assert text.endswith('no known cause fits')


def test_a_schedule_without_an_end_is_audited(report):
  endless = lrsched.InverseSqrt(peak_lr=PEAK, timescale_steps=20)
  assert report(endless, lrs_of(endless))[0]
  lrs = lrs_of(endless, np.where(STEPS < 60, STEPS, STEPS - 60))
  assert 'began again at step 60' in report(endless, lrs)[1]


def test_the_search_is_cut_where_a_schedule_is_too_long(report, monkeypatch):
  """Beyond what is searched nothing is known, so nothing is claimed."""
  shifted = lrs_of(WSD, STEPS + 1)
  assert 'spec(t+1)' in report(WSD, shifted)[1]
  monkeypatch.setattr(deviations, 'MAX_TABLE', 50)
  assert report(WSD, shifted)[1].endswith('no known cause fits')
  # As if the schedule, cut in its stable phase, stayed there.
  lrs = np.where(STEPS < 40, lrs_of(WSD, STEPS + 10), PEAK)
  assert report(WSD, lrs)[1].endswith('no known cause fits')


def test_one_row_and_zeros_are_compared(report):
  assert report(WSD, [lrs_of(WSD)[7]], [7])[0]
  zero = lrsched.Constant(lr=0.0)
  assert report(zero, np.zeros(100))[0]
  assert not report(zero, np.full(100, 1e-9))[0]
  assert not report(WSD, np.zeros(100))[0]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    train(tiny_run.override_for_eight_steps(), pathlib.Path('run'))
  return folder / 'run'


def test_a_run_of_the_trainer_is_equal_to_its_config(workdir):
  config = workdir / 'config.json'
  # The same program compiled twice: a rounding of float32, no more.
  for log in (workdir, workdir / 'tb'):
    equal, text = audit.audit(log, config, tolerance=2e-7)
    assert equal, text
    assert ': 8 rows compared, of steps 0..7\n' in text


def test_a_run_is_not_equal_to_another_schedule(workdir, tmp_path):
  spec = tmp_path / 'spec.json'
  schedule = tiny_run.override_for_eight_steps().optimizer.schedule
  later = lrsched.Shifted(schedule=schedule, by_steps=1)
  spec.write_text(lrsched.to_json(later))
  assert 'spec(t-1)' in audit.audit(workdir, spec)[1]


def command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.audit', *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_exit_status_says_how_it_ended(workdir, tmp_path):
  spec = tmp_path / 'spec.json'
  spec.write_text(lrsched.to_json(WSD))
  for given, status, stdout in (
    (workdir / 'config.json', 0, 'run: 8 rows compared'),
    (spec, 1, 'first deviation at step 0: logged 0.0005'),
  ):
    done = command(f'--curve={workdir}', f'--spec={given}')
    assert (done.returncode, done.stderr) == (status, '')
    assert stdout in done.stdout


@pytest.mark.parametrize(
  ('flag', 'message'),
  [('--curve=absent', 'error: there is no absent'), ('--tolerence=1', 'toler')],
)
def test_unusable_input_is_its_own_exit_status(flag, message):
  done = command(
    '--curve=README.md', '--spec=docs/gallery/specs/wsd.json', flag
  )
  assert (done.returncode, done.stdout) == (2, '')
  assert message in done.stderr
  assert 'Traceback' not in done.stderr


def test_a_spec_or_tolerance_that_is_none_is_named(workdir, tmp_path):
  spec = tmp_path / 'spec.json'
  spec.write_text('x')
  with pytest.raises(ValueError, match=r'spec.json is not JSON'):
    audit.audit(workdir, spec)
  with pytest.raises(ValueError, match=r'tolerance must be in \(0, 1\), got 0'):
    audit.audit(workdir, workdir / 'config.json', 0.0)
