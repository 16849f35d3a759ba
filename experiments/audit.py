"""Compares a logged LR with the schedule that it should have followed.

  python -m experiments.audit --curve=runs/a --spec=runs/a/config.json

`--curve` is anything that `experiments.curve_files` reads; only its steps and
LRs are needed. `--spec` is a file with what `lrsched.to_json` wrote, or a run's
config.json. Prints the rows compared, the worst relative deviation, the first
step that deviates and its likely causes. Exit status: 0 if every LR is equal
within the tolerance, 1 if one is not, 2 if there is nothing to compare.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.curve_files import FORMATS
from experiments.curve_files import read_lrs
from experiments.deviations import causes
from experiments.deviations import compare
from experiments.logged import Logged
from experiments.logged import Reading
from experiments.plot import load

TOLERANCE = 1e-4
EQUAL, DEVIATES, UNUSABLE = 0, 1, 2


def audit(
  curve: pathlib.Path,
  spec: pathlib.Path,
  tolerance: float = TOLERANCE,
  reading: Reading = Reading(),  # noqa: B008
) -> tuple[bool, str]:
  """Whether the LRs of every run in a log are its schedule's, and a report.

  Args:
    curve: the log.
    spec: the schedule, or a run's config.json.
    tolerance: greatest relative deviation that counts as equal, in (0, 1). LRs
      below a thousandth of the highest are compared with that thousandth.
    reading: how to read the log.

  Raises:
    ValueError: if the log or the spec cannot be read, or an argument is wrong.
    OSError: if a file cannot be opened.
  """
  schedule = load(spec, total_steps=1).schedule
  reports = [
    _report(log, schedule, tolerance) for log in read_lrs(curve, reading)
  ]
  return all(equal for equal, _ in reports), '\n'.join(t for _, t in reports)


def _report(
  log: Logged, schedule: lrsched.Schedule, tolerance: float
) -> tuple[bool, str]:
  found = compare(log.lrs, schedule, tolerance)
  worst = int(found.deviations.argmax())
  lines = [
    f'{log.name}: {len(found.steps)} rows compared, of steps '
    f'{found.steps[0]}..{found.steps[-1]}',
    f'worst relative deviation {found.deviations[worst]:.3g}, at step '
    f'{found.steps[worst]}; tolerance {tolerance:g}',
  ]
  if found.first is None:
    return True, '\n  '.join([*lines, 'equal'])
  i = found.first
  lines.append(
    f'first deviation at step {found.steps[i]}: logged {found.logged[i]:.8g}, '
    f'spec {found.spec[i]:.8g}'
  )
  likely = causes(found, schedule)
  lines += [f'likely cause: {text}' for text in likely]
  if not likely:
    lines.append('no known cause fits')
  return False, '\n  '.join(lines)


def _parse(argv: Sequence[str]) -> list[str]:
  """Unknown flags are unusable input too; absl would exit with 1."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(UNUSABLE)


def main(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}', UNUSABLE)
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  reading = Reading(
    format=given.format,
    step=given.step,
    lr=given.lr,
    pattern=given.pattern,
    first_step=given.first_step,
    next_lr=given.next_lr,
  )
  curve, spec = pathlib.Path(given.curve), pathlib.Path(given.spec)
  try:
    equal, text = audit(curve, spec, given.tolerance, reading)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return UNUSABLE
  print(text)
  return EQUAL if equal else DEVIATES


if __name__ == '__main__':
  flags.DEFINE_string('curve', None, 'Log, or run folder.')
  flags.DEFINE_string('spec', None, 'Spec, or config.json of a run.')
  flags.DEFINE_float('tolerance', TOLERANCE, 'Relative deviation allowed.')
  flags.DEFINE_enum('format', None, list(FORMATS), 'Format of the log.')
  flags.DEFINE_string('step', None, 'Column of the step.')
  flags.DEFINE_string('lr', None, 'Column, tag or metric of the LR.')
  flags.DEFINE_string('pattern', None, 'Regular expression for a plain log.')
  flags.DEFINE_integer('first_step', None, 'What the log calls update 0.')
  flags.DEFINE_bool('next_lr', False, "The LR logged is the next update's.")
  flags.mark_flags_as_required(['curve', 'spec'])
  app.run(main, flags_parser=_parse)
