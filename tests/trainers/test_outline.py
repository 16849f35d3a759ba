"""A run in five lines before it begins, and its events in lines to read."""

import dataclasses

import jax
import numpy as np
import pytest

import lrsched
from tests.tiny import tiny_run
from trainers import corpus as corpus_lib
from trainers.config import DataConfig
from trainers.data import Batches
from trainers.data import windows_per_epoch
from trainers.finish import Finish
from trainers.horizon import BatchRamp
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.optimizer import AdamW
from trainers.outline import drawn_by_domain
from trainers.outline import event_lines
from trainers.outline import outline
from trainers.sharding import make_mesh
from trainers.sources import TokenFile
from trainers.train_step import abstract_state
from trainers.views import Views

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
SEQ_LEN = 4
HASH = '891f12e34d9f611eee330d2ab993d74bce0049206f24b57809da95739858a8e3'


def lines_of(config, start_step=0, **asked):
  mesh = make_mesh(config.mesh)
  asked = {'epochs': {'tokenfile': 0.0}, 'windows': {'tokenfile': 500}} | asked
  state = abstract_state(config, mesh)
  return outline(config, start_step, **asked, state=state, mesh=mesh)


def test_a_run_is_outlined():
  n = jax.device_count()
  assert lines_of(RUN) == [
    'updates 0 to 30 of schedule WSD: warmup to 4, stable to 20, decay to 30',
    '3,840 tokens (30 updates of 8 x 16)',
    'epochs: tokenfile 0.48 from 0.00 on',
    # 64 * 16 of the embedding, 4 * 16 * 16 + 3 * 16 * 32 of the block and three
    # scales of 16; weights, two moments and the average are float32.
    f'model 3,632 parameters; {n} device{"s" * (n > 1)} '
    f'(data {n}, fsdp 1, tensor 1)',
    'checkpoints of 0.1 MB every 5 updates, at most 4 kept',
  ]


def test_a_run_that_goes_on_is_outlined_from_there():
  config = dataclasses.replace(
    RUN, total_steps=28, finish=Finish(by_time='2030-01-01T00:00Z')
  )
  first, tokens, epochs, *_ = lines_of(
    config, 18, epochs={'tokenfile': 1.2}, windows={'tokenfile': 80_000}
  )
  assert first == (
    'updates 18 to at most 28 of schedule WSD: stable to 20, decay to 28'
  )
  assert tokens == '1,280 tokens (10 updates of 8 x 16)'
  assert epochs == 'epochs: tokenfile 0.001 from 1.20 on'


@pytest.mark.parametrize(
  'budget', [{'by_step': 25}, {'by_tokens': 25 * 128 + 127}]
)
def test_a_budget_is_what_a_run_comes_to(budget):
  finish = Finish(**budget, decay_steps=5)
  first, tokens, *_ = lines_of(dataclasses.replace(RUN, finish=finish))
  assert first.startswith('updates 0 to at most 25 of schedule WSD: ')
  assert tokens == '3,200 tokens (25 updates of 8 x 16)'


def test_sizes_are_those_of_the_state():
  model = dataclasses.replace(RUN.model, d_model=128, d_ff=512, n_layers=2)
  config = dataclasses.replace(RUN, model=model)
  state = abstract_state(config, make_mesh(config.mesh))
  n = 64 * 128 + 2 * (4 * 128**2 + 3 * 128 * 512 + 2 * 128) + 128
  assert sum(x.size for x in jax.tree.leaves(state.params)) == n
  *_, model_line, saving = lines_of(config)
  assert model_line.startswith(f'model {n:,} parameters; ')
  # Weights, two moments and the average, of four bytes.
  assert saving.startswith(f'checkpoints of {16 * n / 1e6:.1f} MB ')


def test_many_phases_are_cut_short():
  schedule = lrsched.WSDS(
    peak_lr=1e-2,
    final_lr=1e-3,
    warmup_steps=2,
    cycle_ends=(10, 20, 30, 40),
    decay_steps=(3,) * 4,
  )
  phases = [(name, end) for name, _, end in schedule.phases()]
  config = dataclasses.replace(
    RUN, optimizer=AdamW(schedule=schedule), total_steps=schedule.end_step
  )
  shown = lines_of(config)[0].partition(': ')[2].split(', ')
  named = [f'{name} to {end}' for name, end in phases]
  assert shown == [*named[:5], f'{len(named) - 6} more', named[-1]]


@pytest.fixture(scope='module')
def corpora(tmp_path_factory):
  folder, made = tmp_path_factory.mktemp('corpora'), {}
  for i, (name, n) in enumerate({'old': 50, 'new': 200, 'code': 30}.items()):
    train, valid = folder / f'{name}.train', folder / f'{name}.valid'
    (np.arange(n * SEQ_LEN + 1, dtype=np.uint16) + i).tofile(train)
    np.arange(9, dtype=np.uint16).tofile(valid)
    source = TokenFile(train_path=str(train), valid_path=str(valid))
    made[name] = corpus_lib.materialise(source, str(folder))
  return made


@pytest.mark.parametrize(('start_step', 'end_step'), [(0, 100), (33, 57)])
@pytest.mark.parametrize('views', [None, Views(n=2)])
def test_what_is_drawn_is_what_the_batches_draw(
  corpora, start_step, end_step, views
):
  """Shares with knots, a batch that grows, several epochs, views."""
  source = TokenFile(train_path='train.bin', valid_path='valid.bin')
  mixture = Mixture(
    domains={
      'old': Domain(source=source, share=((10, 0.5), (40, 0.05), (60, 0.2))),
      'code': Domain(source=source, share=0.125),
      'new': Domain(source=source),
    }
  )
  data = DataConfig(
    source=mixture,
    seq_len=SEQ_LEN,
    batch_size=16,
    ramp=BatchRamp(boundaries=(20, 45), batch_sizes=(4, 8, 16)),
    views=views,
  )
  batches = Batches(corpora, data)
  for step in range(start_step, end_step):
    batches.next(step)
  drawn = drawn_by_domain(data, start_step, end_step)
  for name, epochs in batches.epochs().items():
    n = epochs * windows_per_epoch(corpora[name], SEQ_LEN)
    # Three corpora, whole sequences: what is owed is less than two.
    assert abs(drawn[name] - n) < 2, name
  sizes = sum(data.batch_size_at(t) for t in range(start_step, end_step))
  assert sum(drawn.values()) == pytest.approx(sizes // (2 if views else 1))


def test_a_million_updates_are_summed_at_once():
  data = DataConfig(
    source=Mixture(
      domains={
        'old': Domain(source=RUN.data.source, share=((0, 1.0), (10**9, 0.0))),
        'new': Domain(source=RUN.data.source),
      }
    ),
    batch_size=8,
  )
  drawn = drawn_by_domain(data, 0, 10**9)
  assert drawn['old'] == pytest.approx(4e9)


NOTE = (
  'config.data.source.kind: Docstrings -> Mixture',
  'config.data.source.train_packages: ["numpy"] -> (absent)',
  'config.data.source.domains: (absent) -> {"a": {"kind": "Domain"}}',
  'config.optimizer.schedule.kind: WSD -> Rewarm',
  'config.optimizer.schedule.peak_lr: 0.004 -> (absent)',
  'config.optimizer.schedule.decay.kind: LinearDecay -> SqrtDecay',
  'config.eval.every_steps: 100 -> 20',
  'config.eval.sources.code: (absent) -> {"kind": "Files", "of": {"a": 1}}',
  f'config.corpora.english: (absent) -> {{"hash": "{HASH}", "n": 3}}',
  f'config.eval_corpora.code: {HASH} -> {HASH[::-1]}',
  'config.data.batch_size: 8 -> 16',
  'config.optimizer.b2: 0.95 -> 0.99',
  'optimizer state: begins anew',
  'LR of update 900: 0.004 -> 0.0038',
  'data: german from its beginning',
)


def test_an_event_is_short_and_in_order():
  event = lrsched.Event(900, 'branch', NOTE)
  assert event_lines(event) == [
    'branch at 900',
    '  optimizer state: begins anew',
    '  LR of update 900: 0.004 -> 0.0038',
    '  data: german from its beginning',
    '  config.data.batch_size: 8 -> 16',
    '  config.optimizer.b2: 0.95 -> 0.99',
    '  config.data.source: Docstrings -> Mixture',
    '  config.optimizer.schedule: WSD -> Rewarm',
    '  config.eval.every_steps: 100 -> 20',
    '  config.eval.sources.code: (absent) -> Files',
    '  config.corpora.english: (absent) -> {"hash": "891f12e34d9f", "n": 3}',
    f'  config.eval_corpora.code: 891f12e34d9f -> {HASH[::-1][:12]}',
  ]


def test_a_branch_of_weights_says_so():
  plan = lrsched.plan_restore(
    lrsched.Constant(lr=1e-3), 7, lrsched.Constant(lr=1e-4), 'branch', 'weights'
  )
  first, second, *_, last = event_lines(lrsched.Event(0, 'branch', plan.diff))
  assert first == 'branch, weights only'
  assert second.startswith('  next update: 7 -> 0')
  assert last == '  schedule.lr: 0.001 -> 0.0001'


def test_an_event_without_a_note_is_one_line():
  assert event_lines(lrsched.Event(20, 'resume', ())) == ['resume at 20']
