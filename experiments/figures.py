"""Pictures of runs: loss and LR over steps, and the tree of branches."""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.colors
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.run_words import corpus_words
from experiments.runs import Run
from experiments.runs import parents_of
from trainers.metrics import Row

# Okabe and Ito's colours, which stay apart for colour-blind readers.
HUES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
Color = tuple[float, float, float]
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
  evaluations are dots. A branch starts at its branch step. Losses on unlike
  corpora do not compare: each main corpus has a panel of its own.
  """
  corpora = corpus_words(runs)
  groups: dict[str, list[tuple[Run, Color]]] = {}
  for run, color in zip(runs, run_colors(runs), strict=True):
    groups.setdefault(corpora[run.workdir], []).append((run, color))
  with matplotlib.rc_context(STYLE):
    heights = [4.4 if len(groups) == 1 else 3.3] * len(groups) + [2.2]
    figure = Figure(figsize=(10.5, sum(heights)), layout='constrained')
    *panels, lr_axes = figure.subplots(
      len(heights), sharex=True, gridspec_kw={'height_ratios': heights}
    )
    handles: list[Any] = []
    for loss_axes, (corpus, group) in zip(panels, groups.items(), strict=True):
      if corpus:
        loss_axes.set_title(f'on {corpus}', loc='left', fontsize=9)
        handles.append(Line2D([], [], ls='', label=f'on {corpus}'))
      for run, color in group:
        handles.append(_draw_losses(loss_axes, run, color))
        lr_axes.plot(*lr_curve(run), color=color, lw=1.5)
      _set_loss_limits(loss_axes, [run for run, _ in group])
      loss_axes.set_ylabel('loss (nats per token)')
    lr_axes.set_ylabel('LR as applied')
    lr_axes.set_ylim(bottom=0)
    lr_axes.ticklabel_format(axis='y', scilimits=(-2, 3))
    lr_axes.set_xlabel('updates')
    first, last = extent(runs)
    lr_axes.set_xlim(first, last + 0.01 * (last - first))
    figure.legend(handles=handles, loc='outside right upper')
    return data_uri(figure)


def run_colors(runs: Sequence[Run]) -> list[Color]:
  """A colour per run: a hue per kind of schedule, if there are several.

  A branch counts as its oldest known ancestor's kind; within a kind, runs go
  from dark to light. Runs of one kind get unlike colours, or many of them an
  even range.
  """
  parents = parents_of(runs)
  families = []
  for run in runs:
    root = run
    while above := parents.get(root.workdir):
      root = above
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


def _draw_losses(axes: Axes, run: Run, color: Color) -> ErrorbarContainer:
  """Training losses and evaluations; the latter are for the legend."""
  axes.plot(*_means(run.train, 'loss'), color=color, alpha=0.3, lw=0.7)
  return axes.errorbar(
    [row['step'] for row in run.evaluations],
    [row['eval_loss'] for row in run.evaluations],
    [row.get('eval_se', 0.0) for row in run.evaluations],
    color=color,
    marker='o',
    ms=3.5,
    lw=1.3,
    label=run.name,
  )


def extent(runs: Sequence[Run]) -> tuple[int, int]:
  """Steps at which the first run starts and the last ends, never the same."""
  first = min(run.start_step for run in runs)
  return first, max(first + 1, *(run.end_step for run in runs))


def _set_loss_limits(axes: Axes, runs: Sequence[Run]) -> None:
  """Frames the evaluations after the first steep fall, with room around.

  The differences that matter are far smaller than the fall and the noise of
  training losses, which may leave the frame.
  """
  settled = 0.1 * extent(runs)[1]

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


def lr_curve(run: Run) -> tuple[list[int], list[float]]:
  """Steps and LRs as logged, and after the last row as scheduled, to the end.

  The LR of the last update is drawn to its end; without rows there is nothing.
  """
  steps, lrs = thinned(run.train, 'lr')
  last = run.end_step - 1
  if not steps:
    return steps, lrs
  if steps[-1] < last:
    steps.append(last)
    lrs.append(float(run.schedules['schedule'](last)))
  return [*steps, run.end_step], [*lrs, lrs[-1]]


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
