"""Every corpus of a run: trained on, evaluated on, replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainers.config import RunConfig
from trainers.corpus import Corpus
from trainers.corpus import materialise
from trainers.data import domains_of
from trainers.data import eval_batches
from trainers.data import windows_per_epoch
from trainers.fields import to_dict
from trainers.fixed_set import replay_tokens
from trainers.mixture import main_of

GERE = 'gere'  # the name of the corpus that GeRe replays


def corpora_of(config: RunConfig) -> dict[str, Corpus]:
  """Every corpus of the run by name: trained on, evaluated on, replayed."""
  domains = domains_of(config.data)
  sources = {name: domain.source for name, domain in domains.items()}
  for name, source in config.eval.sources.items():
    if sources.get(name, source) != source:
      raise ValueError(
        f'EvalConfig.sources must give {name!r} the corpus that is trained on '
        f'under that name, got {source!r}; choose another name'
      )
  sources |= config.eval.sources
  if config.gere is not None:
    if GERE in sources:
      raise ValueError(
        f'the name {GERE!r} is that of what GeRe replays, got another corpus '
        'under it; choose another name'
      )
    sources[GERE] = config.gere.source
  cache = config.data.cache_dir
  return {name: materialise(source, cache) for name, source in sources.items()}


def check_corpora(
  config: RunConfig, corpora: Mapping[str, Corpus]
) -> dict[str, list[np.ndarray]]:
  """Evaluation batches by corpus, the main one first; ValueError if unfit."""
  for name, corpus in corpora.items():
    if corpus.vocab_size > config.model.vocab_size:
      raise ValueError(
        f'model.vocab_size must be at least {corpus.vocab_size}, the ids in '
        f'the corpus {name}, got {config.model.vocab_size}'
      )
  domains = domains_of(config.data)
  for name in domains:
    windows_per_epoch(corpora[name], config.data.seq_len)
  if config.gere is not None:
    replay_tokens(config, corpora[GERE])  # raises if it is too small
  main = main_of(domains)
  names = dict.fromkeys([main, *domains, *config.eval.sources])
  return {
    name: eval_batches(
      corpora[name],
      config.data.seq_len,
      config.eval.n_sequences,
      config.eval.batch_size,
    )
    for name in names
  }


def resolved_of(
  config: RunConfig, corpora: Mapping[str, Corpus]
) -> dict[str, Any]:
  """The config as JSON values, with the hashes of its corpora."""
  domains = domains_of(config.data)
  trained = {
    name: {'hash': corpus.hash, 'train_tokens': corpus.train_tokens}
    for name, corpus in corpora.items()
    if name in domains or name == GERE
  }
  watched = {name: corpora[name].hash for name in config.eval.sources}
  return to_dict(config) | {'corpora': trained, 'eval_corpora': watched}
