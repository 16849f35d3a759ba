"""TensorBoard reads what was logged, with its own reader."""

import json
import re
import textwrap

import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

import lrsched
from tests.integration import tiny_run
from trainers.metrics import read_metrics
from trainers.train import run


@pytest.fixture(scope='module')
def config():
  return tiny_run.override_for_eight_steps()


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, config):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    run(config, folder / 'run')
  return folder / 'run'


@pytest.fixture(scope='module')
def events(workdir):
  sizes = {'scalars': 0, 'tensors': 0}
  events = EventAccumulator(str(workdir / 'tb'), size_guidance=sizes)
  return events.Reload()


def test_every_logged_number_is_in_the_event_file(workdir, events):
  train, evaluations = read_metrics(workdir)
  assert (len(train), len(evaluations)) == (8, 2)
  rows = [*train, *evaluations]
  names = {name for row in rows for name in row if name != 'step'}
  assert names >= {
    *('loss', 'lr', 'grad_norm', 'update_ratio', 'tokens_per_s'),
    *('eval_loss', 'eval_se', 'eval_bits_per_byte', 'ema_eval_loss'),
  }
  for name in names:
    logged = [(r['step'], r[name]) for r in rows if name in r]
    shown = [(e.step, e.value) for e in events.Scalars(name)]
    assert [s for s, _ in shown] == [s for s, _ in logged]
    # Events hold float32.
    assert [v for _, v in shown] == pytest.approx(
      [v for _, v in logged], rel=1e-6
    )


def test_the_outcome_is_the_last_evaluation(events):
  [final] = events.Scalars('final/eval_loss')
  assert final.step == 8
  assert final.value == events.Scalars('eval_loss')[-1].value
  # And there is nothing else that no row has.
  scalars = events.Tags()['scalars']
  assert [name for name in scalars if '/' in name] == ['final/eval_loss']


def test_the_layout_draws_what_was_logged(events):
  [event] = events.Tensors('custom_scalars__config__')
  layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
  charts = {
    chart.title: [
      name
      for name in events.Tags()['scalars']
      if any(re.search(tag, name) for tag in chart.multiline.tag)
    ]
    for group in layout.category
    for chart in group.chart
  }
  assert charts.pop('model FLOP/s utilisation') == []  # unknown on a CPU
  assert {title: set(names) for title, names in charts.items()} == {
    'train and evaluation': {'loss', 'eval_loss'},
    'averages of the weights': {'eval_loss', 'ema_eval_loss'},
    'bits per byte': {'eval_bits_per_byte'},
    'replay': set(),
    'loss by domain': set(),  # one corpus
    'bits per byte by domain': set(),
    'loss since the run began': set(),
    'epochs': {'epochs'},
    'forecast of the end': {'eval_loss'},  # no law follows this run
    'residual': set(),
    'as applied': {'lr'},
    'gradient norm': {'grad_norm'},
    'update / parameter ratio': {'update_ratio'},
    'tokens per second': {'tokens_per_s'},
  }


def test_hyperparameters_are_those_of_the_run(events, config):
  content = events.SummaryMetadata('_hparams_/session_start_info')
  data = plugin_data_pb2.HParamsPluginData.FromString(
    content.plugin_data.content
  )
  hparams = data.session_start_info.hparams
  schedule = config.optimizer.schedule
  for name, value in {
    'optimizer.schedule.peak_lr': schedule.peak_lr,
    'optimizer.schedule.warmup_steps': schedule.warmup_steps,
    'optimizer.weight_decay': config.optimizer.weight_decay,
    'total_steps': 8,
    'batch_size': 8,
    'seed': 0,
  }.items():
    assert hparams[name].number_value == value
  assert hparams['optimizer.schedule.kind'].string_value == 'WSD'


def test_the_text_is_the_schedule_to_the_last_digit(events, config):
  [event] = events.Tensors('schedule/text_summary')
  text = textwrap.dedent(event.tensor_proto.string_val[0].decode())
  optimizer = json.loads(text)
  assert lrsched.from_dict(optimizer['schedule']) == config.optimizer.schedule
