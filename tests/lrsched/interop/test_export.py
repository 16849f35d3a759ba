"""Tables for other frameworks hold exactly the rates that are applied."""

from __future__ import annotations

import csv
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrsched
from lrsched import interop
from lrsched.interop import export
from tests.registry import SCHEDULES


@pytest.mark.parametrize('name', SCHEDULES)
def test_csv_is_read_back_to_equal_values(name):
  table = interop.to_table(SCHEDULES[name], 60)
  rows = list(csv.DictReader(io.StringIO(interop.to_csv(SCHEDULES[name], 60))))
  assert [int(row['step']) for row in rows] == list(range(60))
  read = np.asarray([row['lr'] for row in rows], np.float32)
  assert read.tolist() == table
  assert all(type(lr) is float for lr in table)


def test_the_table_is_what_an_update_is_multiplied_by():
  spec = lrsched.Cosine(peak_lr=3e-4, final_lr=1e-6, total_steps=50)
  tx = lrsched.scale_by_lr(spec)

  def body(state, _):
    update, state = tx.update(jnp.float32(1.0), state)
    return state, -update

  _, applied = jax.lax.scan(body, tx.init(jnp.float32(0.0)), length=60)
  # Another program may round the last bit another way.
  np.testing.assert_allclose(
    interop.to_table(spec, 60), np.asarray(applied), rtol=3e-7
  )


def test_json_holds_the_spec_to_make_the_table_again():
  spec = lrsched.Warmup(
    schedule=lrsched.Linear(peak_lr=0.1, total_steps=20), warmup_steps=3
  )
  data = json.loads(interop.to_table_json(spec, 30))
  again = lrsched.from_json(json.dumps(data['spec']))
  assert again == spec
  assert data['lr'] == interop.to_table(again, 30)
  assert len(data['lr']) == 30


def test_schedules_of_one_structure_share_a_program():
  sizes = set()
  for peak_lr in (0.1, 0.2, 0.3):
    interop.to_table(lrsched.Linear(peak_lr=peak_lr, total_steps=31), 33)
    sizes.add(export._evaluate._cache_size())
  assert len(sizes) == 1


@pytest.mark.parametrize('write', [interop.to_table, interop.to_csv])
def test_refusals(write):
  with pytest.raises(ValueError, match='read other callables with from_optax'):
    write(optax.constant_schedule(0.1), 10)
  with pytest.raises(ValueError, match='total_steps must be a whole number'):
    write(lrsched.Constant(lr=0.1), 0)
