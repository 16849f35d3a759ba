"""The benchmark times every law in both passes, and adds up what it says."""

from __future__ import annotations

from benchmarks import forecast_cost
from experiments.protocol import Group
from lrsched import laws
from tests.lrsched.laws.test_fit import KINDS
from tests.lrsched.laws.test_fit import TRUE
from tests.lrsched.laws.test_fit import curve


def test_the_record_has_every_law_and_its_summary_the_sums(monkeypatch):
  law = laws.LossDrop()
  made = [curve(law, TRUE['LossDrop'], *kind) for kind in KINDS]
  groups = [
    Group('a', 'made', fit=made[:2], test=made[2:]),
    Group('b', 'made', fit=made[::2], test=made[1:2]),
  ]
  monkeypatch.setattr(forecast_cost, 'PUBLISHED', {'loss_drop': law})
  record = forecast_cost.measure(groups)
  assert record['forecast_curves'] == 2
  assert list(record['seconds']) == ['loss_drop', 'auto']
  for row in record['seconds'].values():
    for one_pass in ('first', 'second'):
      found = row[one_pass]
      assert found['dearest_group'] in ('a', 'b')
      assert 0 < found['dearest_fit'] <= found['fits']
    assert row['second']['forecasts'] > 0
  *_, loss_drop, auto, last = forecast_cost.summary(record).splitlines()
  assert loss_drop.startswith('loss_drop')
  assert auto.startswith('auto')
  for i, one_pass in enumerate(('first', 'second')):
    total = sum(
      row[one_pass]['fits'] + row[one_pass]['forecasts']
      for row in record['seconds'].values()
    )
    assert last.split()[2 + i] == f'{total:.1f}'
