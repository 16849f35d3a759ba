"""plot: the summary, the table and the picture are the schedule's."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import lrsched
from experiments import plot
from experiments.drawing import Shown
from experiments.drawing import picture

ROOT = pathlib.Path(__file__).resolve().parents[2]
WSD = lrsched.WSD(
  peak_lr=1.0, final_lr=0.5, warmup_steps=4, stable_steps=6, decay_steps=10
)
ENDLESS = lrsched.InverseSqrt(peak_lr=1.0, timescale_steps=10)
SUMMARY = """\
wsd.json: WSD(LinearDecay), end_step 20
  mean LR of steps 0..19: 0.8125
  phase   steps       first LR  last LR
  warmup  0..3        0.25      1
  stable  4..9        1         1
  decay   10..19      1         0.55
  end     from 20 on  0.5       0.5
"""


def write(path, schedule):
  path.parent.mkdir(exist_ok=True)
  path.write_text(lrsched.to_json(schedule))
  return path


def write_config(path, total_steps, schedule=ENDLESS):
  path.parent.mkdir()
  optimizer = {'kind': 'AdamW', 'schedule': lrsched.to_dict(schedule)}
  config = {'optimizer': optimizer, 'total_steps': total_steps}
  path.write_text(json.dumps(config))
  return path


@pytest.fixture
def wsd(tmp_path):
  return write(tmp_path / 'wsd.json', WSD)


def test_the_summary_has_the_lrs_of_both_sides_of_every_edge(wsd):
  # 10 + 10 * (1 - 0.225) - 1.5 = 16.25 over 20 steps.
  assert plot.show([wsd]).startswith(SUMMARY)
  assert '--out=FILE.png' in plot.show([wsd])


def test_phases_are_cut_where_the_steps_shown_end(wsd):
  lines = plot.show([wsd], 7).splitlines()
  assert lines[1] == '  mean LR of steps 0..6: 0.785714'
  assert [line.split()[:2] for line in lines[3:-1]] == [
    ['warmup', '0..3'],
    ['stable', '4..6'],
  ]


def test_phases_without_steps_are_left_out(tmp_path):
  bare = lrsched.Warmup(schedule=ENDLESS, warmup_steps=0)
  text = plot.show([write(tmp_path / 'bare.json', bare)], 5)
  assert 'bare.json: Warmup(InverseSqrt, LinearDecay), no end' in text
  assert 'warmup' not in text
  assert '  fall   0..4' in text


def test_the_mean_is_the_same_in_any_number_of_chunks(monkeypatch):
  cosine = lrsched.Cosine(peak_lr=1e-3, total_steps=100)
  left = np.pi * (100 - np.arange(100)) / 200
  for chunk_steps in (7, 50, 1000):
    monkeypatch.setattr(plot, 'CHUNK_STEPS', chunk_steps)
    mean = plot.mean_lr(Shown('', cosine, 100))
    # Each LR is a float32; the sum is of float64.
    np.testing.assert_allclose(mean, 1e-3 * np.mean(np.sin(left) ** 2), 1e-6)


def test_csv_holds_the_lr_of_every_step(wsd, tmp_path):
  out = tmp_path / 'table.csv'
  assert plot.show([wsd], 25, out).endswith(str(out))
  with out.open() as file:
    rows = list(csv.DictReader(file))
  assert [int(row['step']) for row in rows] == list(range(25))
  lrs = np.array([row['lr'] for row in rows], np.float32)
  np.testing.assert_array_equal(lrs, WSD(np.arange(25)))


def test_json_holds_the_lrs_and_the_spec(wsd, tmp_path):
  out = tmp_path / 'table.json'
  plot.show([wsd], out=out)
  table = json.loads(out.read_text())
  np.testing.assert_array_equal(table['lr'], WSD(np.arange(20)))
  assert lrsched.from_json(json.dumps(table['spec'])) == WSD


def test_a_run_is_shown_by_its_config_for_its_own_length(tmp_path):
  config = write_config(tmp_path / 'a' / 'config.json', 30)
  text = plot.show([config])
  assert text.startswith('config.json: InverseSqrt, no end\n')
  assert 'steps 0..29:' in text
  assert 'steps 0..9:' in plot.show([config], 10)


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path):
  configs = [write_config(tmp_path / name / 'config.json', 30) for name in 'ab']
  text = plot.show(configs)
  assert all(f'{config}: InverseSqrt' in text for config in configs)


@pytest.mark.parametrize('suffix', ['png', 'svg'])
def test_a_picture_has_the_same_bytes_every_time(wsd, tmp_path, suffix):
  outs = [tmp_path / f'{i}.{suffix}' for i in range(2)]
  for out in outs:
    plot.show([wsd, write(tmp_path / 'b.json', ENDLESS)], 20, out)
  start = {'png': b'\x89PNG', 'svg': b'<?xml'}[suffix]
  assert outs[0].read_bytes().startswith(start)
  assert outs[0].read_bytes() == outs[1].read_bytes()


def test_the_picture_shows_every_schedule_as_far_as_asked():
  figure = picture([Shown('a', WSD, 20), Shown('b', ENDLESS, 40)])
  (axes,) = figure.axes
  for line, schedule, steps in zip(
    axes.lines, (WSD, ENDLESS), (20, 40), strict=True
  ):
    np.testing.assert_array_equal(line.get_xdata(), np.arange(steps + 1))
    np.testing.assert_allclose(
      line.get_ydata(), schedule(np.arange(steps + 1)), rtol=1e-6
    )
  assert axes.get_xlim() == (0, 40)
  assert not axes.patches
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert labels == ['a', 'b']


def test_a_single_schedule_has_its_phases_shaded_and_named():
  (axes,) = picture([Shown('a', WSD, 20)]).axes
  assert [(p.get_x(), p.get_width()) for p in axes.patches] == [
    (0, 4),
    (10, 10),
  ]
  assert [text.get_text() for text in axes.texts] == [
    'warmup',
    'stable',
    'decay',
  ]


def test_a_value_tied_to_an_lr_is_not_called_one():
  tied = lrsched.Tied(
    schedule=WSD, low_lr=0.0, high_lr=1.0, at_low=0.0, at_high=0.1
  )
  (axes,) = picture([Shown('a', tied, 20)]).axes
  assert axes.get_ylabel() == 'value'


BAD_FILES = {
  'text.json': ('step,lr\n', 'text.json is not JSON'),
  'lineage.json': ('{"run_id": "x"}', 'schedule.lrsched must be the format'),
  'deep.json': ('[' * 100_000, 'deep.json'),
  'field.json': (
    '{"lrsched": 1, "kind": "Constant", "lr": -1}',
    r'field.json: schedule: Constant.lr must be .* >= 0, got -1',
  ),
  'config.json': (
    '{"optimizer": {"kind": "AdamW"}, "total_steps": 3}',
    'optimizer.schedule is missing',
  ),
  'null.json': ('{"optimizer": null}', 'optimizer.schedule is missing'),
  'steps.json': (
    '{"optimizer": {"schedule": {"kind": "Constant", "lr": 1}}}',
    'total_steps must be in .* got None',
  ),
  'endless.json': (
    '{"lrsched": 1, "kind": "Constant", "lr": 1}',
    'endless.json: Constant has no end; .* --total_steps=N',
  ),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_is_named(tmp_path, name):
  text, message = BAD_FILES[name]
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=message):
    plot.show([tmp_path / name], out=tmp_path / 'out.png')
  assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
  ('out', 'n_specs', 'total_steps', 'message'),
  [
    ('out.gif', 1, None, 'must end in .png, .svg, .csv, .json, got'),
    ('out', 1, None, 'must end in'),
    ('out.csv', 2, None, 'is of one schedule'),
    ('absent/out.png', 1, None, 'no folder .*absent'),
    ('wsd.json', 1, None, 'wsd.json is a spec given'),
    ('out.png', 1, 0, 'must be in 1..2.31-1, got 0'),
    ('out.png', 1, 2**31, 'must be in 1..2.31-1, got 2147483648'),
  ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
  wsd, tmp_path, out, n_specs, total_steps, message
):
  before = wsd.read_bytes()
  with pytest.raises(ValueError, match=message):
    plot.show([wsd] * n_specs, total_steps, tmp_path / out)
  assert list(tmp_path.iterdir()) == [wsd]
  assert wsd.read_bytes() == before


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.plot', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_command_prints_the_summary_and_writes_the_picture(wsd, tmp_path):
  out = tmp_path / 'wsd.svg'
  done = run(f'--spec={wsd}', f'--out={out}')
  assert done.returncode == 0, done.stderr
  assert done.stdout == f'{SUMMARY}{out}\n'
  assert done.stderr == ''
  assert out.exists()


def test_command_fails_in_one_line(tmp_path):
  done = run(f'--spec={tmp_path / "absent.json"}')
  assert done.returncode == 1
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1
  assert 'absent.json' in done.stderr
  assert done.stdout == ''
