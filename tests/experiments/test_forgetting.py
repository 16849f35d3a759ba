"""Tables of what runs learnt and forgot, from run folders written by hand."""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.forgetting import continual_tables
from experiments.forgetting import kept_rows
from experiments.forgetting import learnt_rows
from experiments.forgetting import loss_rows
from experiments.forgetting import skipped
from experiments.report import write_report
from experiments.runs import load_runs
from experiments.task_chains import chains
from tests.experiments.task_folders import make_run
from tests.experiments.task_folders import make_runs

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def workdir(tmp_path):
  make_runs(tmp_path)
  return tmp_path


def by_name(workdir):
  return {run.name: run for run in load_runs(workdir)}


def test_losses_by_hand(workdir):
  runs = by_name(workdir)
  bits = f'{2 / math.log(2):.4f}'
  assert [' '.join(row) for row in loss_rows(runs['code'])] == [
    f'code main 4.0000 4.0000 0.0000 – – 2.0000 -2.0000 {bits}',
    'text watched 2.5000 3.2500 0.7500 6 never 2.7500 +0.2500 –',
    'songs watched 5.0000 5.0000 0.0000 – – 4.0000 -1.0000 –',
  ]
  # Within the tolerance of 0.01 is back.
  assert ' '.join(loss_rows(runs['replay'])[1]) == (
    'text replayed 2.5000 2.7500 0.2500 6 8 2.5078 +0.0078 –'
  )
  assert loss_rows(runs['trunk']) == []


def test_the_chain_of_runs_is_one_sequence(workdir):
  found, lines = chains(load_runs(workdir))
  assert lines == []
  assert [chain.name for chain in found] == [
    'trunk → code → songs',
    'trunk → replay',
  ]
  assert found[0].tasks == ('text', 'code', 'songs')
  # The branch is first evaluated with the weights of its parent's last
  # evaluation: both are one, in the parent's phase.
  nan = math.nan
  np.testing.assert_array_equal(
    found[0].performance,
    [
      [-3.0, nan, nan],
      [-2.5, -4.0, -5.0],
      [-3.25, -3.0, -4.5],
      [-2.75, -2.0, -4.0],
      [-2.5, -2.25, -1.5],
    ],
  )
  assert list(found[0].task_of_evaluation) == [0, 0, 1, 1, 2]
  assert list(found[0].updates_of_evaluation) == [2, 4, 2, 4, 2]


def signed(value):
  return f'{value:+.4f}'


def test_tasks_by_hand(workdir):
  runs = load_runs(workdir)
  [chain, _] = chains(runs)[0]
  text, code, songs, mean = kept_rows(chain)
  # ACC, min-ACC, WC-ACC, WF.
  assert ' '.join(text[:5]) == 'text -2.5000 -3.2500 – 0.7500'
  assert ' '.join(code[:5]) == 'code -2.2500 -2.2500 – 0.2500'
  assert ' '.join(songs[:5]) == 'songs -1.5000 – – 0.0000'
  assert mean[1:4] == [
    f'{-(2.5 + 2.25 + 1.5) / 3:.4f}',
    '-2.7500',
    f'{-(3.25 + 2.25 + 1.5) / 3:.4f}',
  ]
  # Maintenance, against -2.5 of text and -2 of code; then backward transfer,
  # tanh of half the fall of the loss.
  assert text[5:7] == [signed((-0.75 - 0.25 + 0.0) / 3)] * 2
  assert code[5:] == ['-0.2500', '-0.2500', signed(math.tanh(-0.125))]
  assert songs[5:] == ['–'] * 3
  assert text[7] == signed((math.tanh(-0.125) + math.tanh(0.125)) / 2)
  # WP, LCA of one evaluation, forward transfer, and no expert.
  assert [' '.join(row) for row in learnt_rows(chain, runs)[:3]] == [
    'text 0.7500 -3.0000 – – –',
    'code 2.0000 -3.0000 – – –',
    f'songs 2.5000 -1.5000 {signed(math.tanh(0.5))} – –',
  ]


def test_tables_are_json_of_texts(workdir):
  runs = load_runs(workdir)
  losses, kept, learnt = continual_tables(runs)
  tables = [losses, kept, learnt]
  assert json.loads(json.dumps(tables)) == tables
  for table in tables:
    assert {*table} == {'title', 'columns', 'rows', 'notes'}
    assert {len(row) for row in table['rows']} == {len(table['columns'])}
  assert [row[0] for row in losses['rows']] == (
    ['code'] * 3 + ['songs'] * 3 + ['replay'] * 2
  )
  for table in (kept, learnt):
    assert [row[0] for row in table['rows']] == (
      ['trunk → code → songs'] * 4 + ['trunk → replay'] * 3
    )


def test_a_branch_before_the_end_takes_its_part_of_the_parent(workdir):
  make_run(
    workdir / 'early',
    {
      6: {'text': 3.25, 'code': 3.0},
      8: {'text': 2.25, 'code': 3.5},
    },
    watched=('code',),
    parent=('code', 6),
  )
  [chain] = [c for c in chains(load_runs(workdir))[0] if 'early' in c.name]
  assert chain.name == 'trunk → code → early'
  # Text, code up to step 6, text again.
  assert list(chain.task_of_evaluation) == [0, 0, 1, 0]
  assert list(chain.performance[:, 0]) == [-3.0, -2.5, -3.25, -2.25]
  assert list(chain.updates_of_evaluation) == [2, 4, 2, 6]


def test_a_repeated_run_begins_only_the_sequences_of_its_branches(workdir):
  before = [chain.name for chain in chains(load_runs(workdir))[0]]
  shutil.copytree(workdir / 'trunk', workdir / 'again')
  path = workdir / 'replay' / 'lineage.json'
  text = path.read_text().replace('elsewhere/trunk', str(workdir / 'again'))
  path.write_text(text)
  path = workdir / 'code' / 'lineage.json'
  text = path.read_text().replace('elsewhere/trunk', str(workdir / 'trunk'))
  path.write_text(text)
  found, lines = chains(load_runs(workdir))
  assert sorted(chain.name for chain in found) == ['again → replay', before[0]]
  assert lines == []


def test_a_branch_that_carries_weights_counts_from_0(workdir):
  make_run(
    workdir / 'fresh',
    {0: {'songs': 4.0, 'text': 2.75}, 2: {'songs': 2.0, 'text': 3.0}},
    main='songs',
    watched=('text',),
    parent=('trunk', 4, 'weights'),
  )
  runs = by_name(workdir)
  assert ' '.join(loss_rows(runs['fresh'])[1]) == (
    'text watched 2.7500 3.0000 0.2500 2 never 3.0000 +0.2500 –'
  )
  [chain] = [c for c in chains([*runs.values()])[0] if 'fresh' in c.name]
  assert list(chain.task_of_evaluation) == [0, 0, 1]
  assert list(chain.updates_of_evaluation) == [2, 4, 2]
  # Its own evaluation of these weights, perhaps on more sequences, counts.
  assert list(chain.performance[1]) == [-2.75, -4.0]


def test_a_parent_elsewhere_leaves_its_last_evaluation(workdir):
  for folder in ('trunk', 'replay'):
    shutil.rmtree(workdir / folder)
  [chain] = chains(load_runs(workdir))[0]
  assert chain.tasks == ('code', 'songs')
  # What the code began with is before any training here.
  assert list(chain.task_of_evaluation) == [-1, 0, 0, 1]
  assert list(chain.updates_of_evaluation) == [0, 2, 4, 2]
  songs = learnt_rows(chain, load_runs(workdir))[1]
  assert songs[3] == signed(math.tanh(0.5))


def test_a_corpus_is_known_by_its_hash_not_by_its_name(workdir):
  path = workdir / 'songs' / 'config.json'
  config = json.loads(path.read_text())
  domains = config['data']['source']['domains']
  domains['code'] = domains.pop('songs')
  config['corpora'] = {'code': {'hash': 'hash of songs'}}
  config['eval_corpora'] = {'old': 'hash of code', 'text': 'hash of text'}
  path.write_text(json.dumps(config))
  path = workdir / 'songs' / 'metrics.jsonl'
  text = path.read_text().replace('s/code"', 's/old"')
  path.write_text(text.replace('s/songs"', 's/code"'))
  [chain, _] = chains(load_runs(workdir))[0]
  assert chain.tasks == ('text', 'old', 'code')
  assert list(chain.performance[-1]) == [-2.5, -2.25, -1.5]


def test_a_run_of_one_corpus_from_before_mixtures_can_be_the_root(workdir):
  path = workdir / 'trunk' / 'config.json'
  config = json.loads(path.read_text())
  config['data']['source'] = {'kind': 'TextFolder', 'path': 'text'}
  del config['corpora'], config['eval_corpora']
  config['corpus'] = {'hash': 'hash of text'}
  path.write_text(json.dumps(config))
  assert chains(load_runs(workdir))[0][0].tasks == ('text', 'code', 'songs')


def test_what_is_left_out_is_said(workdir):
  make_run(workdir / 'empty', {}, parent=('trunk', 4))
  make_run(
    workdir / 'blind',
    {4: {'code': 4.0, 'songs': 5.0}, 6: {'code': 3.0, 'songs': 5.0}},
    main='code',
    watched=('songs',),
    parent=('trunk', 4),
  )
  make_run(
    workdir / 'begun',
    {4: {'code': 4.0, 'text': 2.5}},
    main='code',
    watched=('text',),
    parent=('trunk', 4),
  )
  make_run(
    workdir / 'broken',
    {4: {'code': 4.0, 'text': 2.5}, 6: {'code': math.inf, 'text': 2.5}},
    main='code',
    watched=('text',),
    parent=('trunk', 4),
  )
  lines = skipped(load_runs(workdir))
  why = ': no metrics of tasks in sequence: '
  assert sorted(lines) == [
    'empty: left out, it has no evaluation yet',
    f'trunk → begun{why}begun was not evaluated after its first update',
    f'trunk → blind{why}blind does not evaluate text; name it in eval.sources',
    f'trunk → broken{why}broken has a loss on code of inf at step 6',
    'trunk: left out, it is evaluated on one corpus only; name others in '
    'eval.sources',
  ]
  # The losses before it broke are shown.
  assert loss_rows(by_name(workdir)['broken'])[0][7] == '4.0000'


def test_the_page_has_the_tables_only_of_such_runs(workdir):
  page = write_report(workdir).read_text()
  assert 'Learnt and forgotten' in page
  assert 'trunk → code → songs' in page
  for row in continual_tables(load_runs(workdir))[0]['rows']:
    assert all(f'>{cell}<' in page for cell in row)
  for folder in ('code', 'songs', 'replay'):
    shutil.rmtree(workdir / folder)
  assert 'Learnt and forgotten' not in write_report(workdir).read_text()


def program(workdir):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.forgetting', f'--workdir={workdir}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_program_prints_the_tables(workdir):
  done = program(workdir)
  assert done.returncode == 0, done.stderr
  assert 'trunk: left out, it is evaluated on one corpus only' in done.stdout
  for table in continual_tables(load_runs(workdir)):
    for row in table['rows']:
      assert row[0] in done.stdout
      # One line holds the row, without the name of the run, its title.
      assert any(
        [cell.strip() for cell in line.split('│')[1:-1]] == row[1:]
        for line in done.stdout.splitlines()
      )


def test_the_program_fails_where_there_is_nothing_to_show(workdir):
  done = program(workdir / 'trunk')
  assert done.returncode == 1
  assert 'error: no run in' in done.stderr
