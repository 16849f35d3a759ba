"""Schedules as JSON: exact, strict, and every failure one ValueError."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import lrsched
from tests.registry import SCHEDULES
from tests.registry import WSD

GOLDEN = (
  '{"lrsched": 1, "kind": "WSD", "peak_lr": 0.001, "final_lr": 0.0, '
  '"warmup_steps": 10, "stable_steps": 70, "decay_steps": 20, '
  '"decay": {"kind": "LinearDecay"}}'
)


def test_format_is_what_it_was():
  """Files that exist must stay readable: a change needs a new version."""
  assert lrsched.to_json(WSD) == GOLDEN
  assert lrsched.from_json(GOLDEN) == WSD


def test_tables_are_lists():
  table = lrsched.Tabulated(lrs=np.asarray([0.1, 1e-3]))
  text = lrsched.to_json(table)
  assert text == '{"lrsched": 1, "kind": "Tabulated", "lrs": [0.1, 0.001]}'
  assert lrsched.from_json(text) == table


def test_numpy_and_jax_scalars_are_written_as_numbers():
  spec = lrsched.Linear(peak_lr=jnp.float32(0.5), total_steps=np.int64(10))
  assert lrsched.to_dict(spec)['peak_lr'] == 0.5
  assert lrsched.from_json(lrsched.to_json(spec)).total_steps == 10


def test_a_traced_leaf_cannot_be_written():
  with pytest.raises(ValueError, match=r'Constant\.lr must be a single known'):
    jax.jit(lambda x: lrsched.to_json(lrsched.Constant(lr=x)))(1.0)


TABLE = '{"lrsched": 1, "kind": "Tabulated", "lrs": %s}'
BAD = [
  ('{"a": 1', 'schedule: not JSON'),
  ('[1]', 'schedule must be an object'),
  ('{"kind": "Constant", "lr": 1}', r'schedule\.lrsched must be the format'),
  (GOLDEN.replace('"lrsched": 1', '"lrsched": 2'), 'version 1, got 2'),
  (GOLDEN.replace('WSD', 'wsd'), r"schedule\.kind must be one of.*got 'wsd'"),
  (GOLDEN.replace('"WSD"', '["WSD"]'), r'schedule\.kind must be one of'),
  (GOLDEN.replace('LinearDecay', 'WSD'), r'schedule\.decay\.kind must be one'),
  (GOLDEN.replace('peak_lr', 'peek_lr'), r'schedule\.peek_lr is not a field'),
  (GOLDEN.replace('"peak_lr": 0.001, ', ''), r'schedule\.peak_lr is missing'),
  (GOLDEN.replace('"final_lr": 0.0, ', ''), r'schedule\.final_lr is missing'),
  (GOLDEN.replace('0.001', '"0.001"'), r'schedule\.peak_lr must be a number'),
  (GOLDEN.replace('0.001', 'NaN'), r'WSD\.peak_lr must be a finite'),
  (GOLDEN.replace('0.001', '1e999'), r'WSD\.peak_lr must be a finite'),
  (GOLDEN.replace('0.001', 'true'), r'WSD\.peak_lr must be a finite'),
  (GOLDEN.replace('70', '7' * 5000), r'WSD\.stable_steps must be a whole'),
  (GOLDEN.replace('70', '70.0'), r'WSD\.stable_steps must be a whole'),
  (GOLDEN.replace('final_lr', 'peak_lr'), "key 'peak_lr' is given twice"),
  (TABLE % '5', r'schedule\.lrs must be a list, got 5'),
  (TABLE % '[]', r'Tabulated\.lrs must be a list of at least 1'),
  (TABLE % '[1, "a"]', r"Tabulated\.lrs\[1\] must be a finite .* got 'a'"),
  (TABLE % '[1, NaN]', r'Tabulated\.lrs\[1\] must be a finite .* got nan'),
  (TABLE % '[true]', r'Tabulated\.lrs\[0\] must be a finite'),
  ('[' * 100_000, 'schedule'),
  (
    '{"lrsched": 1, '
    + '"kind": "Scaled", "factor": 1, "schedule": {' * 40
    + '}' * 41,
    'nested deeper than 32',
  ),
]


@pytest.mark.parametrize(('text', 'message'), BAD)
def test_bad_text_names_the_field(text, message):
  with pytest.raises(ValueError, match=message):
    lrsched.from_json(text)


def test_text_must_be_text():
  with pytest.raises(ValueError, match='must be JSON text, got dict'):
    lrsched.from_json({})


values = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.text(max_size=5),
  st.sampled_from(['WSD', 'LinearDecay', '__class__']),
  # Made anew each time: a later mutation may change them.
  st.builds(dict),
  st.builds(list),
  st.builds(lambda: [1, {}]),
)


@st.composite
def mutated_specs(draw):
  """A valid spec with one to three nodes replaced, removed or added."""
  name = draw(st.sampled_from(sorted(SCHEDULES)))
  data = json.loads(lrsched.to_json(SCHEDULES[name]))
  for _ in range(draw(st.integers(1, 3))):
    node = data
    while True:
      inner = [
        v
        for v in (node.values() if isinstance(node, dict) else node)
        if isinstance(v, (dict, list)) and v
      ]
      if not inner or draw(st.booleans()):
        break
      node = draw(st.sampled_from(inner))
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
      continue
    key = draw(st.sampled_from(keys))
    action = draw(st.sampled_from(['replace', 'remove', 'add']))
    if action == 'replace':
      node[key] = draw(values)
    elif action == 'remove':
      del node[key]
    elif isinstance(node, dict):
      node[draw(st.text(max_size=5))] = draw(values)
    else:
      node.append(draw(values))
  return json.dumps(data)


@settings(
  max_examples=3000,
  deadline=None,
  derandomize=True,
  suppress_health_check=list(HealthCheck),
)
@given(mutated_specs())
def test_a_mutated_spec_is_valid_or_one_value_error(text):
  try:
    spec = lrsched.from_json(text)
  except ValueError as error:
    named = str(error).startswith('schedule')
    assert named, error  # noqa: PT017  # valid text must not raise at all
  else:
    assert lrsched.from_json(lrsched.to_json(spec)) == spec


def test_diff_names_paths_kinds_and_what_is_absent():
  linear = lrsched.Linear(peak_lr=0.001, total_steps=100)
  lines = lrsched.diff(lrsched.to_dict(WSD), lrsched.to_dict(linear))
  assert 'schedule.kind: WSD -> Linear' in lines
  assert 'schedule.warmup_steps: 10 -> (absent)' in lines
  assert 'schedule.total_steps: (absent) -> 100' in lines
  assert not any('peak_lr' in line for line in lines)
