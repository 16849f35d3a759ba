"""What a run logs of its own speed: the updates, not what lies between them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import VOCAB_SIZE
from tests.tiny import tiny_run
from trainers import log as log_lib
from trainers import loop
from trainers.checkpoint import Saver
from trainers.config import LogConfig
from trainers.evaluate import summarise
from trainers.log import Log
from trainers.metrics import read_metrics
from trainers.sources import TokenFile
from trainers.train import run

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
TOKENS = RUN.data.batch_size * RUN.data.seq_len  # of an update
RESULT = {'tokenfile': summarise(np.ones(4, np.float32))}
METRICS = {'loss': jnp.float32(2), 'lr': jnp.float32(0.1)}


class Clock:
  """Stands for the module `time`; it goes on when the test says so."""

  now = 0.0
  tick = 0.0

  def monotonic(self):
    self.now += self.tick
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(log_lib, 'time', clock)
  return clock


def speeds(workdir):
  return {r['step']: r.get('tokens_per_s') for r in read_metrics(workdir)[0]}


def evaluate(log, done, clock, seconds):
  with log.pause(done):
    clock.now += seconds
    log.evaluation(done, RESULT, {}, {}, {'tokenfile': 0.5})


@pytest.mark.parametrize('every_steps', [1, 4])
def test_only_training_counts_as_training(tmp_path, clock, every_steps):
  """A compilation of 100 s, an update a second, evaluations of 50 s, a save."""
  config = dataclasses.replace(RUN, log=LogConfig(every_steps=every_steps))
  resolved = {'seed': 0, 'total_steps': 30, 'data': {'batch_size': 8}}
  resolved['optimizer'] = {}
  with Log(config, tmp_path, resolved, {'tokenfile': None}, 0, 0) as log:
    evaluate(log, 0, clock, 50)
    clock.now += 100
    for step in range(10):
      log.train(step, METRICS)
      clock.now += 1
      if step in (2, 4, 7):
        evaluate(log, step + 1, clock, 50)
      if step == 4:
        with log.pause(step + 1):
          clock.now += 20
  train, evaluations = read_metrics(tmp_path)
  assert [row['step'] for row in evaluations] == [0, 3, 5, 8]
  # The last update waits for a row after it.
  assert [row['step'] for row in train] == [*range(0, 9, every_steps)]
  first, *others = speeds(tmp_path).values()
  assert first is None
  assert others == [TOKENS] * len(others)
  # A row before its evaluation, as it came before it.
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert 'eval_loss' in lines[0]
  assert '"step": 0, "loss"' in lines[1]


def test_a_run_pauses_for_evaluations_and_saves(tmp_path, clock, monkeypatch):
  """Each takes an hour; else the clock goes on by a millisecond a look."""
  rng = np.random.default_rng(0)
  for name, n in (('train.bin', 4000), ('valid.bin', 400)):
    rng.integers(VOCAB_SIZE, size=n).astype(np.uint16).tofile(tmp_path / name)
  monkeypatch.chdir(tmp_path)
  clock.tick = 1e-3

  def an_hour(function):
    def slow(*args):
      clock.now += 3600
      return function(*args)

    return slow

  monkeypatch.setattr(loop, 'evaluate', an_hour(loop.evaluate))
  monkeypatch.setattr(Saver, 'save', an_hour(Saver.save))
  run(RUN, tmp_path / 'run')
  first, *others = speeds(tmp_path / 'run').values()
  assert first is None
  assert len(others) == 29
  # At most a few looks, not an hour, lie between two rows.
  assert min(others) > TOKENS / 0.1
