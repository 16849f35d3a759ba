"""Imported schedules have the learning rates that the peers really gave.

The golden files are written by tests/lrsched/golden/make.py, which runs them.
"""

from __future__ import annotations

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import lrsched
from lrsched import interop

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'


def _cases(peer):
  data = json.loads((GOLDEN / f'{peer}.json').read_text())
  return [
    pytest.param(case, id=f'{i}-{_name(case)}')
    for i, case in enumerate(data['cases'])
  ]


def _name(case):
  given = {k: v for k, v in case.items() if k not in ('steps', 'lrs')}
  return json.dumps(given).replace('"', '')[:60]


def _check(spec, case, peak_lr, rtol=2e-6):
  lrs = spec(jnp.asarray(case['steps']))
  # Ours is float32 with a few roundings each; near 0 a rounding of the peak is
  # what is left of the peer's sum of a floor and a cosine.
  np.testing.assert_allclose(
    np.asarray(lrs), case['lrs'], rtol=rtol, atol=2e-8 * peak_lr
  )
  assert lrsched.from_json(lrsched.to_json(spec)) == spec


@pytest.mark.parametrize('case', _cases('torch'))
def test_torch(case):
  spec = interop.from_torch(
    case['base_lr'],
    case['schedulers'],
    case['milestones'],
    total_steps=case['total_steps'],
  )
  _check(spec, case, max(case['lrs']))


@pytest.mark.parametrize('case', _cases('transformers'))
def test_transformers(case):
  given = {k: v for k, v in case.items() if k not in ('steps', 'lrs')}
  _check(interop.from_transformers(**given), case, case['learning_rate'])


@pytest.mark.parametrize('case', _cases('megatron'))
def test_megatron(case):
  _check(interop.from_megatron(case['flags']), case, case['flags']['lr'])


@pytest.mark.parametrize('case', _cases('levanter'))
def test_levanter(case):
  spec = interop.from_levanter(case['config'], case['num_train_steps'])
  # Levanter itself is float32, with the roundings of optax.
  _check(spec, case, max(case['lrs']), rtol=1e-5)
