"""A real run that a loss law follows, its restart, and its branches."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

import lrsched
from lrsched import laws
from tests.integration import tiny_run
from tests.tiny import compilations
from trainers import loop
from trainers.checkpoint import load_metadata
from trainers.config import EvalConfig
from trainers.config import ForecastConfig
from trainers.evaluate import evaluate
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.orders import Stopped
from trainers.start import checkpoints_of
from trainers.train import run

STEPS = ('law_loss', 'law_residual', 'law_final_loss', 'law_decay_now_loss')
PEAK_LR = 1e-2


def config_of(total_steps=150, forecast=ForecastConfig(refit_every_evals=5)):  # noqa: B008
  config = tiny_run.get_config()
  schedule = lrsched.WSD(
    peak_lr=PEAK_LR, warmup_steps=5, stable_steps=115, decay_steps=30
  )
  return dataclasses.replace(
    config,
    optimizer=dataclasses.replace(config.optimizer, schedule=schedule),
    total_steps=total_steps,
    eval=EvalConfig(every_steps=5, n_sequences=16, batch_size=8),
    checkpoint=dataclasses.replace(
      config.checkpoint, every_steps=50, keep_steps=()
    ),
    forecast=forecast,
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """With text that losses fall on as in earnest: Python's own sources."""
  folder = tmp_path_factory.mktemp('forecast')
  (folder / 'text').mkdir()
  for source in sorted(pathlib.Path(json.__file__).parents[1].glob('*.py'))[
    :80
  ]:
    (folder / 'text' / f'{source.stem}.txt').write_bytes(source.read_bytes())
  return folder


@pytest.fixture
def here(folder, monkeypatch):
  monkeypatch.chdir(folder)
  return folder


def test_a_run_is_followed_and_a_restart_foresees_the_same(here, monkeypatch):
  run(config_of(), here / 'whole')
  rows = tiny_run.rows_of(here / 'whole')
  train = [r for r in rows if 'lr' in r]
  evals = [r for r in rows if 'eval_loss' in r]
  said = [r for r in train if 'law_loss' in r]
  # Five evaluations are too few for a fit, ten are enough; that fit is in force
  # from the eleventh on.
  assert said[0]['step'] == 55
  assert [r['step'] for r in said] == list(range(55, 150))
  for row in said:
    assert set(STEPS) <= set(row)
    assert row['law_residual'] == pytest.approx(
      row['loss'] - row['law_loss'], abs=1e-6
    )
  last = evals[-1]
  assert last['law_eval_residual'] == pytest.approx(
    last['eval_loss'] - said[-1]['law_loss'], abs=1e-6
  )
  # At the last update, the end is now.
  assert said[-1]['law_final_loss'] == pytest.approx(
    said[-1]['law_loss'], abs=1e-6
  )
  assert last['law_final_low'] < last['law_final_high']
  # The same as the fit in the checkpoint says offline.
  saved = load_metadata(checkpoints_of(here / 'whole'), 150)['forecast']
  fit = laws.Fit.from_dict(saved['fit'])
  spec = config_of().optimizer.schedule
  np.testing.assert_allclose(
    said[-1]['law_final_loss'], fit.forecast(spec, [149]).mean, atol=1e-4
  )

  events = EventAccumulator(
    str(here / 'whole' / 'tb'), size_guidance={'scalars': 0}
  ).Reload()
  drawn = events.Scalars('law_final_loss')
  assert [e.step for e in drawn] == [r['step'] for r in said]
  assert drawn[-1].value == pytest.approx(said[-1]['law_final_loss'])

  # Stopped while a fit is under way, and started again.
  run(config_of(100), here / 'stopped')
  assert load_metadata(checkpoints_of(here / 'stopped'), 100)['forecast'][
    'is_pending'
  ]
  run(config_of(), here / 'stopped', restore='replace')
  assert later(rows, 100) == later(tiny_run.rows_of(here / 'stopped'), 100)

  # Stopped in an evaluation, which is then done again: the law hears it.
  evaluated = 0

  def strike(*args):
    nonlocal evaluated
    evaluated += 1
    if evaluated == 23:  # the weights, then their average, every five updates
      os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*args)

  monkeypatch.setattr(loop, 'evaluate', strike)
  with pytest.raises(Stopped) as stopped:
    run(config_of(), here / 'struck')
  assert stopped.value.step == 60
  run(config_of(), here / 'struck')
  again = tiny_run.rows_of(here / 'struck')
  assert any(r['step'] == 60 and 'law_eval_residual' in r for r in again)
  assert later(rows, 59) == later(again, 59)


def later(rows, step):
  return [
    {k: v for k, v in r.items() if k != 'tokens_per_s'}
    for r in rows
    if r['step'] > step
  ]


def test_a_law_begins_to_follow_at_a_branch_and_ends_at_another(here):
  plain = config_of(forecast=None)
  run(dataclasses.replace(plain, total_steps=100), here / 'plain')
  fit = laws.Fit.given(
    laws.Concave(),
    {
      'L0': 1.0,
      'A': 0.1,
      'a': 0.4,
      'K': 0.2,
      'w': 0.7,
      'C': 1000.0,
      'b': 0.4,
      'g': 0.0,
      'q': 0.7,
    },
    peak_lr=PEAK_LR,
  )
  (here / 'fit.json').write_text(json.dumps(fit.to_dict()))
  forecast = ForecastConfig(fit='fit.json', refit_every_evals=0)
  branch = config_of(forecast=forecast)
  run(branch, here / 'followed', branch_from=f'{here}/plain@100')
  rows = tiny_run.rows_of(here / 'followed')
  lrs, warmup_steps = laws.lr_of_updates(branch.optimizer.schedule)
  said = [r for r in rows if 'law_loss' in r]
  exact = fit.law.predict(
    fit.params,
    lrs,
    [r['step'] for r in said],
    warmup_steps=warmup_steps,
    peak_lr=PEAK_LR,
  )
  # The track of the first 100 updates was made from the saved schedule.
  np.testing.assert_allclose([r['law_loss'] for r in said], exact, atol=2e-5)
  # Without the law again; the numbers of the run itself are the same.
  run(plain, here / 'unfollowed', branch_from=f'{here}/plain@100')
  bare = tiny_run.rows_of(here / 'unfollowed')
  for a, b in zip(rows, bare, strict=True):
    assert all(a[k] == v for k, v in b.items() if k != 'tokens_per_s')


def test_a_refit_compiles_no_training_step(here):
  run(config_of(), here / 'first')
  with compilations() as names:
    run(config_of(), here / 'second')
  assert not [name for name in names if name == 'jit(step)']


def test_a_branch_on_other_data_is_not_followed(here):
  """A law is of one loss: the track of the parent is not of this one's."""
  short = config_of(10, ForecastConfig())
  run(short, here / 'short')
  (here / 'notes').mkdir()
  for i in range(40):
    (here / 'notes' / f'{i}.txt').write_text(f'{i}, and so on. ' * 60)
  other = dataclasses.replace(short.data.source, path='notes')
  branch = dataclasses.replace(
    config_of(20, ForecastConfig()),
    data=dataclasses.replace(short.data, source=other),
  )
  with pytest.raises(ValueError, match="main corpus is not its parent's"):
    run(branch, here / 'shifted', branch_from=f'{here}/short@10')
  assert not (here / 'shifted').exists()
  # The new one replays the old: another main corpus all the same.
  mixture = Mixture(
    domains={
      'old': Domain(source=short.data.source, share=0.5),
      'new': Domain(source=other),
    }
  )
  mixed = dataclasses.replace(
    branch, data=dataclasses.replace(short.data, source=mixture)
  )
  with pytest.raises(ValueError, match="main corpus is not its parent's"):
    run(mixed, here / 'shifted', branch_from=f'{here}/short@10')
  run(branch, here / 'anew', branch_from=f'{here}/short@10', carry='weights')
  saved = load_metadata(checkpoints_of(here / 'anew'), 20)['forecast']
  assert [n for n, _ in saved['evaluations']] == [5, 10, 15, 20]


def test_what_cannot_be_followed_is_said_before_anything_is_written(here):
  (here / 'other.json').write_text(
    json.dumps(
      laws.Fit.given(
        laws.LossDrop(),
        {'L0': 2.0, 'A': 0.1, 'alpha': 0.5, 'B': 10.0},
        peak_lr=PEAK_LR,
      ).to_dict()
    )
  )
  (here / 'peak.json').write_text(
    (here / 'other.json')
    .read_text()
    .replace(f'"peak_lr": {PEAK_LR}', '"peak_lr": 0.5')
  )
  (here / 'no.json').write_text('{"law": 1}')
  for forecast, message in (
    (ForecastConfig(fit='missing.json'), 'missing.json is not a saved fit'),
    (ForecastConfig(fit='no.json'), 'no.json is not a saved fit'),
    (ForecastConfig(fit='other.json'), 'refit_every_evals must be 0'),
    (
      ForecastConfig(fit='peak.json', refit_every_evals=0),
      'peak LR must be that',
    ),
    (ForecastConfig(curves=('a.csv',)), 'a.csv cannot be read'),
  ):
    with pytest.raises(ValueError, match=message):
      run(config_of(forecast=forecast), here / 'refused')
    assert not (here / 'refused').exists()
  with pytest.raises(ValueError, match='must name a file'):
    ForecastConfig(refit_every_evals=0)
  with pytest.raises(ValueError, match='decay_frac must be in'):
    ForecastConfig(decay_frac=0.0)
