"""A run whose parameters have schedules of their own, or stand still."""

import dataclasses
import re

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2

import lrsched
from tests.integration.tiny_run import state_of
from tests.tiny import VOCAB_SIZE
from tests.tiny import compilations
from tests.tiny import fingerprint
from tests.tiny import tiny_run
from trainers.metrics import read_metrics
from trainers.optimizer import AdamW
from trainers.sources import TokenFile
from trainers.train import run

MAIN = lrsched.Linear(peak_lr=1e-2, total_steps=10)
BLOCKS = lrsched.Warmup(
  schedule=lrsched.Scaled(schedule=MAIN, factor=0.3), warmup_steps=3
)
GROUPS = {'embedding': None, '(?!.*norm/)blocks/.*': BLOCKS}


def config_of(groups, total_steps=5):
  source = TokenFile(
    train_path='train.bin', valid_path='valid.bin', dtype='uint8'
  )
  config = tiny_run(source)
  return dataclasses.replace(
    config,
    optimizer=AdamW(schedule=MAIN, groups=groups),
    total_steps=total_steps,
    checkpoint=dataclasses.replace(config.checkpoint, keep_steps=()),
  )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, 2000, np.uint8)
  tokens.tofile(tmp_path / 'train.bin')
  tokens[:600].tofile(tmp_path / 'valid.bin')
  monkeypatch.chdir(tmp_path)
  return tmp_path


def weights(workdir, step):
  """The weights of a checkpoint, by path."""
  state = state_of(workdir, step)
  return {k: x for k, x in state.items() if k.startswith("['params']")}


def logged(workdir, name, first=0):
  rows = read_metrics(workdir)[0]
  return [row[name] for row in rows if row['step'] >= first]


def test_the_lrs_of_all_groups_walk_from_config_to_weights_and_logs(folder):
  run(config_of(GROUPS), folder / 'a')
  before, after = weights(folder / 'a', 0), weights(folder / 'a', 5)
  same = {n for n in before if before[n].tobytes() == after[n].tobytes()}
  assert same == {"['params']['embedding']"}
  assert len(before) > 8
  lrs = {'lr': MAIN, 'lr/(?!.*norm/)blocks/.*': BLOCKS, 'lr/embedding': None}
  shown = EventAccumulator(str(folder / 'a' / 'tb')).Reload()
  for name, schedule in lrs.items():
    expected = [0 if schedule is None else float(schedule(t)) for t in range(5)]
    assert logged(folder / 'a', name) == pytest.approx(expected, rel=1e-6)
    in_events = [e.value for e in shown.Scalars(name)]
    assert in_events == pytest.approx(expected, rel=1e-6)
  [event] = shown.Tensors('custom_scalars__config__')
  layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
  charts = {
    chart.title: chart for group in layout.category for chart in group.chart
  }
  [pattern] = charts['as applied'].multiline.tag
  assert all(re.search(pattern, name) for name in lrs)


@pytest.mark.parametrize(
  ('groups', 'said'),
  [({'embeding': None}, 'it matches no path'), ({'.*': None}, 'must leave')],
)
def test_groups_that_do_not_fit_are_found_before_anything_is_done(
  folder, groups, said
):
  before = fingerprint(folder)
  with compilations() as compiled, pytest.raises(ValueError, match=said):
    run(config_of(groups), folder / 'a')
  assert compiled == []
  assert fingerprint(folder) == before


def test_a_restart_with_another_group_schedule_has_to_be_asked_for(folder):
  run(config_of(GROUPS), folder / 'a')
  slower = dataclasses.replace(BLOCKS, warmup_steps=4)
  asked = config_of({**GROUPS, '(?!.*norm/)blocks/.*': slower}, total_steps=8)
  before = fingerprint(folder / 'a')
  with pytest.raises(ValueError, match=r'blocks/\.\*\.warmup_steps: 3 -> 4'):
    run(asked, folder / 'a')
  assert fingerprint(folder / 'a') == before
  run(asked, folder / 'a', restore='replace')
  expected = [float(slower(t)) for t in (5, 6, 7)]
  name = 'lr/(?!.*norm/)blocks/.*'
  assert logged(folder / 'a', name, 5) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_branch_freezes_and_its_own_branch_unfreezes(folder):
  """Moments and the count of steps stay, whatever the groups are."""
  run(config_of({}), folder / 'trunk')
  frozen = config_of(GROUPS, total_steps=8)
  run(frozen, folder / 'b', branch_from='trunk@5')
  embedding = "['params']['embedding']"
  np.testing.assert_array_equal(
    weights(folder / 'b', 8)[embedding], weights(folder / 'trunk', 5)[embedding]
  )
  assert logged(folder / 'b', 'lr') == pytest.approx(
    [float(MAIN(t)) for t in (5, 6, 7)], rel=1e-6
  )
  first, trunk = state_of(folder / 'b', 5), state_of(folder / 'trunk', 5)
  changed = trunk.keys() ^ first.keys()
  assert all("['lr']" in n or "['lrs']" in n for n in changed)
  for name in trunk.keys() & first.keys():
    np.testing.assert_array_equal(first[name], trunk[name], err_msg=name)
  run(config_of({}, total_steps=10), folder / 'c', branch_from='b@8')
  run(config_of({}, total_steps=10), folder / 'd', branch_from='trunk@5')
  for name in ('c', 'd'):
    last = weights(folder / name, 10)
    assert np.all(last[embedding] != weights(folder / 'b', 8)[embedding])
  run(config_of({}, total_steps=10), folder / 'trunk', restore='replace')
  trunk, branch = state_of(folder / 'trunk', 10), state_of(folder / 'd', 10)
  for name in trunk:
    np.testing.assert_array_equal(trunk[name], branch[name], err_msg=name)
