"""What an update minimises: the loss on new data, with or without replay.

Each takes the network and returns the scalar to differentiate and the metrics
that it comes with. Letters of shapes: those of `trainers.model` and, for views,
W windows and S views of each.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from trainers.model import Decoder
from trainers.model import loss_of_logits
from trainers.model import next_token_loss
from trainers.threshold_margin import EPSILON
from trainers.threshold_margin import threshold_margin_loss
from trainers.views import ViewBatch
from trainers.views import kl_of_views

Objective = tuple[jax.Array, dict[str, jax.Array]]


class Replay(NamedTuple):
  """Replayed sequences, and what the teacher made of them.

  Attributes:
    tokens_BxL1: int32 [B, L + 1].
    hidden_BxLxD: the teacher's last hidden state, in its compute dtype.
    low_D: float32, lower thresholds; the same for all batches of a set.
    high_D: float32, upper ones.
  """

  tokens_BxL1: jax.Array
  hidden_BxLxD: jax.Array
  low_D: jax.Array
  high_D: jax.Array


def plain(model: Decoder, tokens_BxL1: jax.Array) -> Objective:
  """The loss of `next_token_loss`; it is the metric `loss` itself."""
  return next_token_loss(model, tokens_BxL1)[0], {}


def of_views(
  model: Decoder, batch: ViewBatch, kl_weight: jax.typing.ArrayLike
) -> Objective:
  """The loss over all views, and their divergence from the first.

  Args:
    model: the network.
    batch: one microbatch: tokens [W, L + 1], inputs [W, S, L].
    kl_weight: of the divergence, in this update.

  Returns:
    The objective; and `loss` of the windows themselves, as a run without views
    has it, `views_loss` of all views and `views_kl`.
  """
  tokens_WxL1, inputs_WxSxL = batch
  n_views, length = inputs_WxSxL.shape[1:]
  # Views of a window are neighbours, so windows stay where they lie.
  logits_BxLxV = model(inputs_WxSxL.reshape(-1, length))
  logits_WxSxLxV = logits_BxLxV.reshape(*inputs_WxSxL.shape, -1)
  tokens_BxL1 = jnp.repeat(tokens_WxL1, n_views, axis=0)
  z_loss = model.config.z_loss
  views_loss, _ = loss_of_logits(logits_BxLxV, tokens_BxL1, z_loss)
  loss, _ = loss_of_logits(logits_WxSxLxV[:, 0], tokens_WxL1, z_loss)
  kl = kl_of_views(logits_WxSxLxV)
  metrics = {'loss': loss, 'views_loss': views_loss, 'views_kl': kl}
  return views_loss + kl_weight * kl, metrics


def of_replay(
  model: Decoder,
  replay: Replay,
  weight: float | Literal['dynamic'],
  new: jax.Array,
) -> Objective:
  """What replay adds to half of the objective on the new batch.

  `replay_loss / 2 + weight * gere_loss`, whose gradient, with half of that of
  `new`, is the update's. A dynamic weight is a constant in it.

  Args:
    model: the network.
    replay: the replayed batch.
    weight: of the threshold-margin loss.
    new: the objective on the new batch.

  Returns:
    The objective; and `replay_loss`, of `next_token_loss` on the replayed
    batch, and `gere_loss`, the threshold-margin loss.
  """
  hidden_BxLxD = model.hidden(replay.tokens_BxL1[:, :-1])
  loss, _ = loss_of_logits(
    model.logits_of(hidden_BxLxD), replay.tokens_BxL1, model.config.z_loss
  )
  margin = threshold_margin_loss(hidden_BxLxD, *replay[1:])
  scale: jax.typing.ArrayLike
  if weight == 'dynamic':
    scale = jax.lax.stop_gradient((new + loss) / 2 / (margin + EPSILON))
  else:
    scale = weight
  return loss / 2 + scale * margin, {'replay_loss': loss, 'gere_loss': margin}
