"""What a user gets who names no law."""

from __future__ import annotations

from collections.abc import Sequence

from lrsched.laws.curve import Curve
from lrsched.laws.fitted import Fit
from lrsched.laws.fitting import fit
from lrsched.laws.pooling import LAW
from lrsched.laws.pooling import Pooled
from lrsched.laws.priors import SHIPPED


def auto(curves: Sequence[Curve], pooled: Pooled = SHIPPED) -> Fit:
  """Fits the law and prior that forecast other people's curves best.

  The law is `Concave`; its kernel starts from what other data sets have in
  common, and the curves at hand move it as far as they know better. So one or
  two curves are enough, and a constant one alone gives a forecast too, with the
  interval that it deserves and a verdict that says so.

  Args:
    curves: of one model, data set and peak LR; at least one.
    pooled: the common knowledge; by default that of the public curves named in
      `lrsched.laws.priors`.

  Raises:
    ValueError: as `fit`.
  """
  return fit(LAW, curves, prior=pooled.prior(), model_error=pooled.model_error)
