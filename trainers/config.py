"""What a run is: frozen dataclasses, checked when they are built.

A config file returns a `RunConfig`. Everything in it is in optimizer steps,
sequences and bytes; fractions, tokens and epochs become steps in
`trainers.horizon`, before a config is built. `to_dict` writes a config as plain
JSON values, which is what `config.json`, checkpoints and diffs hold.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, dataclass_transform

import lrsched


def _fits(value: Any, kind: Any) -> bool:
  """Whether `value` may be stored in a field annotated `kind`."""
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, option) for option in typing.get_args(kind))
  if origin is Literal:
    return value in typing.get_args(kind)
  if origin is tuple:
    item = typing.get_args(kind)[0]
    return isinstance(value, tuple) and all(_fits(v, item) for v in value)
  if kind is Any:
    return True
  if kind is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if kind is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, types.NoneType if kind is None else kind)


def _kind_name(kind: Any) -> str:
  return getattr(kind, '__name__', str(kind)).replace('typing.', '')


def _check_types(self: Any) -> None:
  for name, kind in typing.get_type_hints(type(self)).items():
    value = getattr(self, name)
    if not _fits(value, kind):
      shown = kind if typing.get_origin(kind) else _kind_name(kind)
      raise ValueError(
        f'{type(self).__name__}.{name} must be {shown}, got {value!r}'
      )


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type) -> type:
  """A frozen, keyword-only dataclass whose field types are checked."""
  rules = cls.__dict__.get('check')

  def __post_init__(self: Any) -> None:
    _check_types(self)
    if rules:
      rules(self)

  cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
  return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def require(good: bool, field: str, value: Any, rule: str) -> None:
  """Raises ValueError naming field, value and rule unless `good`."""
  if not good:
    raise ValueError(f'{field} {rule}, got {value!r}')


@config
class ModelConfig:
  """A decoder-only transformer. Sizes are in units, not in multiples.

  Attributes:
    vocab_size: number of token values; 256 for bytes.
    d_model: width of the residual stream; a multiple of `2 * n_heads`.
    n_layers: number of blocks.
    n_heads: attention heads, each `d_model / n_heads` wide (an even number,
      as RoPE rotates pairs).
    d_ff: hidden width of the feed-forward layer.
    activation: 'swiglu' (three matrices) or 'gelu' (two).
    qk_norm: RMS-normalise queries and keys per head.
    z_loss: weight of the squared log-partition term, 0 for none; 1e-4 is usual.
    tie_embeddings: whether the output projection is the embedding transposed.
    scan_layers: one compiled block scanned over stacked weights: compiles
      faster for deep models, runs about 1.6x slower on a CPU.
    remat: recompute each block's activations in the backward pass.
    compute_dtype: dtype of the matrix products; weights stay float32.
    rope_base: base of the rotary frequencies.
  """

  vocab_size: int = 256
  d_model: int
  n_layers: int
  n_heads: int
  d_ff: int
  activation: Literal['swiglu', 'gelu'] = 'swiglu'
  qk_norm: bool = False
  z_loss: float = 0.0
  tie_embeddings: bool = True
  scan_layers: bool = False
  remat: bool = False
  compute_dtype: Literal['float32', 'bfloat16'] = 'float32'
  rope_base: float = 10_000.0

  def check(self) -> None:
    for name in ('vocab_size', 'd_model', 'n_layers', 'n_heads', 'd_ff'):
      value = getattr(self, name)
      require(value >= 1, f'ModelConfig.{name}', value, 'must be >= 1')
    require(
      self.d_model % (2 * self.n_heads) == 0,
      'ModelConfig.d_model',
      self.d_model,
      f'must be a multiple of 2 * n_heads = {2 * self.n_heads}',
    )
    require(self.z_loss >= 0, 'ModelConfig.z_loss', self.z_loss, 'must be >= 0')
    require(
      self.rope_base > 1, 'ModelConfig.rope_base', self.rope_base, 'must be > 1'
    )


@config
class Docstrings:
  """Docstrings of installed packages, as bytes; the corpus that needs no download.

  Attributes:
    train_packages: top-level import names whose docstrings are trained on.
    valid_packages: whole packages held out for validation.
  """

  train_packages: tuple[str, ...] = ('numpy', 'scipy', 'jax', 'matplotlib')
  valid_packages: tuple[str, ...] = ('optax', 'flax')

  def check(self) -> None:
    for name in ('train_packages', 'valid_packages'):
      value = getattr(self, name)
      require(len(value) > 0, f'Docstrings.{name}', value, 'must not be empty')
    both = set(self.train_packages) & set(self.valid_packages)
    require(
      not both,
      'Docstrings.valid_packages',
      sorted(both),
      'must not be trained on: remove from one of the two lists',
    )


@config
class TextFolder:
  """Every text file under a folder, as bytes; whole files are held out.

  Attributes:
    path: the folder; files are found recursively, in sorted order.
    pattern: which files, a glob on the file name.
    valid_percent: share of files held out, chosen by a hash of their relative
      path, so that adding files never moves one across the split.
  """

  path: str
  pattern: str = '*.txt'
  valid_percent: int = 5

  def check(self) -> None:
    require(
      1 <= self.valid_percent <= 50,
      'TextFolder.valid_percent',
      self.valid_percent,
      'must be in 1..50',
    )


@config
class TokenFile:
  """Two flat binary files of token ids, such as a tokenizer's `.bin` output."""

  train_path: str
  valid_path: str
  dtype: Literal['uint8', 'uint16', 'uint32'] = 'uint16'


@config
class DataConfig:
  """Where sequences come from and how they are batched.

  Attributes:
    source: the corpus.
    seq_len: tokens a sequence predicts; it occupies seq_len + 1 in the file.
    batch_size: sequences per optimizer update, over all devices and
      accumulation steps.
    seed: order of the sequences; each epoch is shuffled anew.
    cache_dir: folder where a corpus is materialised, once, with its hash.
  """

  source: Docstrings | TextFolder | TokenFile = Docstrings()
  seq_len: int = 128
  batch_size: int = 16
  seed: int = 0
  cache_dir: str = 'data-cache'

  def check(self) -> None:
    for name in ('seq_len', 'batch_size'):
      value = getattr(self, name)
      require(value >= 1, f'DataConfig.{name}', value, 'must be >= 1')
    require(
      0 <= self.seed < 2**32, 'DataConfig.seed', self.seed, 'must be in 0..2^32-1'
    )


@config
class MeshConfig:
  """Devices along each axis; `data=None` takes all that the others leave."""

  data: int | None = None
  fsdp: int = 1
  tensor: int = 1

  def check(self) -> None:
    for name in ('data', 'fsdp', 'tensor'):
      value = getattr(self, name)
      require(
        value is None or value >= 1, f'MeshConfig.{name}', value, 'must be >= 1'
      )
