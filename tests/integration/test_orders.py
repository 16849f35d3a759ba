"""A run that is told to stop or to decay: by real signals and a real file."""

import dataclasses
import datetime
import json
import os
import signal
import subprocess
import threading
import time

import jax
import pytest

import lrsched
from experiments.flags import override
from tests.integration import tiny_run
from trainers import finish as finish_lib
from trainers.checkpoint import last_good
from trainers.finish import Finish
from trainers.orders import Stopped
from trainers.start import checkpoints_of
from trainers.train import run

STOPPED = 128 + signal.SIGTERM


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with text, and a run `whole` that nothing interrupted."""
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  done = tiny_run.launch(folder, 'whole')
  assert done.returncode == 0, done.stderr
  return folder


@pytest.fixture
def here(folder, monkeypatch):
  """The same folder, to run in."""
  monkeypatch.chdir(folder)
  return folder


def start(folder, workdir, *flags):
  return subprocess.Popen(
    tiny_run.command(workdir, *flags),
    cwd=folder,
    env=tiny_run.environment(),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for(process, is_so):
  """Returns when something has happened, while the process lives."""
  while not is_so():
    assert process.poll() is None, process.stderr.read()
    time.sleep(1e-3)  # leaves the core to the process


def rows_in(path):
  return path.read_bytes().count(b'\n') if path.exists() else 0


def events_of(workdir):
  return json.loads((workdir / 'lineage.json').read_text())['events']


def schedule_of(config):
  return config.optimizer.schedule


def stop_at(folder, workdir, is_so):
  process = start(folder, workdir)
  wait_for(process, is_so)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate()
  assert process.returncode == STOPPED, said
  return said


@pytest.mark.slow
def test_stopped_in_its_first_compilation_it_leaves_step_0(folder):
  # The first checkpoint is durable before anything else is compiled.
  manifest = folder / 'early' / 'checkpoints' / '000000000.manifest'
  stop_at(folder, 'early', manifest.exists)
  root = checkpoints_of(folder / 'early')
  assert manifest.exists()
  assert last_good(root)[0] <= 1
  done = tiny_run.launch(folder, 'early')
  assert done.returncode == 0, done.stderr
  tiny_run.assert_same_run(folder / 'whole', folder / 'early', 300)


@pytest.mark.slow
def test_stopped_in_its_warmup_it_goes_on_from_there(folder):
  rows = folder / 'warm' / 'metrics.jsonl'
  said = stop_at(folder, 'warm', lambda: rows_in(rows) >= 3)
  step = last_good(checkpoints_of(folder / 'warm'))[0]
  assert f'warm: stopped by SIGTERM at step {step}, which is saved' in said
  assert [(e['kind'], e['step']) for e in events_of(folder / 'warm')] == [
    ('start', 0),
    ('stop', step),
  ]
  # Between checkpoints as well: the state of the step itself is saved.
  for _ in range(2):
    more = rows_in(rows) + 25
    stop_at(folder, 'warm', lambda more=more: rows_in(rows) >= more)
  done = tiny_run.launch(folder, 'warm')
  assert done.returncode == 0, done.stderr
  tiny_run.assert_same_run(folder / 'whole', folder / 'warm', 300)


def test_stopped_in_an_evaluation_it_is_evaluated_when_it_goes_on(here):
  config = tiny_run.get_config()
  compiled = []

  def strike(event, seconds, **details):
    del seconds, details
    if event != '/jax/core/compile/backend_compile_duration':
      return
    rows = here / 'evaluating' / 'metrics.jsonl'
    # What is compiled after 48 updates is the evaluation, in its first batch.
    if rows_in(rows) >= 48 and not compiled:
      compiled.append(rows_in(rows))
      os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  jax.clear_caches()
  jax.monitoring.register_event_duration_secs_listener(strike)
  try:
    with pytest.raises(Stopped) as stopped:
      run(config, here / 'evaluating')
  finally:
    jax.monitoring.unregister_event_duration_listener(strike)
  assert compiled
  assert signal.getsignal(signal.SIGTERM) == before
  assert stopped.value.step == 50
  assert last_good(checkpoints_of(here / 'evaluating'))[0] == 50
  assert not (here / 'evaluating' / 'evals' / '50.npy').exists()
  run(config, here / 'evaluating')
  tiny_run.assert_same_run(here / 'whole', here / 'evaluating', 300)


def test_a_file_begins_the_decay_and_a_kill_does_not_undo_it(folder):
  rows = folder / 'told' / 'metrics.jsonl'
  process = start(folder, 'told')
  wait_for(process, lambda: rows_in(rows) >= 57)
  (folder / 'told' / 'decay').write_text('30')
  wait_for(process, lambda: not (folder / 'told' / 'decay').exists())
  process.kill()
  process.communicate()
  # The same launch goes on with it, without a restart of the schedule.
  done = tiny_run.launch(folder, 'told')
  assert done.returncode == 0, done.stderr
  [decay] = [e for e in events_of(folder / 'told') if e['kind'] == 'decay']
  begun = decay['step']
  spec = lrsched.from_dict(decay['spec'])
  trunk = schedule_of(tiny_run.get_config())
  assert spec == trunk.decay_from(begun, 30)
  # What was decided is a spec: a run that has it from the start is the same.
  lengths = [
    f'--set=optimizer.schedule.stable_steps={begun - 10}',
    '--set=optimizer.schedule.decay_steps=30',
    f'--set=total_steps={begun + 30}',
    '--set=checkpoint.keep_steps=()',
  ]
  asked = tiny_run.launch(folder, 'asked', *lengths)
  assert asked.returncode == 0, asked.stderr
  tiny_run.assert_same_run(folder / 'asked', folder / 'told', begun + 30)
  # A launch after the end finds it complete.
  again = tiny_run.launch(folder, 'told')
  assert again.returncode == 0, again.stderr
  assert f'already at step {begun + 30}' in again.stderr


def test_a_signal_begins_the_decay_without_a_compilation(folder):
  rows = folder / 'signalled' / 'metrics.jsonl'
  process = start(folder, 'signalled', '--set=finish.decay_frac=0.5')
  # In the warmup there is nothing to decay from yet: the order waits.
  wait_for(process, lambda: rows_in(rows) >= 2)
  process.send_signal(signal.SIGUSR1)
  _, said = process.communicate()
  assert process.returncode == 0, said
  [decay] = [e for e in events_of(folder / 'signalled') if e['kind'] == 'decay']
  assert decay['step'] >= 10
  length = round(0.5 * decay['step'])
  assert f'decay of {length} updates, {length * 8 * 16} tokens' in said
  train = [r for r in tiny_run.rows_of(folder / 'signalled') if 'lr' in r]
  assert train[-1]['step'] == decay['step'] + length - 1
  spec = lrsched.from_dict(decay['spec'])
  for row in train:
    assert row['lr'] == pytest.approx(float(spec(row['step'])), rel=1e-6)


def test_a_signal_in_the_warmup_survives_a_stop(here):
  # Stable for long: the file is looked at by the clock.
  lengths = ['warmup_steps=250', 'stable_steps=5000']
  asked = ['total_steps=5270', 'finish.decay_steps=5']
  asked += [f'optimizer.schedule.{x}' for x in lengths]
  asked += ['checkpoint.keep_steps=()']
  config = override(tiny_run.get_config(), asked)
  rows = here / 'patient' / 'metrics.jsonl'

  def tell():
    while not rows_in(rows):
      time.sleep(1e-3)
    for number in (signal.SIGUSR1, signal.SIGTERM):
      os.kill(os.getpid(), number)

  told = threading.Thread(target=tell)
  told.start()
  with pytest.raises(Stopped) as stopped:
    run(config, here / 'patient')
  told.join()
  assert stopped.value.step < 250
  assert (here / 'patient' / 'decay').exists()
  run(config, here / 'patient')
  assert not (here / 'patient' / 'decay').exists()
  events = events_of(here / 'patient')
  assert [e['kind'] for e in events] == ['start', 'stop', 'resume', 'decay']
  # Five updates, at the earliest once the stable phase is as long.
  begun = events[-1]['step']
  assert 255 <= begun < 5250
  assert last_good(checkpoints_of(here / 'patient')) == (begun + 5, ())


@pytest.mark.parametrize(
  ('finish', 'begun', 'length'),
  [
    (Finish(by_step=60, decay_steps=20), 40, 20),
    (Finish(by_step=60, decay_frac=0.2), 50, 10),
    (Finish(by_tokens=60 * 128, decay_frac=0.2), 50, 10),
    (Finish(by_tokens=60 * 128 + 127, decay_steps=20), 40, 20),
    # What is used up already: as soon as the stable phase is as long.
    (Finish(by_device_hours=1e-9, decay_steps=5), 15, 5),
  ],
)
def test_a_budget_ends_with_its_decay(here, finish, begun, length):
  """The config keeps step 200, which then never comes."""
  name = f'budget{abs(hash(repr(finish)))}'
  check_budget(here / name, finish, begun, length)


def test_a_budget_ends_at_its_time(here, monkeypatch):
  """The clock stands an hour before the deadline at the launch, then after."""
  finish = Finish(by_time='2100-01-01T00:00+00:00', decay_steps=5)
  hours = iter([-1])
  clock = lambda: finish.deadline() + 3600 * next(hours, 1)
  monkeypatch.setattr(finish_lib, 'now', clock)
  check_budget(here / 'by_time', finish, 15, 5)


def check_budget(workdir, finish, begun, length):
  config = dataclasses.replace(tiny_run.get_config(), finish=finish)
  run(config, workdir)
  [decay] = [e for e in events_of(workdir) if e['kind'] == 'decay']
  assert decay['step'] == begun
  train = [r for r in tiny_run.rows_of(workdir) if 'lr' in r]
  assert train[-1]['step'] == begun + length - 1
  assert train[-1]['lr'] == pytest.approx(1e-3 / length, rel=1e-5)
  assert last_good(checkpoints_of(workdir)) == (begun + length, ())
  assert run(config, workdir).mean > 0  # complete


def test_a_budget_far_away_changes_nothing(here):
  year = datetime.datetime.now(datetime.UTC) + datetime.timedelta(365)
  finish = Finish(by_time=year.isoformat(), by_device_hours=1e6, by_step=10**6)
  config = dataclasses.replace(tiny_run.get_config(), finish=finish)
  run(config, here / 'ample')
  tiny_run.assert_same_run(here / 'whole', here / 'ample', 300)


def cosine_config(**changes):
  """A run whose schedule has no decay that could begin early."""
  config = tiny_run.get_config()
  cosine = lrsched.Warmup(
    schedule=lrsched.Cosine(peak_lr=1e-3, total_steps=1990), warmup_steps=10
  )
  optimizer = dataclasses.replace(config.optimizer, schedule=cosine)
  config = dataclasses.replace(config, optimizer=optimizer, total_steps=2000)
  rarely = ['eval.every_steps=2000', 'checkpoint.every_steps=2000']
  rarely += ['log.every_steps=20']
  config = override(config, [*rarely, 'checkpoint.keep_steps=()'])
  return dataclasses.replace(config, **changes)


def test_a_wrong_order_is_named_and_the_run_goes_on(here, capsys):
  rows = here / 'wrong' / 'metrics.jsonl'

  def tell():
    while not rows_in(rows):
      time.sleep(1e-3)
    (here / 'wrong' / 'decay').touch()

  told = threading.Thread(target=tell)
  told.start()
  run(cosine_config(), here / 'wrong')
  told.join()
  said = capsys.readouterr().err
  assert said.count('no decay at step') == 1
  assert 'spec must be WSD, Infinite or Rewarm to one of them' in said
  assert len(events_of(here / 'wrong')) == 1


@pytest.mark.parametrize(
  'finish',
  [
    Finish(by_step=40),
    Finish(by_tokens=10**9),
    Finish(by_time='2100-01-01T00:00+00:00'),
    Finish(by_device_hours=1.0),
  ],
)
def test_a_budget_needs_a_decay_that_can_begin_early(finish):
  with pytest.raises(ValueError, match=r'needs schedules whose decay can'):
    cosine_config(finish=finish)


@pytest.mark.parametrize(
  ('finish', 'said'),
  [
    # The warmup ends at 10, and the schedule decays by itself from 280 on.
    (Finish(by_step=12, decay_steps=5), 'would begin at step 7, where'),
    (Finish(by_tokens=100), 'would begin at step 0, where'),
    (Finish(by_step=290, decay_steps=5), 'would begin at step 285, where'),
    (Finish(by_step=15, decay_steps=11), 'would begin at step 4, where'),
  ],
)
def test_a_budget_without_room_is_refused(finish, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(tiny_run.get_config(), finish=finish)


def test_a_branch_takes_what_the_budget_leaves_or_is_refused(here):
  short = ['total_steps=20', 'checkpoint.keep_steps=()']
  run(override(tiny_run.get_config(), short), here / 'used')
  for finish, said in (
    (Finish(by_step=20, decay_steps=5), 'nothing is left after 20 updates'),
    (Finish(by_time='2026-01-31T08:00+00:00'), 'must be in the future'),
  ):
    config = dataclasses.replace(tiny_run.get_config(), finish=finish)
    with pytest.raises(ValueError, match=said):
      run(config, here / 'more', branch_from=f'{here / "used"}@20')
    assert not (here / 'more').exists()
  # Five updates would have had to begin at 19.
  finish = Finish(by_step=24, decay_steps=5)
  config = dataclasses.replace(tiny_run.get_config(), finish=finish)
  run(config, here / 'more', branch_from=f'{here / "used"}@20')
  [decay] = [e for e in events_of(here / 'more') if e['kind'] == 'decay']
  assert decay['step'] == 20
  assert last_good(checkpoints_of(here / 'more')) == (24, ())


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'decay_steps': 0}, 'Finish.decay_steps must be >= 1, got 0'),
    ({'decay_frac': 0.0}, r'Finish.decay_frac must be in \(0, 1\]'),
    ({'by_time': 'tomorrow'}, 'Finish.by_time must be an ISO 8601 time'),
    ({'by_time': '2026-01-31T08:00'}, 'with an offset'),
    ({'by_device_hours': -1.0}, 'Finish.by_device_hours must be > 0'),
  ],
)
def test_a_wrong_budget_is_named(fields, said):
  with pytest.raises(ValueError, match=said):
    Finish(**fields)
