"""Rows read back exactly, a resumed run leaves no trace of what it redoes."""

import io
import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from trainers import metrics
from trainers.metrics import MetricWriter
from trainers.metrics import Progress
from trainers.metrics import read_metrics


def open_writer(workdir, start_step=0):
  return MetricWriter(
    workdir,
    hparams={'optimizer.peak_lr': 1e-3, 'kind': 'WSD', 'seed': 3},
    start_step=start_step,
    description='{\n  "kind": "WSD"\n}',
  )


def events(workdir):
  sizes = {'scalars': 0, 'tensors': 0}
  accumulator = EventAccumulator(str(workdir / 'tb'), size_guidance=sizes)
  accumulator.Reload()
  return accumulator


def scalars(workdir, tag):
  return [(e.step, e.value) for e in events(workdir).Scalars(tag)]


def write_run(workdir, steps, evaluations, start_step=0):
  """Training rows with loss = step + 0.5; evaluations with loss = 100 + n."""
  with open_writer(workdir, start_step) as writer:
    for step in steps:
      writer.write(step, {'loss': step + 0.5, 'lr': 0.1})
      if step + 1 in evaluations:
        writer.write(step + 1, {'eval_loss': 101.0 + step, 'eval_se': 0.25})


@pytest.mark.parametrize(
  'value', [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 7]
)
def test_values_read_back_bit_for_bit(tmp_path, value):
  with open_writer(tmp_path) as writer:
    writer.write(3, {'loss': value})
  ((row,), evaluations) = read_metrics(tmp_path)
  assert evaluations == []
  assert row['step'] == 3
  assert row['loss'].hex() == float(value).hex()


def test_non_finite_values_are_strings_in_valid_json(tmp_path):
  values = {'a': math.nan, 'b': math.inf, 'c': -math.inf}
  with open_writer(tmp_path) as writer:
    writer.write(0, values)
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(text) == {'step': 0, 'a': 'nan', 'b': 'inf', 'c': '-inf'}
  ((row,), _) = read_metrics(tmp_path)
  assert math.isnan(row['a'])
  assert (row['b'], row['c']) == (math.inf, -math.inf)


def test_every_row_is_in_both_files_before_write_returns(tmp_path):
  with open_writer(tmp_path) as writer:
    for step in range(3):
      writer.write(step, {'loss': step + 0.5})
      assert [row['step'] for row in read_metrics(tmp_path)[0]] == [
        *range(step + 1)
      ]
      assert scalars(tmp_path, 'loss')[-1] == (step, step + 0.5)


def test_resume_drops_what_will_be_done_again(tmp_path):
  write_run(tmp_path, range(7), evaluations=[2, 4, 6])
  write_run(tmp_path, range(4, 10), evaluations=[6, 8], start_step=4)
  train, evaluations = read_metrics(tmp_path)
  assert [row['step'] for row in train] == list(range(10))
  assert [row['step'] for row in evaluations] == [2, 4, 6, 8]


def test_resume_hides_the_same_rows_in_tensorboard(tmp_path):
  write_run(tmp_path, range(7), evaluations=[2, 4, 6])
  write_run(tmp_path, [4, 5], evaluations=[], start_step=4)
  assert scalars(tmp_path, 'loss') == [(s, s + 0.5) for s in range(6)]
  # The evaluation of the step resumed from is not made again: it must show.
  assert scalars(tmp_path, 'eval_loss') == [(2, 102.0), (4, 104.0)]


def test_start_from_step_0_hides_an_earlier_attempt(tmp_path):
  write_run(tmp_path, range(5), evaluations=[])
  write_run(tmp_path, range(2), evaluations=[])
  assert scalars(tmp_path, 'loss') == [(0, 0.5), (1, 1.5)]
  assert len(read_metrics(tmp_path)[0]) == 2


@pytest.mark.parametrize('left', ['{"step": 2, "lo', '{"step": 2}\n{"st', '7'])
def test_line_of_a_killed_process_is_dropped(tmp_path, left):
  write_run(tmp_path, range(2), evaluations=[])
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_text()
  path.write_text(whole + left)
  assert [row['step'] for row in read_metrics(tmp_path)[0]][:2] == [0, 1]
  write_run(tmp_path, [2], evaluations=[], start_step=2)
  assert path.read_text() == whole + '{"step": 2, "loss": 2.5, "lr": 0.1}\n'


@pytest.mark.parametrize('bad', ['{"step": 1, "lo', '{"loss": 1.0}', '[1]'])
def test_damage_before_the_last_line_is_an_error(tmp_path, bad):
  write_run(tmp_path, range(3), evaluations=[])
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_text().splitlines()
  text = '\n'.join([lines[0], bad, lines[2]]) + '\n'
  path.write_text(text)
  with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2: .* remove'):
    read_metrics(tmp_path)
  with pytest.raises(ValueError, match='line 2'):
    open_writer(tmp_path, start_step=2)
  assert path.read_text() == text


def test_failed_run_keeps_its_rows_and_no_end(tmp_path):
  def fail():
    with open_writer(tmp_path) as writer:
      writer.write(0, {'loss': 1.0})
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert scalars(tmp_path, 'loss') == [(0, 1.0)]
  assert session(tmp_path, 'session_end_info') is None


def session(workdir, part):
  tags = events(workdir).SummaryMetadata
  try:
    content = tags(f'_hparams_/{part}').plugin_data.content
  except KeyError:
    return None
  data = plugin_data_pb2.HParamsPluginData.FromString(content)
  return getattr(data, part)


def test_hparams_and_final_metrics_are_in_the_run_itself(tmp_path):
  with open_writer(tmp_path) as writer:
    writer.write(9, {'loss': 1.0})
    writer.close(10, {'eval_loss': 2.5})
  assert scalars(tmp_path, 'final/eval_loss') == [(10, 2.5)]
  start = session(tmp_path, 'session_start_info')
  assert start.hparams['optimizer.peak_lr'].number_value == 1e-3
  assert start.hparams['kind'].string_value == 'WSD'
  assert session(tmp_path, 'session_end_info') is not None
  assert [p.name for p in (tmp_path / 'tb').iterdir() if p.is_dir()] == []


def test_schedule_text_is_a_code_block(tmp_path):
  open_writer(tmp_path).close(10, {})
  (event,) = events(tmp_path).Tensors('schedule/text_summary')
  (text,) = event.tensor_proto.string_val
  assert text.decode() == '    {\n      "kind": "WSD"\n    }'


def test_layout_has_the_groups(tmp_path):
  open_writer(tmp_path).close(10, {})
  (event,) = events(tmp_path).Tensors('custom_scalars__config__')
  layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
  groups = {
    group.title: [tag for chart in group.chart for tag in chart.multiline.tag]
    for group in layout.category
  }
  assert groups['Loss'][:2] == ['^loss$', '^eval_loss$']
  assert list(groups) == [
    'Loss',
    'Domains',
    'Loss law',
    'Learning rate',
    'Gradients',
    'Throughput',
  ]


class Terminal(io.StringIO):
  """A stream that says it is a terminal."""

  def isatty(self):
    return True


ROW = {'loss': 2.34567, 'lr': 3e-4, 'grad_norm': 1.0, 'tokens_per_s': 12345.6}
EVALUATION = {'eval_loss': 2.5, 'eval_se': 0.01, 'eval_bits_per_byte': 3.6067}


class Clock:
  """Stands for the module `time`; it goes on when the test says so."""

  now = 0.0

  def monotonic(self):
    return self.now


def test_plain_progress_is_one_line_per_row(monkeypatch):
  monkeypatch.setenv('FORCE_COLOR', '1')
  monkeypatch.setattr(metrics, 'LINE_EVERY_S', 0.0)
  stream = io.StringIO()
  with Progress(
    total_steps=1000, start_step=0, name='[wsd]', stream=stream
  ) as progress:
    progress.show(99, ROW)
    progress.show(100, EVALUATION)
    progress.show(999, {'loss': math.nan})
  assert stream.getvalue().splitlines() == [
    '[wsd]   100/1000  loss 2.3457  lr 3.00e-04  12,346 tok/s',
    '[wsd]   100/1000  eval loss 2.5000 ± 0.0100, 3.6067 bits/byte',
    '[wsd]  1000/1000  loss nan  eta 0:00',
  ]


def test_the_time_left_does_not_count_the_compilation(monkeypatch):
  """A minute of it, then 0.1 s an update: 899 updates are 90 s."""
  clock, stream = Clock(), io.StringIO()
  monkeypatch.setattr(metrics, 'time', clock)
  monkeypatch.setattr(metrics, 'LINE_EVERY_S', 0.0)
  with Progress(
    total_steps=1000, start_step=90, name='x', stream=stream
  ) as progress:
    clock.now += 60
    progress.show(90, {'loss': 2.0})
    clock.now += 1
    progress.show(100, {'loss': 2.0})
    clock.now += 10  # ten updates with an evaluation, which counts: 11 s for 20
    progress.show(110, {'loss': 2.0})
  assert [
    line.partition('2.0000')[2] for line in stream.getvalue().split('\n')
  ][:3] == ['', '  eta 1:30', '  eta 8:09']


def test_an_evaluation_names_its_corpora_and_averages():
  stream = io.StringIO()
  with Progress(
    total_steps=9, start_step=0, name='x', stream=stream
  ) as progress:
    progress.show(
      3,
      {
        **EVALUATION,
        'epochs': 0.5,
        'eval_loss/german': 2.5,
        'eval_se/german': 0.01,
        'eval_loss/english': 3.0,
        'eval_loss/code': 4.0,
        'ema_eval_loss': 2.4,
        'lawa_eval_loss': 2.3,
        'law_eval_residual': 0.1,
      },
    )
    progress.show(4, {'eval_loss': 2.5, 'ema_eval_loss': 2.4})
  assert stream.getvalue().splitlines() == [
    'x  3/9  eval loss (german) 2.5000 ± 0.0100, 3.6067 bits/byte, ema 2.4000, '
    'lawa 2.3000; english 3.0000, code 4.0000',
    'x  4/9  eval loss 2.5000, ema 2.4000',
  ]


def test_plain_progress_leaves_out_rows_that_follow_fast(monkeypatch):
  monkeypatch.setattr(metrics, 'LINE_EVERY_S', math.inf)
  stream = io.StringIO()
  with Progress(
    total_steps=9, start_step=0, name='x', stream=stream
  ) as progress:
    for step in range(3):
      progress.show(step, ROW)
    progress.show(3, EVALUATION)
  lines = stream.getvalue().splitlines()
  assert [line.split()[1] for line in lines] == ['1/9', '3/9']


def test_terminal_progress_is_a_bar_and_gives_the_cursor_back(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '120')
  stream = Terminal()

  def fail():
    with Progress(
      total_steps=1000, start_step=500, name='[wsd]', stream=stream
    ) as progress:
      progress.show(549, ROW)
      progress.show(599, ROW)
      progress.show(600, EVALUATION)
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  text = stream.getvalue()
  assert '600/1000' in text
  assert 'loss 2.3457  lr 3.00e-04  12,346 tok/s  eta' in text
  assert 'eval loss 2.5000 ± 0.0100, 3.6067 bits/byte\n' in text
  hide, show = '\x1b[?25l', '\x1b[?25h'
  assert text.rindex(hide) < text.rindex(show)
