"""Every way to go on x steps or tokens x one or two processes: no silent cell.

What is expected is written down in closed form; the plan, which reads no file,
must say it, and three real updates on each side must do it.
"""

import functools
import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

import lrsched
from tests.integration import restore_cells as cells
from tests.integration import tiny_run
from trainers.metrics import read_metrics
from trainers.outline import event_lines
from trainers.start import read_lineage

PEAK, AT = cells.PEAK, cells.SAVED
EVERY = [(name, units) for name in cells.CELLS for units in cells.UNITS]
# Runs in tokens differ in the schedule alone, whose curve is always asserted.
BY_UNITS = ['steps', pytest.param('tokens', marks=pytest.mark.slow)]


def falling(u, peak_lr=PEAK, total_steps=38):
  """The trunk's LR after u full batches."""
  if u < 2:
    return peak_lr * (u + 1) / 2
  return peak_lr * (1 - (u - 2) / total_steps)


def rewarmed(u, at):
  k, start = u - at, falling(at)
  if k < 2:
    return start + (2 * PEAK - start) * (k + 1) / 2
  return 2 * PEAK * (1 - (k - 2) / 20)


def expected_lr(name, units, t):
  """The LR of update t of what follows, by hand."""
  at = AT - cells.LAG[units]
  u = t - cells.LAG[units]
  match name:
    case 'same' | 'changed optimizer tree' | 'optimizer reset':
      return falling(u)
    case 'longer horizon':
      return falling(u, total_steps=58)
    case 'new peak':
      return falling(u, peak_lr=PEAK / 4)
    case 'decay branch':
      return PEAK * (1 - (u - at) / 3)
    case 're-warm':
      return rewarmed(u, at)
    case 'annealing branch':
      return PEAK / 2 * 0.2 ** ((u - at) / 3)
    case 'other batch size':
      # By updates the LR does not care; by tokens it falls half as fast.
      return falling(t) if units == 'steps' else falling(at + (t - AT) / 2)
    case 'weights only' | 'foreign weights':
      # In tokens the first two batches are half ones.
      return falling([0, 1, 2][t] if units == 'steps' else [0, 0.5, 1][t])
  raise AssertionError(name)


def updates_of(name):
  begins_anew = cells.CELLS[name].carry == 'weights'
  return range(3) if begins_anew else range(AT, AT + 3)


def plan_of(name, units):
  """What the library alone decides; None where there is nothing to restore."""
  cell = cells.CELLS[name]
  if cell.policy is None:
    return None
  return lrsched.plan_restore(
    cells.spec_in(units, cell.trunk),
    AT,
    cells.asked_spec(cell, units),
    cell.policy,
    cell.carry,
  )


@pytest.mark.parametrize(('name', 'units'), EVERY)
def test_the_plan_is_the_curve(name, units):
  plan = plan_of(name, units)
  spec = plan.spec if plan else cells.asked_spec(cells.CELLS[name], units)
  updates = updates_of(name)
  if plan:
    assert plan.step == updates[0]
  for t in updates:
    expected = expected_lr(name, units, t)
    assert float(spec(t)) == pytest.approx(expected, rel=2e-6), t
  if name == 'same':
    assert plan.diff == ()
  elif plan and (units, name) != ('steps', 'other batch size'):
    # Whatever changes is said; a batch size is not the schedule's to say.
    assert plan.diff


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """A cell by one process, which runs it once."""
  folder = tmp_path_factory.mktemp('one')
  cells.write_tokens(folder)
  return functools.cache(functools.partial(cells.run_cell, folder))


def check_cell(name, units, found):
  """Three updates on each side, the diff that was printed, and the record."""
  workdir, trunk = pathlib.Path(found['workdir']), pathlib.Path(found['trunk'])
  train, evaluations = read_metrics(workdir)
  updates = updates_of(name)
  by_step = {row['step']: row for row in train}
  for t in updates:
    spec = cells.asked_spec(cells.CELLS[name], units)
    # The LR that was applied, to the bit of the schedule's.
    assert by_step[t]['lr'] == lrsched.lr_at(spec, t), t
    expected = expected_lr(name, units, t)
    assert by_step[t]['lr'] == pytest.approx(expected, rel=2e-6)
    assert np.isfinite(by_step[t]['loss'])
  before = {row['step']: row for row in read_metrics(trunk)[0]}
  assert [before[t]['lr'] > 0 for t in range(AT - 3, AT)] == [True] * 3
  lineage = read_lineage(workdir)
  event = lineage.events[-1]
  plan = plan_of(name, units)
  policy = cells.CELLS[name].policy or 'start'
  assert (event.kind, event.step) == (policy, updates[0])
  # What the plan says is in the record, and was printed.
  for line in plan.diff if plan else ():
    noted = f'config.optimizer.{line}' if 'schedule.' in line else line
    assert noted in event.note, (noted, event.note)
  for line in event_lines(event):
    assert line in found['said']
  if policy == 'branch':
    parent = (lineage.parent.step, lineage.parent.carry)
    assert parent == (AT, cells.CELLS[name].carry)
  if policy in ('branch', 'start'):
    # What it begins with is what the trunk had: the weights are the same.
    first = np.load(workdir / 'evals' / f'{updates[0]}.npy')
    old = np.load(trunk / 'evals' / f'{AT}.npy')
    np.testing.assert_array_equal(first, old)
    assert evaluations[0]['step'] == updates[0]
  return np.array([by_step[t]['loss'] for t in updates])


@pytest.mark.parametrize('units', BY_UNITS)
@pytest.mark.parametrize('name', cells.CELLS)
def test_one_process_does_it(one, name, units):
  check_cell(name, units, one(name, units))


@pytest.mark.parametrize('units', BY_UNITS)
def test_a_restored_optimizer_is_not_a_new_one(one, units):
  """With the moments or without: the same weights and LR, another update."""
  losses = {
    name: check_cell(name, units, one(name, units))
    for name in ('same', 'optimizer reset', 'changed optimizer tree')
  }
  # The first loss is of the same weights and batch, before any update.
  assert len({x[0] for x in losses.values()}) == 1
  assert len({x[2] for x in losses.values()}) == 3


@pytest.mark.parametrize('units', BY_UNITS)
def test_the_data_goes_on_whatever_the_batch_size(one, units):
  """The first half of the trunk's next batch, then its second half."""
  whole = check_cell('same', units, one('same', units))
  found = one('other batch size', units)
  halves = check_cell('other batch size', units, found)
  assert whole[0] != halves[0]
  note = read_lineage(pathlib.Path(found['workdir'])).events[0].note
  assert not any(line.startswith('data:') for line in note)


def test_another_tree_without_leaving_the_state_is_refused(one, tmp_path):
  trunk = one('same', 'steps')['trunk']
  folder = pathlib.Path(trunk).parent
  cell = cells.CELLS['changed optimizer tree']
  config = cells.config_of(
    folder, 'steps', cells.FALLING, cell, cells.ramp_of(cell)
  )
  with pytest.raises(ValueError, match='opt_state') as error:
    cells.run(config, tmp_path / 'x', branch_from=f'{trunk}@{AT}')
  said = str(error.value)
  assert 'opt_state/1/0/nu/' in said.replace('opt_state/0/', 'opt_state/1/')
  assert 'branch with carry=no_optimizer' in said
  assert not (tmp_path / 'x').exists()


@pytest.mark.slow
def test_two_processes_do_all_of_it(one, tmp_path):
  """One launch of two processes runs every cell, and gets the same losses."""
  cells.write_tokens(tmp_path)
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    port = listener.getsockname()[1]
  program = [sys.executable, '-m', 'tests.integration.restore_cells']
  processes = [
    subprocess.Popen(
      [*program, str(tmp_path), str(port), str(rank)],
      cwd=tiny_run.ROOT,
      env=tiny_run.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(2)
  ]
  outputs = [process.communicate(timeout=900) for process in processes]
  for process, (_, said) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, said
  found = json.loads(outputs[0][0].splitlines()[-1])
  for name, units in EVERY:
    two = found[f'{name}, {units}']
    # Sums in another order: the weights at the checkpoint are not bit-equal.
    np.testing.assert_allclose(
      losses_of(two, name), losses_of(one(name, units), name), rtol=1e-4
    )
    check_cell(name, units, two)


def losses_of(found, name):
  train, _ = read_metrics(found['workdir'])
  by_step = {row['step']: row['loss'] for row in train}
  return [by_step[t] for t in updates_of(name)]
