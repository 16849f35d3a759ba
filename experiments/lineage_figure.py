"""The picture of the tree of runs, for the report page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from experiments.figures import FAINT
from experiments.figures import INK
from experiments.figures import STYLE
from experiments.figures import Color
from experiments.figures import data_uri
from experiments.figures import extent
from experiments.figures import lr_curve
from experiments.figures import run_colors
from experiments.run_words import corpus_words
from experiments.run_words import data_words
from experiments.runs import Run
from experiments.runs import parents_of

MARKS = {'resume': ('o', 'white'), 'replace': ('D', '#f0c000')}
MARKS |= {'change': ('d', 'white'), 'fallback': ('X', '#e02020')}
MARKS |= {'decay': ('v', '#4dc36b')}
MARKS |= {'stop': ('s', '#8c959f')}
BRANCHES = {'all': 'branch at', 'weights': 'weights at'}
BRANCHES |= {'no_optimizer': 'fresh optimizer at'}


def lineage_svg(runs: Sequence[Run]) -> str:
  """Which run came from which, and where, as a data URI of an SVG.

  A run is a band over its steps, as high as the LR it applied; a branch leaves
  its parent at the branch step, and goes back to step 0 if it carries the
  weights only. The runs are in the order of `load_runs`. Where they differ in
  their data, the names say which, and the losses on what.
  """
  rows = {run.workdir: -i for i, run in enumerate(runs)}
  parents, peaks = parents_of(runs), _tree_peaks(runs)
  corpora = corpus_words(runs)
  first, last = extent(runs)
  # Room for the label of a branch whose parent is not here.
  left = first - 0.2 * (last - first) * (first > 0)
  with matplotlib.rc_context(STYLE):
    labels = _labels(runs)
    lines = max(label.count('\n') for label in labels)
    height = 1.0 + (0.42 + 0.08 * lines) * len(runs)
    figure = Figure(figsize=(10.5, height), layout='constrained')
    axes = figure.subplots()
    for run, color in zip(runs, run_colors(runs), strict=True):
      y = rows[run.workdir]
      steps, lrs = lr_curve(run)
      half = [0.36 * lr / peaks[run.workdir] for lr in lrs]
      axes.fill_between(
        steps,
        [y - h for h in half],
        [y + h for h in half],
        color=color,
        alpha=0.35,
        lw=0,
      )
      axes.plot([run.start_step, run.end_step], [y, y], color=color, lw=1.8)
      axes.plot(run.end_step, y, 'o', color=color, ms=5)
      loss = axes.annotate(
        _loss_words(run, corpora[run.workdir]),
        (run.end_step, y),
        (9, 0),
        textcoords='offset points',
        va='center',
        fontweight='bold',
      )
      if run.lineage.parent is not None:
        parent = parents.get(run.workdir)
        parent_y = rows[parent.workdir] if parent else None
        is_room = run.start_step - left > 0.15 * (last - left)
        _draw_branch(axes, run, (y, parent_y), color, None if is_room else loss)
      for event in run.lineage.events:
        if event.kind in MARKS:
          marker, fill = MARKS[event.kind]
          axes.plot(event.step, y, marker, ms=7, mfc=fill, mec=INK, zorder=3)
    axes.set_yticks(list(rows.values()), labels)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='y', visible=False)
    axes.spines['left'].set_visible(False)
    axes.set_ylim(-len(runs) + 0.35, 0.65)
    axes.set_xlim(left, last + 0.1 * (last - first))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel('updates')
    _add_mark_legend(figure, runs)
    return data_uri(figure)


def _loss_words(run: Run, corpus: str) -> str:
  """The last loss, and on what; nothing of a run that has none."""
  if not run.evaluations:
    return ''
  loss = f'{run.evaluations[-1]["eval_loss"]:.4f}'
  return f'{loss} on {corpus}' if corpus else loss


def _draw_branch(
  axes: Axes,
  run: Run,
  rows: tuple[int, int | None],
  color: Color,
  loss: Annotation | None,
) -> None:
  """The line from the parent, and the step beside it.

  Args:
    axes: where.
    run: the branch.
    rows: its own, and its parent's if that is here.
    color: its own.
    loss: what the step is to stand behind, if there is no room before the run.
  """
  (y, parent_y), first = rows, run.start_step
  assert run.lineage.parent is not None
  step, carry = run.lineage.parent.step, run.lineage.parent.carry
  if parent_y is None:
    axes.plot(first, y, '<', color=color, ms=6)
  else:
    # Straight down; of weights only, back above its own band to where it is.
    lane = y if step == first else y + 0.44
    path = [(step, parent_y), (step, lane), (first, lane), (first, y)]
    xs, ys = zip(*path, strict=True)
    axes.plot(xs, ys, color=color, lw=1.2, ls=(0, (3, 2)))
    axes.plot(step, parent_y, 'o', color=color, ms=4)
  axes.annotate(
    f'{BRANCHES[carry]} {step}',
    (first, y) if loss is None else (1, 0.5),
    (-7 if loss is None else 9, 0),
    xycoords='data' if loss is None else loss,
    textcoords='offset points',
    ha='right' if loss is None else 'left',
    va='center',
    color=FAINT,
    fontsize=8,
  )


def _labels(runs: Sequence[Run]) -> list[str]:
  """The runs' names, with the data below where it is not the parent's.

  Without it, if all runs have the same.
  """
  if len({data_words(run) for run in runs}) == 1:
    return [run.name for run in runs]
  parents, labels = parents_of(runs), []
  for run in runs:
    words, parent = data_words(run), parents.get(run.workdir)
    is_new = parent is None or words != data_words(parent)
    below = textwrap.shorten(words, 36, placeholder=' ...')
    labels.append(f'{run.name}\n{below}' if is_new else run.name)
  return labels


def _tree_peaks(runs: Sequence[Run]) -> dict[str, float]:
  """By workdir: the highest LR in the run's whole tree, 1 if there is none."""
  parents = parents_of(runs)
  trees: dict[str, str] = {}
  peaks: dict[str, float] = {}
  for run in runs:
    parent = parents.get(run.workdir)
    tree = trees[run.workdir] = trees[parent.workdir] if parent else run.workdir
    peak = max((row['lr'] for row in run.train if 'lr' in row), default=0.0)
    peaks[tree] = max(peaks.get(tree, 0.0), peak)
  return {workdir: peaks[tree] or 1.0 for workdir, tree in trees.items()}


def _add_mark_legend(figure: Figure, runs: Sequence[Run]) -> None:
  kinds = {event.kind for run in runs for event in run.lineage.events}
  handles = [
    Line2D([], [], ls='', marker=marker, ms=7, mfc=fill, mec=INK, label=kind)
    for kind, (marker, fill) in MARKS.items()
    if kind in kinds
  ]
  if handles:
    figure.legend(
      handles=handles, loc='outside upper right', ncols=len(handles)
    )
