"""Trees of runs and what they cost, against sets of single updates."""

import hypothesis
import pytest
from hypothesis import strategies as st

import lrsched
from lrsched import Lineage
from lrsched import Parent

CARRIES = ('all', 'no_optimizer', 'weights')


def run_of(run_id, parent=None, step=0, carry='all'):
  made_by = None if parent is None else Parent(parent, 'runs', step, carry)
  return Lineage(run_id, made_by, ())


@st.composite
def families(draw):
  """Runs of random trees, in any order; none is left after its end."""
  runs = [(run_of('0'), draw(st.integers(1, 20)))]
  for i in range(1, draw(st.integers(1, 8))):
    parent, parent_end = runs[draw(st.integers(0, i - 1))]
    if draw(st.integers(0, 5)) == 0:
      lineage = run_of(str(i))
    else:
      step = draw(st.integers(parent.start_step, parent_end))
      carry = draw(st.sampled_from(CARRIES))
      lineage = run_of(str(i), parent.run_id, step, carry)
    end = lineage.start_step + draw(st.integers(0, 12))
    runs.append((lineage, end))
  return draw(st.permutations(runs))


def updates(runs, run_id, until=None):
  """Every update behind a run's weights, as (run, step), one by one."""
  lineage, end = next(r for r in runs if r[0].run_id == run_id)
  stop = end if until is None else until
  own = {(run_id, t) for t in range(lineage.start_step, stop)}
  if lineage.parent is None:
    return own
  return own | updates(runs, lineage.parent.run_id, lineage.parent.step)


@hypothesis.given(families())
def test_every_update_is_counted_once(runs):
  tree = lrsched.forest_of(runs)
  cost = lrsched.compute_of(tree)
  all_of_them = set()
  for lineage, _ in runs:
    all_of_them |= updates(runs, lineage.run_id)
  assert cost.total == len(all_of_them)
  for run_id, alone in cost.alone.items():
    assert alone == len(updates(runs, run_id))
  assert cost.saved >= 0
  # The results hold every update: nothing was computed for none of them.
  of_results = [updates(runs, run_id) for run_id in cost.alone]
  assert set().union(*of_results) == all_of_them


@hypothesis.given(families())
def test_the_tree_holds_every_run_below_its_parent(runs):
  tree = lrsched.forest_of(runs)
  nodes = tree.nodes()
  assert sorted(n.lineage.run_id for n in nodes) == sorted(
    lineage.run_id for lineage, _ in runs
  )
  assert tree.remarks == ()
  for node in nodes:
    steps = [child.lineage.parent.step for child in node.children]
    assert steps == sorted(steps, reverse=True)
    for child in node.children:
      assert child.lineage.parent.run_id == node.lineage.run_id
  for lineage, _ in runs:
    line = lrsched.ancestry(tree, lineage.run_id)
    assert sum(map(lrsched.updates_in, line)) == len(
      updates(runs, lineage.run_id)
    )


@hypothesis.given(families(), st.data())
def test_batches_of_unlike_sizes(runs, data):
  """A cost per update of each run: the sum over single updates."""
  sizes = {r.run_id: data.draw(st.integers(1, 9), r.run_id) for r, _ in runs}
  tree = lrsched.forest_of(runs)
  cost = lrsched.compute_of(
    tree, lambda s: sizes[s.run_id] * (s.end_step - s.start_step)
  )
  assert cost.total == sum(
    sizes[r.run_id] * (end - r.start_step) for r, end in runs
  )
  for run_id, alone in cost.alone.items():
    assert alone == sum(sizes[name] for name, _ in updates(runs, run_id))


def test_weights_alone_cost_their_parent_too():
  tree = lrsched.forest_of(
    [(run_of('a'), 100), (run_of('b', 'a', 60, 'weights'), 30)]
  )
  assert lrsched.ancestry(tree, 'b') == (('a', 0, 60), ('b', 0, 30))
  assert lrsched.compute_of(tree) == (130, {'a': 100, 'b': 90})


def test_a_trunk_that_only_carries_is_no_result():
  trunk = (run_of('a'), 90)
  branch = (run_of('b', 'a', 90), 100)
  cost = lrsched.compute_of(lrsched.forest_of([trunk, branch]))
  assert cost == (100, {'b': 100})
  assert cost.saved == 0


def test_an_unknown_parent_is_said_and_not_counted():
  runs = [(run_of(n, 'gone', 900), 1000) for n in ('a', 'b')]
  tree = lrsched.forest_of(runs)
  assert [n.lineage.run_id for n in tree.roots] == ['a', 'b']
  assert tree.remarks == (
    "parent 'gone' of 2 of the runs is not among them: what came before they "
    'left it is not counted',
  )
  assert lrsched.compute_of(tree) == (200, {'a': 100, 'b': 100})


def test_a_branch_proves_the_updates_before_it():
  """A log can be some updates behind the checkpoint that was branched from."""
  tree = lrsched.forest_of([(run_of('a'), 85), (run_of('b', 'a', 90), 95)])
  assert tree.roots[0].end_step == 90
  assert 'a branch left it at 90' in tree.remarks[0]
  assert lrsched.compute_of(tree).total == 95


def test_one_id_twice_is_refused():
  with pytest.raises(ValueError, match="run_id must be unique, got 'a' twice"):
    lrsched.forest_of([(run_of('a'), 1), (run_of('a'), 2)])


@pytest.mark.parametrize('size', [1, 2, 3])
def test_a_circle_is_refused(size):
  names = [str(i) for i in range(size)]
  circle = [(run_of(name, names[i - 1], 5), 10) for i, name in enumerate(names)]
  with pytest.raises(ValueError, match='leads back to themselves'):
    lrsched.forest_of([(run_of('x'), 3), *circle])


def test_an_end_before_the_start_is_refused():
  with pytest.raises(ValueError, match=r'end_step of run .* must be >= 90'):
    lrsched.forest_of([(run_of('b', 'a', 90), 80)])


def test_an_unknown_run_has_no_ancestry():
  tree = lrsched.forest_of([(run_of('a'), 1)])
  with pytest.raises(ValueError, match=r"run_id must be one of \['a'\]"):
    lrsched.ancestry(tree, 'b')
