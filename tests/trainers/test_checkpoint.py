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
from trainers.config import DataConfig
from trainers.config import TokenFile
from trainers.corpus import materialise
from trainers.data import train_iterator

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


@pytest.fixture(scope='module')
def iterator_of(tmp_path_factory):
  folder = tmp_path_factory.mktemp('corpus')
  np.arange(900, dtype=np.uint16).tofile(folder / 'train.bin')
  np.arange(99, dtype=np.uint16).tofile(folder / 'valid.bin')
  source = TokenFile(
    train_path=str(folder / 'train.bin'), valid_path=str(folder / 'valid.bin')
  )
  corpus = materialise(source, str(folder))

  def at(n_drawn):
    iterator = train_iterator(corpus, DataConfig(seq_len=8, batch_size=4))
    for _ in range(n_drawn):
      next(iterator)
    return iterator

  return at


def save(root, steps, iterator_of, keep_last=2, keep_steps=()):
  saver = checkpoint.Saver(root, keep_last, keep_steps)
  for step in steps:
    saver.save(step, state_of(step), iterator_of(step), {'config': {'n': step}})
  saver.wait()


@pytest.fixture(scope='module')
def saved(tmp_path_factory, iterator_of):
  """Checkpoints of steps 3 and 6, not to be written to."""
  root = tmp_path_factory.mktemp('saved')
  save(root, (3, 6), iterator_of)
  return root


@pytest.fixture
def root(saved, tmp_path):
  """A copy of them."""
  return pathlib.Path(shutil.copytree(saved, tmp_path / 'checkpoints'))


def files_of(root, step):
  folder = checkpoint.path_of(root, step)
  inside = sorted(p for p in folder.rglob('*') if p.is_file())
  return [checkpoint.manifest_of(root, step), *inside]


def test_what_is_saved_is_loaded_with_the_position_in_the_data(
  saved, iterator_of
):
  for step in (3, 6):
    checkpoint.verify(saved, step)
    assert checkpoint.load_metadata(saved, step) == {'config': {'n': step}}
    data = iterator_of(0)
    state = state_of(step)
    loaded = checkpoint.load(saved, step, shapes_of(state), data)
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    assert_same_bits(loaded, state)
    np.testing.assert_array_equal(next(data), next(iterator_of(step)))
  assert checkpoint.last_good(saved) == (6, ())


def test_the_position_in_the_data_may_be_left_unread(saved, iterator_of):
  loaded = checkpoint.load(saved, 6, shapes_of(state_of(6)), None)
  assert_same_bits(loaded, state_of(6))


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
  root, iterator_of
):
  # Orbax's and our temporary names, and a folder that was not sealed.
  temporary = root / '000000009.orbax-checkpoint-tmp'
  shutil.copytree(checkpoint.path_of(root, 6) / 'state', temporary / 'state')
  (root / '000000009.manifest.tmp').write_text('{"step"')
  assert checkpoint.saved_steps(root) == [3, 6]
  shutil.copytree(checkpoint.path_of(root, 6), checkpoint.path_of(root, 9))
  assert checkpoint.last_good(root)[0] == 6
  save(root, (9,), iterator_of, keep_last=3)
  assert checkpoint.last_good(root) == (9, ())
  loaded = checkpoint.load(root, 9, shapes_of(state_of(9)), None)
  assert_same_bits(loaded, state_of(9))
  assert {p.name for p in root.iterdir()} == {
    f'00000000{step}{suffix}'
    for step in (3, 6, 9)
    for suffix in ('', '.manifest')
  }


def test_a_save_over_a_damaged_checkpoint_is_whole(root, iterator_of):
  files_of(root, 6)[-1].write_bytes(b'')
  save(root, (6,), iterator_of)
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
  tmp_path, iterator_of, keep_last, keep_steps, left
):
  save(tmp_path, range(0, 10, 2), iterator_of, keep_last, keep_steps)
  assert checkpoint.saved_steps(tmp_path) == left
  for step in left:
    checkpoint.verify(tmp_path, step)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {f'{s:09}' for s in left} | {f'{s:09}.manifest' for s in left}


def test_a_damaged_one_does_not_push_out_a_good_one(root, iterator_of):
  # The run fell back from step 6 to step 3, and keeps one checkpoint.
  files_of(root, 6)[-1].unlink()
  save(root, (4,), iterator_of, keep_last=1, keep_steps=(3,))
  assert checkpoint.last_good(root)[0] == 4


def test_another_tree_is_an_error_that_names_paths(saved, iterator_of):
  state = state_of(6)
  state['params']['embedding'] = np.zeros((64, 32), np.float32)
  state['params']['output'] = np.zeros((32, 64), np.float32)
  del state['params']['norm']
  asked = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
  with pytest.raises(ValueError, match='another tree') as error:
    checkpoint.load(saved, 6, asked, None)
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
  with pytest.raises(ValueError, match=r'and 14 more$'):
    checkpoint.load(saved, 6, asked, None)


@pytest.mark.parametrize(
  'next_call',
  [
    lambda saver, iterator: saver.wait(),
    lambda saver, iterator: saver.save(6, state_of(6), iterator, {}),
  ],
)
def test_an_error_of_the_background_thread_surfaces(
  tmp_path, iterator_of, next_call
):
  saver = checkpoint.Saver(tmp_path, 2, ())
  # Where the manifest is to be written, something else is.
  (tmp_path / '000000003.manifest.tmp').mkdir()
  saver.save(3, state_of(3), iterator_of(3), {})
  with pytest.raises(IsADirectoryError, match=r'000000003\.manifest\.tmp'):
    next_call(saver, iterator_of(6))
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
