"""What a run is: frozen dataclasses, checked when they are built.

A config file returns a `RunConfig`. Everything in it is in optimizer steps,
sequences and bytes; fractions, tokens and epochs become steps in
`trainers.horizon`, before a config is built.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import lrsched
from trainers.averaging import Lawa
from trainers.fields import config
from trainers.fields import require
from trainers.finish import Finish
from trainers.gere import GeRe
from trainers.horizon import BatchRamp
from trainers.horizon import check_ramp
from trainers.mixture import Mixture
from trainers.mixture import check_name
from trainers.optimizer import Optimizer
from trainers.optimizer import schedules_of
from trainers.sources import Docstrings
from trainers.sources import Source
from trainers.suits import check_finish
from trainers.suits import check_ramps
from trainers.suits import check_schedule
from trainers.views import Views
from trainers.views import check_views


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
      faster for deep models, runs 1.1 to 1.6 times slower on a CPU.
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
class DataConfig:
  """Where sequences come from and how they are batched.

  Attributes:
    source: the corpus, or the mixture of corpora.
    seq_len: tokens a sequence predicts; it occupies seq_len + 1 in the file.
    batch_size: sequences per optimizer update, over all devices and
      accumulation steps.
    ramp: smaller batches at first; None for the same size throughout.
    views: several corrupted views of each sequence in a batch; None for none.
    seed: order of the sequences; each epoch is shuffled anew.
    cache_dir: folder where a corpus is materialised, once, with its hash.
  """

  source: Source | Mixture = Docstrings()
  seq_len: int = 128
  batch_size: int = 16
  ramp: BatchRamp | None = None
  views: Views | None = None
  seed: int = 0
  cache_dir: str = 'data-cache'

  def check(self) -> None:
    for name in ('seq_len', 'batch_size'):
      value = getattr(self, name)
      require(value >= 1, f'DataConfig.{name}', value, 'must be >= 1')
    if self.ramp is not None:
      check_ramp(self.ramp, self.batch_size)
    require(
      0 <= self.seed < 2**32,
      'DataConfig.seed',
      self.seed,
      'must be in 0..2^32-1',
    )

  def batch_size_at(self, step: int) -> int:
    """Sequences in update `step`."""
    return self.ramp.size_at(step) if self.ramp else self.batch_size

  def batch_sizes(self) -> tuple[int, ...]:
    """Every batch size of the run, in order."""
    return self.ramp.batch_sizes if self.ramp else (self.batch_size,)

  def samples_at(self, step: int) -> int:
    """Sequences drawn before update `step`."""
    boundaries = self.ramp.boundaries if self.ramp else ()
    return lrsched.samples_at(step, boundaries, self.batch_sizes())

  def tokens_at(self, step: int) -> int:
    """Tokens trained on before update `step`."""
    return self.samples_at(step) * self.seq_len


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


@config
class EvalConfig:
  """Evaluation on fixed sets of validation sequences, one for each corpus.

  A run is evaluated on every corpus that it trains on, and on `sources`.

  Attributes:
    every_steps: updates between evaluations; the last update is always
      followed by one.
    n_sequences: sequences of each set, the same for every run on a corpus.
    batch_size: sequences evaluated at once; divides n_sequences.
    sources: further corpora to evaluate on, by name: what the run has learnt
      before, and what it may learn next.
  """

  every_steps: int = 100
  n_sequences: int = 128
  batch_size: int = 64
  sources: dict[str, Source] = dataclasses.field(default_factory=dict)

  def check(self) -> None:
    for name in ('every_steps', 'batch_size'):
      value = getattr(self, name)
      require(value >= 1, f'EvalConfig.{name}', value, 'must be >= 1')
    require(
      self.n_sequences >= 2,
      'EvalConfig.n_sequences',
      self.n_sequences,
      'must be >= 2, to have a standard error',
    )
    require(
      self.n_sequences % self.batch_size == 0,
      'EvalConfig.batch_size',
      self.batch_size,
      f'must divide n_sequences={self.n_sequences}',
    )
    for name in self.sources:
      check_name('EvalConfig.sources', name)


@config
class CheckpointConfig:
  """When to save, and what to keep.

  Attributes:
    every_steps: updates between checkpoints; step 0 and the last step are
      always saved.
    keep_last: how many of the latest are kept.
    keep_steps: steps that are saved (and evaluated) whatever the intervals, and
      never deleted: budgets, and steps to branch from.
  """

  every_steps: int = 100
  keep_last: int = 2
  keep_steps: tuple[int, ...] = ()

  def check(self) -> None:
    for name in ('every_steps', 'keep_last'):
      value = getattr(self, name)
      require(value >= 1, f'CheckpointConfig.{name}', value, 'must be >= 1')


@config
class LogConfig:
  """What is logged, and how often.

  Attributes:
    every_steps: updates between rows of training metrics.
    grad_norm_l1: also log the L1 norm of the gradient.
    peak_flops_per_device: for MFU on devices that are not in the table of
      `trainers.log`; None looks there, and logs no MFU if it is not found.
  """

  every_steps: int = 10
  grad_norm_l1: bool = False
  peak_flops_per_device: float | None = None

  def check(self) -> None:
    require(
      self.every_steps >= 1,
      'LogConfig.every_steps',
      self.every_steps,
      'must be >= 1',
    )
    peak = self.peak_flops_per_device
    require(
      peak is None or peak > 0,
      'LogConfig.peak_flops_per_device',
      peak,
      'must be > 0',
    )


@config
class ForecastConfig:
  """A loss law that follows the run, in the training step.

  Its predictions are of the evaluation loss: `law_loss` for now, `law_residual`
  (the batch's loss less that), `law_final_loss` for the end of the schedule,
  and `law_decay_now_loss` for the end of a decay that would begin now.

  Attributes:
    fit: file of a saved fit (`experiments.forecast --save`); None begins with
      the first fit to this run.
    curves: CSV files of other runs of the same model, data and peak LR, that
      are fitted together with this one.
    refit_every_evals: evaluations between fits to this run's own; 0 for none.
    decay_frac: length of a decay that would begin now, as a share of the
      updates so far.
  """

  fit: str | None = None
  curves: tuple[str, ...] = ()
  refit_every_evals: int = 4
  decay_frac: float = 0.1

  def check(self) -> None:
    require(
      self.refit_every_evals >= 0,
      'ForecastConfig.refit_every_evals',
      self.refit_every_evals,
      'must be >= 0',
    )
    require(
      self.fit is not None or self.refit_every_evals > 0,
      'ForecastConfig.fit',
      self.fit,
      'must name a file if refit_every_evals is 0',
    )
    require(
      0 < self.decay_frac <= 1,
      'ForecastConfig.decay_frac',
      self.decay_frac,
      'must be in (0, 1]',
    )


@config
class RunConfig:
  """A run: with the code and the corpus, it fixes every number of it.

  Attributes:
    model: the network.
    data: the corpus and its batches.
    optimizer: the optimizer, which holds the schedule.
    total_steps: updates of the run, counted from step 0 of its oldest ancestor;
      at most where the schedule ends.
    accum_steps: microbatches each update's gradient is averaged over.
    ema_decay: decay of an exponential moving average of the weights that is
      evaluated too; None for none.
    seed: of the initial weights.
    mesh: devices per axis.
    eval: evaluation.
    checkpoint: saving.
    log: metrics.
    forecast: a loss law that follows the run; None for none.
    lawa: a mean of the latest weights that is evaluated too; None for none.
    gere: replay of a fixed set with margins on activations; None for none.
    finish: when the last decay begins, if before the schedule's own.
  """

  model: ModelConfig
  data: DataConfig = DataConfig()
  optimizer: Optimizer
  total_steps: int
  accum_steps: int = 1
  ema_decay: float | None = None
  seed: int = 0
  mesh: MeshConfig = MeshConfig()
  eval: EvalConfig = EvalConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  log: LogConfig = LogConfig()
  forecast: ForecastConfig | None = None
  lawa: Lawa | None = None
  gere: GeRe | None = None
  finish: Finish = Finish()

  def check(self) -> None:
    require(
      0 <= self.seed < 2**32,
      'RunConfig.seed',
      self.seed,
      'must be in 0..2^32-1',
    )
    require(
      1 <= self.total_steps < 2**31,
      'RunConfig.total_steps',
      self.total_steps,
      'must be in 1..2^31-1',
    )
    require(
      self.accum_steps >= 1
      and all(n % self.accum_steps == 0 for n in self.data.batch_sizes()),
      'RunConfig.accum_steps',
      self.accum_steps,
      f'must be >= 1 and divide data.batch_size={self.data.batch_size}'
      + (f' and each of {self.data.ramp}' if self.data.ramp else ''),
    )
    if self.data.views is not None:
      sizes = self.data.batch_sizes()
      check_views(self.data.views, sizes, self.accum_steps)
    require(
      self.ema_decay is None or 0 < self.ema_decay < 1,
      'RunConfig.ema_decay',
      self.ema_decay,
      'must be in (0, 1); None switches the average off',
    )
    for step in self.checkpoint.keep_steps:
      require(
        0 <= step <= self.total_steps,
        'CheckpointConfig.keep_steps',
        step,
        f'must be in 0..total_steps={self.total_steps}',
      )
    for name, spec in schedules_of(self.optimizer).items():
      where = f'optimizer.{name}'
      check_schedule(where, spec, self.total_steps)
      check_ramps(where, spec, self.data.ramp)
      check_finish(
        where, spec, self.total_steps, self.finish, self.data.tokens_at
      )
