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

import lrsched
from experiments.forgetting import continual_tables
from experiments.forgetting import loss_rows
from experiments.forgetting import skipped
from experiments.forgetting import task_rows
from experiments.report import write_report
from experiments.runs import load_runs
from experiments.task_chains import chains

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEDULE = lrsched.to_dict(lrsched.Constant(lr=0.01))


def make_run(
  folder, evaluations, *, main='text', replayed=(), watched=(), parent=None
):
  """A run folder; the run id is its name.

  Args:
    folder: to be made.
    evaluations: losses by name of corpus, by step; None for a plain evaluation
      of the main corpus alone.
    main: the corpus that is trained on.
    replayed: corpora that are mixed in.
    watched: corpora that are only evaluated.
    parent: run, step and what is carried.
  """
  folder.mkdir(parents=True)
  if parent is not None:
    run_id, step, *carry = parent
    parent = lrsched.Parent(run_id, f'elsewhere/{run_id}', step, *carry)
  lineage = lrsched.Lineage(folder.name, parent, ())
  (folder / 'lineage.json').write_text(json.dumps(lineage.to_dict()))
  shares = {main: None, **dict.fromkeys(replayed, 0.25)}
  domains = {
    name: {
      'kind': 'Domain',
      'source': {'kind': 'TextFolder', 'path': name},
      'share': share,
      'subset': 1.0,
    }
    for name, share in shares.items()
  }
  config = {
    'optimizer': {'kind': 'AdamW', 'schedule': SCHEDULE},
    'total_steps': max(evaluations, default=0),
    'data': {
      'source': {'kind': 'Mixture', 'domains': domains},
      'seq_len': 16,
      'batch_size': 8,
    },
    'corpora': {name: {'hash': f'hash of {name}'} for name in shares},
    'eval_corpora': {name: f'hash of {name}' for name in watched},
  }
  (folder / 'config.json').write_text(json.dumps(config))
  rows = [
    {'step': step, 'loss': 2.0, 'lr': 0.01}
    for step in range(lineage.start_step, max(evaluations, default=0))
  ]
  for step, losses in evaluations.items():
    row = {'step': step, 'eval_loss': losses[main], 'eval_se': 0.01}
    if len(losses) > 1:
      row |= {f'eval_loss/{name}': loss for name, loss in losses.items()}
      bits = losses[main] / math.log(2)
      row[f'eval_bits_per_byte/{main}'] = bits
    rows.append(row)
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(text)


@pytest.fixture
def workdir(tmp_path):
  """Text, then code from it, then songs from that; and code with replay."""
  make_run(tmp_path / 'trunk', {2: {'text': 3.0}, 4: {'text': 2.5}})
  make_run(
    tmp_path / 'code',
    {
      4: {'code': 4.0, 'text': 2.5, 'songs': 5.0},
      6: {'code': 3.0, 'text': 3.25, 'songs': 4.5},
      8: {'code': 2.0, 'text': 2.75, 'songs': 4.0},
    },
    main='code',
    watched=('text', 'songs'),
    parent=('trunk', 4),
  )
  make_run(
    tmp_path / 'songs',
    {
      8: {'songs': 4.0, 'code': 2.0, 'text': 2.75},
      10: {'songs': 1.5, 'code': 2.25, 'text': 2.5},
    },
    main='songs',
    watched=('code', 'text'),
    parent=('code', 8),
  )
  make_run(
    tmp_path / 'replay',
    {
      4: {'code': 4.0, 'text': 2.5},
      6: {'code': 3.5, 'text': 2.75},
      8: {'code': 2.5, 'text': 2.5078125},
    },
    main='code',
    replayed=('text',),
    parent=('trunk', 4),
  )
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
  assert [chain.runs for chain in found] == [
    ('trunk', 'code', 'songs'),
    ('trunk', 'replay'),
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


def signed(value):
  return f'{value:+.4f}'


def test_tasks_by_hand(workdir):
  [chain, _] = chains(load_runs(workdir))[0]
  text, code, songs, mean = task_rows(chain)
  # ACC, min-ACC, WC-ACC, WF, WP, and LCA of one evaluation.
  assert ' '.join(text[:7]) == 'text -2.5000 -3.2500 – 0.7500 0.7500 -3.0000'
  assert ' '.join(code[:7]) == 'code -2.2500 -2.2500 – 0.2500 2.0000 -3.0000'
  assert ' '.join(songs[:7]) == 'songs -1.5000 – – 0.0000 2.5000 -1.5000'
  assert mean[1:4] == [
    f'{-(2.5 + 2.25 + 1.5) / 3:.4f}',
    '-2.7500',
    f'{-(3.25 + 2.25 + 1.5) / 3:.4f}',
  ]
  # Maintenance, against -2.5 of text and -2 of code.
  assert text[7:9] == [signed((-0.75 - 0.25 + 0.0) / 3)] * 2
  assert code[7:9] == ['-0.2500'] * 2
  # Transfer: tanh of half the fall of the loss.
  assert songs[9:] == [signed(math.tanh(0.5)), '–']
  assert code[9:] == ['–', signed(math.tanh(-0.125))]
  assert text[9:] == ['–', signed((math.tanh(-0.125) + math.tanh(0.125)) / 2)]


def test_tables_are_json_of_texts(workdir):
  runs = load_runs(workdir)
  losses, tasks = continual_tables(runs)
  assert json.loads(json.dumps([losses, tasks])) == [losses, tasks]
  for table in (losses, tasks):
    assert {*table} == {'title', 'columns', 'rows', 'notes'}
    assert {len(row) for row in table['rows']} == {len(table['columns'])}
  assert [row[0] for row in losses['rows']] == (
    ['code'] * 3 + ['songs'] * 3 + ['replay'] * 2
  )
  assert tasks['rows'][0][0] == 'trunk → code → songs'


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
  [chain] = [c for c in chains(load_runs(workdir))[0] if 'early' in c.runs]
  assert chain.runs == ('trunk', 'code', 'early')
  # Text, code up to step 6, text again.
  assert list(chain.task_of_evaluation) == [0, 0, 1, 0]
  assert list(chain.performance[:, 0]) == [-3.0, -2.5, -3.25, -2.25]


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
  [chain] = [c for c in chains([*runs.values()])[0] if 'fresh' in c.runs]
  assert list(chain.task_of_evaluation) == [0, 0, 1]
  # Its own evaluation of these weights, perhaps on more sequences, counts.
  assert list(chain.performance[1]) == [-2.75, -4.0]


def test_a_parent_elsewhere_leaves_its_last_evaluation(workdir):
  for folder in ('trunk', 'replay'):
    shutil.rmtree(workdir / folder)
  [chain] = chains(load_runs(workdir))[0]
  assert chain.tasks == ('code', 'songs')
  # What the code began with is before any training here.
  assert list(chain.task_of_evaluation) == [-1, 0, 0, 1]
  assert task_rows(chain)[1][9] == signed(math.tanh(0.5))


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
