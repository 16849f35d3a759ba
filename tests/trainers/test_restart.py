"""How a run that was begun goes on, and what may differ then."""

import dataclasses
import json
import shutil

import pytest

import lrsched
from tests.tiny import WSD
from tests.trainers.starts import BRANCH
from tests.trainers.starts import RUN
from tests.trainers.starts import plan
from tests.trainers.starts import resolved_of
from tests.trainers.starts import with_schedule
from tests.trainers.starts import write_run
from trainers import checkpoint
from trainers.checkpoint import DamagedCheckpoint
from trainers.config import LogConfig
from trainers.optimizer import AdamW
from trainers.start import checkpoints_of
from trainers.start import read_lineage


@pytest.mark.parametrize('restore', [None, 'resume', 'replace'])
def test_the_same_config_resumes(workdir, restore):
  start = plan(RUN, workdir, restore=restore)
  assert start[:4] == (20, checkpoints_of(workdir), 20, 'all')
  assert start.position['drawn'] == {'abc/0': 160}
  assert not start.is_branch
  assert [(e.step, e.kind) for e in start.lineage.events] == [
    (0, 'start'),
    (20, 'resume'),
  ]
  assert start.lineage.run_id == read_lineage(workdir).run_id


def test_a_finished_run_is_left_as_it_is(workdir):
  done = dataclasses.replace(RUN, total_steps=20)
  folder = workdir.parent / 'done'
  write_run(folder, (0, 20), done)
  start = plan(done, folder)
  assert start.step == 20
  assert start.lineage == read_lineage(folder)


def with_decay(lineage, step, decay_steps):
  """A lineage with a decay that an order began."""
  spec = lrsched.to_dict(WSD.decay_from(step, decay_steps))
  return lineage.recorded(step, 'decay', (), spec)


def write_lineage(workdir, lineage):
  (workdir / 'lineage.json').write_text(json.dumps(lineage.to_dict()))


def test_a_decay_after_a_replace_survives_a_kill(workdir):
  """Replaced at 20, told to decay at 22, killed before the next checkpoint."""
  asked = dataclasses.replace(
    with_schedule(RUN, stable_steps=36), total_steps=50
  )
  replaced = plan(asked, workdir, restore='replace')
  schedule = asked.optimizer.schedule.decay_from(22, 5)
  told = replaced.lineage.recorded(22, 'decay', (), lrsched.to_dict(schedule))
  write_lineage(workdir, told)
  (workdir / 'config.json').write_text(json.dumps(resolved_of(asked)))
  for restore in (None, 'replace'):  # the same launch, or one to be sure
    start = plan(asked, workdir, restore=restore)
    assert start.lineage.begun_decay == told.events[-1]
    event = start.lineage.events[-1]
    assert (event.step, event.kind) == (20, 'resume')
    # The checkpoint is of the config before.
    assert 'config.total_steps: 30 -> 50' in event.note


def test_a_change_of_what_is_watched_does_not_end_a_decay(workdir):
  told = with_decay(read_lineage(workdir), 16, 6)
  write_lineage(workdir, told)
  watched = dataclasses.replace(RUN, log=LogConfig(every_steps=2))
  start = plan(watched, workdir, restore='replace')
  assert start.lineage.begun_decay == told.events[-1]
  event = start.lineage.events[-1]
  assert (event.kind, event.note) == (
    'change',
    ('config.log.every_steps: 1 -> 2',),
  )
  # Another schedule does: it is what is asked for now.
  start = plan(with_schedule(RUN, peak_lr=5e-3), workdir, restore='replace')
  assert start.lineage.begun_decay is None
  assert start.lineage.events[-1].kind == 'replace'


def test_a_run_killed_in_its_first_save_begins_again(tmp_path):
  """The log is open by then, and empty."""
  folder = tmp_path / 'a'
  write_run(folder, ())
  (folder / 'metrics.jsonl').touch()
  checkpoint.path_of(checkpoints_of(folder), 0).mkdir()
  start = plan(RUN, folder)
  assert (start.step, start.root) == (0, None)


@pytest.mark.parametrize('restore', [None, 'resume'])
def test_another_config_is_an_error_with_the_difference(workdir, restore):
  with pytest.raises(ValueError, match='holds another run') as error:
    plan(with_schedule(RUN, peak_lr=5e-3), workdir, restore=restore)
  said = str(error.value)
  assert 'config.optimizer.schedule.peak_lr: 0.01 -> 0.005' in said
  assert f'--branch_from={workdir}@STEP' in said
  assert '--restore=replace' in said


def test_other_text_is_another_run(workdir):
  with pytest.raises(
    ValueError, match=r'config.corpora.tokenfile.hash: abc -> xyz'
  ):
    plan(RUN, workdir, corpus_hash='xyz')


def test_replace_takes_another_schedule_and_records_it(workdir):
  asked = with_schedule(RUN, peak_lr=5e-3, stable_steps=26)
  asked = dataclasses.replace(
    asked, total_steps=40, log=LogConfig(every_steps=2)
  )
  start = plan(asked, workdir, restore='replace')
  assert start[:4] == (20, checkpoints_of(workdir), 20, 'all')
  assert start.position['drawn'] == {'abc/0': 160}
  assert not start.is_branch
  event = start.lineage.events[-1]
  assert (event.step, event.kind) == (20, 'replace')
  assert set(event.note) == {
    'config.optimizer.schedule.peak_lr: 0.01 -> 0.005',
    'config.optimizer.schedule.stable_steps: 16 -> 26',
    'config.total_steps: 30 -> 40',
    'config.log.every_steps: 1 -> 2',
    'LR of update 20: 0.01 -> 0.005',
    'phase of update 20: decay -> stable',
    'schedule ends: at step 30 -> at step 40',
  }


HALF = lrsched.Scaled(schedule=WSD, factor=0.5)


@pytest.mark.parametrize(
  ('groups', 'notes'),
  [
    (
      {'embedding': None, 'blocks/.*': WSD},
      {
        'config.optimizer.groups.blocks/.*.kind: Scaled -> WSD',
        'optimizer.groups.blocks/.*: LR of update 20: 0.005 -> 0.01',
      },
    ),
    (
      {'embedding': HALF, 'blocks/.*': HALF},
      {'config.optimizer.groups.embedding: null -> {"kind": "Scaled", '},
    ),
    (
      {'embedding': None},
      {'config.optimizer.groups.blocks/.*: {"kind": "Scaled", '},
    ),
  ],
)
def test_replace_takes_another_schedule_of_a_group(tmp_path, groups, notes):
  optimizer = AdamW(schedule=WSD, groups={'embedding': None, 'blocks/.*': HALF})
  config = dataclasses.replace(RUN, optimizer=optimizer)
  write_run(tmp_path / 'a', (0, 20), config)
  assert plan(config, tmp_path / 'a').step == 20
  asked = dataclasses.replace(
    config, optimizer=dataclasses.replace(optimizer, groups=groups)
  )
  with pytest.raises(ValueError, match='holds another run') as error:
    plan(asked, tmp_path / 'a')
  start = plan(asked, tmp_path / 'a', restore='replace')
  event = start.lineage.events[-1]
  assert (event.step, event.kind) == (20, 'replace')
  for note in notes:
    assert any(line.startswith(note) for line in event.note)
    assert note in str(error.value) or 'LR of update' in note


@pytest.mark.parametrize(
  ('changes', 'named'),
  [
    ({'model': dataclasses.replace(RUN.model, d_ff=48)}, 'config.model.d_ff'),
    ({'optimizer': AdamW(schedule=WSD, b2=0.9)}, 'config.optimizer.b2'),
    ({'data': dataclasses.replace(RUN.data, seed=1)}, 'config.data.seed'),
    ({'seed': 1}, 'config.seed'),
    ({'accum_steps': 2}, 'config.accum_steps'),
    ({'ema_decay': None}, 'config.ema_decay'),
  ],
)
def test_replace_changes_nothing_else(workdir, changes, named):
  asked = dataclasses.replace(with_schedule(RUN, peak_lr=5e-3))
  asked = dataclasses.replace(asked, **changes)
  with pytest.raises(ValueError, match='branch into a new workdir') as error:
    plan(asked, workdir, restore='replace')
  _, _, listed = str(error.value).partition('\n')
  assert listed.strip().startswith(named)
  assert 'peak_lr' not in listed


def test_replace_does_not_go_back(workdir):
  with pytest.raises(ValueError, match='greater than the restored step 20'):
    plan(BRANCH, workdir, restore='replace')


def test_a_damaged_last_checkpoint_is_passed_over_on_record(workdir):
  root = checkpoints_of(workdir)
  damaged = checkpoint.path_of(root, 20) / 'state' / '_METADATA'
  damaged.write_bytes(damaged.read_bytes()[:-1] + b'!')
  start = plan(RUN, workdir)
  assert start.step == 10
  assert start.lineage.events[-2:] == (
    lrsched.Event(10, 'fallback', (f'{damaged} is damaged',)),
    lrsched.Event(10, 'resume', ()),
  )


def test_if_no_checkpoint_is_good_nothing_is_started_over(workdir):
  for step in (0, 10, 20):
    checkpoint.manifest_of(checkpoints_of(workdir), step).unlink()
  with pytest.raises(DamagedCheckpoint, match='no checkpoint under'):
    plan(RUN, workdir)


@pytest.mark.parametrize('left', ['nothing', 'an unsealed folder'])
def test_killed_before_its_first_checkpoint_a_run_starts_again(workdir, left):
  root = checkpoints_of(workdir)
  for step in (0, 10, 20):
    checkpoint.manifest_of(root, step).unlink()
    if left == 'nothing' or step > 0:
      shutil.rmtree(checkpoint.path_of(root, step))
  start = plan(RUN, workdir)
  assert (start.step, start.root, start.position) == (0, None, None)
  assert start.lineage == read_lineage(workdir)


@pytest.mark.parametrize('left', ['nothing', 'an unsealed folder'])
@pytest.mark.parametrize('flag', [True, False])
def test_killed_before_its_first_checkpoint_a_branch_starts_again(
  workdir, left, flag
):
  branch_from, folder = f'{workdir}@10', workdir.parent / 'b'
  first = plan(BRANCH, folder, branch_from)
  write_run(folder, (10,), BRANCH, first)
  root = checkpoints_of(folder)
  checkpoint.manifest_of(root, 10).unlink()
  if left == 'nothing':
    shutil.rmtree(checkpoint.path_of(root, 10))
  again = plan(BRANCH, folder, branch_from if flag else None)
  assert again == first


def test_a_branch_resumes_with_or_without_the_name_of_its_parent(workdir):
  branch_from, folder = f'{workdir}@10', workdir.parent / 'b'
  write_run(folder, (10, 12), BRANCH, plan(BRANCH, folder, branch_from))
  for given in (branch_from, None):
    start = plan(BRANCH, folder, given)
    assert (start.step, start.root) == (12, checkpoints_of(folder))
    assert [e.kind for e in start.lineage.events] == ['branch', 'resume']


def test_a_run_is_not_the_branch_of_another(workdir):
  branch_from, folder = f'{workdir}@10', workdir.parent / 'b'
  with pytest.raises(ValueError, match='a run without a parent, not a branch'):
    plan(RUN, workdir, branch_from)
  write_run(folder, (10,), BRANCH, plan(BRANCH, folder, branch_from))
  for other in (f'{workdir}@0', f'{folder}@10'):
    with pytest.raises(
      ValueError,
      match=r'a branch of .*/a@10, carry=all, not a branch of .*use a new',
    ):
      plan(BRANCH, folder, other)
