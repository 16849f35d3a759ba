"""The threshold-margin loss against loops, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.threshold_margin import threshold_margin_loss

SHAPE = (2, 5, 7)


def relu(x):
  return max(x, 0.0)


def by_loops(student, teacher, low, high):
  """Float64; the loss, and how many violations there are."""
  total, n = 0.0, 0
  for b, position, d in np.ndindex(student.shape):
    g, h = float(student[b, position, d]), float(teacher[b, position, d])
    n_d, p_d = float(low[d]), float(high[d])
    violation = 0.0
    if h <= n_d:
      violation += relu(g - n_d)
    if h >= p_d:
      violation += relu(p_d - g)
    if n_d < h < p_d:
      violation += relu(g - p_d) + relu(n_d - g)
    total, n = total + violation, n + (violation != 0)
  return total / (n + 1e-8), n


@pytest.fixture
def parts():
  """Student, teacher and thresholds that meet every case."""
  rng = np.random.default_rng(0)
  teacher = rng.normal(size=SHAPE).astype(np.float32)
  student = teacher + rng.normal(size=SHAPE).astype(np.float32)
  low = teacher.mean((0, 1)) - teacher.std((0, 1))
  high = teacher.mean((0, 1)) + teacher.std((0, 1))
  # On a threshold itself, and a dimension that never moves.
  teacher[0, 0, 0], teacher[0, 1, 0] = low[0], high[0]
  teacher[..., 1] = low[1] = high[1] = 0.5
  return student, teacher, low, high


def test_it_equals_loops(parts):
  _, teacher, *_ = parts
  expected, n = by_loops(*parts)
  kinds = np.digitize(teacher, [-1, 1])
  assert len(np.unique(kinds)) == 3
  assert 0 < n < teacher.size  # some stay in their range, some do not
  loss = threshold_margin_loss(*map(jnp.asarray, parts))
  assert loss.dtype == np.float32
  # A float32 sum of 70 terms.
  assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_it_is_the_mean_over_violations_and_not_over_activations(parts):
  _, teacher, low, high = parts
  one = np.array(teacher)
  one[1, 2, 3] = high[3] + 3 if teacher[1, 2, 3] < high[3] else high[3] - 3
  loss = threshold_margin_loss(*map(jnp.asarray, (one, teacher, low, high)))
  assert float(loss) == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_a_student_that_is_the_teacher_has_no_loss_and_no_gradient(
  parts, dtype
):
  _, teacher, low, high = parts
  teacher = jnp.asarray(teacher, dtype)
  value, gradient = jax.value_and_grad(threshold_margin_loss)(
    teacher, teacher, jnp.asarray(low), jnp.asarray(high)
  )
  assert float(value) == 0.0
  assert not np.any(gradient)


def test_the_gradient_is_the_side_over_the_number_of_violations(parts):
  student, teacher, low, high = parts
  gradient = jax.grad(threshold_margin_loss)(*map(jnp.asarray, parts))
  _, n = by_loops(*parts)
  for at in np.ndindex(student.shape):
    others = [np.array(student, np.float64) for _ in range(2)]
    others[0][at] -= 1e-6
    others[1][at] += 1e-6
    # The sum, of which the count is no part of the derivative.
    sums = [np.prod(by_loops(x, teacher, low, high)) for x in others]
    slope = (sums[1] - sums[0]) / 2e-6 / n
    assert float(gradient[at]) == pytest.approx(slope, abs=1e-6), at


@pytest.mark.parametrize('size', [0.0, 1e-30, 1e30])
def test_value_and_gradient_are_finite(parts, size):
  student, *rest = parts
  value, gradient = jax.value_and_grad(threshold_margin_loss)(
    jnp.asarray(size * student), *map(jnp.asarray, rest)
  )
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))
  assert np.any(gradient)
