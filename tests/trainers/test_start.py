"""How a run or a branch may begin, and that a refused one writes nothing."""

import dataclasses

import pytest

import lrsched
from tests.trainers.starts import BRANCH
from tests.trainers.starts import RUN
from tests.trainers.starts import plan
from tests.trainers.starts import with_schedule
from tests.trainers.starts import write_run
from trainers import checkpoint
from trainers.checkpoint import DamagedCheckpoint
from trainers.finish import Finish
from trainers.start import checkpoints_of
from trainers.start import read_lineage


@pytest.mark.parametrize('left_behind', [None, [], ['lineage.json']])
def test_a_run_starts_in_an_empty_or_new_folder(tmp_path, left_behind):
  if left_behind is not None:
    (tmp_path / 'a').mkdir()
    for name in left_behind:  # by a launch killed before it wrote the config
      (tmp_path / 'a' / name).touch()
  start = plan(RUN, tmp_path / 'a')
  assert (start.step, start.root, start.position) == (0, None, None)
  assert start.lineage.parent is None
  assert start.lineage.events == (lrsched.Event(0, 'start', ()),)


def test_the_id_of_a_run_is_a_function_of_its_config(tmp_path):
  ids = {
    plan(RUN, tmp_path / 'a').lineage.run_id,
    plan(RUN, tmp_path / 'b').lineage.run_id,
  }
  assert len(ids) == 1
  other = dataclasses.replace(RUN, seed=1)
  ids.add(plan(other, tmp_path / 'a').lineage.run_id)
  ids.add(plan(RUN, tmp_path / 'a', corpus_hash='x').lineage.run_id)
  assert len(ids) == 3


@pytest.mark.parametrize('restore', ['resume', 'replace'])
def test_restore_demands_a_run(tmp_path, restore):
  with pytest.raises(ValueError, match=f'--restore={restore}: there is no run'):
    plan(RUN, tmp_path / 'a', restore=restore)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'thesis.tex').write_text('draft')
  with pytest.raises(ValueError, match=r'not a run \(thesis.tex, ...\)'):
    plan(RUN, tmp_path / 'a')


def test_a_file_is_not_a_folder(tmp_path):
  (tmp_path / 'a').write_text('text')
  with pytest.raises(ValueError, match='is a file; name a folder'):
    plan(RUN, tmp_path / 'a')


# A branch.


def test_a_branch_starts_from_the_parents_checkpoint(workdir, tmp_path):
  start = plan(BRANCH, tmp_path / 'b', branch_from=f'{workdir}@10')
  assert (start.step, start.root) == (10, checkpoints_of(workdir))
  assert start.position['drawn'] == {'abc/0': 80}
  parent = lrsched.Parent(
    read_lineage(workdir).run_id, str(workdir.resolve()), 10
  )
  assert start.lineage.parent == parent
  [event] = start.lineage.events
  assert (event.step, event.kind) == (10, 'branch')
  assert set(event.note) == {
    'config.optimizer.schedule.stable_steps: 16 -> 6',
    'config.optimizer.schedule.decay_steps: 10 -> 5',
    'config.total_steps: 30 -> 15',
    'config.checkpoint.keep_steps: [14] -> []',
    'LR of update 10: 0.01 -> 0.01',
    'phase of update 10: stable -> decay',
    'schedule ends: at step 30 -> at step 15',
  }
  assert start.lineage.run_id != parent.run_id


def test_branches_of_two_steps_are_two_runs(workdir, tmp_path):
  longer = with_schedule(RUN, stable_steps=18)
  ids = {
    plan(longer, tmp_path / 'b', f'{workdir}@{step}').lineage.run_id
    for step in (0, 10, 20)
  }
  assert len(ids) == 3


@pytest.mark.parametrize(
  ('changes', 'corpus_hash'),
  [({'data': dataclasses.replace(RUN.data, seed=5)}, 'abc'), ({}, 'other')],
)
def test_with_other_data_a_branch_starts_it_anew(
  workdir, tmp_path, changes, corpus_hash
):
  config = dataclasses.replace(BRANCH, **changes)
  start = plan(config, tmp_path / 'b', f'{workdir}@10', corpus_hash=corpus_hash)
  note = start.lineage.events[0].note
  assert 'data: tokenfile from its beginning' in note
  assert any('config.data' in n or 'config.corpora' in n for n in note)


@pytest.mark.parametrize(
  'text', ['{}', '{}@', '@10', '{}@ten', '{}@-10', '{}@10.0', '']
)
def test_a_branch_is_named_by_folder_and_step(workdir, tmp_path, text):
  text = text.format(workdir)
  with pytest.raises(ValueError, match='branch_from must be DIR@STEP') as error:
    plan(BRANCH, tmp_path / 'b', branch_from=text)
  assert repr(text) in str(error.value)


def test_a_branch_needs_a_run_and_a_checkpoint(workdir, tmp_path):
  with pytest.raises(ValueError, match=r'there is no run in .*/c'):
    plan(BRANCH, tmp_path / 'b', branch_from=f'{tmp_path / "c"}@10')
  with pytest.raises(
    ValueError, match=r'no checkpoint of step 12; it has \[0, 10, 20\]; keep'
  ):
    plan(BRANCH, tmp_path / 'b', branch_from=f'{workdir}@12')


def test_a_branch_from_a_damaged_checkpoint_is_refused(workdir, tmp_path):
  # There is no other step that would do.
  checkpoint.manifest_of(checkpoints_of(workdir), 10).unlink()
  with pytest.raises(DamagedCheckpoint, match='000000010 is unfinished'):
    plan(BRANCH, tmp_path / 'b', branch_from=f'{workdir}@10')


def test_a_branch_goes_on_from_where_it_starts(workdir, tmp_path):
  with pytest.raises(
    ValueError, match='must be greater than the restored step 20, got 15'
  ):
    plan(BRANCH, tmp_path / 'b', branch_from=f'{workdir}@20')


def test_a_branch_needs_a_new_folder(workdir, tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'notes').touch()
  with pytest.raises(ValueError, match='not a run'):
    plan(BRANCH, tmp_path / 'b', branch_from=f'{workdir}@10')


def test_the_id_of_a_branch_tells_what_was_decided_in_its_parent(
  workdir, tmp_path
):
  """Other schedules since the parent's id was given make other weights."""
  asked = with_schedule(RUN, peak_lr=5e-3)
  folder = tmp_path / 'replaced'
  write_run(folder, (0, 10))
  start = plan(asked, folder, restore='replace')
  write_run(tmp_path / 'other', (0, 10), asked, start)
  branches = [
    plan(BRANCH, tmp_path / 'b', branch_from=f'{source}@10').lineage
    for source in (workdir, tmp_path / 'other', folder)
  ]
  assert len({branch.parent.run_id for branch in branches}) == 1
  ids = [branch.run_id for branch in branches]
  assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize('changed', [{'batch_size': 4}, {'seq_len': 8}])
def test_a_budget_of_tokens_counts_those_of_the_parent_too(
  workdir, tmp_path, changed
):
  budget = Finish(by_tokens=10**6)
  asked = dataclasses.replace(RUN, finish=budget)
  plan(asked, tmp_path / 'b', branch_from=f'{workdir}@10')
  asked = dataclasses.replace(
    asked, data=dataclasses.replace(RUN.data, **changed)
  )
  with pytest.raises(ValueError, match=r'Finish.by_tokens counts every update'):
    plan(asked, tmp_path / 'b', branch_from=f'{workdir}@10')
  plan(asked, tmp_path / 'b', branch_from=f'{workdir}@10', carry='weights')
