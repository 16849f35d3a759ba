"""A run in a few words: its schedule, its data, what happened to it."""

from __future__ import annotations

import dataclasses
import fractions
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import lrsched
from experiments.runs import Run
from experiments.task_chains import main_of
from experiments.task_chains import trained_on

CARRIES = {'no_optimizer': 'fresh optimizer', 'weights': 'weights only'}
MAX_CHANGES = 3


def branch_words(run: Run, parent: Run | None) -> str:
  """`parent@step`, and what was left behind; `parent` is None if not known."""
  left = run.lineage.parent
  if left is None:
    return ''
  name = parent.name if parent else pathlib.Path(left.workdir).name
  carried = CARRIES.get(left.carry)
  return f'{name}@{left.step}' + (f', {carried}' if carried else '')


def schedule_words(run: Run, parent: Run | None) -> str:
  """The classes of the main schedule; of a branch, what it changed."""
  own = run.schedules['schedule']
  before = parent and parent.schedules['schedule']
  if before is None or _kinds(before) != _kinds(own):
    peak = max(_lrs(own), default=0.0)
    until = 'without end' if own.end_step is None else f'to {own.end_step}'
    return f'{_kinds(own)}, peak LR {peak:g}, {until}'
  changes = lrsched.diff(lrsched.to_dict(before), lrsched.to_dict(own))
  if not changes:
    return 'same schedule'
  shown = [line.removeprefix('schedule.') for line in changes[:MAX_CHANGES]]
  if len(changes) > MAX_CHANGES:
    shown.append(f'{len(changes) - MAX_CHANGES} more')
  return ', '.join(line.replace(': ', ' ', 1) for line in shown)


def data_words(run: Run) -> str:
  """The corpus, or the corpora with their shares."""
  source = run.config['data']['source']
  if source['kind'] != 'Mixture':
    return _source_words(source)
  shares = {name: domain['share'] for name, domain in source['domains'].items()}
  given = [share for share in shares.values() if share is not None]
  left = None
  if all(isinstance(share, (int, float)) for share in given):
    left = float(1 - sum(fractions.Fraction(repr(share)) for share in given))
  texts = []
  for name, share in shares.items():
    subset = source['domains'][name]['subset']
    part = f' (of {100 * subset:g} % of it)' if subset != 1 else ''
    text = _share_words(left if share is None else share)
    texts.append(f'{name} {text}{part}' if len(shares) > 1 else name + part)
  return ', '.join(texts)


def corpus_words(runs: Sequence[Run]) -> dict[str, str]:
  """By workdir the corpus of `eval_loss`; '' of all if it is the same one.

  A corpus is known by its hash. It is called as the last of the runs that has
  it in a mixture does, else by its source; with the hash if others are called
  so.
  """
  keys: dict[str, str] = {}
  names: dict[str, str] = {}
  sources: dict[str, str] = {}
  for run in runs:
    name, source = main_of(run), run.config['data']['source']
    is_mixture = source['kind'] == 'Mixture'
    # Runs that know no hash are told apart by the words.
    words = name if is_mixture else _source_words(source)
    key = keys[run.workdir] = trained_on(run).get(name, words)
    (names if is_mixture else sources)[key] = words
  called = sources | names
  if len(called) == 1:
    return dict.fromkeys(keys, '')
  said = [*called.values()]
  for key, words in called.items():
    if said.count(words) > 1:
      called[key] = f'{words} ({key[:6]})'
  return {workdir: called[key] for workdir, key in keys.items()}


def event_words(run: Run) -> str:
  """What happened after the start, a word for each kind and its steps."""
  steps: dict[str, list[int]] = {}
  for event in run.lineage.events:
    if event.kind not in ('start', 'branch'):
      steps.setdefault(event.kind, []).append(event.step)
  return '; '.join(
    f'{kind} at {", ".join(map(str, at))}' for kind, at in steps.items()
  )


def _kinds(spec: lrsched.Schedule) -> str:
  """`Warmup(Cosine)`: the class, and those of the schedules it is made of."""
  inner = [_kinds(part) for part in _parts(spec)]
  return type(spec).__name__ + (f'({", ".join(inner)})' if inner else '')


def _parts(spec: lrsched.Schedule) -> Iterator[lrsched.Schedule]:
  """The schedules among the fields."""
  for value in _fields(spec).values():
    for item in value if isinstance(value, tuple) else (value,):
      if isinstance(item, lrsched.Schedule):
        yield item


def _lrs(spec: lrsched.Schedule) -> Iterator[float]:
  """Every number that is an LR by its name."""
  for name, value in _fields(spec).items():
    if name == 'lr' or name.endswith('_lr'):
      yield value
  for part in _parts(spec):
    yield from _lrs(part)


def _fields(spec: lrsched.Schedule) -> dict[str, Any]:
  fields = dataclasses.fields(spec)  # type: ignore[arg-type]
  return {field.name: getattr(spec, field.name) for field in fields}


def _source_words(source: dict[str, Any]) -> str:
  """The kind of a source, and the name of its folder, file or text."""
  path = source.get('path') or source.get('train_path') or source.get('name')
  kind = source['kind'].lower()
  return f'{kind} {pathlib.Path(path).name}' if path else kind


def _share_words(share: Any) -> str:
  if share is None:
    return 'the rest'
  if isinstance(share, (int, float)):
    return f'{100 * share:g} %'
  return ' to '.join(f'{100 * value:g} %' for _, value in share)
