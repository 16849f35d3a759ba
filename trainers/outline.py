"""What a run is about to do, and what a launch changed, in a few lines."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

import lrsched
from trainers.config import DataConfig
from trainers.config import RunConfig
from trainers.data import domains_of
from trainers.mixture import shares_at
from trainers.train_step import TrainState

MAX_PHASES = 6

# In the note of an event: an object whose class changed, its path and change.
CLASS_CHANGE = re.compile(r'(.+?)\.kind: ([A-Z]\w* -> [A-Z]\w*)')
OBJECT = re.compile(r'\{"kind": "(\w+)".*?\}(?= -> |$)')
HASH = re.compile(r'\b([0-9a-f]{12})[0-9a-f]{52}\b')
SETTINGS = ('config.', 'schedule.')
READ_FIRST = ('config.optimizer', 'config.data', 'config.total_steps')


def outline(
  config: RunConfig,
  start_step: int,
  epochs: Mapping[str, float],
  windows: Mapping[str, int],
  state: TrainState,
  mesh: Mesh,
) -> list[str]:
  """The updates, data, model and checkpoints of a run, before its first update.

  Args:
    config: of the run.
    start_step: its next update.
    epochs: by corpus, passes over it so far.
    windows: by corpus, sequences in one pass.
    state: arrays or their shapes.
    mesh: the devices.

  Returns:
    Five lines.
  """
  data, end_step = config.data, _end_step(config)
  updates = end_step - start_step
  samples = data.samples_at(end_step) - data.samples_at(start_step)
  sizes = (data.batch_size_at(start_step), data.batch_size_at(end_step - 1))
  size = ' to '.join(str(n) for n in dict.fromkeys(sizes))
  drawn = drawn_by_domain(data, start_step, end_step)
  corpora = ', '.join(
    f'{name} {_epochs(n / windows[name])} from {_epochs(epochs[name])} on'
    for name, n in drawn.items()
  )
  plural = '' if mesh.size == 1 else 's'
  axes = ', '.join(f'{axis} {n}' for axis, n in mesh.shape.items())
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  n_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  saving = config.checkpoint
  kept = saving.keep_last + len({*saving.keep_steps}) + 1  # and the first
  return [
    _schedule_line(config, start_step),
    f'{samples * data.seq_len:,} tokens ({updates:,} updates of {size} x '
    f'{data.seq_len})',
    f'epochs: {corpora}',
    f'model {parameters:,} parameters; {mesh.size} device{plural} ({axes})',
    f'checkpoints of {n_bytes / 1e6:,.1f} MB every {saving.every_steps} '
    f'updates, at most {kept} kept',
  ]


def _end_step(config: RunConfig) -> int:
  """The last step that budgets of updates and tokens allow."""
  is_over = lambda step: config.finish.is_over(step, config.data.tokens_at)
  steps = range(config.total_steps + 1)
  return bisect.bisect_left(steps, True, key=is_over) - 1


def _schedule_line(config: RunConfig, start_step: int) -> str:
  """The phases of the schedule that are still to come, each with its end."""
  schedule, total = config.optimizer.schedule, config.total_steps
  phases = [
    f'{name} to {total if end is None else min(end, total)}'
    for name, start, end in schedule.phases()
    if start < total and (end is None or end > max(start, start_step))
  ]
  if len(phases) > MAX_PHASES:
    phases[MAX_PHASES - 1 : -1] = [f'{len(phases) - MAX_PHASES} more']
  finish = config.finish
  budgets = (finish.by_step, finish.by_tokens, finish.by_time)
  most = 'at most ' if any((*budgets, finish.by_device_hours)) else ''
  return (
    f'updates {start_step} to {most}{_end_step(config)} of schedule '
    f'{type(schedule).__name__}: {", ".join(phases)}'
  )


def drawn_by_domain(
  data: DataConfig, start_step: int, end_step: int
) -> dict[str, float]:
  """Sequences of each corpus in the updates `start_step <= t < end_step`.

  Between knots of the shares and changes of the batch size, shares are linear:
  a stretch `a <= t < b` has `size * (b - a) * (share(a) + share(b - 1)) / 2`.
  Batches hold whole sequences: a few are owed to a corpus or ahead of it.
  """
  domains = domains_of(data)
  knots = [d.share for d in domains.values() if isinstance(d.share, tuple)]
  steps = {int(knot[0]) for shares in knots for knot in shares}
  steps |= {*(data.ramp.boundaries if data.ramp else ())}
  inside = (step for step in steps if start_step < step < end_step)
  views = data.views.n if data.views else 1
  drawn = dict.fromkeys(domains, 0.0)
  for a, b in itertools.pairwise([start_step, *sorted(inside), end_step]):
    sequences = data.batch_size_at(a) // views * (b - a)
    first, last = shares_at(domains, a), shares_at(domains, b - 1)
    for name in domains:
      drawn[name] += sequences * float(first[name] + last[name]) / 2
  return drawn


def _epochs(value: float) -> str:
  """Two decimals; of what is less, two digits."""
  return f'{value:,.2f}' if value == 0 or value >= 0.1 else f'{value:.2g}'


def event_lines(event: lrsched.Event) -> list[str]:
  """An event of a lineage to read: what matters first, long values cut.

  Where the class of an object changed, that stands for all of its fields; the
  record in `lineage.json` has them.

  Returns:
    The kind and step, then what the note says, indented.
  """
  classes = [m for line in event.note if (m := CLASS_CHANGE.fullmatch(line))]
  inside = tuple(f'{m[1]}.' for m in classes)
  lines = [line for line in event.note if not line.startswith(inside)]
  lines += [f'{m[1]}: {m[2]}' for m in classes if not m[1].startswith(inside)]
  # What happens, such as to the LR, before the settings that do it.
  lines.sort(key=lambda line: not line.startswith(READ_FIRST))
  lines.sort(key=lambda line: line.startswith(SETTINGS))
  # Only then do steps count from 0 again.
  is_weights = any(line.startswith('next update: ') for line in event.note)
  where = ', weights only' if is_weights else f' at {event.step}'
  return [
    f'{event.kind}{where}',
    *('  ' + HASH.sub(r'\1', OBJECT.sub(r'\1', line)) for line in lines),
  ]
