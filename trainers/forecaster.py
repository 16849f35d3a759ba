"""The loss law that follows a run: fitted on the host, evaluated in the step.

The step gets an `Outlook` (parameters, the rest of the schedule) and puts into
its metrics what the law expects. The host fits the law again to the run's own
evaluations, in a thread, while training goes on. A fit that begins at one
evaluation counts from the next one on, however long it took, and a checkpoint
waits for it: so a resumed run forecasts what it would have anyway.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np

import lrsched
from lrsched import laws
from trainers.config import ForecastConfig


class Forecaster:
  """Holds the fit in force, and makes the next one.

  Attributes:
    law: what the training step is compiled with.
    fit: the fit in force; None before the first.
    outlook: argument of the training step.
  """

  def __init__(
    self,
    config: ForecastConfig,
    schedule: lrsched.Schedule,
    total_steps: int,
    saved: dict[str, Any] | None,
  ):
    """Reads the files that the config names.

    Args:
      config: what to fit, and how often.
      schedule: the main one of the run.
      total_steps: updates of the run.
      saved: `record()` of a checkpoint to go on from, or None.

    Raises:
      ValueError: if a file cannot be read, or its fit says nothing about the
        schedule.
    """
    self._config = config
    self._lrs, self._warmup_steps = laws.lr_of_updates(schedule, total_steps)
    self._curves = [_read_curve(path) for path in config.curves]
    self._evaluations: list[tuple[int, float]] = []
    # What the law said after the last update: an evaluation that a signal cut
    # off is done again by a later launch, without that update.
    self._expected: jax.Array | float | None = None
    self._next: concurrent.futures.Future[laws.Fit | None] | None = None
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._refused = ''
    self.law: laws.Law = laws.Concave()
    self.fit: laws.Fit | None = None
    if config.fit is not None:
      self.fit = _read_fit(config.fit)
      self.law = self.fit.law
      if config.refit_every_evals and not isinstance(self.law, laws.Concave):
        raise ValueError(
          'forecast.refit_every_evals must be 0 with a fit of '
          f'{type(self.law).__name__}: what is fitted here is auto, a Concave'
        )
    if saved is not None:
      self._restore(saved)
    self.outlook = self._outlook()

  def _restore(self, saved: dict[str, Any]) -> None:
    self._evaluations = [(int(n), float(x)) for n, x in saved['evaluations']]
    self._expected = saved.get('expected')  # older checkpoints have none
    fits = [s and laws.Fit.from_dict(s) for s in (saved['fit'], saved['next'])]
    # A fit in a file that was not there before comes first.
    if fits[0] is not None and type(fits[0].law) is type(self.law):
      self.fit = fits[0]
    if saved['is_pending']:
      self._next = concurrent.futures.Future()
      self._next.set_result(fits[1])

  def follow(self, schedule: lrsched.Schedule, total_steps: int) -> None:
    """Takes the schedule that runs from now on."""
    self._lrs, self._warmup_steps = laws.lr_of_updates(schedule, total_steps)
    self.outlook = self._outlook()

  def _outlook(self) -> laws.Outlook:
    """With the parameters in force; with any, if there are none yet."""
    fit = self.fit
    if fit is None:
      names = dict.fromkeys(self.law.names(), 0.5)
      fit = laws.Fit.given(self.law, names, peak_lr=self._lrs.max())
    return laws.outlook_of(
      fit, self._lrs, self._warmup_steps, decay_frac=self._config.decay_frac
    )

  def said(
    self, step: int, metrics: dict[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """The metrics of update `step`, the law's only where it says something."""
    if self.fit is None or step < self._warmup_steps:
      metrics = {k: v for k, v in metrics.items() if not k.startswith('law_')}
    self._expected = metrics.get('law_loss')
    return metrics

  def evaluated(self, done: int, loss: float, track: Any) -> dict[str, float]:
    """Takes an evaluation; says what the law has to say about it.

    Args:
      done: updates done.
      loss: evaluated after them.
      track: of the state after them.

    Returns:
      Values for the evaluation's row: the law's residual, and the interval of
      the final loss; none before the first fit, none before the first update,
      and none where a branch begins if its parent was evaluated there.
    """
    heard = self._evaluations[-1][0] if self._evaluations else 0
    if done <= heard:
      return {}
    self._evaluations.append((done, loss))
    row = {}
    if self._expected is not None:
      row['law_eval_residual'] = loss - float(self._expected)
    if self._next is not None:
      self._adopt(self._next.result())
      self._next = None
    lrs = _history(track, self._lrs)
    if self.fit is not None:
      end = self.fit.forecast(
        lrs, np.asarray([len(lrs) - 1]), warmup_steps=self._warmup_steps
      )
      row['law_final_low'] = float(end.low[0])
      row['law_final_high'] = float(end.high[0])
    every = self._config.refit_every_evals
    if every and len(self._evaluations) % every == 0:
      curve = self._own_curve(lrs)
      self._next = self._thread.submit(self._fitted, curve)
    return row

  def _own_curve(self, lrs: np.ndarray) -> laws.Curve:
    """The run so far, as a curve."""
    done = self._evaluations[-1][0]
    losses = np.full(done, np.nan)
    for n, loss in self._evaluations:
      losses[n - 1] = loss
    return laws.Curve(
      steps=np.arange(done),
      lrs=lrs[:done],
      losses=losses,
      warmup_steps=min(self._warmup_steps, done),
      name='this run',
    )

  def _fitted(self, curve: laws.Curve) -> laws.Fit | None:
    """The new fit; None, with the reason on the terminal, if it is refused."""
    try:
      fit = laws.auto([*self._curves, curve])
      fit.check_evidence(self._lrs, self._warmup_steps)
    except ValueError as error:
      if str(error) != self._refused and jax.process_index() == 0:
        print(f'law: not fitted yet: {error}', file=sys.stderr)
      self._refused = str(error)
      return None
    return fit

  def _adopt(self, fit: laws.Fit | None) -> None:
    if fit is not None:
      self.fit = fit
      self.outlook = self._outlook()

  def record(self) -> dict[str, Any]:
    """For a checkpoint; waits for a fit that is under way."""
    pending = self._next.result() if self._next is not None else None
    return {
      'evaluations': [list(e) for e in self._evaluations],
      'expected': None if self._expected is None else float(self._expected),
      'fit': self.fit and self.fit.to_dict(),
      'next': pending and pending.to_dict(),
      'is_pending': self._next is not None,
    }

  def close(self) -> None:
    """Ends the thread."""
    self._thread.shutdown()


def _history(track: Any, lrs: np.ndarray) -> np.ndarray:
  """LRs of the whole run: as applied so far, as scheduled from here on."""
  n = int(track.n)
  steps, applied = np.asarray(track.knots.steps), np.asarray(track.knots.lrs)
  first = int(steps[0]) + 1  # before it is the warmup
  out = lrs.copy()
  out[first:n] = np.interp(np.arange(first, n), steps, applied)
  return out


def _read_curve(path: str) -> laws.Curve:
  try:
    return laws.Curve.from_csv(pathlib.Path(path).read_text(), name=path)
  except OSError as error:
    raise ValueError(f'forecast.curves: {path} cannot be read: {error}') from (
      error
    )


def _read_fit(path: str) -> laws.Fit:
  try:
    return laws.Fit.from_dict(json.loads(pathlib.Path(path).read_text()))
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'forecast.fit: {path} is not a saved fit ({error}); make one with '
      'python -m experiments.forecast --curves=... --save=FILE'
    ) from error
