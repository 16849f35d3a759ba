"""Runs and their branches as trees: who came from whom, and what all cost.

A run with branches is trained once, however many branches leave it. So what a
set of runs cost is less than what each result would have cost alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lrsched.lineage import Lineage


class Node(NamedTuple):
  """A run and the branches that left it.

  Attributes:
    lineage: the run's record.
    end_step: updates done; a branch that left later proves that there were
      more, and counts instead.
    children: its branches, the latest first: drawn in this order below their
      parent, none crosses another.
  """

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

  run_id: str
  start_step: int
  end_step: int


class Compute(NamedTuple):
  """What a set of runs cost, in the unit of the cost function.

  Attributes:
    total: every update counted once.
    alone: by run id, what each result would have cost without the others: the
      run and what it took from its ancestors. A result is a run that goes on
      after its last branch has left it, or has none.
  """

  total: int
  alone: dict[str, int]

  @property
  def saved(self) -> int:
    """What the shared updates saved, >= 0."""
    return sum(self.alone.values()) - self.total


def forest_of(records: Iterable[tuple[Lineage, int]]) -> Forest:
  """The trees of runs.

  Args:
    records: of each run its lineage and the updates done, in `Lineage`'s count.

  Returns:
    The trees, roots in the order of the records.

  Raises:
    ValueError: if two runs have one id, a run ended before it began, or runs
      are each other's ancestors.

  Example:
    >>> from lrsched import Lineage, Parent
    >>> trunk = Lineage('trunk', None, ())
    >>> branch = Lineage('branch', Parent('trunk', 'runs/a', 90), ())
    >>> tree = forest_of([(trunk, 90), (branch, 100)])
    >>> [node.lineage.run_id for node in tree.nodes()]
    ['trunk', 'branch']
  """
  runs: dict[str, tuple[Lineage, int]] = {}
  for lineage, end_step in records:
    if lineage.run_id in runs:
      raise ValueError(
        f'run_id must be unique, got {lineage.run_id!r} twice; is one folder a '
        'copy of another?'
      )
    if end_step < lineage.start_step:
      raise ValueError(
        f'end_step of run {lineage.run_id!r} must be >= {lineage.start_step}, '
        f'where it began, got {end_step}'
      )
    runs[lineage.run_id] = (lineage, end_step)
  branches: dict[str, list[Lineage]] = {run_id: [] for run_id in runs}
  roots: list[str] = []
  orphans: dict[str, list[str]] = {}
  for lineage, _ in runs.values():
    parent = lineage.parent
    if parent is not None and parent.run_id in runs:
      branches[parent.run_id].append(lineage)
      continue
    roots.append(lineage.run_id)
    if parent is not None:
      orphans.setdefault(parent.run_id, []).append(lineage.run_id)
  remarks = [
    f'parent {parent!r} of {len(left)} of the runs is not among them: what '
    'came before they left it is not counted'
    for parent, left in orphans.items()
  ]

  def node(run_id: str) -> Node:
    lineage, end_step = runs[run_id]
    leaving = sorted(branches[run_id], key=_branch_step, reverse=True)
    if leaving and (last := _branch_step(leaving[0])) > end_step:
      remarks.append(
        f'run {run_id!r} is recorded to step {end_step}, but a branch left it '
        f'at {last}: it is counted to there'
      )
      end_step = last
    children = tuple(node(branch.run_id) for branch in leaving)
    return Node(lineage, end_step, children)

  trees = tuple(node(run_id) for run_id in roots)
  reached = {n.lineage.run_id for root in trees for n in _walk(root)}
  if circle := sorted(runs.keys() - reached):
    raise ValueError(
      f'parent of runs {circle} leads back to themselves; one of the records '
      'is not the one that was written'
    )
  return Forest(trees, tuple(remarks))


def ancestry(tree: Forest, run_id: str) -> tuple[Stretch, ...]:
  """The updates that made a run's weights, the oldest ancestor's first.

  Args:
    tree: the runs.
    run_id: which of them.

  Returns:
    One stretch for each run, up to where the next one left it, the run's own
    last. A branch that carries the weights only begins at step 0.

  Raises:
    ValueError: if there is no such run.

  Example:
    >>> from lrsched import Lineage, Parent
    >>> trunk = Lineage('trunk', None, ())
    >>> branch = Lineage('branch', Parent('trunk', 'runs/a', 90), ())
    >>> tree = forest_of([(trunk, 200), (branch, 100)])
    >>> [tuple(stretch) for stretch in ancestry(tree, 'branch')]
    [('trunk', 0, 90), ('branch', 90, 100)]
  """
  nodes = {node.lineage.run_id: node for node in tree.nodes()}
  if run_id not in nodes:
    raise ValueError(f'run_id must be one of {sorted(nodes)}, got {run_id!r}')
  lineage, end_step = nodes[run_id].lineage, nodes[run_id].end_step
  stretches = [Stretch(run_id, lineage.start_step, end_step)]
  while lineage.parent is not None and lineage.parent.run_id in nodes:
    left_at = lineage.parent.step
    lineage = nodes[lineage.parent.run_id].lineage
    stretches.insert(0, Stretch(lineage.run_id, lineage.start_step, left_at))
  return tuple(stretches)


def updates_in(stretch: Stretch) -> int:
  """How many updates a stretch has."""
  return stretch.end_step - stretch.start_step


def compute_of(
  tree: Forest, cost: Callable[[Stretch], int] = updates_in
) -> Compute:
  """What the runs cost, with every update counted once.

  An update that was made again after a kill or a fallback counts once too: the
  count is of the updates that are in the results.

  Args:
    tree: the runs. Those of parents that are not among them are not counted.
    cost: of a stretch of one run: its updates, or sequences or tokens where
      batch sizes differ. It must add up over adjacent stretches.

  Example:
    Two decays of ten updates from one trunk, of a batch of 8 sequences:

    >>> from lrsched import Lineage, Parent
    >>> runs = [(Lineage('trunk', None, ()), 90)]
    >>> for name, step in (('a', 40), ('b', 90)):
    ...   line = Lineage(name, Parent('trunk', '', step), ())
    ...   runs.append((line, step + 10))
    >>> compute_of(forest_of(runs))
    Compute(total=110, alone={'b': 100, 'a': 50})
    >>> compute_of(forest_of(runs), lambda s: 8 * updates_in(s)).saved
    320
  """
  total, alone = 0, {}
  for node in tree.nodes():
    *before, own = ancestry(tree, node.lineage.run_id)
    total += cost(own)
    last_branch = max(
      (_branch_step(c.lineage) for c in node.children), default=0
    )
    if not node.children or node.end_step > last_branch:
      alone[own.run_id] = sum(map(cost, before)) + cost(own)
  return Compute(total, alone)


def _walk(node: Node) -> list[Node]:
  return [node, *(deep for child in node.children for deep in _walk(child))]


def _branch_step(lineage: Lineage) -> int:
  return lineage.parent.step if lineage.parent is not None else 0
