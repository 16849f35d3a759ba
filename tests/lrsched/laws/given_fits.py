"""Fits of invented parameters, of the size of public ones."""

import pytest

from lrsched import laws

PEAK = 3e-4
PARAMS = {
  'MultiPower': dict(
    L0=2.65, A=0.6, alpha=0.45, B=438.0, C=2.13, beta=0.6, gamma=0.655
  ),
  'Functional': dict(
    L0=2.65, A=0.6, alpha=0.45, c2=300.0, c3=1.5, c4=20.0, gamma=0.6
  ),
  'Concave': dict(
    L0=2.65, A=0.35, a=0.45, K=0.2, w=0.725, C=1012.0, b=0.4, g=0.0, q=0.66
  ),
}
every_law = pytest.mark.parametrize('name', PARAMS)


def given(name, warmup='true_sum'):
  law = getattr(laws, name)()
  return laws.Fit.given(law, PARAMS[name], peak_lr=PEAK, warmup=warmup)
