"""The printed tree says what the records say, at any width."""

import copy
import io

import pytest
import rich.console

import lrsched
from experiments.lineage import cost_table
from experiments.lineage import remarks_of
from experiments.lineage import tree_of
from experiments.lineage_figure import lineage_svg
from experiments.run_words import corpus_words
from experiments.run_words import data_words
from experiments.run_words import schedule_words
from experiments.runs import Run
from experiments.runs import parents_of
from lrsched import Lineage
from lrsched import Parent
from tests.experiments.test_report import svg

WSD = lrsched.WSD(peak_lr=0.1, warmup_steps=10, stable_steps=80, decay_steps=10)
TEXT = {'kind': 'TextFolder', 'path': 'some/where/web'}
DOMAIN = {'kind': 'Domain', 'source': TEXT, 'subset': 1.0, 'from_start': False}


def mixture(**shares):
  domains = {name: DOMAIN | {'share': s} for name, s in shares.items()}
  return {'kind': 'Mixture', 'domains': domains}


def run_of(name, end_step, parent=None, spec=WSD, source=TEXT, batch_size=8):
  """A run without rows but its last evaluation."""
  config = {
    'optimizer': {'kind': 'AdamW', 'schedule': lrsched.to_dict(spec)},
    'data': {'source': source, 'batch_size': batch_size, 'seq_len': 16},
    'total_steps': end_step,
  }
  kind = 'branch' if parent else 'start'
  lineage = Lineage(f'id-{name}', parent, ()).recorded(0, kind, ())
  last = {'step': end_step, 'eval_loss': 2.5, 'eval_bits_per_byte': 3.6067}
  return Run(name, f'/runs/{name}', lineage, config, [], [last])


def family():
  """A trunk, a decay that was resumed, and a run that has its weights only."""
  trunk = run_of('trunk', 100)
  decay = run_of(
    'decay', 60, Parent('id-trunk', '', 50), WSD.decay_from(50, 10)
  )
  lineage = decay.lineage.recorded(55, 'resume', ()).recorded(58, 'resume', ())
  rewarm = run_of(
    'next',
    40,
    Parent('id-decay', '', 60, 'weights'),
    lrsched.Warmup(
      schedule=lrsched.Cosine(peak_lr=0.2, total_steps=30), warmup_steps=10
    ),
    mixture(old=0.25, new=None),
    batch_size=16,
  )
  rewarm.evaluations[-1].update({'eval_loss/new': 2.5, 'eval_loss/old': 2.0})
  return [trunk, decay._replace(lineage=lineage), rewarm]


def printed(thing, width):
  file = io.StringIO()
  console = rich.console.Console(file=file, width=width, highlight=False)
  console.print(thing)
  return file.getvalue()


def test_the_tree_says_what_the_records_say():
  lines = [
    line.rstrip()
    for line in printed(tree_of(family(), 'runs'), 200).splitlines()
  ]
  assert lines == [
    'runs',
    '└── trunk  100 updates  loss 2.5000 = 3.6067 bits/byte on textfolder web',
    '    WSD, peak LR 0.1, to 100; textfolder web',
    '    └── decay  trunk@50  10 updates  loss 2.5000 = 3.6067 bits/byte on '
    'textfolder web',
    '        stable_steps 80 -> 40',
    '        resume at 55, 58',
    '        └── next  decay@60, weights only  40 updates  '
    'loss 2.5000 = 3.6067 bits/byte on new (new 2.5000, old 2.0000)',
    '            Warmup(Cosine), peak LR 0.2, to 40; old 25 %, new 75 %',
  ]


@pytest.mark.parametrize('width', [40, 80, 120])
def test_nothing_is_lost_in_a_narrow_terminal(width):
  text = printed(tree_of(family(), 'runs'), width)
  assert all(len(line) <= width for line in text.splitlines())
  assert '\x1b' not in text  # plain, where it is no terminal
  words = {word for line in text.splitlines() for word in line.split()}
  wide = printed(tree_of(family(), 'runs'), 200).split()
  assert words >= set(wide)


def test_costs_count_the_trunk_once_and_batches_as_they_are():
  """100 + 10 + 40 updates; alone 100 and 50 + 10 + 40, the last of 16 rows."""
  rows = [
    line.split() for line in printed(cost_table(family()), 80).splitlines()
  ]
  assert rows[1] == ['updates', '150', '200', '25%']
  tokens, alone = 16 * (8 * 110 + 16 * 40), 16 * (8 * 160 + 16 * 40)
  saved = f'{1 - tokens / alone:.0%}'
  assert rows[2] == ['tokens', f'{tokens:,}', f'{alone:,}', saved]


def test_tokens_follow_a_ramp():
  run = run_of('a', 100)
  ramp = {'boundaries': [10], 'batch_sizes': [4, 8]}
  run.config['data']['ramp'] = ramp
  assert run.tokens_in(5, 20) == 16 * (5 * 4 + 10 * 8)


def test_a_run_that_stopped_short_says_so():
  run = run_of('a', 60)
  run.config['total_steps'] = 100
  assert '60 updates, at 60 of 100' in printed(tree_of([run], 'runs'), 200)


def test_a_decay_that_was_begun_is_the_schedule():
  run = run_of('a', 60)
  run.config['total_steps'] = 100
  spec = lrsched.to_dict(WSD.decay_from(50, 10))
  run = run._replace(lineage=run.lineage.recorded(50, 'decay', (), spec))
  text = printed(tree_of([run], 'runs'), 200)
  assert '60 updates  loss' in text
  assert 'WSD, peak LR 0.1, to 60;' in text
  assert 'decay at 50' in text


def test_remarks_name_the_runs():
  orphan = run_of('b', 60, Parent('gone', 'runs/a', 50))
  assert 'a@50' in printed(tree_of([orphan], 'runs'), 200)
  assert remarks_of([orphan])[0].startswith("parent 'gone' of 1 of the runs is")
  trunk = run_of('a', 40)
  late = run_of('b', 60, Parent('id-a', '', 50))
  assert remarks_of([trunk, late])[0].startswith('run a is recorded to step 40')


@pytest.mark.parametrize(
  ('source', 'words'),
  [
    ({'kind': 'Docstrings'}, 'docstrings'),
    ({'kind': 'Fetched', 'name': 'german'}, 'fetched german'),
    ({'kind': 'TokenFile', 'train_path': 'x/a.bin'}, 'tokenfile a.bin'),
    (mixture(a=0.1, b=0.2, c=None), 'a 10 %, b 20 %, c 70 %'),
    (mixture(a=[[0, 0.5], [9, 0.05]], b=None), 'a 50 % to 5 %, b the rest'),
    (mixture(a=None), 'a'),
  ],
)
def test_data_in_words(source, words):
  assert data_words(run_of('a', 1, source=source)) == words


def test_a_part_of_a_corpus_is_said():
  source = copy.deepcopy(mixture(a=0.1, b=None))
  source['domains']['a']['subset'] = 0.5
  words = data_words(run_of('a', 1, source=source))
  assert words == 'a 10 % (of 50 % of it), b 90 %'


def hashed(name, hashes, **fields):
  run = run_of(name, 1, **fields)
  run.config['corpora'] = {corpus: {'hash': h} for corpus, h in hashes.items()}
  return run


def test_corpora_in_words():
  """By the hash, whatever the runs call them; nothing if there is just one."""
  plain = hashed('plain', {'textfolder': '11112222'})
  same = hashed('same', {'old': '11112222'}, source=mixture(old=None))
  assert {*corpus_words([plain, same]).values()} == {''}
  new = hashed('new', {'x': '3', 'old': '1'}, source=mixture(x=None, old=0.5))
  words = corpus_words([plain, same, new])
  assert [*words.values()] == ['old', 'old', 'x']
  # Another folder of that name.
  other = hashed('other', {'textfolder': '44445555'})
  words = corpus_words([plain, other, new])
  assert [*words.values()] == [
    'textfolder web (111122)',
    'textfolder web (444455)',
    'x',
  ]


def test_a_repeated_run_has_its_own_branches():
  """Two trunks of one id: each branch is below the one that it left."""
  trunk = run_of('a', 100)
  again = trunk._replace(name='b', workdir='/runs/b')
  own = run_of('own', 60, Parent('id-a', '/runs/b', 50))
  moved = run_of('moved', 60, Parent('id-a', '/away', 50))
  runs = [trunk, again, own, moved]
  assert parents_of(runs) == {'/runs/own': again, '/runs/moved': trunk}
  text = printed(tree_of(runs, 'runs'), 200)
  assert 'own  b@50' in text
  assert 'moved  a@50' in text
  table = printed(cost_table(runs), 80).splitlines()[1]
  assert table.split() == ['updates', '220', '320', '31%']
  drawn = svg(lineage_svg([trunk, moved, again, own]))
  assert all(f'<!-- {run.name} -->' in drawn for run in runs)


def test_schedules_in_words():
  trunk = run_of('a', 100)
  parent = Parent('id-a', '', 50)
  assert schedule_words(run_of('b', 100, parent), trunk) == 'same schedule'
  many = lrsched.WSD(
    peak_lr=0.2,
    final_lr=0.1,
    warmup_steps=20,
    stable_steps=50,
    decay_steps=30,
  )
  assert schedule_words(run_of('b', 100, parent, many), trunk) == (
    'peak_lr 0.1 -> 0.2, final_lr 0.0 -> 0.1, warmup_steps 10 -> 20, 2 more'
  )
  endless = run_of('b', 100, spec=lrsched.Constant(lr=0.3))
  assert schedule_words(endless, None) == 'Constant, peak LR 0.3, without end'


def test_the_picture_shows_carries_decays_and_data():
  runs = family()
  spec = lrsched.to_dict(WSD.decay_from(50, 10))
  runs[0] = runs[0]._replace(
    lineage=runs[0].lineage.recorded(90, 'decay', (), spec)
  )
  text = svg(lineage_svg(runs))
  shown = ['weights at 60', 'branch at 50', 'decay', 'old 25 %, new 75 %']
  shown += ['2.5000 on new', '2.5000 on textfolder web']
  for drawn in shown:
    assert f'<!-- {drawn} -->' in text, drawn
  text = svg(lineage_svg(runs[:2]))
  assert '<!-- 2.5000 -->' in text
