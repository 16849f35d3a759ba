"""What a loss law said while a run was training, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import FAINT
from experiments.figures import HUES
from experiments.figures import INK
from experiments.figures import STYLE
from experiments.figures import data_uri
from experiments.figures import thinned
from experiments.runs import Run


def followed(runs: Sequence[Run]) -> list[Run]:
  """The runs that a law said something about."""
  return [run for run in runs if any('law_loss' in row for row in run.train)]


def forecasts_svg(runs: Sequence[Run]) -> str:
  """A panel for each run: losses, and what the law expected, when it said so.

  Of the end of the run: the line and its 90 % interval, at the update at which
  that was the forecast. They should close in on the last loss.

  Args:
    runs: those of `followed`, at least one.

  Returns:
    A data URI of an SVG.
  """
  with matplotlib.rc_context(STYLE):
    n_columns = min(2, len(runs))
    n_rows = -(-len(runs) // n_columns)
    figure = Figure(
      figsize=(10.5, 0.4 + 3.2 * n_rows) if n_columns == 2 else (10.5, 4.2),
      layout='constrained',
    )
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, run in zip(panels, runs, strict=False):
      _draw(axes, run)
    for axes in panels[len(runs) :]:
      axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=5)
    return data_uri(figure)


def _draw(axes: Axes, run: Run) -> None:
  steps = [row['step'] for row in run.evaluations]
  losses = [row['eval_loss'] for row in run.evaluations]
  axes.plot(steps, losses, 'o', ms=3, color=INK, label='evaluated')
  for name, color, style, label in (
    ('law_loss', HUES[0], '-', 'expected now'),
    ('law_decay_now_loss', HUES[2], ':', 'after a decay from here'),
    ('law_final_loss', HUES[1], '-', 'expected at the end'),
  ):
    axes.plot(
      *thinned(run.train, name), style, color=color, lw=1.2, label=label
    )
  rows = [row for row in run.evaluations if 'law_final_low' in row]
  axes.fill_between(
    [row['step'] for row in rows],
    [row['law_final_low'] for row in rows],
    [row['law_final_high'] for row in rows],
    color=HUES[1],
    alpha=0.15,
    lw=0,
    label='90 % interval of the end',
  )
  if losses:
    axes.axhline(losses[-1], color=FAINT, lw=0.8, ls=(0, (4, 3)))
  settled = [
    x for n, x in zip(steps, losses, strict=True) if n > steps[-1] / 10
  ]
  low, high = min(settled), max(settled)
  margin = 0.35 * (high - low) or 0.1
  axes.set_ylim(low - margin, high + margin)
  axes.set_title(run.name, loc='left', fontsize=9, fontweight='bold')
  axes.set_xlabel('updates')
  axes.set_ylabel('loss (nats per token)')
