"""from_megatron: what it refuses; iterations and samples are the same."""

from __future__ import annotations

import pytest

from lrsched import Tabulated
from lrsched.interop import from_megatron

ITERS = {'lr': 1.0, 'train_iters': 100}
WSD = {**ITERS, 'lr_decay_style': 'WSD'}


@pytest.mark.parametrize('style', ['constant', 'linear', 'cosine', 'WSD'])
def test_whole_batches_of_samples_are_the_iterations(style):
  both = {'lr': 1.0, 'min_lr': 0.1, 'lr_decay_style': style}
  iters = {
    'train_iters': 100,
    'lr_decay_iters': 90,
    'lr_warmup_iters': 10,
    'lr_wsd_decay_iters': 20,
  }
  samples = {k.replace('iters', 'samples'): 16 * n for k, n in iters.items()}
  assert from_megatron({**both, **iters}) == from_megatron(
    {**both, **samples, 'global_batch_size': 16}
  )


def test_a_fraction_is_of_the_decay():
  # 0.07 * 100 is a float above 7, and still meant as 7.
  assert from_megatron({**ITERS, 'lr_warmup_fraction': 0.07}) == from_megatron(
    {**ITERS, 'lr_warmup_iters': 7}
  )
  parts = from_megatron({**ITERS, 'lr_warmup_fraction': 0.075})
  assert isinstance(parts, Tabulated)


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    ({'train_iters': 100}, 'lr must be given'),
    ({**ITERS, 'weight_decay': 0.1}, "no argument 'weight_decay'.*min_lr"),
    ({**ITERS, 'lr': -1.0}, 'lr must be a finite number >= 0'),
    ({**ITERS, 'min_lr': 2.0}, 'min_lr must be .* <= 1'),
    ({**ITERS, 'lr_warmup_init': 2.0}, 'lr_warmup_init must be'),
    ({**ITERS, 'lr_decay_style': 'wsd'}, 'lr_decay_style must be one of'),
    ({**ITERS, 'lr_wsd_decay_style': 'sqrt'}, 'lr_wsd_decay_style must be one'),
    ({'lr': 1.0}, 'exactly one of train_iters and train_samples'),
    ({**ITERS, 'train_samples': 10}, 'exactly one of train_iters'),
    ({**ITERS, 'lr_decay_samples': 10}, 'all lengths are in iters'),
    ({'lr': 1.0, 'train_samples': 10}, 'global_batch_size must be given'),
    ({**ITERS, 'lr_warmup_iters': 100}, 'the warmup must be shorter than'),
    ({**ITERS, 'lr_warmup_iters': 1.5}, 'lr_warmup_iters must be a whole'),
    (
      {**ITERS, 'lr_warmup_iters': 5, 'lr_warmup_fraction': 0.1},
      'lr_warmup_iters must not be given with lr_warmup_fraction',
    ),
    (WSD, 'lr_wsd_decay_iters must be given with WSD'),
    (
      {**WSD, 'lr_warmup_iters': 30, 'lr_wsd_decay_iters': 71},
      'lr_wsd_decay_iters must be at most 70',
    ),
    (
      {**ITERS, 'lr_decay_style': 'inverse-square-root'},
      'falls from the first sample on',
    ),
  ],
)
def test_refusals(flags, said):
  with pytest.raises(ValueError, match=said):
    from_megatron(flags)
