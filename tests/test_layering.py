"""Imports go one way, as BUILD says, and the library stays pure.

BUILD is read as what it is, Python calls; each rule below returns sentences
that name the file, what it does and what is allowed. The last tests plant one
breach of each kind in a small tree, to see that the rules can fail.
"""

from __future__ import annotations

import ast
import graphlib
import pathlib
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Each folder may import from those before it, where BUILD lists the target.
PACKAGES = ('lrsched', 'trainers', 'experiments', 'benchmarks')

# All that the library may use from outside: no files, clocks, environment.
LIBRARY_MAY_IMPORT = {
  *('jax', 'jaxtyping', 'numpy', 'optax', 'scipy'),
  *('__future__', 'abc', 'bisect', 'collections', 'contextlib', 'copy'),
  *('dataclasses', 'enum', 'fractions', 'functools', 'hashlib', 'inspect'),
  *('itertools', 'json', 'math', 'numbers', 'operator', 're', 'textwrap'),
  *('types', 'typing', 'warnings'),
}
LIBRARY_MAY_IMPORT_LAZILY = {'matplotlib'}
# `import scipy` loads its parts where they are first used: a program that fits
# nothing spares a fifth of its imports.
IMPORTED_WHOLE = 'scipy'
FILE_CALLS = {'fromfile', 'load', 'loadtxt', 'memmap', 'open', 'save'}
FILE_CALLS |= {'genfromtxt', 'savetxt', 'savez', 'savez_compressed', 'tofile'}
# Only programs read flags; the library and the trainer are called.
TRAINERS_MAY_NOT_IMPORT = {'absl', 'argparse'}
SAYS_NOTHING = {'common', 'helper', 'helpers', 'misc', 'util', 'utils'}


class Target(NamedTuple):
  """One py_library or py_binary of BUILD."""

  name: str
  srcs: list[str]
  deps: list[str]
  visibility: list[str]


class Import(NamedTuple):
  """One import statement, resolved to a dotted module or object name."""

  name: str
  line: int
  lazy: bool  # inside a function, or for type checkers only


def targets(root: pathlib.Path) -> list[Target]:
  found = []
  for node in ast.parse((root / 'BUILD').read_text()).body:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
      continue
    call = node.value
    if ast.unparse(call.func) in ('py_library', 'py_binary'):
      given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
      found.append(
        Target(
          name=given['name'],
          srcs=given['srcs'],
          deps=[d.removeprefix(':') for d in given.get('deps', [])],
          visibility=given['visibility'],
        )
      )
  return found


def sources(root: pathlib.Path) -> dict[str, str]:
  """Path of every source file -> its dotted module name."""
  found = {}
  for package in PACKAGES:
    for path in sorted((root / package).rglob('*.py')):
      relative = path.relative_to(root)
      parts = relative.with_suffix('').parts
      if parts[-1] == '__init__':
        parts = parts[:-1]
      found[relative.as_posix()] = '.'.join(parts)
  return found


def _nodes(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
  for node in ast.iter_child_nodes(tree):
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
      inside = True
    yield node, inside
    yield from _nodes(node, inside)


def imports(path: pathlib.Path) -> Iterator[Import]:
  for node, lazy in _nodes(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield Import(alias.name, node.lineno, lazy)
    elif isinstance(node, ast.ImportFrom):
      # A relative import keeps its dots, which no rule allows.
      source = '.' * node.level + (node.module or '')
      for alias in node.names:
        yield Import(f'{source}.{alias.name}', node.lineno, lazy)


def module_of(name: str, modules: set[str]) -> str | None:
  """Our module that a dotted name lies in, or None if it is not ours."""
  while name and name not in modules:
    name = name.rpartition('.')[0]
  return name or None


def public_names(root: pathlib.Path) -> dict[str, set[str]]:
  """What lrsched and each package in it offer: `X as X`, and `__version__`."""
  public = {}
  for path in sorted((root / 'lrsched').rglob('__init__.py')):
    names = set()
    for node in ast.parse(path.read_text()).body:
      if isinstance(node, ast.ImportFrom | ast.Import):
        names |= {a.asname for a in node.names if a.asname}
      elif isinstance(node, ast.Assign):
        names |= {ast.unparse(t) for t in node.targets} & {'__version__'}
    public['.'.join(path.parent.relative_to(root).parts)] = names
  return public


def is_public(name: str, public: dict[str, set[str]]) -> bool:
  """Whether a name below lrsched is a package, or one that a package offers."""
  package, _, rest = name.partition('.')
  while rest:
    head, _, rest = rest.partition('.')
    if f'{package}.{head}' not in public:
      return head in public[package]
    package = f'{package}.{head}'
  return True


def build_faults(root: pathlib.Path) -> Iterator[str]:
  """BUILD and the tree hold the same files, in an acyclic order."""
  rules = targets(root)
  owners: dict[str, list[str]] = {path: [] for path in sources(root)}
  for rule in rules:
    for src in rule.srcs:
      if src in owners:
        owners[src].append(rule.name)
      else:
        yield f'BUILD: {rule.name} lists {src}, which does not exist'
  for path, names in owners.items():
    if len(names) != 1:
      yield f'{path}: must be in one target of BUILD, is in {names}'
  known = {rule.name for rule in rules}
  if len(known) != len(rules):
    yield 'BUILD: two targets have one name'
  for rule in rules:
    for dep in sorted(set(rule.deps) - known):
      yield f'BUILD: {rule.name} depends on {dep}, which is no target'
  try:
    graphlib.TopologicalSorter({r.name: r.deps for r in rules}).prepare()
  except graphlib.CycleError as error:
    yield f'BUILD: targets depend on one another: {error.args[1]}'


def import_faults(root: pathlib.Path) -> Iterator[str]:
  """Every import between our modules is a dependency that BUILD states."""
  rules = targets(root)
  owner = {src: rule for rule in rules for src in rule.srcs}
  files = sources(root)
  path_of = {module: path for path, module in files.items()}
  graph: dict[str, set[str]] = {}
  for path, module in files.items():
    me, package = owner.get(path), module.partition('.')[0]
    for found in imports(root / path):
      where = f'{path}:{found.line}'
      if found.name.startswith('.'):
        yield f'{where}: imports are absolute, got {found.name}'
        continue
      if found.name.partition('.')[0] == 'tests':
        yield f'{where}: nothing imports tests'
      other = module_of(found.name, set(path_of))
      if other is None and found.name.partition('.')[0] in PACKAGES:
        yield f'{where}: {found.name} does not exist'
      if other is None or other == module:
        continue
      graph.setdefault(module, set()).add(other)
      theirs = other.partition('.')[0]
      if PACKAGES.index(theirs) > PACKAGES.index(package):
        yield f'{where}: {package} may not import {theirs} ({other})'
      it = owner.get(path_of[other])
      if me is None or it is None or it is me:
        continue
      if it.name not in me.deps:
        yield f'{where}: {me.name} does not list {it.name} in its deps'
      if theirs != package and f'//{package}:__pkg__' not in it.visibility:
        yield f'{where}: {it.name} is not visible to //{package}'
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    yield f'modules import one another: {error.args[1]}'


def purity_faults(root: pathlib.Path) -> Iterator[str]:
  """The library uses arrays and nothing else; flags stay in experiments."""
  for path, module in sources(root).items():
    package = module.partition('.')[0]
    for found in imports(root / path):
      top = found.name.partition('.')[0]
      where = f'{path}:{found.line}'
      if package == 'lrsched' and top != 'lrsched':
        lazily = found.lazy and top in LIBRARY_MAY_IMPORT_LAZILY
        if top not in LIBRARY_MAY_IMPORT and not lazily:
          yield f'{where}: the library may not import {found.name} here'
      if found.name.startswith(f'{IMPORTED_WHOLE}.'):
        yield f'{where}: import {IMPORTED_WHOLE}, not {found.name}'
      if package == 'trainers' and top in TRAINERS_MAY_NOT_IMPORT:
        yield f'{where}: only experiments read flags, got {found.name}'
    if package != 'lrsched':
      continue
    for node in ast.walk(ast.parse((root / path).read_text())):
      if isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition('.')[2]
        if called in FILE_CALLS:
          yield f'{path}:{node.lineno}: the library opens no files ({called})'


def public_name_faults(root: pathlib.Path) -> Iterator[str]:
  """Outside the library, only what `__init__.py` files export is used."""
  public = public_names(root)
  for path, module in sources(root).items():
    if module.partition('.')[0] == 'lrsched':
      continue
    used = [(i.name, i.line) for i in imports(root / path)]
    for node in ast.walk(ast.parse((root / path).read_text())):
      # `lrsched.x` and `lrsched.x.y`; what hangs on an object is its own.
      if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name | ast.Attribute):
          used.append((ast.unparse(node), node.lineno))
    for name, line in used:
      if name.startswith('lrsched.') and not is_public(name, public):
        yield f'{path}:{line}: {name} is not a public name of lrsched'


def name_faults(root: pathlib.Path) -> Iterator[str]:
  """A file's name says what is in it."""
  for path in sources(root):
    if SAYS_NOTHING & set(pathlib.PurePath(path).stem.split('_')):
      yield f'{path}: name it after what it holds'


RULES = [
  build_faults,
  import_faults,
  purity_faults,
  public_name_faults,
  name_faults,
]


@pytest.mark.parametrize('rule', RULES)
def test_the_project_keeps(rule):
  assert list(rule(ROOT)) == []


def test_every_package_is_looked_at():
  modules = sources(ROOT).values()
  assert {m.partition('.')[0] for m in modules} >= set(PACKAGES[:3])


SOUND = {
  'BUILD': """
    py_library(
        name = 'base', srcs = ['lrsched/base.py'],
        visibility = ['//visibility:private'],
    )
    py_library(
        name = 'shapes', srcs = ['lrsched/shapes.py'], deps = [':base'],
        visibility = ['//visibility:private'],
    )
    py_library(
        name = 'laws', srcs = ['lrsched/laws/__init__.py'], deps = [':base'],
        visibility = ['//trainers:__pkg__'],
    )
    py_library(
        name = 'lrsched', srcs = ['lrsched/__init__.py'], deps = [':base'],
        visibility = ['//trainers:__pkg__'],
    )
    py_library(
        name = 'model', srcs = ['trainers/model.py'],
        deps = [':laws', ':lrsched'],
        visibility = ['//experiments:__pkg__'],
    )
  """,
  'lrsched/base.py': 'import jax\n',
  'lrsched/shapes.py': 'from lrsched import base\n',
  'lrsched/__init__.py': 'from lrsched.base import jax as jax\n',
  'lrsched/laws/__init__.py': 'from lrsched.base import jax as jax\n',
  'trainers/model.py': (
    'import lrsched\nfrom lrsched import laws\n\nlrsched.jax(laws)\n'
    'lrsched.laws.jax.numpy\n'
  ),
}


def plant(root: pathlib.Path, changes: dict[str, str]) -> None:
  for name, text in (SOUND | changes).items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def test_a_sound_tree_has_no_faults(tmp_path):
  plant(tmp_path, {})
  assert [f for rule in RULES for f in rule(tmp_path)] == []


@pytest.mark.parametrize(
  ('path', 'text', 'rule', 'said'),
  [
    (
      'lrsched/base.py',
      'from lrsched.shapes import x\n',
      import_faults,
      'base does not list shapes in its deps',
    ),
    (
      'lrsched/base.py',
      'def f():\n  import lrsched.shapes\n',
      import_faults,
      'modules import one another',
    ),
    (
      'lrsched/base.py',
      'from trainers import model\n',
      import_faults,
      'lrsched may not import trainers',
    ),
    (
      'lrsched/base.py',
      'from . import shapes\n',
      import_faults,
      'imports are absolute',
    ),
    (
      'trainers/model.py',
      'import lrsched.base\n',
      import_faults,
      'base is not visible to //trainers',
    ),
    (
      'trainers/model.py',
      'from trainers.gone import x\n',
      import_faults,
      'trainers.gone.x does not exist',
    ),
    (
      'trainers/model.py',
      'from tests import test_layering\n',
      import_faults,
      'nothing imports tests',
    ),
    ('lrsched/extra.py', '', build_faults, 'is in []'),
    (
      'BUILD',
      SOUND['BUILD'].replace('shapes.py', 'gone.py'),
      build_faults,
      'which does not exist',
    ),
    (
      'BUILD',
      SOUND['BUILD'].replace(
        "srcs = ['lrsched/base.py'],",
        "srcs = ['lrsched/base.py'], deps = [':shapes'],",
      ),
      build_faults,
      'depend on one another',
    ),
    (
      'lrsched/base.py',
      'import flax.nnx\n',
      purity_faults,
      'may not import flax.nnx',
    ),
    (
      'lrsched/base.py',
      'def f():\n  import os\n',
      purity_faults,
      'may not import os',
    ),
    (
      'lrsched/base.py',
      'from scipy.optimize import minimize\n',
      purity_faults,
      'import scipy, not scipy.optimize.minimize',
    ),
    (
      'lrsched/base.py',
      'import matplotlib\n',
      purity_faults,
      'may not import matplotlib',
    ),
    ('lrsched/base.py', 'open("x")\n', purity_faults, 'opens no files'),
    (
      'trainers/model.py',
      'from absl import flags\n',
      purity_faults,
      'only experiments read flags',
    ),
    (
      'trainers/model.py',
      'from lrsched.base import x\n',
      public_name_faults,
      'lrsched.base.x is not a public name',
    ),
    (
      'trainers/model.py',
      'import lrsched\n\nlrsched.base.x()\n',
      public_name_faults,
      'lrsched.base is not a public name',
    ),
    (
      'trainers/model.py',
      'from lrsched.laws import numpy\n',
      public_name_faults,
      'lrsched.laws.numpy is not a public name',
    ),
    (
      'trainers/model.py',
      'import lrsched\n\nlrsched.laws.fit.x()\n',
      public_name_faults,
      'lrsched.laws.fit is not a public name',
    ),
    ('trainers/io_utils.py', '', name_faults, 'name it after what it holds'),
  ],
)
def test_a_planted_fault_is_found(tmp_path, path, text, rule, said):
  plant(tmp_path, {path: text})
  assert any(said in fault for fault in rule(tmp_path))


def test_matplotlib_may_be_imported_in_a_function(tmp_path):
  plant(tmp_path, {'lrsched/base.py': 'def f():\n  import matplotlib\n'})
  assert list(purity_faults(tmp_path)) == []
