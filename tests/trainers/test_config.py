"""Configs hold what they say, and refuse what cannot be run."""

import dataclasses
import json

import pytest

import lrsched
from tests.tiny import WSD
from tests.tiny import tiny_run
from trainers.config import CheckpointConfig
from trainers.config import DataConfig
from trainers.config import EvalConfig
from trainers.config import LogConfig
from trainers.config import MeshConfig
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.fields import to_dict
from trainers.optimizer import AdamW
from trainers.optimizer import Muon
from trainers.optimizer import Optax
from trainers.sources import Docstrings
from trainers.sources import TextFolder
from trainers.sources import TokenFile

TOKENS = TokenFile(train_path='train.bin', valid_path='valid.bin')
MODEL = ModelConfig(d_model=32, n_layers=2, n_heads=4, d_ff=64)
RUN = tiny_run(TOKENS)


@pytest.mark.parametrize(
  ('config', 'changes', 'said'),
  [
    # Types, by the annotation of the field.
    (MODEL, {'d_model': '32'}, r"ModelConfig.d_model must be int, got '32'"),
    (MODEL, {'d_model': 32.0}, 'ModelConfig.d_model must be int, got 32.0'),
    (MODEL, {'n_layers': True}, 'ModelConfig.n_layers must be int, got True'),
    (MODEL, {'qk_norm': 1}, 'ModelConfig.qk_norm must be bool, got 1'),
    (
      MODEL,
      {'z_loss': False},
      'ModelConfig.z_loss must be a finite number, got False',
    ),
    (MODEL, {'activation': 'relu'}, "must be 'swiglu' or 'gelu', got 'relu'"),
    (Docstrings(), {'train_packages': ['a']}, 'must be a tuple of str, got'),
    (Docstrings(), {'train_packages': (1,)}, 'must be a tuple of str, got'),
    (MeshConfig(), {'data': 'all'}, "must be int or None, got 'all'"),
    (RUN, {'optimizer': WSD}, 'must be AdamW or Muon or Optax, got WSD'),
    (RUN, {'model': {'d_model': 32}}, 'RunConfig.model must be ModelConfig'),
    (RUN.optimizer, {'schedule': 1e-3}, 'AdamW.schedule must be Schedule'),
    # Ranges.
    (MODEL, {'d_model': 36}, r'multiple of 2 \* n_heads = 8, got 36'),
    (MODEL, {'d_ff': 0}, 'ModelConfig.d_ff must be >= 1, got 0'),
    (MODEL, {'vocab_size': 0}, 'ModelConfig.vocab_size must be >= 1'),
    (MODEL, {'z_loss': -1e-4}, 'ModelConfig.z_loss must be >= 0'),
    (
      MODEL,
      {'z_loss': float('nan')},
      'z_loss must be a finite number, got nan',
    ),
    (MODEL, {'rope_base': 1.0}, 'ModelConfig.rope_base must be > 1'),
    (Docstrings(), {'train_packages': ()}, 'train_packages must not be empty'),
    (Docstrings(), {'valid_packages': ('jax',)}, r"trained on.*got \['jax'\]"),
    (TextFolder(path='x'), {'valid_percent': 0}, 'must be in 1..50, got 0'),
    (TOKENS, {'dtype': 'int64'}, 'TokenFile.dtype must be'),
    (DataConfig(), {'seq_len': 0}, 'DataConfig.seq_len must be >= 1'),
    (DataConfig(), {'batch_size': 0}, 'DataConfig.batch_size must be >= 1'),
    (DataConfig(), {'seed': -1}, 'DataConfig.seed must be in'),
    (DataConfig(), {'seed': 2**32}, 'DataConfig.seed must be in'),
    (MeshConfig(), {'tensor': 0}, 'MeshConfig.tensor must be >= 1'),
    (EvalConfig(), {'every_steps': 0}, 'EvalConfig.every_steps must be >= 1'),
    (EvalConfig(), {'n_sequences': 1, 'batch_size': 1}, 'standard error'),
    (EvalConfig(), {'batch_size': 48}, 'must divide n_sequences=128, got 48'),
    (CheckpointConfig(), {'keep_last': 0}, 'keep_last must be >= 1, got 0'),
    (CheckpointConfig(), {'every_steps': 0}, 'every_steps must be >= 1, got 0'),
    (LogConfig(), {'every_steps': 0}, 'LogConfig.every_steps must be >= 1'),
    (LogConfig(), {'peak_flops_per_device': 0.0}, 'must be > 0, got 0.0'),
    (RUN, {'total_steps': 0}, 'RunConfig.total_steps must be in'),
    (RUN, {'total_steps': 2**31}, 'RunConfig.total_steps must be in'),
    (RUN, {'accum_steps': 0}, 'divide data.batch_size=8, got 0'),
    (RUN, {'accum_steps': 3}, 'divide data.batch_size=8, got 3'),
    (RUN, {'ema_decay': 1.0}, r'must be in \(0, 1\); None switches'),
    (
      RUN,
      {'checkpoint': CheckpointConfig(keep_steps=(31,))},
      r'keep_steps must be in 0..total_steps=30, got 31',
    ),
  ],
)
def test_a_wrong_value_names_field_rule_and_value(config, changes, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
  ('schedule', 'said'),
  [
    (
      lrsched.Linear(peak_lr=1e-3, total_steps=29),
      'optimizer.schedule ends at step 29, before total_steps=30',
    ),
    (
      lrsched.Warmup(schedule=lrsched.Constant(lr=1e-3), warmup_steps=30),
      'optimizer.schedule.warmup_steps must be less than total_steps=30, '
      'got 30: the run would end in its warmup',
    ),
    (
      lrsched.WSD(
        peak_lr=1e-3, warmup_steps=2, stable_steps=10, decay_steps=18
      ),
      'decay_steps must be at most stable_steps=10, got 18',
    ),
  ],
)
def test_a_schedule_must_suit_the_run(schedule, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(RUN, optimizer=AdamW(schedule=schedule))


def test_every_schedule_of_an_optimizer_must_suit_the_run():
  short = lrsched.Linear(peak_lr=1e-3, total_steps=10)
  with pytest.raises(ValueError, match=r'optimizer.adam_schedule ends at'):
    dataclasses.replace(RUN, optimizer=Muon(schedule=WSD, adam_schedule=short))
  groups = {'embedding': None, 'blocks/.*': short}
  with pytest.raises(ValueError, match=r'optimizer.groups.blocks/\.\* ends at'):
    dataclasses.replace(RUN, optimizer=AdamW(schedule=WSD, groups=groups))


@pytest.mark.parametrize(
  'schedule',
  [
    lrsched.Constant(lr=1e-3),
    lrsched.Linear(peak_lr=1e-3, total_steps=30),
    # The run may stop before its schedule does.
    lrsched.Linear(peak_lr=1e-3, total_steps=300),
    lrsched.Warmup(schedule=lrsched.Constant(lr=1e-3), warmup_steps=29),
    lrsched.WSD(peak_lr=1e-3, warmup_steps=2, stable_steps=14, decay_steps=14),
    lrsched.WSDS.of_cycle(
      peak_lr=1e-3,
      final_lr=1e-4,
      warmup_steps=2,
      cycle_ends=(10, 30),
      decay_frac=0.4,
    ),
  ],
)
def test_a_schedule_that_suits_the_run_is_taken(schedule):
  config = dataclasses.replace(RUN, optimizer=AdamW(schedule=schedule))
  assert config.optimizer.schedule is schedule


@pytest.mark.parametrize(
  'make',
  [
    lambda: ModelConfig(d_modle=32, n_layers=1, n_heads=2, d_ff=64),
    lambda: DataConfig(Docstrings()),
    lambda: ModelConfig(d_model=32),
  ],
)
def test_fields_are_given_by_name_all_of_them(make):
  with pytest.raises(TypeError):
    make()


def test_a_config_is_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    RUN.total_steps = 10


def test_an_int_is_a_float_but_not_the_reverse():
  assert dataclasses.replace(MODEL, z_loss=0).z_loss == 0


def test_as_json_every_number_is_there_once_and_reads_back():
  optimizer = Optax(
    name='lion', schedule=WSD, arguments={'b1': 0.9, 'b2': 0.98}
  )
  config = dataclasses.replace(RUN, optimizer=optimizer)
  found = to_dict(config)
  # Equal after a trip through text: what a relaunch compares with.
  assert json.loads(json.dumps(found)) == found
  assert list(found) == [
    'kind',
    *(f.name for f in dataclasses.fields(RunConfig)),
  ]
  assert found['data']['source'] == {
    'kind': 'TokenFile',
    'train_path': 'train.bin',
    'valid_path': 'valid.bin',
    'dtype': 'uint16',
    'bytes_per_token': None,
  }
  assert found['checkpoint']['keep_steps'] == [14]
  assert lrsched.from_dict(found['optimizer']['schedule']) == WSD


def test_schedules_of_groups_read_back_from_json():
  optimizer = AdamW(schedule=WSD, groups={'embedding': None, 'blocks/.*': WSD})
  found = to_dict(optimizer)
  assert json.loads(json.dumps(found)) == found
  assert found['groups']['embedding'] is None
  assert lrsched.from_dict(found['groups']['blocks/.*']) == WSD


def test_arguments_of_any_json_kind_compare_equal_after_a_trip_through_text():
  # A tuple is a list in JSON: the same config must not look like another.
  optimizer = Optax(
    name='adamw', schedule=WSD, arguments={'b1': 0.9, 'mask': {'a': (True,)}}
  )
  found = to_dict(optimizer)
  assert json.loads(json.dumps(found)) == found
