"""Old data, then new data with replay: real runs, cut off and gone on with."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import lrsched
from experiments.flags import override
from tests.integration import tiny_run
from trainers.averaging import Lawa
from trainers.checkpoint import load_metadata
from trainers.checkpoint import manifest_of
from trainers.checkpoint import path_of
from trainers.evaluate import summarise
from trainers.gere import GeRe
from trainers.log import eval_file
from trainers.metrics import read_metrics
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.sources import TextFolder
from trainers.start import checkpoints_of
from trainers.train import run
from trainers.views import Views

OLD, NEW = TextFolder(path='text'), TextFolder(path='neu')
BRANCHED, LAST = 20, 50


def write_texts(folder):
  """Two corpora of other words."""
  tiny_run.write_text(folder)
  (folder / 'neu').mkdir()
  words = np.array(['der', 'Satz', 'wird', 'und', 'Regel', 'ist', 'dann'])
  for i in range(40):
    chosen = np.random.default_rng(100 + i).choice(words, 200)
    (folder / 'neu' / f'{i}.txt').write_text(' '.join(chosen))


def trunk_config():
  config = override(
    tiny_run.get_config(),
    [
      f'total_steps={BRANCHED}',
      'checkpoint.keep_steps=()',
      'checkpoint.every_steps=10',
      'eval.every_steps=10',
    ],
  )
  domains = {'old': Domain(source=OLD)}
  data = dataclasses.replace(config.data, source=Mixture(domains=domains))
  evaluated = dataclasses.replace(config.eval, sources={'new': NEW})
  return dataclasses.replace(config, data=data, eval=evaluated)


def branch_config():
  config = trunk_config()
  domains = {
    'old': Domain(source=OLD, share=((0, 0.5), (40, 0.25))),
    'new': Domain(source=NEW),
  }
  rewarmed = lrsched.Rewarm(
    before=config.optimizer.schedule,
    rewarm_step=BRANCHED,
    warmup_steps=4,
    after=lrsched.Cosine(peak_lr=2e-3, total_steps=LAST - BRANCHED - 4),
  )
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, source=Mixture(domains=domains)),
    optimizer=dataclasses.replace(config.optimizer, schedule=rewarmed),
    eval=dataclasses.replace(config.eval, sources={}),
    total_steps=LAST,
    lawa=Lawa(every_steps=5, window=3),
    gere=GeRe(source=OLD, n_sequences=8, batch_size=4),
    checkpoint=dataclasses.replace(config.checkpoint, keep_last=9),
  )


@pytest.fixture(scope='module')
def here(tmp_path_factory):
  folder = tmp_path_factory.mktemp('continual')
  write_texts(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    run(trunk_config(), folder / 'trunk')
    run(branch_config(), folder / 'whole', branch_from=f'trunk@{BRANCHED}')
    yield folder


def cut(folder, name, step):
  """A copy of `whole` as if killed after its checkpoint of a step."""
  shutil.copytree(folder / 'whole', folder / name)
  root = checkpoints_of(folder / name)
  for later in range(step + 10, LAST + 10, 10):
    manifest_of(root, later).unlink()
    shutil.rmtree(path_of(root, later))


def test_a_run_with_everything_resumes_to_the_bit(here):
  """Mixture, its owed sequences, LAWA's ring, GeRe's teacher, the EMA."""
  for step in (30, BRANCHED):
    cut(here, f'cut{step}', step)
    run(branch_config(), here / f'cut{step}')
    tiny_run.assert_same_run(here / 'whole', here / f'cut{step}', LAST)


def test_every_evaluation_is_of_every_corpus(here):
  rows = {row['step']: row for row in read_metrics(here / 'whole')[1]}
  assert sorted(rows) == [20, 30, 40, 50]
  for step, row in rows.items():
    assert row['eval_loss/new'] == row['eval_loss']
    for name in ('old', 'new'):
      losses = np.load(eval_file(here / 'whole', step, name))
      assert row[f'eval_loss/{name}'] == summarise(losses).mean
      per_byte = row[f'eval_loss/{name}'] / np.log(2)
      assert row[f'eval_bits_per_byte/{name}'] == pytest.approx(per_byte)
      forgotten = row[f'eval_loss/{name}'] - rows[20][f'eval_loss/{name}']
      assert row[f'forgetting/{name}'] == pytest.approx(forgotten, abs=1e-12)
  # What the branch begins with is what the trunk ended with, on both.
  trunk = read_metrics(here / 'trunk')[1][-1]
  for name in ('old', 'new'):
    assert rows[20][f'eval_loss/{name}'] == trunk[f'eval_loss/{name}']
  assert rows[50]['forgetting/new'] < -0.1


def test_the_metrics_of_replay_and_averages_are_there(here):
  train, evaluations = read_metrics(here / 'whole')
  for row in train:
    assert np.isfinite(
      [row['loss'], row['replay_loss'], row['gere_loss']]
    ).all()
  # The first update starts at the teacher, so no margin is crossed yet by more
  # than the fixed set's own spread: student and teacher are the same.
  assert train[0]['gere_loss'] == 0
  assert train[-1]['gere_loss'] > 0
  assert evaluations[-1]['lawa_eval_loss'] > 0


def test_the_old_data_goes_on_where_the_trunk_stood(here):
  def drawn(name, step):
    metadata = load_metadata(checkpoints_of(here / name), step)
    position = metadata['data']
    return {
      key: position['drawn'][stream]
      for key, (stream, _) in position['shares'].items()
    }

  begun = drawn('trunk', BRANCHED)['old']
  assert begun == 8 * BRANCHED
  after = drawn('whole', LAST)
  # 20 updates from .375 to .25 by the knots, then 10 at .25, of 8 each.
  due = sum(8 * (0.5 - 0.25 * min(t, 40) / 40) for t in range(BRANCHED, LAST))
  assert abs(after['old'] - begun - due) < 1
  assert after['old'] - begun + after['new'] == 8 * (LAST - BRANCHED)


def test_two_corpora_under_one_name_are_refused(here, tmp_path):
  config = branch_config()
  sources = {'new': OLD}
  config = dataclasses.replace(
    config, eval=dataclasses.replace(config.eval, sources=sources)
  )
  with pytest.raises(ValueError, match=r"EvalConfig.sources must give 'new'"):
    run(config, tmp_path / 'x', branch_from=f'trunk@{BRANCHED}')
  assert not (tmp_path / 'x').exists()


@pytest.mark.slow
def test_views_train_and_resume_to_the_bit(here):
  config = trunk_config()
  views = dataclasses.replace(config.data, views=Views(n=2, kl_from_step=5))
  config = dataclasses.replace(
    config,
    data=views,
    checkpoint=dataclasses.replace(config.checkpoint, keep_last=9),
  )
  run(config, here / 'views')
  shutil.copytree(here / 'views', here / 'views_cut')
  root = checkpoints_of(here / 'views_cut')
  manifest_of(root, BRANCHED).unlink()
  shutil.rmtree(path_of(root, BRANCHED))
  run(config, here / 'views_cut')
  tiny_run.assert_same_run(here / 'views', here / 'views_cut', BRANCHED)
  train, evaluations = read_metrics(here / 'views')
  assert {'views_loss', 'views_kl'} <= train[0].keys()
  # Half as many windows in an update.
  position = json.loads(json.dumps(evaluations[-1]))['epochs']
  plain = read_metrics(here / 'trunk')[1][-1]['epochs']
  assert position == pytest.approx(plain / 2)
