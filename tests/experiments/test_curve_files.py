"""curve_files: every format says the same of the same run, to the step."""

import csv
import json
import struct

import numpy as np
import pytest
import tensorboardX
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

import lrsched
from experiments.curve_files import read_curves
from experiments.curve_files import read_lrs
from experiments.event_files import read_scalars
from experiments.logged import Reading
from lrsched.laws import Curve
from trainers.metrics import MetricWriter

WSD = lrsched.WSD(
  peak_lr=1.0, final_lr=0.5, warmup_steps=4, stable_steps=6, decay_steps=10
)
STEPS = np.arange(20)
LRS = np.asarray(WSD(STEPS), np.float64)
LOSSES = 3.0 - 0.1 * STEPS  # after update t
ROWS = list(zip(STEPS.tolist(), LRS.tolist(), LOSSES.tolist(), strict=True))
PATTERN = r'step (?P<step>\d+)(.*lr (?P<lr>\S+))?(.*loss (?P<loss>\S+))?'
NOWHERE = 10**6
ULP = 2e-7  # of float32: one step and many compile to different orders


def assert_is_the_run(curve, rtol=0.0, warmup_steps=4):
  np.testing.assert_array_equal(curve.steps, STEPS)
  np.testing.assert_allclose(curve.lrs, LRS, rtol=rtol)
  np.testing.assert_allclose(curve.losses, LOSSES, rtol=rtol)
  assert curve.warmup_steps == warmup_steps


def write_csv(path, header, rows):
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([header, *rows])
  return path


def write_text(path, lines):
  path.write_text('\n'.join(lines))
  return path


def write_state(folder, history):
  folder.mkdir(exist_ok=True)
  path = folder / 'trainer_state.json'
  path.write_text(json.dumps({'global_step': 20, 'log_history': history}))
  return path


def write_events(folder, scalars):
  """`scalars` are tags, steps and values in the order written."""
  with tensorboardX.SummaryWriter(str(folder)) as writer:
    for tag, step, value in scalars:
      writer.add_scalar(tag, value, step)
  return folder


def write_run(folder, schedule, end_step, every=1, parent=None, losses=None):
  """A run folder as the trainer leaves it; `losses[t]` is after update t."""
  losses = dict(enumerate(LOSSES.tolist())) if losses is None else losses
  folder.mkdir()
  start_step = parent.step if parent else 0
  optimizer = {'kind': 'AdamW', 'schedule': lrsched.to_dict(schedule)}
  config = {'optimizer': optimizer, 'total_steps': end_step}
  (folder / 'config.json').write_text(json.dumps(config))
  lineage = lrsched.Lineage(folder.name, parent, ())
  (folder / 'lineage.json').write_text(json.dumps(lineage.to_dict()))
  with MetricWriter(
    folder,
    hparams={},
    start_step=start_step,
    description='',
  ) as writer:
    for step in range(start_step, end_step):
      if step % every == 0:
        before = losses[step - 1] if step else 9.0
        lr = float(schedule(step))
        writer.write(step, {'loss': before, 'lr': lr, 'lr_adam': lr / 2})
    writer.write(end_step, {'eval_loss': losses[end_step - 1]})
  return folder


# CSV


def test_our_own_csv_is_read_as_the_curve_reads_it(tmp_path):
  own = Curve.from_csv('step,lr,loss\n0,0.5,\n1,1.0,3.5\n7,1.0,3.25\n')
  path = tmp_path / 'a.csv'
  path.write_text(own.to_csv())
  (curve,) = read_curves(path)
  assert curve.to_csv() == own.to_csv()
  assert (curve.name, curve.warmup_steps) == ('a', own.warmup_steps)


def test_other_columns_of_a_csv_are_ignored(tmp_path):
  rows = [(i, 'x', loss, lr, '') for i, lr, loss in ROWS]
  header = ['step', 'epoch', 'loss', 'lr', 'val_loss']
  (curve,) = read_curves(write_csv(tmp_path / 'a.csv', header, rows))
  assert_is_the_run(curve)


@pytest.mark.parametrize(
  'reading', [Reading(), Reading(step='global_step', loss='train/loss')]
)
def test_columns_are_found_by_what_they_look_like_or_named(tmp_path, reading):
  header = ['global_step', 'train/loss', 'lr-AdamW']
  rows = [(f'{i}.0', loss, lr) for i, lr, loss in ROWS]
  path = write_csv(tmp_path / 'a.csv', header, rows)
  assert_is_the_run(read_curves(path, reading)[0])


def test_steps_that_count_updates_done_are_one_more(tmp_path):
  rows = [(i + 1, lr, loss) for i, lr, loss in ROWS]
  path = write_csv(
    tmp_path / 'a.csv', ['step', 'lr', 'loss'], [(0, '', 9), *rows]
  )
  (curve,) = read_curves(path, Reading(first_step=1))
  assert_is_the_run(curve)  # the loss of the initial weights is left out


def test_an_lr_logged_for_the_next_update_is_moved_there(tmp_path):
  after = np.asarray(WSD(STEPS + 1), np.float64)
  rows = zip(STEPS, after, LOSSES, strict=True)
  path = write_csv(tmp_path / 'a.csv', ['step', 'lr', 'loss'], rows)
  (curve,) = read_curves(path, Reading(next_lr=True))
  # Nothing says the LR of update 0: it has that of the first row.
  np.testing.assert_array_equal(curve.lrs, [LRS[1], *after])
  np.testing.assert_array_equal(curve.losses[:-1], LOSSES)
  assert np.isnan(curve.losses[-1])


def test_lrs_that_are_not_logged_are_the_schedules(tmp_path):
  rows = [(i, loss) for i, _, loss in ROWS[1::3]]  # 1, 4, .., 19
  path = write_csv(tmp_path / 'a.csv', ['step', 'loss'], rows)
  (curve,) = read_curves(path, schedule=WSD)
  np.testing.assert_array_equal(curve.lrs, LRS)
  np.testing.assert_array_equal(curve.measured, STEPS[1::3])
  with pytest.raises(ValueError, match=r'after update 19, but no LR was found'):
    read_curves(path)


def test_the_schedule_gives_lrs_beside_the_logged_ones_only(tmp_path):
  rows = [(0, '', 4.0), (5, 7.0, 3.0), (9, 9.0, ''), (12, '', 2.0)]
  path = write_csv(tmp_path / 'a.csv', ['step', 'lr', 'loss'], rows)
  (curve,) = read_curves(path, schedule=WSD)
  np.testing.assert_array_equal(curve.steps, [*range(6), 9, 10, 11, 12])
  np.testing.assert_array_equal(curve.lrs, [*LRS[:5], 7, 9, *LRS[10:13]])
  with pytest.raises(ValueError, match='12, but the last LR is of update 9'):
    read_curves(path)


def test_a_loss_between_two_lrs_has_the_one_on_the_line(tmp_path):
  rows = [(0, 1.0, ''), (3, '', 4.0), (4, 3.0, '')]
  path = write_csv(tmp_path / 'a.csv', ['step', 'lr', 'loss'], rows)
  (curve,) = read_curves(path, warmup_steps=0)
  np.testing.assert_array_equal(curve.lrs, [1.0, 2.5, 3.0])
  assert curve.warmup_steps == 0


BAD_CSV = {
  'nan': ('0,1,2\n1,1,nan', r"a.csv, line 3: loss must be .* got 'nan'; cut"),
  'negative': ('0,-1,2', 'line 2: lr must be a finite number >= 0, got'),
  'text': ('0,1,x', "line 2: loss must be .* got 'x'"),
  'half': ('0.5,1,2', r'line 2: step must be a whole number .* got .0.5'),
  'large': ('2147483648,1,2', r'step must be a whole number in 0..2\^31-1'),
  'infinite': ('inf,1,2', 'step must be a whole number'),
  'unsorted': ('4,1,2\n3,1,2', 'lr 1 at step 3 follows 1 at step 4; steps'),
  'twice': ('4,1,2\n4,1,3', 'loss 3 at step 4 follows 2 at step 4'),
  'short': ('4,1', 'line 2: there must be 3 cells, as in the header, got 2'),
  'empty': ('', 'there must be a header and a row'),
  'no loss': ('1,1,', 'there is no loss'),
}


@pytest.mark.parametrize('case', BAD_CSV)
def test_a_bad_row_is_named(tmp_path, case):
  rows, message = BAD_CSV[case]
  path = tmp_path / 'a.csv'
  path.write_text(f'step,lr,loss\n{rows}\n')
  with pytest.raises(ValueError, match=message):
    read_curves(path)


def test_the_same_row_twice_is_one(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('step,lr,loss\n4,1,2\n4,1,2\n5,1,2\n')
  np.testing.assert_array_equal(read_curves(path)[0].steps, [4, 5])


@pytest.mark.parametrize(
  ('header', 'reading', 'message'),
  [
    ('step,lr,train_loss,val_loss', {}, 'more than one of .* the loss; name'),
    ('step,lr_a,lr_b,loss', {}, 'more than one of .* like the lr; name one'),
    ('a,lr,b,loss', {}, 'none of a, lr, b, loss looks like the step'),
    ('step,lr,b,loss', {'lr': 'x'}, "lr 'x' is not there, but step, lr, b"),
    ('step,lr,lr,loss', {}, "there are two columns 'lr'"),
    ('step,lr,b,loss', {'first_step': 2}, 'first_step must be 0 or 1, got 2'),
    ('step,lr,b,loss', {'pattern': 'x', 'format': 'csv'}, 'is not for .* csv'),
    ('step,lr,b,loss', {'format': 'xml'}, "must be one of run, .* got 'xml'"),
  ],
)
def test_columns_that_cannot_be_told_are_an_error(
  tmp_path, header, reading, message
):
  path = tmp_path / 'a.csv'
  path.write_text(f'{header}\n1,1,1,1\n')
  with pytest.raises(ValueError, match=message):
    read_curves(path, Reading(**reading))


def test_an_lr_at_step_0_refutes_counting_from_1(tmp_path):
  path = write_csv(tmp_path / 'a.csv', ['step', 'lr', 'loss'], ROWS)
  with pytest.raises(ValueError, match='an LR at step 0'):
    read_curves(path, Reading(first_step=1))


# W&B


@pytest.fixture
def wandb(tmp_path):
  metrics = ['train/lr', 'train/loss', 'val/loss']
  header = ['Step'] + [
    f'{run} - {metric}{end}'
    for run in ('big - 1', 'b')
    for metric in metrics
    for end in ('', '__MIN', '__MAX')
  ]
  rows = []
  for i, lr, loss in ROWS:
    cells = [i]
    for factor in (1, 2):
      for value in (factor * lr, factor * loss, 7.0 if i % 5 == 4 else ''):
        cells += [value, 0.0, NOWHERE]
    rows.append(cells)
  return write_csv(tmp_path / 'wandb_export.csv', header, rows)


def test_every_run_of_a_wandb_chart_is_a_curve(wandb):
  first, second = read_curves(wandb, Reading(loss='train/loss'))
  assert (first.name, second.name) == ('big - 1', 'b')
  assert_is_the_run(first)
  np.testing.assert_array_equal(second.lrs, 2 * LRS)
  sparse, _ = read_curves(wandb, Reading(loss='val/loss'))
  np.testing.assert_array_equal(sparse.measured, STEPS[4::5])


def test_a_wandb_chart_of_one_metric_is_refused_by_run(wandb):
  with pytest.raises(ValueError, match='run big - 1: more than one of train/l'):
    read_curves(wandb)


# Hugging Face


def test_a_hugging_face_entry_is_of_the_update_before(tmp_path):
  history = []
  for i, lr, loss in ROWS:
    history.append({'step': i + 1, 'learning_rate': lr, 'loss': loss})
    if i % 5 == 4:
      history.append({'step': i + 1, 'eval_loss': loss / 2})
  history.append({'step': 20, 'train_loss': 1.0, 'train_runtime': 2.0})
  folder = tmp_path / 'checkpoint-20'
  path = write_state(folder, history)
  for given in (path, folder):
    (curve,) = read_curves(given)
    assert_is_the_run(curve)
    assert curve.name == 'checkpoint-20'
  (curve,) = read_curves(path, Reading(loss='eval_loss'))
  np.testing.assert_array_equal(curve.measured, STEPS[4::5])
  np.testing.assert_array_equal(curve.losses[4::5], LOSSES[4::5] / 2)


def test_up_to_4_50_the_lr_is_that_of_the_next_update(tmp_path):
  history = [
    {'step': i + 1, 'learning_rate': float(WSD(i + 1)), 'loss': loss}
    for i, _, loss in ROWS
  ]
  path = write_state(tmp_path, history)
  (log,) = read_lrs(path, Reading(next_lr=True))
  assert log.lrs == {t: float(WSD(t)) for t in range(1, 21)}
  assert read_lrs(path)[0].lrs == {t - 1: lr for t, lr in log.lrs.items()}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"log_history": 1}', 'there is no list log_history'),
    ('[]', 'there is no list log_history'),
    ('x', 'trainer_state.json is not JSON'),
    ('{"log_history": [1]}', r'log_history\[0\] must be an object, got 1'),
    (
      '{"log_history": [{"step": 1, "loss": NaN}]}',
      r"log_history\[0\]: loss must be .* got 'nan'",
    ),
    ('{"log_history": [{"loss": 1}]}', "step must be a whole .* got 'None'"),
  ],
)
def test_a_bad_state_is_named(tmp_path, text, message):
  path = tmp_path / 'trainer_state.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    read_curves(path)


# TensorBoard


def scalars(rows):
  return [
    scalar
    for i, lr, loss in rows
    for scalar in (('train/lr', i, lr), ('train/loss', i, loss))
  ]


def test_event_folders_and_files_are_read_without_tensorboard(tmp_path):
  for name in 'ab':
    write_events(tmp_path / 'tb' / name, scalars(ROWS))
  curves = read_curves(tmp_path / 'tb')
  assert [curve.name for curve in curves] == ['a', 'b']
  (file,) = (tmp_path / 'tb' / 'a').iterdir()
  for curve in (*curves, *read_curves(file)):
    assert_is_the_run(curve, rtol=1e-6)  # events hold float32


def test_a_restart_replaces_what_was_logged_from_there_on(tmp_path):
  lost = [(i, lr, 9.0) for i, lr, _ in ROWS[12:17]]
  folder = tmp_path / 'tb'
  write_events(folder, scalars([*ROWS[:12], *lost, *ROWS[12:14]]))
  (curve,) = read_curves(folder)
  np.testing.assert_array_equal(curve.steps, STEPS[:14])
  np.testing.assert_allclose(curve.losses, LOSSES[:14], rtol=1e-6)


def test_tags_are_guessed_if_there_is_one_and_named_otherwise(tmp_path):
  more = [('eval/loss', 19, 7.0), ('grad_norm', 19, 1.0)]
  folder = write_events(tmp_path / 'tb', scalars(ROWS) + more)
  with pytest.raises(ValueError, match='more than one of eval/loss, grad_norm'):
    read_curves(folder)
  assert_is_the_run(read_curves(folder, Reading(loss='train/loss'))[0], 1e-6)
  assert len(read_lrs(folder)[0].lrs) == 20


def frame(data):
  length = struct.pack('<Q', len(data))
  return b''.join(
    [
      length,
      struct.pack('<I', masked_crc32c(length)),
      data,
      struct.pack('<I', masked_crc32c(data)),
    ]
  )


@pytest.mark.parametrize('in_content', [True, False])
def test_scalars_may_be_tensors(tmp_path, in_content):
  """As TensorFlow's second writer has them, and with it flax's."""
  event = event_pb2.Event(step=3)
  tensor = event.summary.value.add(tag='loss').tensor
  tensor.dtype = 1
  if in_content:
    tensor.tensor_content = struct.pack('<f', 2.5)
  else:
    tensor.float_val.append(2.5)
  text = event.summary.value.add(tag='text').tensor
  text.dtype = 7
  text.string_val.append(b'x')
  vector = event.summary.value.add(tag='vector').tensor
  vector.dtype = 1
  vector.tensor_shape.dim.add(size=1)
  vector.float_val.append(1.0)
  path = tmp_path / 'events.out.tfevents.1'
  path.write_bytes(frame(event.SerializeToString()))
  assert read_scalars(path) == {'loss': [(3, 2.5)]}


def test_an_unfinished_event_is_ignored_and_a_damaged_one_is_not(tmp_path):
  event = event_pb2.Event(step=3)
  event.summary.value.add(tag='loss', simple_value=2.5)
  good = frame(event.SerializeToString())
  path = tmp_path / 'events.out.tfevents.1'
  for cut in (1, 5, 13, len(good) - 1):
    path.write_bytes(good + good[:cut])
    assert read_scalars(path) == {'loss': [(3, 2.5)]}
  for at in (0, 9, 14, len(good) - 1):
    bad = bytearray(good)
    bad[at] ^= 1
    path.write_bytes(bytes(bad) + good)
    with pytest.raises(ValueError, match='is damaged'):
      read_scalars(path)
  path.write_bytes(frame(b'\xff\xff'))
  with pytest.raises(ValueError, match='cannot be decoded'):
    read_scalars(path)


def test_a_folder_of_events_without_scalars_is_refused(tmp_path):
  write_events(tmp_path / 'tb', [])
  with pytest.raises(ValueError, match='no event file with a scalar'):
    read_curves(tmp_path / 'tb')


# Plain logs


def test_a_plain_log_is_read_by_a_pattern(tmp_path):
  lines = ['starting']
  for i, lr, loss in ROWS:
    lines += [f'step {i} lr {lr!r}', f'step {i} loss {loss!r}', 'saved']
  path = write_text(tmp_path / 'out.log', lines)
  assert_is_the_run(read_curves(path, Reading(pattern=PATTERN))[0])


def test_a_restarted_log_goes_on_where_it_restarted(tmp_path):
  rows = [*ROWS[:15], *ROWS[10:]]
  lines = [f'step {i} lr {lr!r} loss {loss!r}' for i, lr, loss in rows]
  path = write_text(tmp_path / 'out.log', lines)
  assert_is_the_run(read_curves(path, Reading(pattern=PATTERN))[0])


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    (None, 'it cannot be told what this is; .* or give a pattern'),
    ('(', r"pattern '\(': "),
    (r'step (?P<step>\d+)', 'must have groups loss and step'),
    (r'(?P<loss>\d+)', 'must have groups loss and step'),
    (r'x(?P<loss>\d+)(?P<step>\d+)', 'no line matches'),
    (r'step (?P<step>\d+) (?P<loss>\w+)', "line 1: loss must be .* got 'lr'"),
  ],
)
def test_a_bad_pattern_is_refused(tmp_path, pattern, message):
  path = write_text(tmp_path / 'out.log', ['step 1 lr 1 loss 1'])
  with pytest.raises(ValueError, match=message):
    read_curves(path, Reading(pattern=pattern))


# Run folders


def test_a_training_row_has_the_loss_after_the_update_before(tmp_path):
  (curve,) = read_curves(write_run(tmp_path / 'a', WSD, 20))
  np.testing.assert_allclose(curve.lrs, LRS, ULP)
  np.testing.assert_array_equal(curve.losses[:-1], LOSSES[:-1])
  assert np.isnan(curve.losses[-1])  # nothing was trained after the last
  (curve,) = read_curves(tmp_path / 'a', Reading(loss='eval_loss'))
  np.testing.assert_array_equal(curve.measured, [19])
  assert curve.losses[19] == LOSSES[19]


def test_after_the_last_row_the_run_has_the_lrs_of_its_config(tmp_path):
  folder = write_run(tmp_path / 'a', WSD, 20, every=8)
  (curve,) = read_curves(folder, Reading(loss='eval_loss'))
  np.testing.assert_array_equal(curve.steps, [0, 8, 16, 17, 18, 19])
  np.testing.assert_allclose(curve.lrs, LRS[curve.steps], ULP)
  # The config's schedule is the main one; nothing tells the others.
  with pytest.raises(ValueError, match='19, but the last LR is of update 16'):
    read_curves(folder, Reading(loss='eval_loss', lr='lr_adam'))


def test_a_branch_begins_with_the_rows_of_its_parent(tmp_path):
  runs = tmp_path / 'runs'
  runs.mkdir()
  trunk = lrsched.Warmup(schedule=lrsched.Constant(lr=1.0), warmup_steps=4)
  # The trunk goes on after the branch, with other losses and LRs.
  its = {t: LOSSES[t] if t < 10 else 8.0 for t in range(24)}
  write_run(runs / 'trunk', trunk, 24, losses=its)
  parent = lrsched.Lineage.from_dict(
    json.loads((runs / 'trunk' / 'lineage.json').read_text())
  )
  branched = lrsched.Parent(parent.run_id, 'runs/trunk', 10)
  write_run(runs / 'branch', WSD, 20, parent=branched)
  trunk_curve, curve = read_curves(runs)
  assert (trunk_curve.name, curve.name) == ('trunk', 'branch')
  np.testing.assert_allclose(curve.lrs, LRS, ULP)
  np.testing.assert_array_equal(curve.losses[:-1], LOSSES[:-1])
  _, evaluated = read_curves(runs, Reading(loss='eval_loss'))
  np.testing.assert_array_equal(evaluated.measured, [19])
  with pytest.raises(ValueError, match='branched at step 10 from runs/trunk, '):
    read_curves(runs / 'branch')
  (log,) = read_lrs(runs / 'branch')
  assert list(log.lrs) == list(range(10, 20))


def test_a_metric_that_a_run_lacks_is_named(tmp_path):
  folder = write_run(tmp_path / 'a', WSD, 20)
  with pytest.raises(ValueError, match=r'x is not in its .* but eval_loss, lo'):
    read_curves(folder, Reading(loss='x'))
  with pytest.raises(ValueError, match='a has no LR; name what holds it'):
    read_lrs(folder, Reading(lr='x'))


@pytest.mark.parametrize('name', ['absent', 'empty', 'a.npy'])
def test_what_is_nothing_known_is_refused(tmp_path, name):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'a.npy').write_bytes(b'')
  with pytest.raises(ValueError, match=f'{name}'):
    read_curves(tmp_path / name)


def test_the_format_may_be_named(tmp_path):
  path = write_csv(tmp_path / 'a.txt', ['step', 'lr', 'loss'], ROWS)
  assert_is_the_run(read_curves(path, Reading(format='csv'))[0])
