"""Trees of runs and what they cost, against sets of single updates."""

import hypothesis
import pytest
from hypothesis import strategies as st

import lrsched
from lrsched import Lineage
from lrsched import Parent

CARRIES = ('all', 'no_optimizer', 'weights')


def run_of(run_id, parent=None, step=0, carry='all', workdir='elsewhere'):
  made_by = None if parent is None else Parent(parent, workdir, step, carry)
  return Lineage(run_id, made_by, ())


def forest_of(*runs):
  """Of runs whose workdir is their id."""
  return lrsched.forest_of({run.run_id: (run, end) for run, end in runs})


@st.composite
def families(draw):
  """Runs of random trees by workdir, in any order; none is left after its end.

  Some are repeated, perhaps for longer; a branch left one of them, which may
  not be there any more.
  """
  runs = [('w0', run_of('0'), draw(st.integers(1, 20)))]
  for i in range(1, draw(st.integers(1, 8))):
    above, parent, parent_end = runs[draw(st.integers(0, i - 1))]
    action = draw(st.integers(0, 5))
    if action == 0:
      lineage = run_of(str(i))
    elif action == 1:
      extra = draw(st.integers(0, 9))
      runs.append((f'w{i}', parent, parent_end + extra))
      continue
    else:
      ends = [end for _, run, end in runs if run.run_id == parent.run_id]
      step = draw(st.integers(parent.start_step, min(ends)))
      carry = draw(st.sampled_from(CARRIES))
      workdir = draw(st.sampled_from([above, 'gone']))
      lineage = run_of(str(i), parent.run_id, step, carry, workdir)
    end = lineage.start_step + draw(st.integers(0, 12))
    runs.append((f'w{i}', lineage, end))
  return {w: (run, end) for w, run, end in draw(st.permutations(runs))}


def parent_of(runs, workdir):
  """The workdir of a run's parent; None of a run without."""
  parent = runs[workdir][0].parent
  if parent is None or parent.workdir in runs:
    return parent and parent.workdir
  return next(w for w, (run, _) in runs.items() if run.run_id == parent.run_id)


def updates(runs, workdir, until=None):
  """Every update behind a run's weights, as (workdir, step), one by one."""
  lineage, end = runs[workdir]
  stop = end if until is None else until
  own = {(workdir, t) for t in range(lineage.start_step, stop)}
  if lineage.parent is None:
    return own
  return own | updates(runs, parent_of(runs, workdir), lineage.parent.step)


@hypothesis.given(families())
def test_every_update_is_counted_once(runs):
  tree = lrsched.forest_of(runs)
  cost = lrsched.compute_of(tree)
  all_of_them = set()
  for workdir in runs:
    all_of_them |= updates(runs, workdir)
  assert cost.total == len(all_of_them)
  for workdir, alone in cost.alone.items():
    assert alone == len(updates(runs, workdir))
  assert cost.saved >= 0
  # The results hold every update: nothing was computed for none of them.
  of_results = [updates(runs, workdir) for workdir in cost.alone]
  assert set().union(*of_results) == all_of_them


@hypothesis.given(families())
def test_the_tree_holds_every_run_below_its_parent(runs):
  tree = lrsched.forest_of(runs)
  nodes = tree.nodes()
  assert {n.workdir: n[1:3] for n in nodes} == runs
  assert len(nodes) == len(runs)
  assert tree.remarks == ()
  for node in nodes:
    parents = [child.lineage.parent for child in node.children]
    steps = [parent.step for parent in parents if parent is not None]
    assert len(steps) == len(parents)
    assert steps == sorted(steps, reverse=True)
    for child in node.children:
      assert parent_of(runs, child.workdir) == node.workdir
  for workdir in runs:
    line = lrsched.ancestry(tree, workdir)
    assert sum(map(lrsched.updates_in, line)) == len(updates(runs, workdir))


@hypothesis.given(families(), st.data())
def test_batches_of_unlike_sizes(runs, data):
  """A cost per update of each run: the sum over single updates."""
  sizes = {w: data.draw(st.integers(1, 9), w) for w in runs}
  tree = lrsched.forest_of(runs)
  cost = lrsched.compute_of(
    tree, lambda s: sizes[s.workdir] * (s.end_step - s.start_step)
  )
  assert cost.total == sum(
    sizes[w] * (end - run.start_step) for w, (run, end) in runs.items()
  )
  for workdir, alone in cost.alone.items():
    assert alone == sum(sizes[w] for w, _ in updates(runs, workdir))


def test_a_repeated_run_is_a_run_of_its_own():
  """The branch of one of two equal trunks belongs to that one."""
  runs = {'a': (run_of('t'), 90), 'b': (run_of('t'), 100)}
  runs['of b'] = (run_of('x', 't', 60, workdir='b'), 70)
  runs['moved'] = (run_of('y', 't', 50, workdir='c'), 60)
  tree = lrsched.forest_of(runs)
  below = {n.workdir: [c.workdir for c in n.children] for n in tree.roots}
  assert below == {'a': ['moved'], 'b': ['of b']}
  alone = {'a': 90, 'b': 100, 'of b': 70, 'moved': 60}
  assert lrsched.compute_of(tree) == (210, alone)


@pytest.mark.parametrize(
  'other', [run_of('a'), run_of('a', 'b', 3), run_of('a', 'b', 2, 'weights')]
)
def test_one_id_of_unlike_parents_is_refused(other):
  runs = {'x': (run_of('a', 'b', 2), 9), 'y': (other, 9)}
  with pytest.raises(ValueError, match="'x' and 'y' have the id 'a' and must"):
    lrsched.forest_of(runs)


def test_weights_alone_cost_their_parent_too():
  tree = forest_of((run_of('a'), 100), (run_of('b', 'a', 60, 'weights'), 30))
  assert lrsched.ancestry(tree, 'b') == (('a', 0, 60), ('b', 0, 30))
  assert lrsched.compute_of(tree) == (130, {'a': 100, 'b': 90})


def test_a_trunk_that_only_carries_is_no_result():
  trunk = (run_of('a'), 90)
  branch = (run_of('b', 'a', 90), 100)
  cost = lrsched.compute_of(forest_of(trunk, branch))
  assert cost == (100, {'b': 100})
  assert cost.saved == 0


def test_an_unknown_parent_is_said_and_not_counted():
  runs = [(run_of(n, 'gone', 900), 1000) for n in ('a', 'b')]
  tree = forest_of(*runs)
  assert [n.workdir for n in tree.roots] == ['a', 'b']
  assert tree.remarks == (
    "parent 'gone' of 2 of the runs is not among them: what came before they "
    'left it is not counted',
  )
  assert lrsched.compute_of(tree) == (200, {'a': 100, 'b': 100})


def test_a_branch_proves_the_updates_before_it():
  """A log can be some updates behind the checkpoint that was branched from."""
  tree = forest_of((run_of('a'), 85), (run_of('b', 'a', 90), 95))
  assert tree.roots[0].end_step == 90
  assert 'a branch left it at 90' in tree.remarks[0]
  assert lrsched.compute_of(tree).total == 95


@pytest.mark.parametrize('size', [1, 2, 3])
def test_a_circle_is_refused(size):
  names = [str(i) for i in range(size)]
  circle = [(run_of(name, names[i - 1], 5), 10) for i, name in enumerate(names)]
  with pytest.raises(ValueError, match='leads back to themselves'):
    forest_of((run_of('x'), 3), *circle)


def test_an_end_before_the_start_is_refused():
  with pytest.raises(ValueError, match=r'end_step of run .* must be >= 90'):
    forest_of((run_of('b', 'a', 90), 80))


def test_an_unknown_run_has_no_ancestry():
  tree = forest_of((run_of('a'), 1))
  with pytest.raises(ValueError, match=r"workdir must be one of \['a'\]"):
    lrsched.ancestry(tree, 'b')
