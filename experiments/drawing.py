"""Pictures of schedules: the LR over steps, with the phases of a single one."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

import lrsched
from experiments.figures import FAINT
from experiments.figures import HUES
from experiments.figures import STYLE

LINES = cycler(linestyle=['-', '--']) * cycler(color=HUES)
# Phases in which the LR rises or falls; the others stay white.
SHADES = {'warmup': '#fdf0e2', 'decay': '#e6f0f8', 'cooldown': '#e9f5ef'}


class Shown(NamedTuple):
  """A schedule and how much of it to show: `t < total_steps`."""

  label: str
  schedule: lrsched.Schedule
  total_steps: int


def phases_shown(shown: Shown) -> list[tuple[str, int, int]]:
  """Name, start and end of each phase, as far as it is shown."""
  phases = []
  for name, start, end in shown.schedule.phases():
    end = shown.total_steps if end is None else min(end, shown.total_steps)
    if start < end:
      phases.append((name, start, end))
  return phases


def picture(
  shown: Sequence[Shown], size_inches: tuple[float, float] = (7.2, 3.2)
) -> Figure:
  """The LR over steps of all schedules in one pair of axes.

  The phases of a single one are shaded, and named where there is room.
  """
  with matplotlib.rc_context(
    {**STYLE, 'axes.prop_cycle': LINES, 'lines.linewidth': 1.6}
  ):
    figure = Figure(figsize=size_inches, layout='constrained')
    axes = figure.subplots()
    for one in shown:
      # To the end of the last update, where a decay is at its final LR.
      lrsched.plot(one.schedule, one.total_steps + 1, label=one.label, ax=axes)
    for artist in (*axes.patches, axes.get_legend()):
      artist.remove()  # type: ignore[union-attr]  # plot made a legend
    if all(isinstance(one.schedule, lrsched.Tied) for one in shown):
      axes.set_ylabel('value')  # of a weight decay or momentum
    axes.set_xlim(0, max(one.total_steps for one in shown))
    axes.set_ylim(0, 1.08 * axes.dataLim.y1 or 1.0)
    if len(shown) == 1:
      _shade_phases(axes, shown[0])
    else:
      figure.legend(loc='outside right upper')
  return figure


def _shade_phases(axes: Axes, shown: Shown) -> None:
  axes.set_ylim(0, 1.2 * axes.dataLim.y1 or 1.0)  # the names are above
  for name, start, end in phases_shown(shown):
    shades = [SHADES[word] for word in name.split() if word in SHADES]
    if shades:
      axes.axvspan(start, end, color=shades[0], lw=0, zorder=0)
    axes.axvline(start, color=FAINT, lw=0.6, ls=':')
    # Where the name fits, at about an eightieth of the width a letter.
    if end - start >= 0.013 * (len(name) + 1) * shown.total_steps:
      axes.annotate(
        name,
        ((start + end) / 2, 0.97),
        xycoords=('data', 'axes fraction'),
        ha='center',
        va='top',
        color='#57606a',
        fontsize=8,
      )


def save(figure: Figure, path: pathlib.Path) -> None:
  """Writes a picture; the same figure gives the same bytes."""
  file = io.BytesIO()
  metadata = {'Date': None} if path.suffix == '.svg' else {'Software': None}
  with matplotlib.rc_context(STYLE):
    figure.savefig(file, format=path.suffix[1:], dpi=150, metadata=metadata)
  path.write_bytes(file.getvalue())
