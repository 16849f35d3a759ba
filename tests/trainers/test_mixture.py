"""Shares of domains: exact to a sequence, over any time and any resume."""

import dataclasses
import json
import random
from fractions import Fraction

import numpy as np
import pytest

from trainers import corpus as corpus_lib
from trainers.config import DataConfig
from trainers.data import Batches
from trainers.data import begun_anew
from trainers.data import streams_of
from trainers.data import windows_per_epoch
from trainers.fields import to_dict
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.mixture import apportioned
from trainers.mixture import shares_at
from trainers.sources import TokenFile

SEQ_LEN = 4
N_WINDOWS = {'old': 50, 'new': 200, 'code': 30, 'web': 20}
FIRST_TOKEN = {'old': 0, 'new': 1000, 'code': 2000, 'web': 3000}


@pytest.fixture(scope='module')
def corpora(tmp_path_factory):
  """Four corpora whose tokens tell corpus and place."""
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


def random_shares(rng, how, k, n_steps):
  """Shares of every step by domain; the last is the rest."""

  def cut():
    weights = [rng.choice([0, 1, 1, 2, 5, 19]) for _ in range(k - 1)]
    return [Fraction(w, sum(weights) + 1) for w in weights]

  begin, end = cut(), cut()
  ends = [rng.choice([n_steps // 2, rng.randrange(n_steps)]) for _ in begin]
  jump_frac = rng.choice([0.05, 0.5, 1])
  for step in range(n_steps):
    others = begin
    if how == 'linear':
      others = [
        a + (b - a) * Fraction(step, n_steps)
        for a, b in zip(begin, end, strict=True)
      ]
    elif how == 'ended':
      others = [s * (step < n) for s, n in zip(begin, ends, strict=True)]
    elif how == 'jumps' and rng.random() < jump_frac:
      others = begin = cut()
    shares = [*others, 1 - sum(others)]
    yield {str(i): share for i, share in enumerate(shares)}


@pytest.mark.parametrize('how', ['constant', 'linear', 'ended', 'jumps'])
def test_no_domain_is_ever_a_whole_sequence_off(how):
  """Random shares of up to eight domains, zero shares and batches of one.

  Where the shares of more than three change, batches are whole as well, but a
  domain may be behind by more than a sequence, of `k` never by `k - 1`.
  """
  rng = random.Random(3)
  for _ in range(100):
    k, size = rng.choice([2, 3, 5, 8]), rng.choice([1, 2, 3, 8, 64])
    owed = {str(i): Fraction(0) for i in range(k)}
    for shares in random_shares(rng, how, k, 60):
      counts = apportioned(owed, shares, size)
      assert sum(counts.values()) == size
      assert min(counts.values()) >= 0
      owed = {n: owed[n] + shares[n] * size - counts[n] for n in shares}
      assert min(owed.values()) > -1
      within_one = how == 'constant' or k <= 3
      assert max(owed.values()) < (1 if within_one else k - 1)


def test_those_that_are_behind_least_give_way_one_sequence_each():
  """Four were ahead when their shares fell to 0."""
  owed = {n: Fraction(-9, 10) for n in ('p', 'q', 'r', 's')}
  owed |= {'a': Fraction(9, 10), 'b': Fraction(12, 10), 'c': Fraction(15, 10)}
  shares = {n: Fraction(0) for n in 'pqrs'}
  shares |= {'a': Fraction(3, 8), 'b': Fraction(3, 8), 'c': Fraction(2, 8)}
  # Due 3.9, 4.2 and 3.5: 10 whole ones for 8 places. Once b has given way it is
  # 1.2 behind; c, which is 0.5 behind, is next.
  counts = apportioned(owed, shares, 8)
  assert counts == {'p': 0, 'q': 0, 'r': 0, 's': 0, 'a': 3, 'b': 3, 'c': 2}


def test_a_domain_without_a_share_waits_for_those_with_one():
  owed = {'old': Fraction(1, 2), 'new': Fraction(1, 4), 'web': Fraction(-3, 4)}
  shares = {'old': Fraction(0), 'new': Fraction(1, 2), 'web': Fraction(1, 2)}
  assert apportioned(owed, shares, 1) == {'old': 0, 'new': 1, 'web': 0}


@pytest.mark.parametrize(
  ('batch_size', 'shares'),
  [
    # All that have a share are ahead, one that has none is behind.
    (
      16,
      {'old': ((33, 0.3), (43, 0)), 'web': ((33, 0.3), (34, 0)), 'code': 0.1},
    ),
    # Two were ahead when their shares ended at once: 9 are due.
    (
      8,
      {'old': ((15, 0.3), (16, 0)), 'web': ((15, 0.2), (16, 0)), 'code': 0.2},
    ),
  ],
)
def test_every_batch_is_whole_when_shares_end(corpora, batch_size, shares):
  config = config_of(shares, batch_size)
  batches = batches_of(corpora, config)
  for step in range(80):
    assert batches.next(step).shape == (batch_size, SEQ_LEN + 1)


def test_shares_change_over_time_as_the_knots_say(corpora):
  knots = ((10, 0.5), (30, 0.1))
  config = config_of({'old': knots})
  domains = config.source.domains
  assert shares_at(domains, 0)['old'] == Fraction(1, 2)
  assert shares_at(domains, 20)['old'] == Fraction(3, 10)
  assert shares_at(domains, 99)['old'] == Fraction(1, 10)
  batches = batches_of(corpora, config)
  drawn, exact = 0, Fraction(0)
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
  new = batches_of(corpora, config_of({}), old.position())
  new.next(3)
  config = config_of({'old': 0.5})
  replay = batches_of(corpora, config, new.position())
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
  replay = batches_of(corpora, config, old.position())
  rows = [replay.next(3 + t) for t in range(3)]
  # A resume of that branch goes on, it does not begin again.
  resumed = batches_of(corpora, config, replay.position())
  rows += [resumed.next(6 + t) for t in range(3)]
  starts = np.concatenate(rows)[:, 0]
  np.testing.assert_array_equal(starts[starts < 1000], seen)


def with_replay(share, from_start=True):
  """A run that replays `old`, from its first batch, beside `new`."""
  old = Domain(source=source_of('old'), share=share, from_start=from_start)
  domains = {'old': old, 'new': Domain(source=source_of('new'))}
  return DataConfig(
    source=Mixture(domains=domains), seq_len=SEQ_LEN, batch_size=8
  )


@pytest.mark.parametrize('share', [0.3, ((2, 0.5), (9, 0.1))])
def test_a_branch_of_the_same_mixture_goes_on_for_all_from_start(
  corpora, share
):
  """A decay off a run that replays is the run that had the decay."""
  config = with_replay(share)
  whole = batches_of(corpora, config)
  for step in range(5):
    whole.next(step)
  position = json.loads(json.dumps(whole.position()))
  branch = batches_of(corpora, config, position)
  for step in range(5, 15):
    np.testing.assert_array_equal(branch.next(step), whole.next(step))
  assert branch.position() == whole.position()


def test_a_branch_of_another_mixture_begins_domains_from_start(corpora):
  parent = batches_of(corpora, with_replay(0.5))
  seen = [parent.next(step) for step in range(2)]
  config = with_replay(0.25)
  branch = batches_of(corpora, config, parent.position())
  rows = [branch.next(2 + step) for step in range(4)]
  old, again = (
    starts[starts < 1000]
    for starts in (np.concatenate(seen)[:, 0], np.concatenate(rows)[:, 0])
  )
  np.testing.assert_array_equal(again, old)


@pytest.mark.parametrize(
  ('parent', 'branch', 'anew'),
  [
    (with_replay(0.5), with_replay(0.5), []),
    (with_replay(0.5), with_replay(0.25), ['old']),
    (with_replay(0.5), with_replay(0.25, from_start=False), []),
    (config_of({}), config_of({'code': 0.5}), ['code']),
    (config_of({}), dataclasses.replace(config_of({}), seed=5), ['new']),
    (None, with_replay(0.5), ['old', 'new']),
  ],
)
def test_what_begins_anew_is_told_from_json_values(
  corpora, parent, branch, anew
):
  """As a launch tells it; the batches of the branch begin there too."""
  position = parent and batches_of(corpora, parent).position()
  if position:
    position['drawn'] = dict.fromkeys(position['drawn'], 7)
  streams = streams_of(branch, corpora)
  source = json.loads(json.dumps(to_dict(branch)))['source']
  assert begun_anew(position, streams, source) == anew
  batches = batches_of(corpora, branch, position)
  drawn = batches.position()['drawn']
  assert [n for n, key in streams.items() if drawn[key] == 0] == anew


def test_what_begins_anew_of_a_corpus_without_a_mixture(corpora):
  config = DataConfig(source=source_of('old'), seq_len=SEQ_LEN, batch_size=8)
  alone = {'tokenfile': corpora['old']}
  streams, source = streams_of(config, alone), to_dict(config.source)
  assert begun_anew(None, streams, source) == ['tokenfile']
  position = Batches(alone, config).position()
  assert begun_anew(position, streams, source) == []


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
