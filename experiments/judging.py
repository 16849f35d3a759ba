"""Laws judged by a protocol: errors, intervals, decisions."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.decisions import LAST
from experiments.decisions import choices
from experiments.decisions import judge_choices
from experiments.protocol import Group
from experiments.protocol import data_sets
from experiments.protocol import read_groups
from lrsched import laws

PUBLISHED = {
  'annealing': laws.Annealing(),
  'multi_power': laws.MultiPower(),
  'functional': laws.Functional(),
  'loss_drop': laws.LossDrop(),
  'concave': laws.Concave(),
}
METRICS = ('R2', 'MAE', 'RMSE', 'PredE', 'WorstE', 'FinalE', 'SmoothFinalE')
MISS = 0.1  # share of losses that a 90 % interval is to leave out


class Judged(NamedTuple):
  """What laws say of a group.

  Attributes:
    group: its curves.
    forecasts: by law, one for each test curve.
    results: by law, as in the result file.
  """

  group: Group
  forecasts: dict[str, list[laws.Forecast]]
  results: dict[str, dict[str, Any]]


def pooled_knowledge(priors: str) -> laws.Pooled | None:
  """What `--priors` names; None for no prior.

  Raises:
    ValueError: if a file does not hold pooled knowledge.
  """
  if priors == 'shipped':
    return laws.SHIPPED
  if priors == 'none':
    return None
  try:
    return laws.Pooled(**json.loads(pathlib.Path(priors).read_text()))
  except (OSError, TypeError, ValueError) as error:
    raise ValueError(
      f'--priors must be shipped, none or a JSON file of pooled knowledge, got '
      f'{priors!r} ({error})'
    ) from error


def fit_named(
  name: str, curves: Sequence[laws.Curve], pooled: laws.Pooled | None
) -> laws.Fit:
  """A fit of the law of that name; `auto` is `concave` without a prior."""
  if name == 'auto' and pooled is not None:
    return laws.auto(curves, pooled)
  return laws.fit(PUBLISHED['concave' if name == 'auto' else name], curves)


def metrics(curve: laws.Curve, mean: np.ndarray) -> dict[str, float]:
  """How far predictions are from a curve's losses, in nats.

  R2, MAE, RMSE, PredE (mean relative error), WorstE (its maximum), FinalE
  (absolute error at the last point) and SmoothFinalE (that of the mean of the
  last five).
  """
  y = curve.losses[curve.measured]
  error = y - mean
  return {
    'R2': float(1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2)),
    'MAE': float(np.abs(error).mean()),
    'RMSE': float(np.sqrt(np.mean(error**2))),
    'PredE': float(np.mean(np.abs(error) / y)),
    'WorstE': float(np.max(np.abs(error) / y)),
    'FinalE': float(np.abs(error[-1])),
    'SmoothFinalE': float(np.abs(error[-LAST:].mean())),
  }


def interval_score(low: float, high: float, measured: float) -> float:
  """Of a 90 % interval (Gneiting and Raftery 2007, Eq. 43); less is better.

  Its width, and 20 times what it misses the measured value by.
  """
  miss = max(low - measured, measured - high, 0.0)
  return high - low + 2 / MISS * miss


def judge_curve(curve: laws.Curve, forecast: laws.Forecast) -> dict[str, Any]:
  """Metrics of a forecast of one curve, and how its interval did."""
  y = curve.losses[curve.measured]
  inside = (forecast.low <= y) & (y <= forecast.high)
  low, high = float(forecast.low[-1]), float(forecast.high[-1])
  return {
    **metrics(curve, forecast.mean),
    'coverage90': float(inside.mean()),
    'end': {
      'predicted': float(forecast.mean[-1]),
      'low': low,
      'high': high,
      'measured': float(y[-1]),
      'inside': bool(inside[-1]),
      'interval_score90': interval_score(low, high, float(y[-1])),
    },
  }


def judge(
  name: str, group: Group, pooled: laws.Pooled | None
) -> tuple[list[laws.Forecast], dict[str, Any]]:
  """The forecasts of one law for one group, and its part of the result.

  Raises:
    ValueError: naming the group and the law, if that refuses.
  """
  began = time.perf_counter()
  try:
    fitted = fit_named(name, group.fit, pooled)
    fit_seconds = time.perf_counter() - began
    forecasts = [fitted.forecast(curve) for curve in group.test]
  except ValueError as error:
    raise ValueError(f'{group.name}, {name}: {error}') from error
  per_curve = {
    curve.name: judge_curve(curve, forecast)
    for curve, forecast in zip(group.test, forecasts, strict=True)
  }
  found = per_curve.values()
  mean = lambda key: float(np.mean([c[key] for c in found]))
  end_mean = lambda key: float(np.mean([c['end'][key] for c in found]))
  return forecasts, {
    **{key: mean(key) for key in (*METRICS, 'coverage90')},
    'end_coverage90': end_mean('inside'),
    'end_interval_score90': end_mean('interval_score90'),
    **judge_choices(choices(group.test, [f.mean for f in forecasts])),
    'fit_seconds': fit_seconds,
    'params': fitted.params,
    'verdict': list(fitted.verdict),
    'per_curve': per_curve,
  }


def judge_all(
  protocol: pathlib.Path, priors: str, exclude_source: str | None
) -> list[Judged]:
  """Every law on every group of a protocol, with a line for each as it ends.

  Args:
    protocol: the file.
    priors: as `pooled_knowledge` has it.
    exclude_source: a source without which the prior is pooled again; `each`
      is that of the group at hand.
  """

  @functools.cache
  def pooled_without(source: str) -> laws.Pooled:
    began = time.perf_counter()
    pooled = laws.pool(data_sets(protocol.parent, source))
    _say(f'prior pooled without {source}', began)
    return pooled

  shipped = pooled_knowledge(priors)
  groups, names = read_groups(protocol), (*PUBLISHED, 'auto')
  out = []
  for i, group in enumerate(groups, start=1):
    without = group.source if exclude_source == 'each' else exclude_source
    pooled = pooled_without(without) if without else shipped
    began = time.perf_counter()
    judged = {name: judge(name, group, pooled) for name in names}
    forecasts = {name: both[0] for name, both in judged.items()}
    results = {name: both[1] for name, both in judged.items()}
    out.append(Judged(group, forecasts, results))
    _say(f'{group.name}: done ({i} of {len(groups)})', began)
  return out


def _say(text: str, began: float) -> None:
  seconds = time.perf_counter() - began
  print(f'{text}, {seconds:.1f} s', file=sys.stderr, flush=True)
