"""Shares of domains: exact to a sequence, over any time and any resume."""

import json
import random
from fractions import Fraction

import numpy as np
import pytest

from trainers import corpus as corpus_lib
from trainers.config import DataConfig
from trainers.data import Batches
from trainers.data import windows_per_epoch
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.mixture import apportioned
from trainers.mixture import shares_at
from trainers.sources import TokenFile

SEQ_LEN = 4
N_WINDOWS = {'old': 50, 'new': 200, 'code': 30}
FIRST_TOKEN = {'old': 0, 'new': 1000, 'code': 2000}


@pytest.fixture(scope='module')
def corpora(tmp_path_factory):
  """Three corpora whose tokens tell corpus and place."""
  folder = tmp_path_factory.mktemp('corpora')
  made = {}
  for name, n in N_WINDOWS.items():
    train, valid = folder / f'{name}.train', folder / f'{name}.valid'
    first = FIRST_TOKEN[name]
    np.arange(first, first + n * SEQ_LEN + 1, dtype=np.uint16).tofile(train)
    np.arange(first + 900, first + 909, dtype=np.uint16).tofile(valid)
    source = TokenFile(train_path=str(train), valid_path=str(valid))
    made[name] = corpus_lib.materialise(source, str(folder))
  return made


def source_of(name):
  return TokenFile(train_path=f'{name}.train', valid_path=f'{name}.valid')


def config_of(shares, batch_size=8, **changes):
  """A run on domains in shares, with `new` as the rest."""
  domains = {n: Domain(source=source_of(n), share=s) for n, s in shares.items()}
  domains['new'] = Domain(source=source_of('new'))
  mixture = Mixture(domains=domains)
  return DataConfig(
    source=mixture, seq_len=SEQ_LEN, batch_size=batch_size, **changes
  )


def batches_of(corpora, config, position=None, **how):
  domains = config.source.domains
  return Batches({n: corpora[n] for n in domains}, config, position, **how)


def counts_of(batch):
  """Sequences of each corpus in a batch."""
  starts = np.asarray(batch)[:, 0]
  return {n: int(np.sum(starts // 1000 == i)) for i, n in enumerate(N_WINDOWS)}


@pytest.mark.parametrize('share', [0.05, 0.25, 0.1, 1 / 3, 0.005])
def test_every_batch_has_its_share_to_one_sequence(corpora, share):
  batches = batches_of(corpora, config_of({'old': share}))
  exact, drawn = Fraction(repr(share)), 0
  for step in range(400):
    here = counts_of(batches.next(step))
    assert here['old'] + here['new'] == 8
    assert abs(here['old'] - exact * 8) < 2
    drawn += here['old']
    assert abs(drawn - exact * 8 * (step + 1)) < 1


def test_over_an_epoch_of_the_new_data_the_old_is_exact(corpora):
  batches = batches_of(corpora, config_of({'old': 0.2, 'code': 0.05}))
  seen = dict.fromkeys(N_WINDOWS, 0)
  step = 0
  while batches.epochs()['new'] < 1:
    for name, n in counts_of(batches.next(step)).items():
      seen[name] += n
    step += 1
  total = sum(seen.values())
  assert seen['new'] >= windows_per_epoch(corpora['new'], SEQ_LEN)
  for name, share in (('old', 0.2), ('code', 0.05), ('new', 0.75)):
    assert abs(seen[name] - share * total) < 1


def test_a_domain_goes_through_its_windows_whatever_the_others(corpora):
  """Within a mixture, each corpus is read in the order it has alone."""
  alone = batches_of(corpora, config_of({}))
  mixed = batches_of(corpora, config_of({'old': 0.5}))
  order = np.concatenate([alone.next(t) for t in range(30)])[:, 0]
  rows = np.concatenate([mixed.next(t) for t in range(50)])[:, 0]
  new = rows[rows >= 1000]
  np.testing.assert_array_equal(new, order[: len(new)])


@pytest.mark.parametrize('how', ['constant', 'changing'])
def test_no_domain_is_ever_a_whole_sequence_off(how):
  """Random shares of up to eight domains, zero shares and batches of one."""
  rng = random.Random(3)
  for _ in range(300):
    k, size = rng.choice([2, 3, 5, 8]), rng.choice([1, 2, 3, 8, 64])
    weights = [
      [rng.choice([0, 1, 1, 2, 5, 19]) for _ in range(k - 1)] for _ in range(2)
    ]
    ends = [[Fraction(w, sum(ws) + 1) for w in (*ws, 1)] for ws in weights]
    owed = {str(i): Fraction(0) for i in range(k)}
    for step in range(60):
      t = Fraction(step, 60) if how == 'changing' else Fraction(0)
      shares = {
        str(i): ends[0][i] + (ends[1][i] - ends[0][i]) * t for i in range(k)
      }
      counts = apportioned(owed, shares, size)
      assert sum(counts.values()) == size
      assert min(counts.values()) >= 0
      owed = {n: owed[n] + shares[n] * size - counts[n] for n in shares}
      assert max(map(abs, owed.values())) < 1


def test_shares_change_over_time_as_the_knots_say(corpora):
  knots = ((10, 0.5), (30, 0.1))
  config = config_of({'old': knots})
  domains = config.source.domains
  assert shares_at(domains, 0)['old'] == Fraction(1, 2)
  assert shares_at(domains, 20)['old'] == Fraction(3, 10)
  assert shares_at(domains, 99)['old'] == Fraction(1, 10)
  batches = batches_of(corpora, config)
  drawn = exact = 0
  for step in range(60):
    drawn += counts_of(batches.next(step))['old']
    exact += shares_at(domains, step)['old'] * 8
    assert abs(drawn - exact) < 1


@pytest.mark.parametrize('n_drawn', [0, 1, 7, 33])
@pytest.mark.parametrize('share', [0.05, ((10, 0.5), (30, 0.1))])
def test_a_resumed_mixture_is_the_uninterrupted_one(corpora, n_drawn, share):
  config = config_of({'old': share, 'code': 0.125})
  whole = batches_of(corpora, config)
  for step in range(n_drawn):
    whole.next(step)
  position = json.loads(json.dumps(whole.position()))
  resumed = batches_of(corpora, config, position)
  for step in range(n_drawn, n_drawn + 40):
    np.testing.assert_array_equal(resumed.next(step), whole.next(step))
  assert resumed.position() == whole.position()


def test_two_processes_draw_the_mixture_of_one(corpora):
  config = config_of({'old': 0.3})
  whole = batches_of(corpora, config)
  halves = [
    batches_of(corpora, config, process_index=i, process_count=2)
    for i in range(2)
  ]
  for step in range(20):
    batch, shares = whole.next(step), [half.next(step) for half in halves]
    for i, share in enumerate(shares):
      np.testing.assert_array_equal(share, batch[i::2])


def test_replayed_data_goes_on_where_its_run_stood(corpora):
  """Old -> new -> new with replay of old: across a run that did not have it."""
  old = Batches(
    {'tokenfile': corpora['old']},
    DataConfig(source=source_of('old'), seq_len=SEQ_LEN, batch_size=8),
  )
  seen = np.concatenate([old.next(t) for t in range(3)])[:, 0]
  new = batches_of(corpora, config_of({}), old.position(), is_branch=True)
  new.next(3)
  config = config_of({'old': 0.5})
  replay = batches_of(corpora, config, new.position(), is_branch=True)
  rows = np.concatenate([replay.next(4 + t) for t in range(6)])[:, 0]
  # 24 of 50 windows were seen; these are the next 24, none of them twice.
  replayed = rows[rows < 1000]
  assert len(replayed) == 24
  assert not set(replayed) & set(seen)


def test_from_start_reads_old_data_again_in_its_order(corpora):
  run = DataConfig(source=source_of('old'), seq_len=SEQ_LEN, batch_size=8)
  old = Batches({'tokenfile': corpora['old']}, run)
  seen = np.concatenate([old.next(t) for t in range(3)])[:, 0]
  domains = {
    'old': Domain(source=source_of('old'), share=0.5, from_start=True),
    'new': Domain(source=source_of('new')),
  }
  config = DataConfig(
    source=Mixture(domains=domains), seq_len=SEQ_LEN, batch_size=8
  )
  replay = batches_of(corpora, config, old.position(), is_branch=True)
  rows = [replay.next(3 + t) for t in range(3)]
  # A resume of that branch goes on, it does not begin again.
  resumed = batches_of(corpora, config, replay.position())
  rows += [resumed.next(6 + t) for t in range(3)]
  starts = np.concatenate(rows)[:, 0]
  np.testing.assert_array_equal(starts[starts < 1000], seen)


def test_a_subset_is_the_same_part_in_every_epoch(corpora):
  domains = {'new': Domain(source=source_of('new'), subset=0.1)}
  config = DataConfig(
    source=Mixture(domains=domains), seq_len=SEQ_LEN, batch_size=10
  )
  batches = batches_of(corpora, config)
  epochs = [
    [start for t in (2 * e, 2 * e + 1) for start in batches.next(t)[:, 0]]
    for e in range(4)
  ]
  assert len({frozenset(epoch) for epoch in epochs}) == 1
  assert len(set(epochs[0])) == 20  # each once, in another order every time
  assert len({tuple(epoch) for epoch in epochs}) == 4
  assert batches.epochs() == {'new': 4.0}
  # Spread over the corpus, not its beginning.
  assert max(epochs[0]) > 1000 + 100 * SEQ_LEN


@pytest.mark.parametrize(
  ('shares', 'said'),
  [
    ({'old': 1.5}, r'Domain.share must be in \[0, 1\], got 1.5'),
    ({'old': ((5, 0.1), (5, 0.2))}, 'pairs .step, share., steps whole, rising'),
    ({'old': ((5, 0.1, 3),)}, 'pairs .step, share.'),
    ({'old': 0.7, 'code': 0.6}, 'at most 1 together at step 0'),
    ({'old': ((0, 0), (9, 1)), 'code': 0.1}, 'at most 1 together at step 9'),
    ({'old': None}, r'one domain of share None, the rest, got'),
    ({'a/b': 0.1}, r"letters, digits, dots and dashes, got 'a/b'"),
  ],
)
def test_a_wrong_share_is_named(shares, said):
  with pytest.raises(ValueError, match=said):
    config_of(shares)


def test_a_mixture_of_one_corpus_twice_is_refused(corpora):
  domains = {
    'old': Domain(source=source_of('old'), share=0.5),
    'new': Domain(source=source_of('old')),
  }
  config = DataConfig(
    source=Mixture(domains=domains), seq_len=SEQ_LEN, batch_size=8
  )
  with pytest.raises(ValueError, match='two hold the same text'):
    Batches(dict.fromkeys(domains, corpora['old']), config)
