"""TensorBoard reads what was logged, with its own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

from tests.integration import tiny_run
from trainers.train import run


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.write_text(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    config = tiny_run.override_for_eight_steps()
    run(config, folder / 'run')
  return folder / 'run'


def test_every_logged_number_is_in_the_event_file(workdir):
  events = EventAccumulator(str(workdir / 'tb'), size_guidance={'scalars': 0})
  events.Reload()
  rows = tiny_run.rows_of(workdir)
  names = {name for row in rows for name in row if name != 'step'}
  assert {'loss', 'lr', 'grad_norm', 'update_ratio', 'eval_loss'} <= names
  for name in names:
    logged = [(r['step'], r[name]) for r in rows if name in r]
    shown = [(e.step, e.value) for e in events.Scalars(name)]
    assert [s for s, _ in shown] == [s for s, _ in logged]
    # Events hold float32.
    assert [v for _, v in shown] == pytest.approx(
      [v for _, v in logged], rel=1e-6
    )
  assert {'tokens_per_s'} <= set(events.Tags()['scalars'])
  assert 'custom_scalars__config__' in events.Tags()['tensors']
