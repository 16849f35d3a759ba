"""Runs and their branches as trees: who came from whom, and what all cost.

A run with branches is trained once, however many branches leave it. So what a
set of runs cost is less than what each result would have cost alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lrsched.lineage import Carry
from lrsched.lineage import Lineage


class Node(NamedTuple):
  """A run and the branches that left it.

  Attributes:
    workdir: the run's folder, by which it is known.
    lineage: the run's record.
    end_step: updates done; a branch that left later proves that there were
      more, and counts instead.
    children: its branches, the latest first: drawn in this order below their
      parent, none crosses another.
  """

  workdir: str
  lineage: Lineage
  end_step: int
  children: tuple[Node, ...]


class Forest(NamedTuple):
  """The trees of a set of runs.

  Attributes:
    roots: runs without a parent, and branches whose parent is not in the set.
    remarks: a line for each thing that the records leave open.
  """

  roots: tuple[Node, ...]
  remarks: tuple[str, ...]

  def nodes(self) -> tuple[Node, ...]:
    """Every node, each run before its branches."""
    return tuple(node for root in self.roots for node in _walk(root))


class Stretch(NamedTuple):
  """Updates `start_step <= t < end_step` of one run."""

  workdir: str
  start_step: int
  end_step: int


class Compute(NamedTuple):
  """What a set of runs cost, in the unit of the cost function.

  Attributes:
    total: every update counted once.
    alone: by workdir, what each result would have cost without the others: the
      run and what it took from its ancestors. A result is a run that goes on
      after its last branch has left it, or has none.
  """

  total: int
  alone: dict[str, int]

  @property
  def saved(self) -> int:
    """What the shared updates saved, >= 0."""
    return sum(self.alone.values()) - self.total


def forest_of(records: Mapping[str, tuple[Lineage, int]]) -> Forest:
  """The trees of runs.

  A run that was repeated in another folder has the same id, and is a run of its
  own. A branch belongs to the one in `Parent.workdir` or, if that is not among
  them, to the first of the parent's id: all of them began alike.

  Args:
    records: by each run's workdir, its lineage and the updates done, in
      `Lineage`'s count.

  Returns:
    The trees, roots in the order of the records.

  Raises:
    ValueError: if a run ended before it began, runs of one id have unlike
      parents, or runs are each other's ancestors.

  Example:
    >>> from lrsched import Lineage, Parent
    >>> trunk = Lineage('trunk', None, ())
    >>> branch = Lineage('branch', Parent('trunk', 'runs/a', 90), ())
    >>> tree = forest_of({'runs/a': (trunk, 90), 'runs/b': (branch, 100)})
    >>> [node.workdir for node in tree.nodes()]
    ['runs/a', 'runs/b']
  """
  same: dict[str, list[str]] = {}
  for workdir, (lineage, end_step) in records.items():
    if end_step < lineage.start_step:
      raise ValueError(
        f'end_step of run {workdir!r} must be >= {lineage.start_step}, where '
        f'it began, got {end_step}'
      )
    first, *_ = same.setdefault(lineage.run_id, [workdir])
    if _origin(records[first][0]) != _origin(lineage):
      raise ValueError(
        f'runs {first!r} and {workdir!r} have the id {lineage.run_id!r} and '
        'must have one parent, step and carry; one of the records is not the '
        'one that was written'
      )
    if first != workdir:
      same[lineage.run_id].append(workdir)
  branches: dict[str, list[str]] = {workdir: [] for workdir in records}
  roots: list[str] = []
  orphans: dict[str, list[str]] = {}
  for workdir, (lineage, _) in records.items():
    parent = lineage.parent
    if parent is not None and parent.run_id in same:
      known = same[parent.run_id]
      above = parent.workdir if parent.workdir in known else known[0]
      branches[above].append(workdir)
      continue
    roots.append(workdir)
    if parent is not None:
      orphans.setdefault(parent.run_id, []).append(workdir)
  remarks = [
    f'parent {parent!r} of {len(left)} of the runs is not among them: what '
    'came before they left it is not counted'
    for parent, left in orphans.items()
  ]

  def node(workdir: str) -> Node:
    lineage, end_step = records[workdir]
    leaving = sorted(
      branches[workdir],
      key=lambda branch: _branch_step(records[branch][0]),
      reverse=True,
    )
    children = tuple(node(branch) for branch in leaving)
    last = max((_branch_step(c.lineage) for c in children), default=0)
    if last > end_step:
      remarks.append(
        f'run {workdir!r} is recorded to step {end_step}, but a branch left it '
        f'at {last}: it is counted to there'
      )
      end_step = last
    return Node(workdir, lineage, end_step, children)

  trees = tuple(node(workdir) for workdir in roots)
  reached = {n.workdir for root in trees for n in _walk(root)}
  if circle := sorted(records.keys() - reached):
    raise ValueError(
      f'parent of runs {circle} leads back to themselves; one of the records '
      'is not the one that was written'
    )
  return Forest(trees, tuple(remarks))


def ancestry(tree: Forest, workdir: str) -> tuple[Stretch, ...]:
  """The updates that made a run's weights, the oldest ancestor's first.

  Args:
    tree: the runs.
    workdir: which of them.

  Returns:
    One stretch for each run, up to where the next one left it, the run's own
    last. A branch that carries the weights only begins at step 0.

  Raises:
    ValueError: if there is no such run.

  Example:
    >>> from lrsched import Lineage, Parent
    >>> trunk = Lineage('trunk', None, ())
    >>> branch = Lineage('branch', Parent('trunk', 'a', 90), ())
    >>> tree = forest_of({'a': (trunk, 200), 'b': (branch, 100)})
    >>> [tuple(stretch) for stretch in ancestry(tree, 'b')]
    [('a', 0, 90), ('b', 90, 100)]
  """
  nodes = {node.workdir: node for node in tree.nodes()}
  if workdir not in nodes:
    raise ValueError(f'workdir must be one of {sorted(nodes)}, got {workdir!r}')
  parents = {
    child.workdir: node for node in nodes.values() for child in node.children
  }
  node = nodes[workdir]
  stretches = [Stretch(workdir, node.lineage.start_step, node.end_step)]
  while node.workdir in parents:
    left_at, node = _branch_step(node.lineage), parents[node.workdir]
    own = Stretch(node.workdir, node.lineage.start_step, left_at)
    stretches.insert(0, own)
  return tuple(stretches)


def updates_in(stretch: Stretch) -> int:
  """How many updates a stretch has."""
  return stretch.end_step - stretch.start_step


def compute_of(
  tree: Forest, cost: Callable[[Stretch], int] = updates_in
) -> Compute:
  """What the runs cost, with every update counted once.

  An update that was made again after a kill or a fallback counts once too: the
  count is of the updates that are in the results. A run that was repeated in
  another folder counts again.

  Args:
    tree: the runs. Those of parents that are not among them are not counted.
    cost: of a stretch of one run: its updates, or sequences or tokens where
      batch sizes differ. It must add up over adjacent stretches.

  Example:
    Two decays of ten updates from one trunk, of a batch of 8 sequences:

    >>> from lrsched import Lineage, Parent
    >>> runs = {'runs/trunk': (Lineage('trunk', None, ()), 90)}
    >>> for name, step in (('a', 40), ('b', 90)):
    ...   line = Lineage(name, Parent('trunk', 'runs/trunk', step), ())
    ...   runs[name] = (line, step + 10)
    >>> compute_of(forest_of(runs))
    Compute(total=110, alone={'b': 100, 'a': 50})
    >>> compute_of(forest_of(runs), lambda s: 8 * updates_in(s)).saved
    320
  """
  total, alone = 0, {}
  for node in tree.nodes():
    *before, own = ancestry(tree, node.workdir)
    total += cost(own)
    last_branch = max(
      (_branch_step(c.lineage) for c in node.children), default=0
    )
    if not node.children or node.end_step > last_branch:
      alone[own.workdir] = sum(map(cost, before)) + cost(own)
  return Compute(total, alone)


def _walk(node: Node) -> list[Node]:
  return [node, *(deep for child in node.children for deep in _walk(child))]


def _branch_step(lineage: Lineage) -> int:
  return lineage.parent.step if lineage.parent is not None else 0


def _origin(lineage: Lineage) -> tuple[str, int, Carry] | None:
  """What the run id stands for besides the config; the folder is not in it."""
  parent = lineage.parent
  return parent and (parent.run_id, parent.step, parent.carry)
