"""Decay branches to make off one trunk: their configs, and what they cost."""

from __future__ import annotations

import dataclasses
import pathlib
import runpy
from collections.abc import Sequence
from typing import NamedTuple

import lrsched
from trainers.config import DataConfig
from trainers.config import RunConfig
from trainers.data import domains_of
from trainers.finish import Finish
from trainers.mixture import Mixture
from trainers.mixture import check_name
from trainers.optimizer import schedules_of
from trainers.optimizer import with_schedules
from trainers.sources import Source

# A token that is only evaluated costs the forward pass: about a third.
EVAL_COST = 1 / 3


class Anneal(NamedTuple):
  """One branch.

  Attributes:
    name: of its folder.
    mixture: name of its data.
    start_step: the trunk's checkpoint.
    decay_steps: length of its decay, as asked: on a ramp of batch sizes it ends
      with the last whole batch.
    config: the run.
  """

  name: str
  mixture: str
  start_step: int
  decay_steps: int
  config: RunConfig


def parse_branches(text: str) -> tuple[pathlib.Path, tuple[int, ...]]:
  """Folder and steps of `DIR@STEP[,STEP...]`."""
  folder, _, steps = text.rpartition('@')
  if not folder or not all(step.isdecimal() for step in steps.split(',')):
    raise ValueError(f'--branch_from must be DIR@STEP[,STEP...], got {text!r}')
  return pathlib.Path(folder), tuple(map(int, steps.split(',')))


def parse_lengths(texts: Sequence[str]) -> tuple[int, ...]:
  """Lengths of decays, each once."""
  if not texts or not all(text.isdecimal() and int(text) for text in texts):
    given = ','.join(texts) or 'none'
    raise ValueError(f'--decay_steps must be whole numbers >= 1, got {given}')
  return tuple(dict.fromkeys(map(int, texts)))


def load_mixtures(path: str) -> dict[str, Mixture | Source]:
  """What `get_mixtures()` of a Python file returns.

  Raises:
    ValueError: if the file, the function or a mixture is missing or wrong.
  """
  if not pathlib.Path(path).is_file():
    raise ValueError(f'--mixtures: there is no file {path}')
  try:
    mixtures = runpy.run_path(path)['get_mixtures']()
  except Exception as error:
    # The file is the user's: whatever it raises, they need to see.
    raise ValueError(
      f'--mixtures: {path}: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(mixtures, dict) or not mixtures:
    raise ValueError(
      f'--mixtures: get_mixtures() of {path} must return a dict of mixtures by '
      f'name, got {mixtures!r}'
    )
  for name, mixture in mixtures.items():
    check_name('--mixtures', name)
    if not isinstance(mixture, Mixture | Source):
      raise ValueError(
        f'--mixtures: {name} must be a Mixture or a source, got {mixture!r}'
      )
  return mixtures


def plan_anneals(
  trunks: dict[int, RunConfig],
  decay_steps: Sequence[int],
  mixtures: dict[str, Mixture | Source] | None,
) -> list[Anneal]:
  """Every branch: of each step, decay length and mixture.

  Args:
    trunks: the trunk's config at each step to branch from.
    decay_steps: lengths of the decays.
    mixtures: by name; None for the trunk's own data.

  Raises:
    ValueError: if a decay cannot begin there, or names of corpora clash.
  """
  anneals = []
  for step, trunk in trunks.items():
    datas = {
      name: dataclasses.replace(trunk.data, source=source)
      for name, source in (mixtures or {'trunk': trunk.data.source}).items()
    }
    corpora = _corpora(trunk, list(datas.values()))
    for length in decay_steps:
      decays = _decays(trunk, step, length)
      specs = {field: decay.spec for field, decay in decays.items()}
      end_step = min(decay.end_step for decay in decays.values())
      for name, data in datas.items():
        config = dataclasses.replace(
          trunk,
          data=data,
          optimizer=with_schedules(trunk.optimizer, specs),
          total_steps=end_step,
          eval=dataclasses.replace(trunk.eval, sources=corpora),
          # The start and the end are saved, whatever the intervals.
          checkpoint=dataclasses.replace(
            trunk.checkpoint, keep_last=1, keep_steps=()
          ),
          forecast=None,
          finish=Finish(),
        )
        folder = f'{name}_{step}_{length}'
        anneals.append(Anneal(folder, name, step, length, config))
  return anneals


def _decays(
  trunk: RunConfig, step: int, length: int
) -> dict[str, lrsched.DecayBranch]:
  """Every schedule of the optimizer, decaying from a step."""
  decays = {}
  for name, spec in schedules_of(trunk.optimizer).items():
    try:
      plan = lrsched.decay_branches(spec, (step,), (length,))
    except ValueError as error:
      raise ValueError(
        f'--branch_from: optimizer.{name}: {error}'
        + _remedy(spec, step, length)
      ) from error
    [decays[name]] = plan.branches
  return decays


def _remedy(spec: lrsched.Schedule, step: int, length: int) -> str:
  """What to do where the LR has begun to decay before the step; else ''."""
  last_step = spec.phases()[-1].start
  if step <= last_step:
    return ''
  try:
    lrsched.decay_branches(spec, (last_step,), (length,))
  except ValueError:
    return ''  # it cannot decay from elsewhere either
  return (
    f'; give steps up to {last_step}, or re-warm from there with lrsched.Rewarm'
  )


def _corpora(
  trunk: RunConfig, datas: Sequence[DataConfig]
) -> dict[str, Source]:
  """Every corpus to evaluate on: of all mixtures, and what the trunk has seen.

  A corpus of the trunk that a mixture holds has the name it has there.
  """
  corpora: dict[str, Source] = {}
  named = [
    (name, domain.source)
    for data in datas
    for name, domain in domains_of(data).items()
  ]
  known = [source for _, source in named]
  own = {n: d.source for n, d in domains_of(trunk.data).items()}
  for name, source in (own | trunk.eval.sources).items():
    named += [] if source in known else [(name, source)]
  for name, source in named:
    if corpora.setdefault(name, source) != source:
      raise ValueError(
        f'the name {name!r} is of two corpora, {corpora[name]!r} and '
        f'{source!r}; name one of them otherwise, as the only domain of a '
        'Mixture if it is alone'
      )
  return corpora


def tokens_of(anneal: Anneal) -> float:
  """Tokens of a branch; those of its evaluations at their lower cost."""
  config, start = anneal.config, anneal.start_step
  end = config.total_steps
  trained = config.data.samples_at(end) - config.data.samples_at(start)
  every = config.eval.every_steps
  evaluations = 2 + (end - 1) // every - start // every
  sequences = config.eval.n_sequences * len(config.eval.sources) * evaluations
  return (trained + EVAL_COST * sequences) * config.data.seq_len
