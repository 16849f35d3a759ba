"""No damaged checkpoint loads, none that is needed is deleted."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from tests.tiny import assert_same_bits
from trainers import checkpoint
from trainers.checkpoint import DamagedCheckpoint

N_FLIPS = 40


def state_of(step):
  """A nested state whose numbers tell the step."""
  rng = np.random.default_rng(step)
  return jax.device_put(
    {
      'params': {
        'embedding': rng.normal(size=(64, 16)).astype(np.float32),
        'norm': {'scale': rng.normal(size=16).astype(np.float32)},
      },
      'opt_state': (np.int32(step), rng.normal(size=(64, 16))),
      'ema': None,
    }
  )


def shapes_of(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


def save(root, steps, keep_last=2, keep_steps=()):
  saver = checkpoint.Saver(root, keep_last, keep_steps)
  for step in steps:
    saver.save(step, state_of(step), {'config': {'n': step}})
  saver.wait()


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Checkpoints of steps 3 and 6, not to be written to."""
  root = tmp_path_factory.mktemp('saved')
  save(root, (3, 6))
  return root


@pytest.fixture
def root(saved, tmp_path):
  """A copy of them."""
  return pathlib.Path(shutil.copytree(saved, tmp_path / 'checkpoints'))


def files_of(root, step):
  folder = checkpoint.path_of(root, step)
  inside = sorted(p for p in folder.rglob('*') if p.is_file())
  return [checkpoint.manifest_of(root, step), *inside]


def test_what_is_saved_is_loaded(saved):
  for step in (3, 6):
    checkpoint.verify(saved, step)
    metadata = {'format': checkpoint.FORMAT, 'config': {'n': step}}
    assert checkpoint.load_metadata(saved, step) == metadata
    state = state_of(step)
    loaded = checkpoint.load(saved, step, shapes_of(state))
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    assert_same_bits(loaded, state)
  assert checkpoint.last_good(saved) == (6, ())


def test_a_part_is_loaded_alone(saved):
  state = state_of(6)
  loaded = checkpoint.load(saved, 6, {'params': shapes_of(state['params'])})
  assert loaded.keys() == {'params'}
  assert_same_bits(loaded['params'], state['params'])


def test_another_format_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, 'FORMAT', 1)
  save(tmp_path, (3,))
  monkeypatch.undo()
  with pytest.raises(ValueError, match=r'is of format 1, .* reads format 3'):
    checkpoint.load_metadata(tmp_path, 3)


def test_every_flipped_bit_is_found_before_a_load(root):
  files = files_of(root, 6)
  for path in files:
    if path.stat().st_size == 0:  # nothing to flip; a byte may still appear
      path.write_bytes(b'\1')
      with pytest.raises(DamagedCheckpoint, match=path.name):
        checkpoint.verify(root, 6)
      path.write_bytes(b'')
  checkpoint.verify(root, 6)
  files = [path for path in files if path.stat().st_size > 0]
  assert len(files) >= 8
  rng = np.random.default_rng(0)
  for i in range(N_FLIPS):
    path = files[i % len(files)]
    good = path.read_bytes()
    bad = bytearray(good)
    bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
    path.write_bytes(bad)
    with pytest.raises(DamagedCheckpoint) as error:
      checkpoint.verify(root, 6)
    assert str(error.value) == f'{path} is damaged'
    assert checkpoint.last_good(root) == (3, (f'{path} is damaged',))
    path.write_bytes(good)
  assert checkpoint.last_good(root) == (6, ())


def test_a_missing_file_is_named(root):
  for path in files_of(root, 6)[1:]:
    good = path.read_bytes()
    path.unlink()
    assert checkpoint.last_good(root) == (3, (f'{path} is missing',))
    path.write_bytes(good)


def test_a_file_that_was_not_saved_is_named(root):
  extra = checkpoint.path_of(root, 6) / 'state' / 'extra'
  extra.touch()
  assert checkpoint.last_good(root) == (
    3,
    (f'{extra} was not part of the checkpoint',),
  )


def test_without_a_manifest_it_is_unfinished(root):
  checkpoint.manifest_of(root, 6).unlink()
  step, [reason] = checkpoint.last_good(root)
  assert step == 3
  assert reason == (
    f'{checkpoint.path_of(root, 6)} is unfinished: it has no 000000006.manifest'
  )


def test_without_its_folder_every_file_is_missing(root):
  shutil.rmtree(checkpoint.path_of(root, 6))
  step, [reason] = checkpoint.last_good(root)
  assert step == 3
  assert reason.endswith('is missing')


def test_a_manifest_of_another_step_does_not_fit(root):
  shutil.copy(checkpoint.manifest_of(root, 3), checkpoint.manifest_of(root, 6))
  assert checkpoint.last_good(root)[0] == 3


def test_if_none_is_good_all_are_named(root):
  for step in (3, 6):
    checkpoint.manifest_of(root, step).unlink()
  with pytest.raises(DamagedCheckpoint, match=r'000000006 is .*000000003 is '):
    checkpoint.last_good(root)
  with pytest.raises(DamagedCheckpoint, match='there is none'):
    checkpoint.last_good(root / 'elsewhere')


def test_what_a_killed_save_leaves_is_no_checkpoint_and_no_obstacle(
  root,
):
  # Orbax's and our temporary names, and a folder that was not sealed.
  temporary = root / '000000009.orbax-checkpoint-tmp'
  shutil.copytree(checkpoint.path_of(root, 6) / 'state', temporary / 'state')
  (root / '000000009.manifest.tmp').write_text('{"step"')
  assert checkpoint.saved_steps(root) == [3, 6]
  shutil.copytree(checkpoint.path_of(root, 6), checkpoint.path_of(root, 9))
  assert checkpoint.last_good(root)[0] == 6
  save(root, (9,), keep_last=3)
  assert checkpoint.last_good(root) == (9, ())
  loaded = checkpoint.load(root, 9, shapes_of(state_of(9)))
  assert_same_bits(loaded, state_of(9))
  assert {p.name for p in root.iterdir()} == {
    f'00000000{step}{suffix}'
    for step in (3, 6, 9)
    for suffix in ('', '.manifest')
  }


def test_a_save_over_a_damaged_checkpoint_is_whole(root):
  files_of(root, 6)[-1].write_bytes(b'')
  save(root, (6,))
  assert checkpoint.last_good(root) == (6, ())


@pytest.mark.parametrize(
  ('keep_last', 'keep_steps', 'left'),
  [
    (1, (), [0, 8]),
    (2, (), [0, 6, 8]),
    (1, (2, 6), [0, 2, 6, 8]),
    (9, (), [0, 2, 4, 6, 8]),
  ],
)
def test_the_latest_and_the_chosen_are_kept(
  tmp_path, keep_last, keep_steps, left
):
  save(tmp_path, range(0, 10, 2), keep_last, keep_steps)
  assert checkpoint.saved_steps(tmp_path) == left
  for step in left:
    checkpoint.verify(tmp_path, step)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {f'{s:09}' for s in left} | {f'{s:09}.manifest' for s in left}


def test_a_damaged_one_does_not_push_out_a_good_one(root):
  # The run fell back from step 6 to step 3, and keeps one checkpoint.
  files_of(root, 6)[-1].unlink()
  save(root, (4,), keep_last=1, keep_steps=(3,))
  assert checkpoint.last_good(root)[0] == 4


def test_another_tree_is_an_error_that_names_paths(saved):
  state = state_of(6)
  state['params']['embedding'] = np.zeros((64, 32), np.float32)
  state['params']['output'] = np.zeros((32, 64), np.float32)
  del state['params']['norm']
  asked = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
  with pytest.raises(ValueError, match='another tree') as error:
    checkpoint.load(saved, 6, asked)
  said = str(error.value)
  assert str(checkpoint.path_of(saved, 6)) in said
  for line in (
    'params/embedding: float32[64, 16] -> float32[64, 32]',
    'params/norm/scale: float32[16] -> (absent)',
    'params/output: (absent) -> float32[32, 64]',
  ):
    assert line in said
  assert 'opt_state' not in said


def test_a_long_difference_is_cut_short(saved):
  asked = {'params': {f'{i:02}': np.zeros(1) for i in range(30)}}
  with pytest.raises(ValueError, match=r'and \d+ more'):
    checkpoint.load(saved, 6, asked)


@pytest.mark.parametrize(
  'next_call',
  [
    lambda saver: saver.wait(),
    lambda saver: saver.save(6, state_of(6), {}),
  ],
)
def test_an_error_of_the_background_thread_surfaces(tmp_path, next_call):
  saver = checkpoint.Saver(tmp_path, 2, ())
  # Where the manifest is to be written, something else is.
  (tmp_path / '000000003.manifest.tmp').mkdir()
  saver.save(3, state_of(3), {})
  with pytest.raises(IsADirectoryError, match=r'000000003\.manifest\.tmp'):
    next_call(saver)
  with pytest.raises(DamagedCheckpoint, match='unfinished'):
    checkpoint.verify(tmp_path, 3)


def test_the_manifest_lists_every_file_by_its_hash(saved):
  _, _, body = checkpoint.manifest_of(saved, 6).read_text().partition('\n')
  record = json.loads(body)
  folder = checkpoint.path_of(saved, 6)
  inside = {p.relative_to(folder).as_posix() for p in files_of(saved, 6)[1:]}
  assert record['step'] == 6
  assert record['sha256'].keys() == inside


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'config.json'
  checkpoint.write_durably(path, 'first')
  checkpoint.write_durably(path, 'second')
  assert path.read_text() == 'second'
  assert [p.name for p in tmp_path.iterdir()] == ['config.json']
