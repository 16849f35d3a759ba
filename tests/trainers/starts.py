"""Launches that are planned only, and small run folders to plan them on."""

import dataclasses
import json

import jax
import numpy as np

from tests.tiny import WSD
from tests.tiny import fingerprint
from tests.tiny import tiny_run
from trainers import checkpoint
from trainers.fields import to_dict
from trainers.optimizer import AdamW
from trainers.plan import plan_start
from trainers.sources import TokenFile
from trainers.start import checkpoints_of

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
BRANCH = dataclasses.replace(
  RUN,
  optimizer=AdamW(schedule=WSD.decay_from(10, 5)),
  total_steps=15,
  checkpoint=dataclasses.replace(RUN.checkpoint, keep_steps=()),
)


def resolved_of(config, corpus_hash='abc'):
  """What the trainer stores: the config, and which text it saw."""
  corpus = {'hash': corpus_hash, 'train_tokens': 4000}
  corpora = {'corpora': {'tokenfile': corpus}, 'eval_corpora': {}}
  return to_dict(config) | corpora


def streams_of(config, corpus_hash='abc'):
  return {'tokenfile': f'{corpus_hash}/{config.data.seed}'}


def plan(
  config,
  workdir,
  branch_from=None,
  restore=None,
  corpus_hash='abc',
  carry='all',
  init_from=None,
):
  """`plan_start`, which must not write, whatever it decides."""
  before = fingerprint(workdir.parent)
  try:
    return plan_start(
      resolved_of(config, corpus_hash),
      streams_of(config, corpus_hash),
      workdir,
      branch_from=branch_from,
      carry=carry,
      init_from=init_from,
      restore=restore,
    )
  finally:
    assert fingerprint(workdir.parent) == before


def write_run(workdir, steps, config=RUN, start=None):
  """A run folder as the trainer leaves it, with small checkpoints."""
  start = start or plan(config, workdir)
  root = checkpoints_of(workdir)
  root.mkdir(parents=True)
  lineage = start.lineage.to_dict()
  (workdir / 'lineage.json').write_text(json.dumps(lineage))
  resolved = resolved_of(config)
  (workdir / 'config.json').write_text(json.dumps(resolved))
  saver = checkpoint.Saver(root, keep_last=9, keep_steps=())
  state = jax.device_put({'w': np.zeros(3, np.float32)})
  for step in steps:
    drawn = dict.fromkeys(streams_of(config).values(), 8 * step)
    position = {'drawn': drawn, 'owed': {}, 'shares': {}}
    metadata = {'config': resolved, 'lineage': lineage, 'data': position}
    saver.save(step, state, metadata)
  saver.wait()


def with_schedule(config, **changes):
  schedule = dataclasses.replace(config.optimizer.schedule, **changes)
  return dataclasses.replace(config, optimizer=AdamW(schedule=schedule))
