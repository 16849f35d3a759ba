"""The threshold-margin loss: activations stay on their side of thresholds."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Keeps the mean over no violation at 0.
EPSILON = 1e-8


def threshold_margin_loss(
  student_BxLxD: jax.Array,
  teacher_BxLxD: jax.Array,
  low_D: jax.Array,
  high_D: jax.Array,
) -> jax.Array:
  """How far a student's activations leave the range that the teacher's are in.

  The thresholds cut each dimension into three ranges. With teacher `h` and
  student `g`, the violation is (arXiv:2508.04676)

    relu(g - low)                        if h <= low
    relu(low - g) + relu(g - high)       if low < h < high
    relu(high - g)                       if h >= high

  and the loss is the sum of all over `number of those that are not 0 + 1e-8`:
  the mean over violations, not over activations. So it does not fall with their
  number, only with their size. It is 0, with a gradient of 0, if the student is
  the teacher, and finite for any finite input.

  Args:
    student_BxLxD: last hidden state of the network in training.
    teacher_BxLxD: that of the network whose knowledge is kept; a constant.
    low_D: lower threshold of each dimension.
    high_D: upper threshold, >= `low_D`.

  Returns:
    A float32 scalar, in units of the activations.
  """
  g, h = (x.astype(jnp.float32) for x in (student_BxLxD, teacher_BxLxD))
  low, high = (x.astype(jnp.float32)[None, None] for x in (low_D, high_D))
  relu = jax.nn.relu  # its gradient at 0 is 0
  # Both of the first two where low = high = h: a dimension that never moves.
  violations_BxLxD = (
    jnp.where(h <= low, relu(g - low), 0)
    + jnp.where(h >= high, relu(high - g), 0)
    + jnp.where((low < h) & (h < high), relu(low - g) + relu(g - high), 0)
  )
  n = jnp.count_nonzero(violations_BxLxD).astype(jnp.float32)
  return jnp.sum(violations_BxLxD) / (n + EPSILON)
