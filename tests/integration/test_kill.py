"""Real processes, killed for real: what is left is a run that goes on."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.integration import tiny_run

KILLED_AT_ROWS = (57, 118, 236)
WRITTEN_AT = 220  # the last checkpoint before the last of these rows


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with text, and a run `whole` that nothing interrupted."""
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  done = tiny_run.launch(folder, 'whole')
  assert done.returncode == 0, done.stderr
  return folder


def kill_after(folder, workdir, rows, written=None):
  """Launches, and kills the process once its log has grown to `rows` lines.

  With `written`, only once the folder of that name is there too.
  """
  path = folder / workdir / 'metrics.jsonl'
  process = subprocess.Popen(
    tiny_run.command(workdir),
    cwd=folder,
    env=tiny_run.environment(),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while process.poll() is None:
    has_rows = path.exists() and path.read_bytes().count(b'\n') >= rows
    if has_rows and (written is None or written.is_dir()):
      os.kill(process.pid, signal.SIGKILL)
      break
    time.sleep(1e-3)  # leaves the core to the process
  process.wait()
  # A process that came to its end was not killed, and would prove nothing.
  assert process.returncode == -signal.SIGKILL


def test_killed_three_times_it_is_the_uninterrupted_run(folder):
  *early, last = KILLED_AT_ROWS
  for rows in early:
    kill_after(folder, 'killed', rows)
  # The last one while a checkpoint is written: a pipe that nobody reads stands
  # where the manifest is to be made, and holds up whoever opens it.
  written = folder / 'killed' / 'checkpoints' / f'{WRITTEN_AT:09}'
  pipe = written.with_name(f'{written.name}.manifest.tmp')
  os.mkfifo(pipe)
  kill_after(folder, 'killed', last, written)
  pipe.unlink()
  done = tiny_run.launch(folder, 'killed')
  assert done.returncode == 0, done.stderr
  tiny_run.assert_same_run(folder / 'whole', folder / 'killed', 300)
  lineage = json.loads((folder / 'killed' / 'lineage.json').read_text())
  events = [(e['kind'], e['step']) for e in lineage['events']]
  # The early kills may have struck while a checkpoint was written as well.
  starts = [kind for kind, _ in events if kind != 'fallback']
  assert starts == ['start', 'resume', 'resume', 'resume']
  assert events[-2] == ('fallback', WRITTEN_AT - 20)
  assert events[-1] == ('resume', WRITTEN_AT - 20)
  [note] = lineage['events'][-2]['note']
  assert f'{WRITTEN_AT:09} is unfinished' in note
  assert note in done.stderr


@pytest.mark.slow
def test_a_flipped_bit_is_named_and_the_run_ends_the_same(folder):
  kill_after(folder, 'damaged', 150)
  root = folder / 'damaged' / 'checkpoints'
  last = max(int(p.stem) for p in root.glob('*.manifest'))
  victim = max(
    (p for p in (root / f'{last:09}').rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  data = bytearray(victim.read_bytes())
  data[len(data) // 2] ^= 0b00010000
  victim.write_bytes(bytes(data))
  done = tiny_run.launch(folder, 'damaged')
  assert done.returncode == 0, done.stderr
  assert f'{victim.name} is damaged' in done.stderr
  lineage = json.loads((folder / 'damaged' / 'lineage.json').read_text())
  [fallback] = [e for e in lineage['events'] if e['kind'] == 'fallback']
  assert fallback['step'] < last
  assert any('is damaged' in line for line in fallback['note'])
  tiny_run.assert_same_run(folder / 'whole', folder / 'damaged', 300)


BRANCH = (
  '--set=optimizer.schedule.stable_steps=190',
  '--set=optimizer.schedule.decay_steps=30',
  '--set=total_steps=230',
  '--set=checkpoint.keep_steps=()',
)


def test_a_branched_decay_is_the_run_that_had_it_and_compiles_nothing(folder):
  branch = tiny_run.launch(folder, 'branch', '--branch_from=whole@200', *BRANCH)
  assert branch.returncode == 0, branch.stderr
  assert ' 0 programs compiled' in branch.stdout
  whole = tiny_run.launch(folder, 'direct', *BRANCH)
  assert whole.returncode == 0, whole.stderr
  a = tiny_run.state_of(folder / 'branch', 230)
  b = tiny_run.state_of(folder / 'direct', 230)
  for name in b:
    assert (a[name] == b[name]).all(), name
  later = lambda rows: [r for r in rows if r['step'] >= 200]
  direct = later(tiny_run.rows_of(folder / 'direct'))
  # A branch is evaluated where it begins, as its trunk was.
  assert later(tiny_run.rows_of(folder / 'branch')) == direct
  assert direct[29]['lr'] < direct[0]['lr'] == pytest.approx(1e-3)
  lineage = json.loads((folder / 'branch' / 'lineage.json').read_text())
  trunk = json.loads((folder / 'whole' / 'lineage.json').read_text())
  assert lineage['parent']['run_id'] == trunk['run_id']
  assert lineage['parent']['step'] == 200


def test_the_same_command_again_does_nothing(folder):
  before = {p: p.stat().st_mtime_ns for p in (folder / 'whole').rglob('*')}
  done = tiny_run.launch(folder, 'whole')
  assert done.returncode == 0, done.stderr
  assert 'already at step 300' in done.stderr
  after = {p: p.stat().st_mtime_ns for p in (folder / 'whole').rglob('*')}
  assert before == after


def test_another_config_is_refused_with_the_difference(folder):
  done = tiny_run.launch(
    folder, 'whole', '--set=optimizer.schedule.peak_lr=2e-3'
  )
  assert done.returncode == 1
  assert 'config.optimizer.schedule.peak_lr: 0.001 -> 0.002' in done.stderr
  assert 'Traceback' not in done.stderr
