"""Means and standard errors over sequences, against NumPy in float64."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from tests.tiny import tiny_run
from trainers.config import MeshConfig
from trainers.evaluate import evaluate
from trainers.evaluate import make_eval_step
from trainers.evaluate import paired_standard_error
from trainers.evaluate import place_eval_batches
from trainers.evaluate import summarise
from trainers.model import Decoder
from trainers.sharding import make_mesh
from trainers.sources import TokenFile

RUN = tiny_run(TokenFile(train_path='train.bin', valid_path='valid.bin'))
LOSSES = np.random.default_rng(0).normal(3, 0.5, 40).astype(np.float32)


def test_the_mean_and_its_standard_error():
  result = summarise(LOSSES)
  exact = LOSSES.astype(np.float64)
  assert result.losses is LOSSES
  assert result.mean == pytest.approx(exact.mean(), rel=1e-12)
  variance = np.sum((exact - exact.mean()) ** 2) / (40 - 1)
  assert result.standard_error == pytest.approx((variance / 40) ** 0.5)


def test_means_are_taken_in_float64():
  # In float32 a loss of 1e-4 beside 1e4 would be lost in the sum.
  losses = np.array([1e4, *[1e-4] * 999], np.float32)
  exact = float(np.mean(losses.astype(np.float64)))
  assert summarise(losses).mean == pytest.approx(exact, rel=1e-12)


def test_the_paired_error_is_that_of_the_differences():
  noise = np.random.default_rng(1).normal(0, 0.01, 40)
  others = LOSSES + 0.1 + noise
  expected = np.std(noise, ddof=1) / np.sqrt(40)
  assert paired_standard_error(LOSSES, others) == pytest.approx(
    expected, rel=1e-4
  )
  assert paired_standard_error(others, LOSSES) == pytest.approx(
    expected, rel=1e-4
  )
  # Paired, because the sequences differ far more than the models.
  assert expected < 0.1 * summarise(LOSSES).standard_error
  assert paired_standard_error(LOSSES, LOSSES) == 0


def test_sequences_do_not_depend_on_how_they_are_batched():
  # The z-loss is part of training, not of what is evaluated.
  model = dataclasses.replace(RUN.model, z_loss=0.1)
  mesh = make_mesh(MeshConfig())
  params = jax.jit(
    lambda: nnx.to_pure_dict(nnx.state(Decoder(model, rngs=nnx.Rngs(0))))
  )()
  tokens = np.random.default_rng(0).integers(0, 64, (12, 17), np.int32)
  step = make_eval_step(model, mesh)
  assert make_eval_step(model, mesh) is step
  one = evaluate(step, params, place_eval_batches([tokens], mesh))
  three = evaluate(step, params, place_eval_batches(np.split(tokens, 3), mesh))
  assert one.losses.shape == (12,)
  assert one.losses.dtype == np.float32
  np.testing.assert_allclose(one.losses, three.losses, rtol=1e-6)
  assert one.mean == pytest.approx(float(np.mean(one.losses)), rel=1e-6)

  @jax.jit
  def logits_of(params):
    graph = nnx.split(nnx.eval_shape(lambda: Decoder(model, rngs=nnx.Rngs(0))))
    return nnx.merge(graph[0], params)(tokens[:, :-1])

  logits = np.float64(logits_of(params))
  chosen = np.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
  nats = np.log(np.sum(np.exp(logits), axis=-1)) - chosen
  np.testing.assert_allclose(one.losses, nats.mean(axis=-1), rtol=1e-5)
