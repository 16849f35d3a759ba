"""Learners of several tasks against runs that learnt one alone."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

import lrsched
from experiments.forgetting import learnt_rows
from experiments.forgetting import skipped
from experiments.runs import load_runs
from experiments.task_chains import chains
from tests.experiments.task_folders import make_run
from tests.experiments.task_folders import make_runs


@pytest.fixture
def workdir(tmp_path):
  make_runs(tmp_path)
  return tmp_path


def against(workdir, last):
  """RP and SE by task, of the sequence that ends with a run; and the lines."""
  runs = load_runs(workdir)
  [chain] = [c for c in chains(runs)[0] if c.path[-1].name == last]
  rows = {row[0]: row[4:] for row in learnt_rows(chain, runs)}
  said = [line for line in skipped(runs) if 'left out' not in line]
  return rows, said


def change(folder, **fields):
  """Changes fields of a run's config, given by section."""
  path = folder / 'config.json'
  config = json.loads(path.read_text())
  for section, values in fields.items():
    config[section] |= values
  path.write_text(json.dumps(config))


def ratio(own, expert):
  """Sum over sum of exp(-loss)."""
  return f'{np.exp(-np.array(own)).sum() / np.exp(-np.array(expert)).sum():.4f}'


def test_a_task_against_its_expert_by_hand(workdir):
  losses = {2: 3.0, 4: 2.0, 6: 2.0, 8: 2.0, 10: 2.25}
  make_run(
    workdir / 'long',
    {4: {'code': 4.0, 'text': 2.5}}
    | {4 + n: {'code': loss, 'text': 3.0} for n, loss in losses.items()},
    main='code',
    watched=('text',),
    parent=('trunk', 4),
  )
  # Evaluated before its first update, and for longer.
  alone = {0: 6.0, 2: 5.0, 4: 4.0, 6: 3.5, 8: 3.0, 10: 2.5, 12: 1.0}
  make_run(
    workdir / 'alone', {n: {'code': x} for n, x in alone.items()}, main='code'
  )
  rows, said = against(workdir, 'long')
  expert = [5.0, 4.0, 3.5, 3.0, 2.5]
  assert rows['code'][0] == ratio([*losses.values()], expert)
  # The best three are the 2nd to 4th, and the expert's the 3rd to 5th of five.
  best = float(ratio([2.0] * 3, expert[2:]))
  assert float(rows['code'][1]) == pytest.approx(best * 5 / 4, abs=1e-4)
  assert rows['text'] == ['–', '–']
  assert rows['mean'] == rows['code']
  assert said == []
  # With two evaluations the window has two.
  rows, _ = against(workdir, 'replay')
  assert rows['code'] == [ratio([3.5, 2.5], [5.0, 4.0])] * 2


def test_phases_of_a_task_are_one_curve(workdir):
  make_run(
    workdir / 'again',
    {
      6: {'text': 3.25, 'code': 3.0},
      8: {'text': 2.25, 'code': 3.5},
      10: {'text': 2.0, 'code': 3.75},
    },
    watched=('code',),
    parent=('code', 6),
  )
  losses = [3.5, 3.0, 2.5, 2.25]
  make_run(
    workdir / 'alone', {2 * i + 2: {'text': x} for i, x in enumerate(losses)}
  )
  rows, said = against(workdir, 'again')
  # Not 3.25 after 4 updates on text and 2 on code.
  assert rows['text'][0] == ratio([3.0, 2.5, 2.25, 2.0], losses)
  assert said == []
  # The root of all sequences here is not its own expert.
  shutil.rmtree(workdir / 'alone')
  assert against(workdir, 'again')[0]['text'] == ['–', '–']


CODE = {2: {'code': 5.0}, 4: {'code': 4.0}}


@pytest.mark.parametrize(
  'changes', [{'replayed': ('text',)}, {'parent': ('elsewhere', 0)}]
)
def test_another_kind_of_run_is_no_expert(workdir, changes):
  losses = {n: row | {'text': 3.0} for n, row in CODE.items()}
  make_run(workdir / 'other', losses, main='code', **changes)
  rows, said = against(workdir, 'songs')
  assert rows['code'] == ['–', '–']
  assert said == []


def test_a_run_from_foreign_weights_is_no_expert(workdir):
  make_run(workdir / 'foreign', CODE, main='code')
  path = workdir / 'foreign' / 'lineage.json'
  lineage = lrsched.Lineage.from_dict(json.loads(path.read_text()))
  fresh = lineage.recorded(0, 'start', ())
  path.write_text(json.dumps(fresh.to_dict()))
  assert against(workdir, 'songs')[0]['code'] != ['–', '–']
  foreign = lineage.recorded(0, 'start', ('weights: w.npz, sha256 0',))
  path.write_text(json.dumps(foreign.to_dict()))
  rows, said = against(workdir, 'songs')
  assert rows['code'] == ['–', '–']
  assert said == []


def test_an_expert_is_known_by_the_hash_of_its_corpus(workdir):
  make_run(workdir / 'alone', {n: {'c': 5.0} for n in (2, 4)}, main='c')
  change(workdir / 'alone', corpora={'c': {'hash': 'hash of code'}})
  assert against(workdir, 'replay')[0]['code'][0] == ratio([3.5, 2.5], [5, 5])


@pytest.mark.parametrize(
  ('fields', 'reason'),
  [
    (
      {'eval': {'every_steps': 4}},
      'it is evaluated every 4 updates, not every 2; train one with the same '
      'eval.every_steps',
    ),
    (
      {'data': {'batch_size': 4}},
      'it has 64 tokens per update, not 128; train one with the same '
      'data.batch_size and data.seq_len',
    ),
    (
      {'data': {'ramp': {'boundaries': [2], 'batch_sizes': [4, 8]}}},
      'alone begins with smaller batches; train one without data.ramp',
    ),
    (
      {'model': {'d_model': 32}},
      'it is another model; train one with the same model',
    ),
  ],
)
def test_an_expert_that_cannot_be_compared_is_named(workdir, fields, reason):
  make_run(workdir / 'alone', CODE, main='code')
  assert '–' not in against(workdir, 'songs')[0]['code']
  change(workdir / 'alone', **fields)
  rows, said = against(workdir, 'songs')
  assert rows['code'] == ['–', '–']
  # Once, though there are two sequences with code.
  assert said == [f'alone: not the expert of code: {reason}']
  # One that can be compared is the expert then.
  make_run(workdir / 'good', CODE, main='code')
  assert '–' not in against(workdir, 'songs')[0]['code']


def test_the_same_tokens_in_other_batches_can_be_compared(workdir):
  make_run(workdir / 'alone', CODE, main='code')
  change(workdir / 'alone', data={'batch_size': 4, 'seq_len': 32})
  rows, said = against(workdir, 'songs')
  assert '–' not in rows['code']
  assert said == []


def test_evaluations_in_between_are_passed_over(workdir):
  between = {1: {'code': 0.1}, 5: {'code': 0.1}}
  make_run(
    workdir / 'alone', dict(sorted((CODE | between).items())), main='code'
  )
  rows, said = against(workdir, 'replay')
  assert rows['code'][0] == ratio([3.5, 2.5], [5.0, 4.0])
  assert said == []


def test_evaluations_after_other_updates_are_not_compared(workdir):
  make_run(workdir / 'alone', {3: {'code': 5.0}, 5: {'code': 4.0}}, main='code')
  rows, said = against(workdir, 'replay')
  assert rows['code'] == ['–', '–']
  assert said == [
    f'alone: not the expert of code: it and {name} are not both evaluated '
    'after every 2 updates on code, up to 4; begin and end all runs at '
    'multiples of eval.every_steps'
    for name in ('trunk → code → songs', 'trunk → replay')
  ]


def test_a_loss_that_is_no_number_is_not_compared(workdir):
  losses = {2: {'code': 5.0}, 4: {'code': math.inf}}
  make_run(workdir / 'alone', losses, main='code')
  rows, said = against(workdir, 'songs')
  assert rows['code'] == ['–', '–']
  assert said == [
    'alone: not the expert of code: its loss after 4 updates is inf; train it '
    'again with a lower LR'
  ]


def test_a_repeated_expert_is_one(workdir):
  """Of one id, so of one config: the first stands for both."""
  make_run(workdir / 'alone', CODE, main='code')
  rows, _ = against(workdir, 'songs')
  shutil.copytree(workdir / 'alone', workdir / 'alone_again')
  shutil.copytree(workdir / 'trunk', workdir / 'trunk_again')
  assert against(workdir, 'songs') == (rows, [])
  assert '–' not in rows['code']


def test_several_experts_are_none(workdir):
  for name in ('seed_0', 'seed_1'):
    make_run(workdir / name, CODE, main='code')
  rows, said = against(workdir, 'songs')
  assert rows['code'] == ['–', '–']
  assert said == [
    'code: no RP and SE in what began with trunk: seed_0, seed_1 learnt it '
    'alone; put all but one into another folder'
  ]
