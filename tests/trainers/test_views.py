"""Views of a batch: what is drawn, when it comes back, how they diverge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.views import Draw
from trainers.views import Views
from trainers.views import check_views
from trainers.views import kl_of_views
from trainers.views import recall_interval
from trainers.views import views_of

VOCAB_SIZE = 64
VIEWS = Views(n=3, corrupt_frac=0.25)
TOKENS = np.random.default_rng(0).integers(0, VOCAB_SIZE, (1, 32, 65), np.int32)


def views_at(step=5, seed=7, tokens=TOKENS, views=VIEWS):
  draw = Draw(np.uint32(seed), np.int32(step))
  return views_of(jnp.asarray(tokens), views, VOCAB_SIZE, draw)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'n': 1}, 'Views.n must be >= 2, got 1'),
    ({'corrupt_frac': 1.5}, r'Views.corrupt_frac must be in \[0, 1\], got 1.5'),
    ({'kl_weight': -1.0}, 'Views.kl_weight must be >= 0, got -1.0'),
    ({'kl_from_step': -1}, 'Views.kl_from_step must be >= 0, got -1'),
  ],
)
def test_what_makes_no_views_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    Views(**changes)


def test_a_batch_of_parts_of_windows_is_refused():
  check_views(VIEWS, (6, 12), 2)
  with pytest.raises(
    ValueError, match=r'batch_size must be a multiple .*got 9'
  ):
    check_views(VIEWS, (12, 9), 2)


def test_a_window_comes_back_after_the_recall_interval():
  """Counted: the updates of an epoch, each window drawn once."""
  n_windows, batch_size = 24, 8
  assert recall_interval(n_windows, batch_size, 1) == 3
  for n in (2, 4):
    updates, drawn = 0, 0
    while drawn < n_windows:
      drawn += batch_size // n
      updates += 1
    assert recall_interval(n_windows, batch_size, n) == updates


def test_the_first_view_is_the_window_and_others_are_corrupted():
  batch = views_at()
  np.testing.assert_array_equal(batch.tokens_AxWxL1, TOKENS)
  assert batch.inputs_AxWxSxL.shape == (1, 32, 3, 64)
  assert batch.inputs_AxWxSxL.dtype == np.int32
  first, *others = np.moveaxis(np.asarray(batch.inputs_AxWxSxL), 2, 0)
  np.testing.assert_array_equal(first, TOKENS[..., :-1])
  replaced = [view != first for view in others]
  for where in replaced:
    # Five standard deviations of a share of 2048 tokens.
    assert abs(where.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2048)
  assert np.any(replaced[0] != replaced[1])


def test_a_replaced_token_is_any_other_one():
  tokens = np.full((1, 256, 65), 9, np.int32)
  views = dataclasses.replace(VIEWS, corrupt_frac=1.0)
  batch = views_at(tokens=tokens, views=views)
  others = np.asarray(batch.inputs_AxWxSxL)[:, :, 1:]
  counts = np.bincount(others.ravel(), minlength=VOCAB_SIZE)
  assert len(counts) == VOCAB_SIZE
  assert counts[9] == 0
  expected = others.size / (VOCAB_SIZE - 1)
  # Six standard deviations of a count, for the largest of 63.
  assert np.abs(np.delete(counts, 9) - expected).max() < 6 * expected**0.5


def test_views_are_a_function_of_seed_and_step_only():
  same, other_step, other_seed = views_at(), views_at(step=6), views_at(seed=8)
  first = np.asarray(views_at().inputs_AxWxSxL)
  np.testing.assert_array_equal(first, same.inputs_AxWxSxL)
  assert np.any(first != other_step.inputs_AxWxSxL)
  assert np.any(first != other_seed.inputs_AxWxSxL)
  accumulated = views_at(tokens=TOKENS.reshape(4, 8, 65)).inputs_AxWxSxL
  np.testing.assert_array_equal(first, accumulated.reshape(first.shape))


def test_the_divergence_equals_loops():
  logits = np.random.default_rng(1).normal(0, 2, (2, 3, 4, 6))
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  terms = [
    sum(p[w, 0, i, v] * np.log(p[w, 0, i, v] / p[w, s, i, v]) for v in range(6))
    for w in range(2)
    for s in (1, 2)
    for i in range(4)
  ]
  kl = kl_of_views(jnp.asarray(logits, jnp.float32))
  assert np.mean(terms) > 0.1
  assert float(kl) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_divergence_moves_later_views_only():
  """Its slope on a later view's logits is that view's p less the first's."""
  logits = jnp.asarray(np.random.default_rng(2).normal(0, 2, (2, 3, 4, 6)))
  gradient = np.asarray(jax.grad(kl_of_views)(logits))
  p = np.asarray(jax.nn.softmax(logits))
  assert not np.any(gradient[:, 0])
  expected = (p[:, 1:] - p[:, :1]) / (2 * 2 * 4)
  np.testing.assert_allclose(gradient[:, 1:], expected, atol=1e-6)
  same = jnp.repeat(logits[:, :1], 3, axis=1)
  # The logarithms are equal, so their differences are 0 themselves.
  assert float(kl_of_views(same)) == 0
