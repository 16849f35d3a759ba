"""Curves: what is read, and what is refused by row and value."""

import numpy as np
import pytest

from lrsched.laws import Curve

TEXT = 'step,lr,loss\n0,1e-4,\n9,1e-3,\n10,1e-3,4.5\n20,1e-3,4.0\n40,0.0,3.5\n'


def test_a_csv_is_read_back_as_written():
  curve = Curve.from_csv(TEXT, name='a')
  assert curve.warmup_steps == 10
  assert curve.peak_lr == 1e-3
  np.testing.assert_array_equal(curve.measured, [2, 3, 4])
  again = Curve.from_csv(curve.to_csv(), name='a')
  for field in ('steps', 'lrs', 'losses'):
    np.testing.assert_array_equal(getattr(again, field), getattr(curve, field))


def test_the_lr_is_a_line_between_rows():
  lrs = Curve.from_csv(TEXT, name='a').lr_of_updates()
  assert lrs.shape == (41,)
  np.testing.assert_allclose(lrs[:10], np.linspace(1e-4, 1e-3, 10))
  np.testing.assert_allclose(lrs[30], 5e-4)


@pytest.mark.parametrize(
  ('lrs', 'warmup_steps'),
  [((1.0, 1.0, 0.5), 0), ((0.5, 1.0, 1.0), 2), ((0.1, 0.5, 1.0), 3)],
)
def test_the_initial_rise_is_the_warmup(lrs, warmup_steps):
  text = 'step,lr,loss\n' + ''.join(f'{i},{lr},\n' for i, lr in enumerate(lrs))
  assert Curve.from_csv(text, name='a').warmup_steps == warmup_steps


BAD = [
  ('', 'a: the first line must be step,lr,loss, got'),
  ('step,lr\n', 'a: the first line must be'),
  ('step,lr,loss\n', 'a: there is no row'),
  ('step,lr,loss\n1,2\n', r"a, line 2 must be step,lr,loss, got '1,2'"),
  ('step,lr,loss\n1.5,2,3\n', r"a, line 2: step must be an integer, got '1.5'"),
  ('step,lr,loss\n1,x,3\n', r"a, line 2: lr must be a number, got 'x'"),
  ('step,lr,loss\n1,,3\n', r"a, line 2: lr must be a number, got ''"),
  ('step,lr,loss\n1,2,nan\n', 'a, line 2: loss is NaN; a row without'),
  ('step,lr,loss\n1,nan,2\n', 'a, line 2: lr is NaN'),
  ('step,lr,loss\n1,2,-3\n', 'a, row 0: loss must be finite and > 0'),
  ('step,lr,loss\n1,2,inf\n', 'a, row 0: loss must be finite and > 0'),
  ('step,lr,loss\n1,-2,3\n', 'a, row 0: lr must be finite and >= 0, got -2'),
  ('step,lr,loss\n-1,2,3\n', 'a, row 0: step must be an integer >= 0'),
  ('step,lr,loss\n2,1,3\n1,1,3\n', 'a, row 1: steps must rise, got 1 after 2'),
  ('step,lr,loss\n1,1,3\n1,1,3\n', 'a, row 1: steps must rise, got 1 after 1'),
  ('step,lr,loss\n1,0,3\n', 'a: every lr is 0'),
]


@pytest.mark.parametrize(('text', 'message'), BAD)
def test_bad_text_names_line_and_value(text, message):
  with pytest.raises(ValueError, match=message):
    Curve.from_csv(text, name='a')


def test_columns_must_fit_together():
  with pytest.raises(ValueError, match='columns must be as long'):
    Curve(steps=[1, 2], lrs=[1.0], losses=[1.0, 2.0], warmup_steps=0)
  with pytest.raises(ValueError, match='steps must be integers'):
    Curve(steps=[1.5], lrs=[1.0], losses=[1.0], warmup_steps=0)
  with pytest.raises(
    ValueError, match=r'warmup_steps must be in 0\.\.3, got 4'
  ):
    Curve(steps=[1, 2], lrs=[1.0, 1.0], losses=[1.0, 2.0], warmup_steps=4)
