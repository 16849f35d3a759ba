"""Settings on a command line change a config, or say what is wrong."""

import dataclasses
import pathlib

import pytest

import experiments.flags
import lrsched
from experiments.flags import load_config
from experiments.flags import override
from tests.tiny import WSD
from tests.tiny import tiny_run
from trainers.config import RunConfig
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.optimizer import AdamW
from trainers.optimizer import Optax
from trainers.sources import Docstrings
from trainers.sources import TextFolder
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
  changed = override(config, ['optimizer.arguments.b1=0.95'])
  assert changed.optimizer.arguments == {'b1': 0.95}
  assert config.optimizer.arguments == {'b1': 0.9}


MIXED = dataclasses.replace(
  RUN,
  data=dataclasses.replace(
    RUN.data,
    source=Mixture(
      domains={
        'english': Domain(source=Docstrings(), share=0.25),
        'german': Domain(source=TextFolder(path='german')),
      }
    ),
  ),
  optimizer=AdamW(
    schedule=WSD,
    groups={
      'blocks': lrsched.Constant(lr=1e-4),
      'blocks.0/.*bias': WSD,
      'head': None,
    },
  ),
  eval=dataclasses.replace(RUN.eval, sources={'v1.2': TextFolder(path='old')}),
)


def test_an_item_of_a_dict_is_set_by_its_key():
  config = override(
    MIXED,
    [
      'data.source.domains.english.share=0.5',
      'data.source.domains.english.source.valid_packages.0=rich',
      'data.source.domains.german.source.path=de',
      'eval.sources.v1.2.path=new',
    ],
  )
  domains = config.data.source.domains
  assert domains == {
    'english': Domain(
      source=Docstrings(valid_packages=('rich', 'flax')),
      share=0.5,
    ),
    'german': Domain(source=TextFolder(path='de')),
  }
  assert config.eval.sources == {'v1.2': TextFolder(path='new')}
  assert MIXED.data.source.domains['english'].share == 0.25
  back = dataclasses.replace(config, data=MIXED.data, eval=MIXED.eval)
  assert back == MIXED


def test_of_keys_with_dots_the_longest_that_is_there_is_meant():
  config = override(
    MIXED,
    [
      'optimizer.groups.blocks.lr=2e-4',
      'optimizer.groups.blocks.0/.*bias.peak_lr=3e-3',
    ],
  )
  assert config.optimizer.groups == {
    'blocks': lrsched.Constant(lr=2e-4),
    'blocks.0/.*bias': dataclasses.replace(WSD, peak_lr=3e-3),
    'head': None,
  }


def test_a_schedule_of_a_group_is_replaced_whole():
  constant = lrsched.Constant(lr=5e-4)
  config = override(
    MIXED,
    [
      'optimizer.groups.blocks=None',
      f'optimizer.groups.blocks.0/.*bias={lrsched.to_json(constant)}',
      f'optimizer.groups.head={lrsched.to_dict(constant)}',
    ],
  )
  assert config.optimizer.groups == {
    'blocks': None,
    'blocks.0/.*bias': constant,
    'head': constant,
  }


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    (
      ['data.source.domains.germn.share=0.5'],
      "--set=data.source.domains.germn: there is no 'germn' in "
      'data.source.domains; it has english, german$',
    ),
    (
      ['optimizer.groups..*bias.peak_lr=1'],
      r"there is no '\.\*bias\.peak_lr' in optimizer.groups; it has blocks, ",
    ),
    (['eval.sources.v1.path=x'], r"no 'v1\.path' in eval.sources; it has v1"),
    (
      ['data.source.domains.english.shar=0.5'],
      '--set=data.source.domains.english.shar: there is no such field',
    ),
    (
      ['data.source.domains.english.share=2'],
      r'--set=data.source.domains.english: Domain.share must be in \[0, 1\]',
    ),
    (
      ['data.source.domains.german.share=0.5'],
      '--set=data.source: Mixture.domains must have one domain of share None',
    ),
    (
      ['data.source.domains.english=3'],
      '--set=data.source: Mixture.domains must be a dict of str to Domain',
    ),
    (
      ['optimizer.groups.head={"kind": "Constnt"}'],
      '--set=optimizer: optimizer.groups.head.*Constnt',
    ),
    (
      ['optimizer.groups.head.lr=1'],
      'groups.head is None, which has no fields',
    ),
    (
      ['eval.sources.v1.2.path=a', 'eval.sources.v1.2.path=b'],
      '--set=eval.sources.v1.2.path=b: eval.sources.v1.2.path is set twice',
    ),
  ],
)
def test_a_mistake_in_a_dict_is_named_with_its_path(settings, said):
  with pytest.raises(ValueError, match=said):
    override(MIXED, settings)


def test_where_there_are_no_items_it_says_so():
  said = "there is no 'new' in eval.sources; it has no items; set it whole in"
  with pytest.raises(ValueError, match=said):
    override(RUN, ['eval.sources.new.path=x'])


def test_an_error_of_the_whole_config_names_what_was_set():
  settings = ['total_steps=25', 'checkpoint.keep_steps=(28,)']
  said = 'CheckpointConfig.keep_steps must be .*, got 28'
  with pytest.raises(ValueError, match=said) as refused:
    override(RUN, settings)
  given = '--set=total_steps=25 --set=checkpoint.keep_steps=(28,): '
  assert str(refused.value).startswith(given)
  more = [*settings, 'seed=3', 'ema_decay=None', 'accum_steps=1']
  with pytest.raises(ValueError, match=said) as refused:
    override(RUN, more)
  assert '(28,) --set=seed=3 and 2 more: ' in str(refused.value)


def test_a_config_file_is_read(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from tests.experiments.test_flags import RUN\n\n\n'
    'def get_config():\n  return RUN\n'
  )
  config = load_config(str(path))
  assert isinstance(config, RunConfig)
  assert config.total_steps == 30


@pytest.mark.parametrize('place', ['', './', '../here/'])
def test_an_error_of_a_config_file_has_its_line(tmp_path, monkeypatch, place):
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  pathlib.Path('mine.py').write_text('def get_config():\n  return 1 / 0\n')
  path = f'{place}mine.py'
  with pytest.raises(ValueError, match='ZeroDivisionError') as refused:
    load_config(path)
  assert str(refused.value).startswith(f'--config: {path}, line 2: Zero')


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


# Those that never load jax.
WITHOUT_JAX = {'fetch.py', 'german_sample.py'}
PROGRAMS = {
  path.name: text
  for path in pathlib.Path(experiments.flags.__file__).parent.glob('*.py')
  if 'def main(argv' in (text := path.read_text())
}


def test_no_program_repeats_what_jax_logs_of_backends():
  """It logs each that it looks for in vain, at the level of information."""
  assert len(PROGRAMS) > 20
  quiet = {
    name
    for name, text in PROGRAMS.items()
    if '  logging.set_verbosity(logging.ERROR)' in text
  }
  assert PROGRAMS.keys() - quiet == WITHOUT_JAX
