"""The record of a run: what is written is read back, and nothing else is."""

import copy
import json

import pytest

import lrsched
from tests.registry import WSD

PARENT = lrsched.Parent('a1', 'runs/trunk', 900)
RUN = lrsched.Lineage('b2', PARENT, ()).recorded(900, 'branch', ('x: 1 -> 2',))


def test_what_is_as_usual_is_not_written():
  """So records are those that were written before there was a choice."""
  assert RUN.to_dict() == {
    'run_id': 'b2',
    'parent': {'run_id': 'a1', 'workdir': 'runs/trunk', 'step': 900},
    'events': [{'step': 900, 'kind': 'branch', 'note': ['x: 1 -> 2']}],
  }


@pytest.mark.parametrize(
  'run',
  [
    RUN,
    lrsched.Lineage('a', None, ()),
    RUN.recorded(950, 'stop', ()),
    RUN.recorded(950, 'decay', ('by command',), lrsched.to_dict(WSD)),
    RUN._replace(parent=PARENT._replace(carry='weights')),
    RUN._replace(parent=PARENT._replace(carry='no_optimizer')),
  ],
)
def test_a_record_survives_json(run):
  read = lrsched.Lineage.from_dict(json.loads(json.dumps(run.to_dict())))
  assert read == run
  assert hash(read.parent) == hash(run.parent)


def test_the_schedule_of_a_decay_can_be_run_again():
  run = RUN.recorded(950, 'decay', (), lrsched.to_dict(WSD))
  written = run.to_dict()['events'][-1]['spec']
  assert lrsched.from_dict(written) == WSD


@pytest.mark.parametrize(
  ('carry', 'start'), [('all', 900), ('no_optimizer', 900), ('weights', 0)]
)
def test_weights_alone_begin_at_step_0(carry, start):
  run = RUN._replace(parent=PARENT._replace(carry=carry))
  assert run.start_step == start


def test_a_run_without_parent_begins_at_step_0():
  assert lrsched.Lineage('a', None, ()).start_step == 0


def test_a_begun_decay_runs_until_a_replacement():
  assert RUN.begun_decay is None
  run = RUN.recorded(950, 'decay', (), lrsched.to_dict(WSD))
  begun = run.events[-1]
  run = run.recorded(955, 'resume', ())
  assert run.begun_decay == begun
  assert run.recorded(960, 'replace', ()).begun_decay is None
  later = run.recorded(970, 'decay', (), lrsched.to_dict(WSD))
  assert later.begun_decay == later.events[-1]


DAMAGES = [
  (('run_id',), 3),
  (('events',), None),
  (('events',), 'x'),
  (('parent',), 'a1'),
  (('parent',), {}),
  (('parent', 'step'), '900'),
  (('parent', 'step'), True),
  (('parent', 'carry'), 'everything'),
  (('parent', 'carry'), None),
  (('parent', 'colour'), 'red'),
  (('events', 0, 'step'), 1.5),
  (('events', 0, 'kind'), None),
  (('events', 0, 'note'), 'one line'),
  (('events', 0, 'note'), [1]),
  (('events', 0, 'spec'), 'WSD'),
  (('events', 0, 'colour'), 'red'),
  (('colour',), 'red'),
]


@pytest.mark.parametrize(('path', 'value'), DAMAGES, ids=str)
def test_anything_else_is_refused(path, value):
  record = copy.deepcopy(RUN.to_dict())
  *parents, last = path
  node = record
  for name in parents:
    node = node[name]
  node[last] = value
  with pytest.raises(ValueError, match='not a lineage record'):
    lrsched.Lineage.from_dict(record)


@pytest.mark.parametrize('record', [None, [], 'x', {'run_id': 'b'}])
def test_what_is_no_record_at_all_is_refused(record):
  with pytest.raises(ValueError, match='not a lineage record'):
    lrsched.Lineage.from_dict(record)
