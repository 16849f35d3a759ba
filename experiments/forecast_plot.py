"""Pictures of forecasts beside what was measured."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import STYLE
from experiments.judging import Judged
from lrsched import laws

MEASURED, FORECAST = '#555555', '#0072b2'
PANEL_INCHES = (2.0, 2.5)
SMALL = {**STYLE, 'font.size': 7, 'axes.titlesize': 7, 'axes.labelsize': 7}
LATE = 0.08  # of a curve: before, it falls too fast to see the rest


def plot_forecast(
  curves: Sequence[laws.Curve],
  fitted: laws.Fit,
  forecast: laws.Forecast,
  path: pathlib.Path,
) -> None:
  """The fitted curves, what the law makes of them, and one forecast."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(7, 3.6), layout='constrained')
    ax = figure.subplots()
    for i, curve in enumerate(curves):
      rows = curve.measured[curve.steps[curve.measured] >= curve.warmup_steps]
      color = f'C{i + 1}'
      ax.plot(curve.steps[rows], curve.losses[rows], '.', ms=3, color=color)
      own = fitted.forecast(curve, curve.steps[rows])
      ax.plot(own.steps, own.mean, lw=1, color=color, label=curve.name)
    ax.plot(forecast.steps, forecast.mean, color='C0', label='forecast, 90 %')
    ax.fill_between(
      forecast.steps, forecast.low, forecast.high, color='C0', alpha=0.2, lw=0
    )
    late = max(1, len(forecast.mean) // 10)
    low = min([forecast.low.min(), *(np.nanmin(c.losses) for c in curves)])
    ax.set_ylim(low - 0.05, forecast.mean[late] + 0.3)
    ax.set(xlabel='update', ylabel='loss, nats')
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def plot_protocol(
  judged: Sequence[Judged], law: str, path: pathlib.Path
) -> None:
  """Two panels for each test curve, a row for each group.

  The upper one has the losses; as a forecast is often too near to tell apart
  there, the lower one has the measured losses less the forecast.
  """
  columns = max(len(one.group.test) for one in judged)
  most = 1.1 * max(
    max(abs(end['predicted'] - end['measured']), end['high'] - end['predicted'])
    for one in judged
    for end in (c['end'] for c in one.results[law]['per_curve'].values())
  )
  width, height = PANEL_INCHES
  with matplotlib.rc_context(SMALL):
    size = columns * width + 0.6, len(judged) * height + 0.6
    figure = Figure(figsize=size)
    # Fixed margins: fitting them around so many labels takes long.
    grid = figure.add_gridspec(
      3 * len(judged),  # losses, errors, and room for labels
      columns,
      height_ratios=(3, 2, 1.3) * len(judged),
      left=0.75 / size[0],
      right=1 - 0.1 / size[0],
      bottom=0.05 / size[1],
      top=1 - 0.8 / size[1],
      wspace=0.3,
      hspace=0.12,
    )
    for row, one in enumerate(judged):
      panels = zip(one.group.test, one.forecasts[law], strict=True)
      for column, (curve, forecast) in enumerate(panels):
        above = figure.add_subplot(grid[3 * row, column])
        below = figure.add_subplot(grid[3 * row + 1, column])
        _losses(above, curve, forecast)
        _errors(below, curve, forecast, most)
        if column == 0:
          above.text(
            *(0, 1.25),
            one.group.name,
            transform=above.transAxes,
            weight='bold',
          )
          above.set_ylabel('loss')
          below.set_ylabel('measured less\nforecast')
    figure.suptitle(
      f'{law}: measured (dots), forecast, 90 % interval\n'
      'in nats, the difference at the end in numbers; over 1000 updates',
      x=0.75 / size[0],
      y=1 - 0.1 / size[1],
      ha='left',
      va='top',
      fontsize=9,
    )
    figure.savefig(path, dpi=110)


def _losses(ax: Axes, curve: laws.Curve, forecast: laws.Forecast) -> None:
  y, steps = curve.losses[curve.measured], forecast.steps / 1000
  ax.fill_between(
    steps, forecast.low, forecast.high, color=FORECAST, alpha=0.25, lw=0
  )
  ax.plot(steps, y, '.', ms=2, color=MEASURED)
  ax.plot(steps, forecast.mean, lw=1, color=FORECAST)
  late = forecast.steps >= LATE * forecast.steps[-1]
  low = min(y[late].min(), forecast.low[late].min())
  high = max(y[late].max(), forecast.mean[late].max())
  ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
  ax.set_xlim(0, steps[-1] * 1.03)
  ax.set_title(pathlib.PurePath(curve.name).stem)
  ax.tick_params(labelbottom=False)


def _errors(
  ax: Axes, curve: laws.Curve, forecast: laws.Forecast, most: float
) -> None:
  y, steps = curve.losses[curve.measured], forecast.steps / 1000
  low, high = forecast.low - forecast.mean, forecast.high - forecast.mean
  ax.fill_between(steps, low, high, color=FORECAST, alpha=0.25, lw=0)
  ax.axhline(0, lw=1, color=FORECAST)
  error = y - forecast.mean
  ax.plot(steps, error, '.', ms=2, color=MEASURED)
  # The early losses, which no law is fitted to, may be further off.
  ax.set_ylim(-most, most)
  ax.set_xlim(0, steps[-1] * 1.03)
  ax.text(
    *(0.97, 0.96),
    f'{error[-1]:+.4f}',
    transform=ax.transAxes,
    ha='right',
    va='top',
  )
