"""Decay branches of a real run: planned, trained, resumed and ranked."""

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import rich.console

import lrsched
from experiments.anneal import show_plan
from experiments.anneal import table
from experiments.anneal import trunk_configs
from experiments.anneal_plan import load_mixtures
from experiments.anneal_plan import plan_anneals
from experiments.flags import override
from experiments.runs import forest_of
from experiments.runs import load_runs
from experiments.saved_config import config_at
from tests.integration import tiny_run
from trainers.log import eval_file
from trainers.train import run

MIXTURES = """
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.sources import TextFolder

def get_mixtures():
  old, new = TextFolder(path='text'), TextFolder(path='german')
  return {
    'same': Mixture(domains={'old': Domain(source=old)}),
    'half': Mixture(
      domains={'old': Domain(source=old, share=0.5), 'new': Domain(source=new)}
    ),
  }
"""
TRUNK = (
  *('total_steps=24', 'optimizer.schedule.warmup_steps=4'),
  *('optimizer.schedule.stable_steps=16', 'optimizer.schedule.decay_steps=4'),
  *('checkpoint.keep_steps=(12, 20)', 'eval.every_steps=50'),
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A trunk that decays from step 20 to 24, and another language."""
  folder = tmp_path_factory.mktemp('anneal')
  tiny_run.write_text(folder)
  (folder / 'german').mkdir()
  words = np.array(['das', 'ist', 'ein', 'Schritt', 'und', 'Verlust'])
  for i in range(40):
    chosen = np.random.default_rng(i).choice(words, 200)
    (folder / 'german' / f'{i}.txt').write_text(' '.join(chosen))
  (folder / 'mixtures.py').write_text(MIXTURES)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    run(override(tiny_run.get_config(), list(TRUNK)), pathlib.Path('trunk'))
  return folder


def anneal(folder):
  program = [sys.executable, '-m', 'experiments.anneal']
  flags = ['--branch_from=trunk@12,20', '--decay_steps=4', '--workdir=out']
  flags += ['--mixtures=mixtures.py', '--compile_cache=programs']
  return subprocess.run(
    [*program, *flags],
    cwd=folder,
    env=tiny_run.environment(COLUMNS='120'),
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope='module')
def annealed(folder):
  done = anneal(folder)
  assert done.returncode == 0, done.stderr
  return done


def losses(folder, name, step, corpus):
  return np.load(eval_file(folder / 'out' / name, step, corpus))


def test_the_plan_counts_the_trunk_once_and_writes_nothing(folder, monkeypatch):
  """2 steps, 2 lengths, 2 mixtures: 2 * 2 * (4 + 8) updates, and 20 before."""
  monkeypatch.chdir(folder)
  trunk, out = pathlib.Path('trunk'), pathlib.Path('none')
  trunks = {step: config_at(trunk, step) for step in (12, 20)}
  anneals = plan_anneals(trunks, (4, 8), load_mixtures('mixtures.py'))
  file = io.StringIO()
  show_plan(anneals, trunk, out, rich.console.Console(file=file, width=200))
  assert (
    '8 branches: 48 updates; with the trunk, counted once, 68; as runs of '
    'their own 176\nto do: 8; about '
  ) in file.getvalue()
  assert "min at the trunk's" in file.getvalue()
  assert not out.exists()


@pytest.mark.slow
def test_a_branch_that_is_the_trunks_own_decay_is_the_trunk(folder, annealed):
  """The same weights, batches and LRs, though the corpus has another name."""
  ours = losses(folder, 'same_20_4', 24, 'old')
  np.testing.assert_array_equal(ours, np.load(eval_file(folder / 'trunk', 24)))


def test_all_are_evaluated_on_all_from_the_same_start(folder, annealed):
  for corpus in ('old', 'new'):
    same = losses(folder, 'same_12_4', 12, corpus)
    half = losses(folder, 'half_12_4', 12, corpus)
    np.testing.assert_array_equal(same, half)
  # Only the mixture trained on the new language.
  ends = [
    losses(folder, f'{n}_20_4', 24, 'new').mean() for n in ('half', 'same')
  ]
  assert ends[0] < ends[1]


def test_the_table_holds_what_the_evaluations_say(folder, annealed):
  written = json.loads((folder / 'out' / 'table.json').read_text())
  assert written['columns'][:4] == ['corpus', 'branch', 'mixture', 'rank']
  rows = {(r[0], r[1], r[2]): r[3:] for r in written['rows']}
  assert len(rows) == len(written['rows']) == 2 * 2 * 2
  for (corpus, branch, mixture), cells in rows.items():
    start, length = map(int, branch.split('+'))
    name = f'{mixture}_{start}_{length}'
    end = losses(folder, name, start + length, corpus)
    assert cells[1] == f'{end.mean(dtype=float):.4f}'
    before = losses(folder, name, start, corpus)
    assert cells[2] == f'{before.mean(dtype=float):.4f}'
  best = [rows['new', branch, 'half'] for branch in ('12+4', '20+4')]
  assert all(cells[0] == '1' and cells[3] == '-' for cells in best)
  assert (folder / 'out' / 'report.html').exists()
  assert written['rows'][0][4] in annealed.stdout  # a loss, as printed


def test_the_lineage_counts_the_trunk_once(folder, annealed):
  runs = load_runs(folder / 'out') + load_runs(folder / 'trunk')
  cost = lrsched.compute_of(forest_of(runs))
  assert cost.total == 24 + 4 * 4
  assert sum(cost.alone.values()) == 24 + 2 * 16 + 2 * 24


@pytest.mark.slow
def test_the_same_command_goes_on_where_it_was(folder, annealed):
  """Without the last branch it trains that one, and only that one."""
  out = folder / 'out'
  before = (out / 'table.json').read_bytes()
  (out / 'half_20_4').rename(folder / 'away')
  done = anneal(folder)
  assert done.returncode == 0, done.stderr
  assert (out / 'table.json').read_bytes() == before
  assert done.stderr.count('already at step') == 3
  assert '0 programs compiled' in done.stdout


def test_without_mixtures_all_branches_are_ranked(folder, monkeypatch):
  """One corpus, that of the trunk: its losses have no folder of their own."""
  monkeypatch.chdir(folder)
  trunk, out = pathlib.Path('trunk'), pathlib.Path('plain')
  trunks = {step: config_at(trunk, step) for step in (12, 20)}
  anneals = plan_anneals(trunks, (4,), None)
  for branch in anneals:
    source = f'{trunk}@{branch.start_step}'
    run(branch.config, out / branch.name, branch_from=source)
  rows = table(anneals, out)['rows']
  assert [row[:3] for row in rows] == [
    ['textfolder', '20+4', 'trunk'],
    ['textfolder', '12+4', 'trunk'],
  ]
  assert [row[3].rstrip('=') for row in rows] == ['1', '2']


def test_a_step_that_was_not_kept_is_refused(folder):
  said = r'--branch_from: .*no checkpoint of step 13; it has \['
  with pytest.raises(ValueError, match=said):
    trunk_configs(folder / 'trunk', (12, 13))
  with pytest.raises(ValueError, match='--branch_from: there is no run in '):
    trunk_configs(folder / 'text', (12,))


@pytest.mark.slow
def test_the_last_line_of_a_launch_says_where_a_begun_decay_ended(folder):
  """The config says 24 updates; the budget ends them at 16."""
  budget = ('finish.by_step=16', 'finish.decay_steps=4')
  settings = (*TRUNK, 'checkpoint.keep_steps=()', *budget)
  by_path = {s.partition('=')[0]: s for s in settings}
  flags = [f'--set={setting}' for setting in by_path.values()]
  for said in ('', 'short: already at step 16'):
    done = tiny_run.launch(folder, 'short', *flags)
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert done.stdout.startswith('short: step 16, validation loss ')
