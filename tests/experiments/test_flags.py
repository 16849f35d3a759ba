"""Settings on a command line change a config, or say what is wrong."""

import dataclasses

import pytest

import lrsched
from experiments.flags import load_config
from experiments.flags import override
from tests.tiny import WSD
from tests.tiny import tiny_run
from trainers.config import RunConfig
from trainers.optimizer import AdamW
from trainers.optimizer import Optax
from trainers.sources import Docstrings
from trainers.sources import TokenFile

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
SEQUENCE = dataclasses.replace(
  RUN,
  optimizer=AdamW(
    schedule=lrsched.Sequence(
      schedules=(
        lrsched.Warmup(schedule=lrsched.Constant(lr=1e-3), warmup_steps=5),
        lrsched.Linear(peak_lr=1e-3, total_steps=20),
      ),
      boundaries=(10,),
    )
  ),
)


def schedule_of(config):
  return config.optimizer.schedule


def test_a_nested_field_is_set_and_nothing_else():
  config = override(RUN, ['optimizer.schedule.peak_lr=3e-3'])
  assert schedule_of(config) == dataclasses.replace(WSD, peak_lr=3e-3)
  back = dataclasses.replace(config, optimizer=RUN.optimizer)
  assert back == RUN


def test_without_settings_it_is_the_same_config():
  assert override(RUN, []) is RUN


@pytest.mark.parametrize(
  ('setting', 'get', 'value'),
  [
    ('total_steps=20', lambda c: c.total_steps, 20),
    ('ema_decay=None', lambda c: c.ema_decay, None),
    ('model.qk_norm=True', lambda c: c.model.qk_norm, True),
    ('model.activation=gelu', lambda c: c.model.activation, 'gelu'),
    ("model.activation='gelu'", lambda c: c.model.activation, 'gelu'),
    ('checkpoint.keep_steps=(1, 2)', lambda c: c.checkpoint.keep_steps, (1, 2)),
    ('checkpoint.keep_steps=()', lambda c: c.checkpoint.keep_steps, ()),
    ('data.source.train_path=a=b.bin', lambda c: c.data.source, None),
  ],
)
def test_a_value_is_a_literal_or_else_text(setting, get, value):
  found = get(override(RUN, [setting]))
  if isinstance(found, TokenFile):  # only the first = ends the path
    assert found.train_path == 'a=b.bin'
  else:
    assert found == value
    assert type(found) is type(value)


def test_an_item_of_a_tuple_is_set_by_number():
  config = override(
    SEQUENCE,
    [
      'optimizer.schedule.schedules.0.schedule.lr=2e-3',
      'optimizer.schedule.schedules.1.peak_lr=2e-3',
      'optimizer.schedule.boundaries.0=12',
      'checkpoint.keep_steps.0=7',
    ],
  )
  first, second = schedule_of(config).schedules
  assert first.schedule.lr == second.peak_lr == 2e-3
  assert first.warmup_steps == 5
  assert schedule_of(config).boundaries == (12,)
  assert config.checkpoint.keep_steps == (7,)


def test_a_schedule_is_replaced_whole_by_its_json():
  cosine = lrsched.Cosine(peak_lr=2e-3, total_steps=30)
  text = lrsched.to_json(cosine)
  assert schedule_of(override(RUN, [f'optimizer.schedule={text}'])) == cosine
  # Also in place of a piece of another one, and as a Python literal.
  piece = lrsched.to_dict(cosine)
  config = override(SEQUENCE, [f'optimizer.schedule.schedules.1={piece}'])
  assert schedule_of(config).schedules[1] == cosine


def test_settings_that_fit_only_together_are_applied_together():
  settings = [
    'total_steps=50',
    'optimizer.schedule.stable_steps=26',
    'optimizer.schedule.decay_steps=20',
    'data.batch_size=12',
    'accum_steps=6',
  ]
  for order in (settings, settings[::-1]):
    config = override(RUN, order)
    assert (config.total_steps, config.accum_steps) == (50, 6)
    assert schedule_of(config).end_step == 50
  for alone in (settings[0], settings[2], settings[4]):
    with pytest.raises(ValueError, match='--set='):
      override(RUN, [alone])


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    (['total_step=20'], '--set=total_step: there is no such field; known: '),
    (['model.d_modle=16'], r'--set=model.d_modle: there is no .* d_model, '),
    (
      ['optimizer.schedule.peak=1.0'],
      '--set=optimizer.schedule.peak: there is no such field; known: peak_lr',
    ),
    (['optmizer.schedule.peak_lr=1'], '--set=optmizer: there is no such field'),
    (['checkpoint.keep_steps.1=3'], 'keep_steps.1: there is no such field'),
    (['checkpoint.keep_steps.last=3'], 'keep_steps.last: there is no such'),
    (
      ['model.d_model.x=3'],
      '--set=model.d_model.x: model.d_model is 16, which',
    ),
    (['ema_decay.x=1'], 'ema_decay is 0.9, which has no fields to set'),
    (['model.d_model=wide'], "--set=model: .*d_model must be int, got 'wide'"),
    (['model.d_model=16.0'], '--set=model: .*d_model must be int, got 16.0'),
    (['model=3'], 'RunConfig.model must be ModelConfig, got 3'),
    (['optimizer.schedule=WSD'], "AdamW.schedule must be .* got 'WSD'"),
    (
      ['optimizer.schedule.peak_lr=-1'],
      r'--set=optimizer.schedule: WSD.peak_lr must be .*>= 0, got -1',
    ),
    (['optimizer.schedule.warmup_steps=1.5'], 'must be a whole number'),
    (
      ['optimizer.schedule={"kind": "Cosin", "version": 1}'],
      '--set=optimizer.*Cosin',
    ),
    (
      ['optimizer.schedule={"kind": "Constant"}'],
      r'optimizer\.schedule.*lr',
    ),
    (['model.d_model'], "must be path.to.field=value, got 'model.d_model'"),
    (['=3'], "must be path.to.field=value, got '=3'"),
    (['seed=1', 'seed=2'], '--set=seed=2: seed is set twice'),
    (['model=3', 'model.d_model=3'], 'model is set already'),
    (['model.d_model=32', 'model=3'], '--set=model=3: model is set twice'),
    (['data.source.path=x'], 'path: there is no .* train_path, valid_path'),
    (['seed={[]: 1}'], 'RunConfig.seed must be int'),
  ],
)
def test_a_mistake_is_named_with_its_path(settings, said):
  with pytest.raises(ValueError, match=said):
    override(RUN, settings)


def test_the_number_of_an_item_may_not_be_a_field_of_its_kind():
  text = Docstrings()
  config = dataclasses.replace(
    RUN, data=dataclasses.replace(RUN.data, source=text)
  )
  changed = override(config, ['data.source.valid_packages.1=jaxlib'])
  assert changed.data.source.valid_packages == ('optax', 'jaxlib')


def test_arguments_of_an_optimizer_are_set_whole():
  config = dataclasses.replace(
    RUN, optimizer=Optax(name='lion', schedule=WSD, arguments={'b1': 0.9})
  )
  changed = override(config, ['optimizer.arguments={"b1": 0.95}'])
  assert changed.optimizer.arguments == {'b1': 0.95}
  with pytest.raises(ValueError, match='which has no fields to set'):
    override(config, ['optimizer.arguments.b1=0.95'])


def test_a_config_file_is_read(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from tests.experiments.test_flags import RUN\n\n\n'
    'def get_config():\n  return RUN\n'
  )
  config = load_config(str(path))
  assert isinstance(config, RunConfig)
  assert config.total_steps == 30


@pytest.mark.parametrize(
  ('name', 'text', 'said'),
  [
    (None, None, '--config: there is no file .*missing.py'),
    ('mine.txt', 'get_config = 1', '--config must be a Python file, got'),
    ('mine.py', 'def config(): pass', "no attribute 'get_config'"),
    ('mine.py', 'def get_config(:', 'SyntaxError'),
    ('mine.py', 'import nonesuch', r'line 1: ModuleNotFoundError.*nonesuch'),
    ('mine.py', 'def get_config(): pass', 'must return a RunConfig, got None'),
  ],
)
def test_a_config_file_that_is_none_is_an_error(tmp_path, name, text, said):
  path = tmp_path / (name or 'missing.py')
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=said):
    load_config(str(path))
