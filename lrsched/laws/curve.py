"""A loss curve: what was measured, under which learning rates."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lrsched.base import MAX_STEPS

HEADER = 'step,lr,loss'


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  r"""Losses of one run, with the LR of every update.

  Row `i` is update `steps[i]`: its LR, and the loss after it. Between rows the
  LR is linear, so rows without a loss pin it where it bends or jumps. Updates
  before the first row had its LR.

  Attributes:
    steps: [n] int64, >= 0, strictly rising.
    lrs: [n] float64, >= 0 and finite; at least one above 0.
    losses: [n] float64, > 0 and finite, or NaN where a row only pins the LR.
    warmup_steps: updates of the initial rise, >= 0.
    name: of the curve, for messages.
    n_params: size of the model, for laws that ask for it; > 0.

  Raises:
    ValueError: naming the curve, the row and the value.

  Example:
    >>> curve = Curve.from_csv(
    ...   'step,lr,loss\n0,0.5,\n1,1.0,\n9,1.0,3.5\n', name='a'
    ... )
    >>> curve.warmup_steps, float(curve.lr_of_updates()[5])
    (2, 1.0)
  """

  steps: np.ndarray
  lrs: np.ndarray
  losses: np.ndarray
  warmup_steps: int
  name: str = 'curve'
  n_params: float | None = None

  def __post_init__(self) -> None:
    columns = {}
    for field, dtype in (
      ('steps', np.int64),
      ('lrs', np.float64),
      ('losses', np.float64),
    ):
      given = np.asarray(getattr(self, field))
      if field == 'steps' and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f'{self.name}: steps must be integers')
      column = np.array(given, dtype)
      column.flags.writeable = False
      object.__setattr__(self, field, column)
      columns[field] = column
    n = columns['steps'].shape
    if len(n) != 1 or any(c.shape != n for c in columns.values()):
      shapes = {field: c.shape for field, c in columns.items()}
      raise ValueError(f'{self.name}: columns must be as long, got {shapes}')
    if not n[0]:
      raise ValueError(f'{self.name}: a curve must have a row')
    self._check_rows()
    if self.n_params is not None and not self.n_params > 0:
      raise ValueError(
        f'{self.name}: n_params must be > 0, got {self.n_params}'
      )
    if not 0 <= self.warmup_steps <= columns['steps'][-1] + 1:
      raise ValueError(
        f'{self.name}: warmup_steps must be in 0..{columns["steps"][-1] + 1}, '
        f'got {self.warmup_steps}'
      )

  def _check_rows(self) -> None:
    losses_or_1 = np.where(np.isnan(self.losses), 1.0, self.losses)
    rules = (
      ('step', self.steps, (self.steps >= 0) & (self.steps <= MAX_STEPS)),
      ('lr', self.lrs, np.isfinite(self.lrs) & (self.lrs >= 0)),
      ('loss', self.losses, np.isfinite(losses_or_1) & (losses_or_1 > 0)),
    )
    must = {'step': 'an integer >= 0', 'lr': 'finite and >= 0'}
    for column, values, good in rules:
      if (bad := np.flatnonzero(~good)).size:
        i = int(bad[0])
        rule = must.get(column, 'finite and > 0, or empty')
        raise ValueError(
          f'{self.name}, row {i}: {column} must be {rule}, got {values[i]}'
        )
    if (bad := np.flatnonzero(np.diff(self.steps) <= 0)).size:
      i = int(bad[0]) + 1
      raise ValueError(
        f'{self.name}, row {i}: steps must rise, got {self.steps[i]} after '
        f'{self.steps[i - 1]}; sort the rows and drop repeated ones'
      )
    if not self.lrs.max() > 0:
      raise ValueError(f'{self.name}: every lr is 0; is the column right?')

  @property
  def peak_lr(self) -> float:
    """The greatest LR."""
    return float(self.lrs.max())

  @property
  def measured(self) -> np.ndarray:
    """Indices of the rows that have a loss."""
    return np.flatnonzero(~np.isnan(self.losses))

  def lr_of_updates(self) -> np.ndarray:
    """[last step + 1] the LR of every update, float64."""
    return np.interp(np.arange(self.steps[-1] + 1), self.steps, self.lrs)

  def thinned(self, tolerance: float) -> Curve:
    """The curve without the rows that say nothing new.

    Every loss is kept, and so many rows that the LR between them stays within
    `tolerance` (> 0, in the unit of the LR) of the line that joins them.
    """
    if not tolerance > 0:
      raise ValueError(f'tolerance must be > 0, got {tolerance}')
    ends = sorted({0, len(self.steps) - 1, *self.measured.tolist()})
    kept = [ends[0]]
    for end in ends[1:]:
      while kept[-1] < end:
        kept.append(self._as_far(kept[-1], end, tolerance))
    return dataclasses.replace(
      self,
      steps=self.steps[kept],
      lrs=self.lrs[kept],
      losses=self.losses[kept],
    )

  def _as_far(self, begin: int, end: int, tolerance: float) -> int:
    """The last of some rows, at most `end`, with a line to it."""
    while end > begin + 1:
      rows = slice(begin, end + 1)
      ends = self.steps[[begin, end]], self.lrs[[begin, end]]
      line = np.interp(self.steps[rows], *ends)
      if np.abs(self.lrs[rows] - line).max() <= tolerance:
        break
      end = begin + (end - begin) // 2
    return end

  @classmethod
  def from_csv(
    cls, text: str, *, name: str = 'curve', warmup_steps: int | None = None
  ) -> Curve:
    """The curve of a CSV with the header `step,lr,loss`.

    Args:
      text: the file's content. An empty loss pins the LR only.
      name: of the curve, for messages.
      warmup_steps: updates of the warmup; None takes the initial strict rise.

    Raises:
      ValueError: naming the line and what is wrong in it.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0].replace(' ', '') != HEADER:
      got = lines[0][:60] if lines else 'nothing'
      raise ValueError(f'{name}: the first line must be {HEADER}, got {got!r}')
    rows = [_row(name, i, line) for i, line in enumerate(lines[1:], start=2)]
    if not rows:
      raise ValueError(f'{name}: there is no row under the header')
    steps, lrs, losses = zip(*rows, strict=True)
    if warmup_steps is None:
      warmup_steps = initial_rise(np.asarray(steps), np.asarray(lrs))
    return cls(
      steps=np.asarray(steps, np.int64),
      lrs=np.asarray(lrs),
      losses=np.asarray(losses),
      warmup_steps=warmup_steps,
      name=name,
    )

  def to_csv(self) -> str:
    """The curve as `from_csv` reads it; exact."""
    lines = [HEADER]
    for step, lr, loss in zip(
      self.steps.tolist(), self.lrs.tolist(), self.losses.tolist(), strict=True
    ):
      lines.append(f'{step},{lr!r},{"" if math.isnan(loss) else repr(loss)}')
    return '\n'.join(lines) + '\n'


def initial_rise(steps: np.ndarray, lrs: np.ndarray) -> int:
  """Updates of the warmup: those before the LR first stops rising."""
  stops = np.flatnonzero(np.diff(lrs) <= 0)
  top = int(stops[0]) if stops.size else len(lrs) - 1
  return int(steps[top]) + 1 if top else 0


def _row(name: str, line_number: int, line: str) -> tuple[int, float, float]:
  cells = [cell.strip() for cell in line.split(',')]
  where = f'{name}, line {line_number}'
  if len(cells) != 3:
    raise ValueError(f'{where} must be {HEADER}, got {line[:60]!r}')
  try:
    step = int(cells[0])
  except ValueError as error:
    raise ValueError(
      f'{where}: step must be an integer, got {cells[0][:30]!r}'
    ) from error
  numbers = []
  for column, cell in zip(('lr', 'loss'), cells[1:], strict=True):
    if column == 'loss' and not cell:
      numbers.append(math.nan)
      continue
    try:
      numbers.append(float(cell))
    except ValueError as error:
      raise ValueError(
        f'{where}: {column} must be a number, got {cell[:30]!r}'
      ) from error
    if math.isnan(numbers[-1]):
      raise ValueError(
        f'{where}: {column} is NaN; a row without a loss leaves it empty'
      )
  return step, numbers[0], numbers[1]
