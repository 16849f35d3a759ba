"""What a fit computes: losses by blocks, their slopes, the Huber objective."""

import jax
import numpy as np
import pytest
from scipy.special import huber

from lrsched import laws
from lrsched.laws import problem
from lrsched.laws.path import path_of
from tests.lrsched.laws.test_fit import KINDS
from tests.lrsched.laws.test_fit import PEAK
from tests.lrsched.laws.test_fit import TRUE
from tests.lrsched.laws.test_fit import WARMUP
from tests.lrsched.laws.test_fit import curve
from tests.lrsched.laws.test_fit import schedule


def path(law, kind, total, at, share=0.0):
  lrs = np.asarray(schedule(kind, total)(np.arange(total)), np.float64)
  unit = law.unit(PEAK)
  return path_of(
    lrs,
    at,
    warmup_steps=WARMUP,
    reference_lr=unit,
    tolerance=share * PEAK / unit,
  )


@pytest.mark.parametrize('name', TRUE)
@pytest.mark.parametrize('backwards', [False, True])
def test_blocks_are_the_path(name, backwards):
  """Padding and changes still to come are in neither losses nor slopes."""
  law = getattr(laws, name)()
  at = np.arange(150, 1800, 11)
  whole = path(law, 'cosine', 1800, at[::-1] if backwards else at, 1e-6)
  assert len(whole.steps) > 2 * problem.POINTS
  assert len(whole.before) > 256
  assert (whole.last_steps > whole.first_steps).any()
  z = problem.to_z(law, TRUE[name])
  losses, slopes = problem.losses_and_slopes(law, z, whole)
  f = lambda z: law.at(problem.to_params(law, z), whole)
  with jax.enable_x64(True):
    found = jax.jit(lambda z: (f(z), jax.jacfwd(f)(z)))(z)
  expected, jacobian = map(np.asarray, found)
  np.testing.assert_allclose(losses, expected, rtol=1e-12)
  scale = np.abs(jacobian).max(axis=0)
  np.testing.assert_allclose(slopes / scale, jacobian / scale, atol=1e-10)


def test_blocks_have_few_shapes_and_no_change_to_come():
  law = laws.LossDrop()
  shapes, sizes = set(), []
  for kind, total in (('cosine', 3000), ('stair', 3000), ('constant', 900)):
    blocks = problem.blocks_of(path(law, kind, total, np.arange(150, total, 9)))
    shapes |= {(len(b.path.steps), len(b.path.before)) for b in blocks}
    sizes += [int(np.isfinite(b.path.last_steps).sum()) for b in blocks]
  assert shapes == {(64, 64), (64, 1024), (64, 4096)}
  # Every update of the cosine up to the last of 64 points at 9 updates each.
  assert sizes[:2] == [150 + 9 * 63 - WARMUP, 150 + 9 * 127 - WARMUP]


def test_no_point_has_no_loss():
  law = laws.LossDrop()
  empty = path(law, 'cosine', 900, np.zeros(0, int))
  z = problem.to_z(law, TRUE['LossDrop'])
  losses, slopes = problem.losses_and_slopes(law, z, empty)
  assert losses.shape == (0,)
  assert slopes.shape == (0, 4)


def test_residuals_are_logs_at_the_points_fitted():
  """Not at early ones, nor at rows that only pin the LR."""
  law = laws.LossDrop()
  made = [curve(law, TRUE['LossDrop'], *kind) for kind in KINDS]
  data = problem.stack(made, law, 'true_sum', PEAK)
  rows = [problem.points_of(c, problem.first_step_of(made)) for c in made]
  assert data.n_points.tolist() == [len(r) for r in rows]
  logs = [np.log(c.losses[r]) for c, r in zip(made, rows, strict=True)]
  np.testing.assert_array_equal(data.log_losses, np.concatenate(logs))
  z = problem.to_z(law, {**TRUE['LossDrop'], 'L0': 2.7})
  r, j = problem.residuals_and_slopes(law, z, data)
  ratio = np.exp(data.log_losses) / (np.exp(data.log_losses) + 0.1)
  # Joined changes are within 1e-4 nats of every change by itself.
  np.testing.assert_allclose(r, np.log(ratio), atol=5e-5)
  np.testing.assert_allclose(j[:, 0], -1 / (np.exp(data.log_losses) + 0.1))


def test_a_negative_loss_is_a_steep_residual_without_a_slope():
  law = laws.LossDrop()
  made = [curve(law, TRUE['LossDrop'], *kind) for kind in KINDS]
  data = problem.stack(made, law, 'true_sum', PEAK)
  z = problem.to_z(law, {**TRUE['LossDrop'], 'L0': 0.0, 'B': 4e3})
  r, j = problem.residuals_and_slopes(law, z, data)
  assert np.isfinite(r).all()
  steep = r > 7  # log(2.6 / 0.001) is 7.9
  assert 0 < steep.sum() < len(r)
  np.testing.assert_allclose(
    r[steep], data.log_losses[steep] - np.log(problem.LEAST_LOSS)
  )
  assert (j[steep] == 0).all()
  assert (j[~steep] != 0).any()


def test_the_objective_is_hubers_and_the_prior_is_not_bent():
  u = np.asarray([-3.0, -0.5, 0.2, 1.0, 40.0])
  rho = problem.huber(4)(u**2)
  np.testing.assert_allclose(0.5 * rho[0][:4], huber(1, u[:4]))
  assert rho[0][4] == 40.0**2
  h = 1e-6
  numeric = (problem.huber(4)(u**2 + h) - problem.huber(4)(u**2 - h)) / (2 * h)
  away = np.abs(np.abs(u) - 1) > 1e-3  # from the bend
  np.testing.assert_allclose(rho[1][away], numeric[0][away], rtol=1e-5)
  np.testing.assert_allclose(rho[2][away], numeric[1][away], atol=1e-5)
