"""Two processes of one run, of which only one is told to stop or to decay.

The runs have no end of their own in reach: without the order they would go on,
so nothing has to be told in time.
"""

import contextlib
import datetime
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

import lrsched
from tests.integration import tiny_run
from trainers.checkpoint import last_good
from trainers.start import checkpoints_of

pytestmark = pytest.mark.slow

STOPPED = 128 + signal.SIGTERM

# Orders are followed at every fifth update: acting at once, and alone, shows.
EVERY = 5
DECAY = 20
FIRST = 10 + DECAY  # a decay begins once the stable phase is as long
TRUNK = lrsched.WSD(
  peak_lr=1e-3, warmup_steps=10, stable_steps=999_970, decay_steps=20
)
ENDLESS = [
  '--set=total_steps=1000000',
  f'--set=optimizer.schedule.stable_steps={TRUNK.stable_steps}',
]
COMMON = [
  f'--set=log.every_steps={EVERY}',
  f'--set=finish.decay_steps={DECAY}',
  '--set=checkpoint.every_steps=50',
  '--set=checkpoint.keep_steps=()',
]

# The launch program, joined over a local socket; its clock may be ahead, by so
# many seconds when it is first read, at the launch, and from then on.
PROGRAM = """
import itertools, sys
import jax
port, rank, first_s, then_s, *flags = sys.argv[1:]
jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank))
from absl import app
from experiments import launch
from trainers import finish
right = finish.now
ahead = itertools.chain([float(first_s)], itertools.repeat(float(then_s)))
finish.now = lambda: right() + next(ahead)
app.run(launch.main, ['launch', *flags])
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  return folder


@contextlib.contextmanager
def two(folder, workdir, *flags, ahead_s=(0, 0)):
  """Both processes of a run, which do not outlive the test.

  The clock of the second is `ahead_s`: at the launch, and from then on.
  """
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    port = listener.getsockname()[1]
  arguments = tiny_run.command(workdir, *COMMON, *flags)[3:]
  program = [sys.executable, '-c', PROGRAM, str(port)]
  with contextlib.ExitStack() as stack:
    processes = []
    for rank in range(2):
      said = stack.enter_context((folder / f'said{rank}').open('w'))
      process = subprocess.Popen(
        [*program, str(rank), *(str(rank * s) for s in ahead_s), *arguments],
        cwd=folder,
        env=tiny_run.environment(),
        stdout=said,
        stderr=said,
      )
      stack.callback(process.wait)
      stack.callback(process.kill)
      processes.append(process)
    yield processes


def ended(folder, processes):
  """Exit codes, and what each said; one that hangs fails the test."""
  codes = [process.wait(timeout=600) for process in processes]
  return codes, [(folder / f'said{rank}').read_text() for rank in range(2)]


def wait_for(processes, is_so):
  """Returns when something has happened, while both processes live."""
  while not is_so():
    assert [process.poll() for process in processes] == [None, None]
    time.sleep(0.01)  # the processes need the machine


def rows_in(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def events_of(workdir):
  """Of the lineage: kinds, and steps."""
  events = json.loads((workdir / 'lineage.json').read_text())['events']
  return [e['kind'] for e in events], [e['step'] for e in events]


def decay_of(workdir):
  """The step of the only decay, and its spec; the rows follow it."""
  events = json.loads((workdir / 'lineage.json').read_text())['events']
  [decay] = [e for e in events if e['kind'] == 'decay']
  spec = lrsched.from_dict(decay['spec'])
  assert spec.end_step is not None
  train = [r for r in tiny_run.rows_of(workdir) if 'lr' in r]
  assert [r['step'] for r in train] == [*range(0, spec.end_step, EVERY)]
  for row in train:
    assert row['lr'] == pytest.approx(float(spec(row['step'])), rel=1e-6)
  return decay['step'], spec


def test_one_is_stopped_and_later_one_is_told_to_decay(folder):
  """SIGTERM, the same launch again, SIGUSR1: as a run that nothing told."""
  workdir = folder / 'told'
  # A deadline that no clock reaches changes nothing.
  year = datetime.datetime.now(datetime.UTC) + datetime.timedelta(365)
  flags = [*ENDLESS, f'--set=finish.by_time={year.isoformat()}']
  with two(folder, 'told', *flags) as processes:
    wait_for(processes, lambda: rows_in(workdir) >= FIRST // EVERY)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = ended(folder, processes)
  assert codes == [STOPPED, STOPPED], said
  saved, damaged = last_good(checkpoints_of(workdir))
  assert not damaged
  assert saved % EVERY == 0
  assert events_of(workdir) == (['start', 'stop'], [0, saved])
  for words in said:
    assert f'told: stopped by SIGTERM at step {saved}, which is saved' in words
  with two(folder, 'told', *flags) as processes:
    more = rows_in(workdir) + 2
    wait_for(processes, lambda: rows_in(workdir) >= more)
    processes[1].send_signal(signal.SIGUSR1)
    codes, said = ended(folder, processes)
  assert codes == [0, 0], said
  begun, spec = decay_of(workdir)
  assert begun > saved
  assert begun % EVERY == 0
  assert events_of(workdir) == (
    ['start', 'stop', 'resume', 'decay'],
    [0, saved, saved, begun],
  )
  assert spec == TRUNK.decay_from(begun, DECAY)
  # What was decided, asked for from the start and never interrupted.
  lengths = [
    f'--set=optimizer.schedule.stable_steps={spec.stable_steps}',
    f'--set=total_steps={spec.end_step}',
  ]
  with two(folder, 'asked', *lengths) as processes:
    codes, said = ended(folder, processes)
  assert codes == [0, 0], said
  tiny_run.assert_same_run(folder / 'asked', workdir, spec.end_step)


def test_a_stop_does_not_lose_the_order_to_decay(folder):
  """Both signals to one process while it is held, so that both are heard."""
  workdir = folder / 'both'
  with two(folder, 'both', *ENDLESS) as processes:
    wait_for(processes, lambda: rows_in(workdir) >= FIRST // EVERY)
    for number in (
      signal.SIGSTOP,
      signal.SIGUSR1,
      signal.SIGTERM,
      signal.SIGCONT,
    ):
      processes[1].send_signal(number)
    codes, said = ended(folder, processes)
  assert codes == [STOPPED, STOPPED], said
  begun = last_good(checkpoints_of(workdir))[0]
  assert events_of(workdir) == (['start', 'decay', 'stop'], [0, begun, begun])
  with two(folder, 'both', *ENDLESS) as processes:
    codes, said = ended(folder, processes)
  assert codes == [0, 0], said
  assert decay_of(workdir) == (begun, TRUNK.decay_from(begun, DECAY))


def test_a_deadline_comes_by_the_clock_that_is_ahead(folder):
  hour = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
  flags = [*ENDLESS, f'--set=finish.by_time={hour.isoformat()}']
  # Past at the launch for one of the two: neither begins.
  with two(folder, 'late', *flags, ahead_s=(7200, 7200)) as processes:
    codes, said = ended(folder, processes)
  assert 0 not in codes
  assert 'Finish.by_time must be in the future' in said[1]
  assert not (folder / 'late').exists()
  with two(folder, 'late', *flags, ahead_s=(0, 7200)) as processes:
    codes, said = ended(folder, processes)
  assert codes == [0, 0], said
  assert decay_of(folder / 'late') == (FIRST, TRUNK.decay_from(FIRST, DECAY))
  assert events_of(folder / 'late') == (['start', 'decay'], [0, FIRST])


def test_a_file_is_for_both(folder):
  workdir = folder / 'filed'
  with two(folder, 'filed', *ENDLESS) as processes:
    wait_for(processes, lambda: rows_in(workdir) >= FIRST // EVERY)
    (workdir / 'decay').write_text('15')
    codes, said = ended(folder, processes)
  assert codes == [0, 0], said
  begun, spec = decay_of(workdir)
  assert begun % EVERY == 0
  assert spec == TRUNK.decay_from(begun, 15)
  assert events_of(workdir) == (['start', 'decay'], [0, begun])
  assert not (workdir / 'decay').exists()
