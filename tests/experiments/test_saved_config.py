"""A config survives its JSON, whatever it is made of; the rest is named."""

import dataclasses
import json

import pytest

import lrsched
from experiments.saved_config import config_of
from trainers.averaging import Lawa
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import ForecastConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.fields import to_dict
from trainers.finish import Finish
from trainers.horizon import BatchRamp
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.optimizer import AdamW
from trainers.optimizer import Muon
from trainers.optimizer import Optax
from trainers.sources import Docstrings
from trainers.sources import TextFolder
from trainers.sources import TokenFile

WSD = lrsched.WSD(
  peak_lr=0.1,
  warmup_steps=2,
  stable_steps=10,
  decay_steps=3,
  decay=lrsched.OneMinusSqrt(),
)
MODEL = ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=32)
PLAIN = RunConfig(model=MODEL, optimizer=AdamW(schedule=WSD), total_steps=12)
TEXT = TextFolder(path='text')
MIXTURE = Mixture(
  domains={
    'old': Domain(source=TEXT, share=((0, 0.5), (10, 0.1)), from_start=True),
    'less': Domain(source=Docstrings(), share=0.25, subset=0.5),
    'new': Domain(source=TokenFile(train_path='t', valid_path='v')),
  }
)
CHANGES = {
  'none': {},
  'groups': {'optimizer': AdamW(schedule=WSD, groups={'a': None, 'b.*': WSD})},
  'Muon': {'optimizer': Muon(schedule=WSD, adam_schedule=WSD)},
  'Optax': {
    'optimizer': Optax(name='lion', schedule=WSD, arguments={'b1': 0.9})
  },
  'mixture': {'data': DataConfig(source=MIXTURE)},
  'ramp': {
    'data': DataConfig(
      ramp=BatchRamp(boundaries=(4,), batch_sizes=(8, 16)), source=TEXT
    )
  },
  'parts': {
    'eval': EvalConfig(sources={'other': TEXT}),
    'checkpoint': CheckpointConfig(keep_steps=(3, 5)),
    'forecast': ForecastConfig(curves=('a.csv',)),
    'finish': Finish(decay_steps=3),
    'lawa': Lawa(every_steps=2),
    'ema_decay': 0.9,
  },
}


def saved(config):
  return json.loads(json.dumps(to_dict(config)))


@pytest.mark.parametrize('name', CHANGES)
def test_a_config_survives_json(name):
  config = dataclasses.replace(PLAIN, **CHANGES[name])
  assert config_of(saved(config), 'x') == config


def test_what_the_run_found_is_no_part_of_it():
  found = {'corpora': {'text': {'hash': 'a'}}, 'eval_corpora': {}}
  assert config_of(saved(PLAIN) | found, 'x') == PLAIN


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    (('colour',), 'red', r"x must be a RunConfig .* fields \['colour'\]"),
    (('data', 'colour'), 1, r"x\.data must be a DataConfig .* \['colour'\]"),
    (('data',), 3, r'x\.data must be a DataConfig of this version, got 3'),
    (('data', 'source'), {'kind': 'Web'}, r'x\.data: DataConfig\.source must'),
    (('data', 'seq_len'), '8', r'x\.data: DataConfig\.seq_len must be int'),
    (('optimizer', 'schedule', 'kind'), 'Sun', r'x\.optimizer\.schedule'),
    (('total_steps',), 0, r'x: RunConfig\.total_steps must be in'),
  ],
)
def test_what_is_not_of_this_version_is_named(path, value, message):
  record = saved(PLAIN)
  *parents, last = path
  node = record
  for name in parents:
    node = node[name]
  node[last] = value
  with pytest.raises(ValueError, match=message):
    config_of(record, 'x')


def test_a_missing_field_is_named():
  record = saved(PLAIN)
  del record['model']
  with pytest.raises(ValueError, match=r"x: .* 'model'"):
    config_of(record, 'x')
