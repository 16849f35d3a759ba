"""Which branches are made, and what each of them trains and evaluates."""

import dataclasses

import pytest

import lrsched
from experiments.anneal_plan import load_mixtures
from experiments.anneal_plan import parse_branches
from experiments.anneal_plan import parse_lengths
from experiments.anneal_plan import plan_anneals
from experiments.anneal_plan import tokens_of
from tests.tiny import WSD
from tests.tiny import tiny_run
from trainers.config import EvalConfig
from trainers.horizon import BatchRamp
from trainers.mixture import Domain
from trainers.mixture import Mixture
from trainers.optimizer import AdamW
from trainers.optimizer import Muon
from trainers.sources import TextFolder

OLD, NEW, THIRD = (TextFolder(path=name) for name in ('old', 'new', 'third'))
TRUNK = tiny_run(OLD)
MIXTURES = {
  'new': Mixture(domains={'new': Domain(source=NEW)}),
  'half': Mixture(
    domains={'old': Domain(source=OLD, share=0.5), 'new': Domain(source=NEW)}
  ),
}


def test_a_branch_for_each_step_length_and_mixture():
  trunk = dataclasses.replace(
    TRUNK,
    optimizer=Muon(
      schedule=WSD, adam_schedule=dataclasses.replace(WSD, peak_lr=1e-3)
    ),
  )
  plan = plan_anneals({14: trunk, 20: trunk}, (5, 8), MIXTURES)
  assert [a.name for a in plan] == [
    *('new_14_5', 'half_14_5', 'new_14_8', 'half_14_8'),
    *('new_20_5', 'half_20_5', 'new_20_8', 'half_20_8'),
  ]
  for anneal in plan:
    config, end = anneal.config, anneal.start_step + anneal.decay_steps
    assert config.total_steps == end
    assert config.data.source == MIXTURES[anneal.mixture]
    for spec in (config.optimizer.schedule, config.optimizer.adam_schedule):
      assert spec.end_step == end
      assert spec.phases()[-1].start == anneal.start_step
    assert config.optimizer.adam_schedule.peak_lr == 1e-3
    # All are judged on the same corpora, the trunk's by its name in a mixture.
    assert config.eval.sources == {'new': NEW, 'old': OLD}
    assert config.model == TRUNK.model


def test_on_a_ramp_a_branch_ends_where_its_schedule_does():
  """Batches of 4 before update 14: 7 of 8 to there, then 5 less a half."""
  ramp = BatchRamp(boundaries=(15,), batch_sizes=(4, 8))
  trunk = dataclasses.replace(
    TRUNK,
    data=dataclasses.replace(TRUNK.data, ramp=ramp),
    optimizer=AdamW(schedule=ramp.schedule(WSD)),
  )
  [anneal] = plan_anneals({18: trunk}, (5,), None)
  end = anneal.config.optimizer.schedule.end_step
  assert anneal.config.total_steps == end
  assert 22 <= end <= 23


def test_without_mixtures_the_trunks_data_goes_on():
  [anneal] = plan_anneals({14: TRUNK}, (5,), None)
  assert anneal.name == 'trunk_14_5'
  assert anneal.config.data == TRUNK.data
  assert anneal.config.eval.sources == {'textfolder': OLD}


def test_what_the_trunk_has_seen_is_evaluated_too():
  watched = EvalConfig(sources={'third': THIRD, 'again': NEW})
  trunk = dataclasses.replace(TRUNK, eval=watched)
  plan = plan_anneals({14: trunk}, (5,), {'new': MIXTURES['new']})
  sources = plan[0].config.eval.sources
  assert sources == {'new': NEW, 'textfolder': OLD, 'third': THIRD}


def test_one_name_for_two_corpora_is_refused():
  clash = MIXTURES | {'x': Mixture(domains={'new': Domain(source=THIRD)})}
  with pytest.raises(ValueError, match="the name 'new' is of two corpora"):
    plan_anneals({14: TRUNK}, (5,), clash)
  # Plain sources are named by their class, as the trunk's is.
  with pytest.raises(ValueError, match="the name 'textfolder' is of two"):
    plan_anneals({14: TRUNK}, (5,), {'new': NEW})


def test_a_schedule_that_cannot_decay_is_named():
  cosine = lrsched.Cosine(peak_lr=1e-2, total_steps=30)
  optimizers = {
    'schedule': AdamW(schedule=cosine),
    'adam_schedule': Muon(schedule=WSD, adam_schedule=cosine),
    'groups.bias': AdamW(schedule=WSD, groups={'bias': cosine}),
  }
  for name, optimizer in optimizers.items():
    trunk = dataclasses.replace(TRUNK, optimizer=optimizer)
    said = rf'--branch_from: optimizer\.{name}: spec must be .*and a decay$'
    with pytest.raises(ValueError, match=said):
      plan_anneals({14: trunk}, (5,), None)


def test_a_step_in_the_warmup_is_refused():
  said = r'--branch_from: optimizer\.schedule: step must be >= warmup_steps=4'
  with pytest.raises(ValueError, match=said) as refused:
    plan_anneals({2: TRUNK}, (5,), None)
  assert 'give steps up to' not in str(refused.value)


REWARMED = lrsched.Rewarm(
  before=lrsched.Cosine(peak_lr=1e-2, total_steps=10),
  rewarm_step=10,
  warmup_steps=2,
  after=WSD,
)
INFINITE = lrsched.Infinite(
  peak_lr=1e-2,
  const_lr=5e-3,
  final_lr=1e-3,
  warmup_steps=2,
  cooldown_steps=3,
  const_steps=5,
  anneal_steps=4,
)


@pytest.mark.parametrize(
  ('schedule', 'last_step'),
  [(WSD, 20), (INFINITE, 10), (REWARMED, 32)],
)
def test_a_step_in_the_decay_is_refused_with_the_last_one(schedule, last_step):
  trunk = dataclasses.replace(
    TRUNK,
    optimizer=AdamW(schedule=schedule),
    total_steps=schedule.end_step,
  )
  [anneal] = plan_anneals({last_step: trunk}, (5,), None)
  assert anneal.config.total_steps == last_step + 5
  with pytest.raises(
    ValueError,
    match=r'--branch_from: optimizer\.schedule: .* begins to .*; give steps up '
    f'to {last_step}, or re-warm from there with lrsched.Rewarm$',
  ):
    plan_anneals({last_step + 1: trunk}, (5,), None)


def test_tokens_are_those_of_updates_and_evaluations():
  """Evaluated where it leaves, at every tenth update and at the end."""
  [anneal] = plan_anneals({14: TRUNK}, (9,), None)
  assert tokens_of(anneal) == pytest.approx(16 * (9 * 8 + 3 * 16 / 3))
  # From one that is due to one that is due.
  [anneal] = plan_anneals({20: TRUNK}, (10,), None)
  assert tokens_of(anneal) == pytest.approx(16 * (10 * 8 + 2 * 16 / 3))


def test_steps_and_lengths_are_parsed():
  folder, steps = parse_branches('runs/a@b@900,1800')
  assert (folder.as_posix(), steps) == ('runs/a@b', (900, 1800))
  assert parse_lengths(['50', '100', '50']) == (50, 100)


@pytest.mark.parametrize('text', ['runs/a', '@5', 'a@', 'a@5,', 'a@-5', 'a@x'])
def test_bad_branches(text):
  with pytest.raises(ValueError, match=r'--branch_from must be DIR@STEP'):
    parse_branches(text)


@pytest.mark.parametrize(
  ('texts', 'said'),
  [([], 'none'), (['0'], '0'), (['-1'], '-1'), (['x'], 'x'), (['5', ''], '5,')],
)
def test_bad_lengths(texts, said):
  with pytest.raises(
    ValueError, match=f'--decay_steps must be whole numbers >= 1, got {said}$'
  ):
    parse_lengths(texts)


def test_mixtures_of_a_file(tmp_path):
  path = tmp_path / 'mixtures.py'
  path.write_text(
    'from trainers.sources import TextFolder\n'
    'def get_mixtures():\n'
    "  return {'web': TextFolder(path='web')}\n"
  )
  assert load_mixtures(str(path)) == {'web': TextFolder(path='web')}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (None, 'there is no file'),
    ('x = 1', "KeyError: 'get_mixtures'"),
    ('def get_mixtures():\n  return 1 / 0', 'ZeroDivisionError'),
    ('def get_mixtures():\n  return {}', 'must return a dict of mixtures'),
    ("def get_mixtures():\n  return {'a/b': 1}", 'must have names of letters'),
    (
      "def get_mixtures():\n  return {'a': 1}",
      'a must be a Mixture or a source',
    ),
  ],
)
def test_bad_mixture_files(tmp_path, text, message):
  path = tmp_path / 'mixtures.py'
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=message):
    load_mixtures(str(path))
