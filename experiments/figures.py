"""Pictures of runs: loss and LR over steps, and the tree of branches."""

from __future__ import annotations

import base64
import colorsys
import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.run_words import data_words
from experiments.runs import Run
from experiments.runs import parent_id
from trainers.metrics import Row

# Okabe and Ito's colours, which stay apart for colour-blind readers.
HUES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
MARKS = {'resume': ('o', 'white'), 'replace': ('D', '#f0c000')}
MARKS |= {'fallback': ('X', '#e02020'), 'decay': ('v', '#4dc36b')}
MARKS |= {'stop': ('s', '#8c959f')}
BRANCHES = {'all': 'branch at', 'weights': 'weights at'}
BRANCHES |= {'no_optimizer': 'fresh optimizer at'}
INK, FAINT = '#24292f', '#8c959f'
STYLE: dict[Any, Any] = {
  'font.size': 9,
  'text.color': INK,
  'axes.edgecolor': FAINT,
  'axes.labelcolor': INK,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': '#eaeef2',
  'xtick.color': INK,
  'ytick.color': INK,
  'legend.frameon': False,
  # The same runs give the same bytes.
  'svg.hashsalt': 'lrsched',
}
# Points drawn of a curve: more than a panel has pixels would only add bytes. Of
# training losses fewer, as means of many rows are easier to see.
MAX_POINTS = 800
MAX_MEANS = 200


def curves_svg(runs: Sequence[Run]) -> str:
  """Loss over the applied LR on one step axis, as a data URI of an SVG.

  Training losses are faint, means over neighbouring rows where there are many;
  evaluations are dots. A branch starts at its branch step.
  """
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(10.5, 6.6), layout='constrained')
    loss_axes, lr_axes = figure.subplots(
      2, sharex=True, gridspec_kw={'height_ratios': (2, 1)}
    )
    for run, color in zip(runs, run_colors(runs), strict=True):
      loss_axes.plot(*_means(run.train, 'loss'), color=color, alpha=0.3, lw=0.7)
      loss_axes.errorbar(
        [row['step'] for row in run.evaluations],
        [row['eval_loss'] for row in run.evaluations],
        [row.get('eval_se', 0.0) for row in run.evaluations],
        color=color,
        marker='o',
        ms=3.5,
        lw=1.3,
        label=run.name,
      )
      lr_axes.plot(*thinned(run.train, 'lr'), color=color, lw=1.5)
    _set_loss_limits(loss_axes, runs)
    loss_axes.set_ylabel('loss (nats per token)')
    lr_axes.set_ylabel('LR as applied')
    lr_axes.set_ylim(bottom=0)
    lr_axes.ticklabel_format(axis='y', scilimits=(-2, 3))
    lr_axes.set_xlabel('updates')
    first, last = _extent(runs)
    lr_axes.set_xlim(first, last + 0.01 * (last - first))
    figure.legend(loc='outside right upper')
    return data_uri(figure)


def lineage_svg(runs: Sequence[Run]) -> str:
  """Which run came from which, and where, as a data URI of an SVG.

  A run is a band over its steps, as high as the LR it applied; a branch leaves
  its parent at the branch step, and goes back to step 0 if it carries the
  weights only. The runs are in the order of `load_runs`. Where they differ in
  their data, the names say which.
  """
  rows = {run.lineage.run_id: -i for i, run in enumerate(runs)}
  peaks = _tree_peaks(runs)
  first, last = _extent(runs)
  # Room for the label of a branch whose parent is not here.
  left = first - 0.2 * (last - first) * (first > 0)
  with matplotlib.rc_context(STYLE):
    labels = _labels(runs)
    lines = max(label.count('\n') for label in labels)
    height = 1.0 + (0.42 + 0.08 * lines) * len(runs)
    figure = Figure(figsize=(10.5, height), layout='constrained')
    axes = figure.subplots()
    for run, color in zip(runs, run_colors(runs), strict=True):
      y = rows[run.lineage.run_id]
      steps, lrs = thinned(run.train, 'lr')
      half = [0.36 * lr / peaks[run.lineage.run_id] for lr in lrs]
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
      if run.lineage.parent is not None:
        is_room = run.start_step - left > 0.15 * (last - left)
        _draw_branch(axes, run, rows, color, is_room)
      if run.evaluations:
        axes.annotate(
          f'{run.evaluations[-1]["eval_loss"]:.4f}',
          (run.end_step, y),
          (9, 0),
          textcoords='offset points',
          va='center',
          fontweight='bold',
        )
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


def run_colors(runs: Sequence[Run]) -> list[tuple[float, float, float]]:
  """A colour per run: a hue per kind of schedule, if there are several.

  A branch counts as its oldest known ancestor's kind; within a kind, runs go
  from dark to light. Runs of one kind get unlike colours, or many of them an
  even range.
  """
  by_id = {run.lineage.run_id: run for run in runs}
  families = []
  for run in runs:
    root = run
    while parent_id(root) in by_id:
      root = by_id[str(parent_id(root))]
    schedule = root.config['optimizer']['schedule']
    while 'schedule' in schedule:  # the one that a `Warmup` or such is about
      schedule = schedule['schedule']
    families.append(schedule['kind'])
  if len(set(families)) == 1:
    if len(runs) <= len(HUES):
      return [matplotlib.colors.to_rgb(hue) for hue in HUES[: len(runs)]]
    shades = matplotlib.colormaps['viridis'].resampled(len(runs) + 1)
    return [shades(i)[:3] for i in range(len(runs))]
  known = list(dict.fromkeys(families))
  colors, seen = [], dict.fromkeys(known, 0)
  for family in families:
    red, green, blue = matplotlib.colors.to_rgb(
      HUES[known.index(family) % len(HUES)]
    )
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    last = max(families.count(family) - 1, 1)
    light = light * 0.75 + seen[family] / last * (0.72 - light * 0.75)
    if families.count(family) == 1:
      colors.append((red, green, blue))
    else:
      colors.append(colorsys.hls_to_rgb(hue, light, saturation))
    seen[family] += 1
  return colors


def _draw_branch(
  axes: Axes,
  run: Run,
  rows: dict[str, int],
  color: tuple[float, float, float],
  is_room: bool,
) -> None:
  """The line from the parent, and the step beside it."""
  y, first = rows[run.lineage.run_id], run.start_step
  assert run.lineage.parent is not None
  step, carry = run.lineage.parent.step, run.lineage.parent.carry
  parent_y = rows.get(run.lineage.parent.run_id)
  if parent_y is None:
    axes.plot(first, y, '<', color=color, ms=6)
  else:
    # Straight down; of weights only, back above its own band to where it is.
    lane = y if step == first else y + 0.44
    path = [(step, parent_y), (step, lane), (first, lane), (first, y)]
    xs, ys = zip(*path, strict=True)
    axes.plot(xs, ys, color=color, lw=1.2, ls=(0, (3, 2)))
    axes.plot(step, parent_y, 'o', color=color, ms=4)
  # Left of the branch if there is room, else behind the loss at its end.
  axes.annotate(
    f'{BRANCHES[carry]} {step}',
    (first if is_room else run.end_step, y),
    (-7 if is_room else 52, 0),
    textcoords='offset points',
    ha='right' if is_room else 'left',
    va='center',
    color=FAINT,
    fontsize=8,
  )


def _labels(runs: Sequence[Run]) -> list[str]:
  """The runs' names, with the data below where it is not the parent's.

  Without it, if all runs have the same.
  """
  data = {run.lineage.run_id: data_words(run) for run in runs}
  if len(set(data.values())) == 1:
    return [run.name for run in runs]
  labels = []
  for run in runs:
    words = data[run.lineage.run_id]
    is_new = words != data.get(str(parent_id(run)))
    below = textwrap.shorten(words, 36, placeholder=' ...')
    labels.append(f'{run.name}\n{below}' if is_new else run.name)
  return labels


def _extent(runs: Sequence[Run]) -> tuple[int, int]:
  """Steps at which the first run starts and the last ends, never the same."""
  first = min(run.start_step for run in runs)
  return first, max(first + 1, *(run.end_step for run in runs))


def _tree_peaks(runs: Sequence[Run]) -> dict[str, float]:
  """By run id: the highest LR in the run's whole tree, 1 if there is none."""
  trees: dict[str, str] = {}
  peaks: dict[str, float] = {}
  for run in runs:
    own = run.lineage.run_id
    tree = trees[own] = trees.get(str(parent_id(run)), own)
    peak = max((row['lr'] for row in run.train if 'lr' in row), default=0.0)
    peaks[tree] = max(peaks.get(tree, 0.0), peak)
  return {run_id: peaks[tree] or 1.0 for run_id, tree in trees.items()}


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


def _set_loss_limits(axes: Axes, runs: Sequence[Run]) -> None:
  """Frames the evaluations after the first steep fall, with room around.

  The differences that matter are far smaller than the fall and the noise of
  training losses, which may leave the frame.
  """
  settled = 0.1 * _extent(runs)[1]

  def losses(rows: Sequence[Row], name: str) -> list[float]:
    return [
      loss
      for step, loss in zip(*_means(rows, name), strict=True)
      if step >= settled and math.isfinite(loss)
    ]

  shown = [x for run in runs for x in losses(run.evaluations, 'eval_loss')]
  if len(shown) < 2:
    shown += [x for run in runs for x in losses(run.train, 'loss')]
  if shown:
    low, high = min(shown), max(shown)
    margin = 0.3 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


def thinned(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
  """Steps and values of at most MAX_POINTS rows, the last among them."""
  rows = [row for row in rows if name in row]
  every = math.ceil(len(rows) / MAX_POINTS) or 1
  rows = [*rows[:-1:every], *rows[-1:]]
  return [row['step'] for row in rows], [row[name] for row in rows]


def _means(rows: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
  """Mean steps and values of at most MAX_MEANS groups of neighbours."""
  rows = [row for row in rows if name in row]
  size = math.ceil(len(rows) / MAX_MEANS) or 1
  groups = [rows[i : i + size] for i in range(0, len(rows), size)]
  return (
    [sum(row['step'] for row in group) / len(group) for group in groups],
    [sum(row[name] for row in group) / len(group) for group in groups],
  )


def data_uri(figure: Figure) -> str:
  """A figure as the data URI of an SVG."""
  file = io.BytesIO()
  figure.savefig(file, format='svg', metadata={'Date': None})
  return (
    f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}'
  )
