"""Replay of a small fixed set with margins on activations: the config."""

from __future__ import annotations

from typing import Literal

from trainers.fields import config
from trainers.fields import require
from trainers.sources import Source


@config
class GeRe:
  """Replays a few general sequences and keeps their activations in margins.

  The run's first weights, those of the checkpoint that it branches from, are
  the teacher: their last hidden state on the fixed set is computed once, at
  every launch. Each update then replays one batch of the set and minimises
  (arXiv:2508.04676)

    (loss on the new batch + loss on the replayed one) / 2
      + weight * threshold-margin loss

  with thresholds one standard deviation below and above the teacher's mean, per
  dimension over the tokens of the set. The set lies on the devices for the
  whole run, split over them: `n_sequences * seq_len * (d_model * bytes + 4)`
  bytes, with 4 bytes a number in float32 and 2 in bfloat16.

  Attributes:
    source: the corpus that the set is drawn from, its windows evenly spaced
      over the training part: general text, or what the parent was trained on.
    n_sequences: sequences of the set, of `data.seq_len` tokens.
    batch_size: sequences replayed in each update, in order and again from the
      first; divides n_sequences. An update has one such batch, however many
      accumulation steps the new one has.
    weight: of the threshold-margin loss; 'dynamic' is the losses' mean above
      over it, anew in each update, so that both parts have the same value. It
      then weighs the more the nearer the network stays to its teacher: on a
      small network, nearly as a weight of 100, which learns little that is new.
  """

  source: Source
  n_sequences: int = 64
  batch_size: int = 8
  weight: float | Literal['dynamic'] = 1.0

  def check(self) -> None:
    for name in ('n_sequences', 'batch_size'):
      value = getattr(self, name)
      require(value >= 1, f'GeRe.{name}', value, 'must be >= 1')
    require(
      self.n_sequences % self.batch_size == 0,
      'GeRe.batch_size',
      self.batch_size,
      f'must divide n_sequences={self.n_sequences}',
    )
    require(
      self.weight == 'dynamic' or float(self.weight) >= 0,
      'GeRe.weight',
      self.weight,
      "must be >= 0 or 'dynamic'",
    )
