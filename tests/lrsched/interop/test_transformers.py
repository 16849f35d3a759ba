"""from_transformers: what it refuses, and where it is documented to differ."""

from __future__ import annotations

import pytest

from lrsched.interop import from_transformers


def imported(name, *, warmup=2, total=10, **given):
  return from_transformers(
    name,
    learning_rate=1.0,
    num_warmup_steps=warmup,
    num_training_steps=total,
    scheduler_specific_kwargs=given,
  )


def test_a_cosine_rests_after_the_run():
  assert float(imported('cosine')(18)) == 0.0  # 1.0 in transformers


@pytest.mark.parametrize(
  ('name', 'changes', 'said'),
  [
    ('reduce_lr_on_plateau', {}, 'follows a metric .* lrsched.Tabulated'),
    ('greedy', {}, 'follows a metric'),
    ('cosin', {}, "name must be one of constant, .* got 'cosin'"),
    ('cosine', {'cycles': 2}, "no argument 'cycles'; .* num_cycles"),
    ('constant', {'num_cycles': 2}, 'its arguments: none'),
    ('cosine', {'num_cycles': 0}, 'num_cycles must be a finite number > 0'),
    ('linear', {'warmup': 10}, 'num_warmup_steps must be < num_training_steps'),
    ('linear', {'warmup': None}, 'num_warmup_steps must be a whole number'),
    ('linear', {'warmup': 0.5}, 'num_warmup_steps must be a whole number'),
    (
      'linear',
      {'total': None},
      "num_training_steps must be given for 'linear'",
    ),
    ('polynomial', {'lr_end': 1.0}, 'lr_end must be < learning_rate=1.0'),
    ('polynomial', {'power': 0}, 'power must be'),
    ('cosine_with_min_lr', {}, 'exactly one of min_lr and min_lr_rate'),
    ('cosine_with_min_lr', {'min_lr': 0.1, 'min_lr_rate': 0.1}, 'exactly one'),
    ('cosine_with_min_lr', {'min_lr': 2.0}, 'min_lr must be .* <= 1'),
    ('cosine_with_restarts', {'num_cycles': 1.5}, 'num_cycles must be a whole'),
    ('inverse_sqrt', {'timescale': 2.5}, 'timescale must be a whole number'),
    ('warmup_stable_decay', {}, 'warmup_stable_decay needs num_decay_steps'),
    ('warmup_stable_decay', {'num_decay_steps': 9}, 'num_stable_steps must be'),
    (
      'warmup_stable_decay',
      {'num_decay_steps': 3, 'decay_type': 'sqrt'},
      'decay_type must be one of linear, cosine, 1-sqrt',
    ),
  ],
)
def test_refusals(name, changes, said):
  with pytest.raises(ValueError, match=said):
    imported(name, **changes)
