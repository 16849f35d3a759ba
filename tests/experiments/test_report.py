"""The page holds what the run folders hold, and nothing from elsewhere."""

import base64
import html.parser
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

import lrsched
from experiments.figures import curves_svg
from experiments.figures import lr_curve
from experiments.law_figures import followed
from experiments.law_figures import forecasts_svg
from experiments.lineage_figure import lineage_svg
from experiments.report import write_report
from experiments.runs import forest_of
from experiments.runs import load_runs
from experiments.runs import parents_of
from trainers.metrics import MetricWriter

ROOT = pathlib.Path(__file__).resolve().parents[2]
WSD = lrsched.WSD(
  peak_lr=0.1, warmup_steps=2, stable_steps=6, decay_steps=2, final_lr=0.01
)


DATA = {
  'source': {'kind': 'TextFolder', 'path': 'some/text'},
  'seq_len': 16,
  'batch_size': 8,
}


def make_run(folder, run_id, *, parent=None, steps=range(10), events=()):
  """A run folder as the trainer writes it, with loss = 3 - step / 10."""
  folder.mkdir(parents=True)
  lineage = lrsched.Lineage(run_id, parent, ())
  start_step = parent.step if parent else 0
  kind = 'branch' if parent else 'start'
  for event in ((start_step, kind, ()), *events):
    lineage = lineage.recorded(*event)
  (folder / 'lineage.json').write_text(json.dumps(lineage.to_dict()))
  config = {
    'optimizer': {'kind': 'AdamW', 'schedule': lrsched.to_dict(WSD)},
    'total_steps': 10,
    'data': DATA,
    'name': '<script>alert("&")</script>',
  }
  (folder / 'config.json').write_text(json.dumps(config))
  with MetricWriter(
    folder, hparams={}, start_step=start_step, description=''
  ) as writer:
    for step in steps:
      writer.write(step, {'loss': 3 - step / 10, 'lr': float(WSD(step))})
    loss = 3.0625 - steps[-1] / 10
    row = {'eval_loss': loss, 'eval_se': 0.0123}
    row['eval_bits_per_byte'] = loss / math.log(2)
    writer.write(steps[-1] + 1, row)


@pytest.fixture
def workdir(tmp_path):
  """A trunk with two branches, a branch of one, and a run of its own."""
  trunk = lrsched.Parent('id-trunk', 'elsewhere/trunk', 4)
  make_run(tmp_path / 'trunk', 'id-trunk')
  make_run(tmp_path / 'late', 'id-late', parent=trunk, steps=range(4, 8))
  early = trunk._replace(step=2)
  note = ('checkpoint 4: <array> is damaged', 'continued from 2')
  make_run(
    tmp_path / 'early',
    'id-early',
    parent=early,
    steps=range(2, 7),
    events=[(2, 'fallback', note)],
  )
  twig = lrsched.Parent('id-late', '', 6)
  make_run(tmp_path / 'twig', 'id-twig', parent=twig, steps=range(6, 9))
  make_run(tmp_path / 'alone', 'id-alone')
  (tmp_path / 'not-a-run').mkdir()
  return tmp_path


class Page(html.parser.HTMLParser):
  """Texts of cells by table, links, and all text of a page."""

  def __init__(self, path):
    super().__init__()
    self.tables, self.links, self.tags, self.text = [], [], [], ''
    self.in_cell = False
    self.feed(path.read_text())

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    links = ('src', 'href', 'srcset', 'action', 'data')
    self.links += [value for name, value in attributes if name in links]
    if tag == 'table':
      self.tables.append([])
    elif tag == 'tr':
      self.tables[-1].append([])
    elif tag in ('td', 'th'):
      self.tables[-1][-1].append('')
      self.in_cell = True

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self.in_cell = False

  def handle_data(self, data):
    self.text += data
    if self.in_cell:
      self.tables[-1][-1][-1] += data


def cells(page, table=-1):
  return [
    [' '.join(cell.split()) for cell in row] for row in page.tables[table]
  ]


def test_runs_table_says_what_the_folders_say(workdir):
  page = Page(write_report(workdir))
  assert all(len(row) == 1 for row in cells(page)[2::2])  # events, below it
  found = cells(page)[1::2]
  rows = {row[0].split(' ')[0].split('id-')[0]: row for row in found}
  assert list(rows) == ['alone', 'trunk', 'late', 'twig', 'early']
  twig = rows['twig']
  assert twig[0].endswith('id-twig')
  assert twig[1:3] == ['lateat 6', '9of 10']
  assert twig[3] == repr(WSD)
  assert twig[4:6] == ['2.2625 ± 0.0123', f'{2.2625 / math.log(2):.4f}']
  assert rows['trunk'][1:3] == ['–', '10']


def test_events_are_folded_under_how_many_lines_they_have(workdir):
  page = Page(write_report(workdir))
  *_, (early,) = cells(page)
  assert early == (
    'branch at 2 fallback at 2, 2 lines '
    'checkpoint 4: <array> is damaged continued from 2'
  )
  # Only what can be unfolded; the others are the configs.
  assert page.tags.count('details') == 1 + 5


def test_page_needs_nothing_else_and_escapes_what_it_quotes(workdir):
  path = write_report(workdir)
  assert path == workdir / 'report.html'
  page = Page(path)
  assert len(page.links) == 2
  assert all(link.startswith('data:image/svg+xml;') for link in page.links)
  assert not re.search(r'url\(|@import', path.read_text())
  assert 'script' not in page.tags
  assert '"name": "<script>alert(\\"&\\")</script>"' in page.text


def test_table_json_is_the_first_table(workdir):
  columns = ['budget', 'schedule', 'loss']
  rows = [[400, 'WSD', 2.5], [800, '<i>', None], ['800', 'cosine', '-']]
  notes = ['tuned by `python -m x`', 'one seed']
  table = {'columns': columns, 'rows': rows, 'notes': notes}
  (workdir / 'table.json').write_text(json.dumps(table))
  page = Page(write_report(workdir))
  assert cells(page, 0) == [
    columns,
    ['400', 'WSD', '2.5000'],
    ['800', '<i>', '–'],
    ['800', 'cosine', '-'],
  ]
  assert 'tuned by python -m x' in page.text
  assert 'one seed' in page.text


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"columns": ["a"]', 'is not JSON'),
    ('{"columns": ["a"], "rows": []}', 'must hold exactly'),
    (
      '{"columns": ["a"], "rows": [[1], [1, 2]], "notes": []}',
      r'rows\[1\] .* 1',
    ),
  ],
)
def test_bad_table_json_is_an_error_that_keeps_the_old_page(
  workdir, text, message
):
  before = write_report(workdir).read_text()
  (workdir / 'table.json').write_text(text)
  with pytest.raises(ValueError, match=rf'table\.json.* {message}'):
    write_report(workdir)
  assert (workdir / 'report.html').read_text() == before


def test_same_folder_gives_the_same_bytes(workdir):
  first = write_report(workdir).read_bytes()
  assert write_report(workdir).read_bytes() == first


def svg(uri):
  return base64.b64decode(uri.split(',')[1]).decode()


def test_pictures_show_every_run(workdir):
  # Matplotlib puts each text it draws into a comment.
  drawn = set(
    re.findall('<!-- (.*?) -->', svg(lineage_svg(load_runs(workdir))))
  )
  assert {'trunk', 'late', 'early', 'twig', 'alone'} < drawn
  assert {'branch at 4', 'branch at 6', 'fallback', '2.2625'} < drawn
  legend = re.findall('<!-- (.*?) -->', svg(curves_svg(load_runs(workdir))))
  assert legend[-5:] == ['alone', 'trunk', 'late', 'twig', 'early']


def test_runs_are_found_at_any_depth_but_not_in_runs(workdir):
  """The cost and the tree are those of all the branches."""
  make_run(
    workdir / 'anneals' / 'of_900' / 'half_2_2',
    'id-deep',
    parent=lrsched.Parent('id-trunk', '', 2),
    steps=range(2, 4),
  )
  make_run(workdir / 'trunk' / 'checkpoints' / 'copy', 'id-copy')
  # A link to a run is that run, and one to a folder around leads nowhere new.
  (workdir / 'zoo').symlink_to(workdir / 'trunk')
  (workdir / 'anneals' / 'loop').symlink_to(workdir)
  runs = load_runs(workdir)
  names = [run.name for run in runs]
  deep = 'anneals/of_900/half_2_2'
  assert names == ['alone', 'trunk', 'late', 'twig', deep, 'early']
  parent = parents_of(runs)[str(workdir / deep)]
  assert parent.name == 'trunk'
  assert lrsched.compute_of(forest_of(runs)).total == 10 * 2 + 4 + 3 + 2 + 5
  page = Page(write_report(workdir))
  assert cells(page)[9][:2] == [f'{deep}id-deep', 'trunkat 2']
  for picture in (lineage_svg(runs), curves_svg(runs)):
    assert f'<!-- {deep} -->' in svg(picture)


def test_a_run_repeated_in_another_folder_is_shown_twice(workdir):
  make_run(workdir / 'trunk_2', 'id-trunk')
  left = lrsched.Parent('id-trunk', str(workdir / 'trunk_2'), 4)
  make_run(workdir / 'late_2', 'id-late_2', parent=left, steps=range(4, 8))
  page = Page(write_report(workdir))
  rows = {row[0].split('id-')[0]: row for row in cells(page)[1::2]}
  assert rows['late_2'][1] == 'trunk_2at 4'
  assert rows['late'][1] == 'trunkat 4'
  assert rows['trunk'][1:] == rows['trunk_2'][1:]


def test_an_unreadable_folder_is_an_error(workdir, monkeypatch):
  """Not a forest with less in it; root can read all, so the scan fails."""

  def scandir(path):
    raise PermissionError(13, 'Permission denied', path)

  monkeypatch.setattr(os, 'scandir', scandir)
  with pytest.raises(ValueError, match=r'cannot be looked for: .* denied'):
    load_runs(workdir)


def change_main(folder, name, share=None):
  """Lets a run train mainly on a corpus of a mixture."""
  config = json.loads((folder / 'config.json').read_text())
  domain = {'kind': 'Domain', 'source': DATA['source'], 'subset': 1.0}
  domains = {name: domain | {'share': share}}
  config['data']['source'] = {'kind': 'Mixture', 'domains': domains}
  (folder / 'config.json').write_text(json.dumps(config))


def test_losses_on_unlike_corpora_are_apart(workdir):
  """Each main corpus has its panel, and is named where a loss stands."""
  for name in ('late', 'early'):
    change_main(workdir / name, 'german')
  drawn = re.findall('<!-- (.*?) -->', svg(curves_svg(load_runs(workdir))))
  assert drawn.count('loss (nats per token)') == 2
  apart = ['on textfolder text', 'alone', 'trunk', 'twig', 'on german']
  assert drawn[-7:] == [*apart, 'late', 'early']
  drawn = svg(lineage_svg(load_runs(workdir)))
  assert '<!-- 2.3625 on german -->' in drawn
  assert '<!-- 2.2625 on textfolder text -->' in drawn
  page = Page(write_report(workdir))
  losses = [row[4] for row in cells(page)[1::2]]
  assert losses[1:3] == [
    '2.1625 ± 0.0123on textfolder text',
    '2.3625 ± 0.0123on german',
  ]


def test_the_lr_is_drawn_to_the_end_of_the_run(workdir):
  """Logged every 4 updates, to 8 of 10: the rest is what was scheduled."""
  path = workdir / 'alone' / 'metrics.jsonl'
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  kept = [row for row in rows if row['step'] % 4 == 0 or 'eval_loss' in row]
  path.write_text(''.join(json.dumps(row) + '\n' for row in kept))
  run = load_runs(workdir)[0]
  steps, lrs = lr_curve(run)
  assert steps == [0, 4, 8, 9, 10]
  assert lrs == [float(WSD(step)) for step in (0, 4, 8, 9, 9)]
  assert lr_curve(run._replace(train=[])) == ([], [])


def test_one_run_folder(workdir):
  page = Page(write_report(workdir / 'twig'))
  ((_, row, _),) = page.tables
  assert 'id-late' in row[1]
  assert 'at 6, not in this folder' in row[1]


def test_run_without_metrics_is_listed(workdir):
  (workdir / 'alone' / 'metrics.jsonl').unlink()
  (row, *_) = cells(Page(write_report(workdir)))[1:]
  assert row[2:6] == ['0of 10', repr(WSD), '–', '–']


def test_run_without_evaluation_shows_updates_done(workdir):
  path = workdir / 'alone' / 'metrics.jsonl'
  path.write_text(''.join(path.read_text().splitlines(keepends=True)[:-1]))
  (row, *_) = cells(Page(write_report(workdir)))[1:]
  assert row[2:6] == ['10', repr(WSD), '–', '–']


def test_losses_that_are_not_finite_are_drawn_around(workdir):
  with (workdir / 'alone' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 10, "loss": "nan", "lr": 0.1}\n')
    file.write('{"step": 11, "eval_loss": "inf", "eval_se": "nan"}\n')
  page = Page(write_report(workdir))
  assert cells(page)[1][4] == 'inf ± nan'


def test_damaged_lineage_is_named(workdir):
  (workdir / 'late' / 'lineage.json').write_text('{"run_id": "x"}')
  with pytest.raises(ValueError, match=r'late/lineage\.json: not a lineage'):
    write_report(workdir)


def report(workdir):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.report', f'--workdir={workdir}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_command_writes_the_page(workdir):
  done = report(workdir)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == str(workdir / 'report.html')
  assert (workdir / 'report.html').exists()


def test_command_fails_where_there_is_no_run(tmp_path):
  done = report(tmp_path)
  assert done.returncode != 0
  assert done.stderr.startswith(f'error: {tmp_path} holds no run')
  assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='absent is not a folder'):
    write_report(tmp_path / 'absent')


def test_what_a_law_said_is_shown_only_where_one_did(workdir):
  assert 'Forecasts while training' not in write_report(workdir).read_text()
  folder = workdir / 'late'
  (folder / 'metrics.jsonl').unlink()
  with MetricWriter(folder, hparams={}, start_step=4, description='') as writer:
    for step in range(4, 8):
      law = {
        f'law_{name}': 2.5 - step / 100
        for name in ('loss', 'residual', 'final_loss', 'decay_now_loss')
      }
      writer.write(step, {'loss': 2.5, 'lr': 0.1} | law)
    bounds = {'law_final_low': 2.3, 'law_final_high': 2.6}
    writer.write(8, {'eval_loss': 2.4, 'eval_se': 0.01} | bounds)
  runs = load_runs(workdir)
  assert [run.name for run in followed(runs)] == ['late']
  page = write_report(workdir).read_text()
  assert 'Forecasts while training' in page
  picture = svg(forecasts_svg(followed(runs)))
  assert '<!-- expected at the end -->' in picture
