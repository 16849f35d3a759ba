r"""Merges checkpoints of a run into one set of weights, in place of a decay.

  .venv/bin/python -m experiments.merge --workdir=runs/a \
    --steps=800,850,900,950,1000 --decay=OneMinusSqrt --out=merged.npz \
    --evaluate

averages the weights of five checkpoints of equal distances with the
coefficients that stand for a decay of that shape from step 800 to step 1000
(`lrsched.merge_weights`); `--uniform` gives all the same weight. Each
checkpoint is verified first; keep them with `checkpoint.keep_steps`. With
`--evaluate`, the merged weights and each checkpoint are evaluated on the run's
validation set.

The file holds one array for each parameter, under its path, and `_origin`, JSON
text that says what was merged. A new run begins from it with

  .venv/bin/python -m experiments.launch --init_from=merged.npz ...
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.saved_weights import Saved
from experiments.saved_weights import load_params
from experiments.saved_weights import read_saved
from trainers.config import MeshConfig
from trainers.corpus import materialise
from trainers.data import domains_of
from trainers.data import eval_batches
from trainers.evaluate import EvalResult
from trainers.evaluate import evaluate
from trainers.evaluate import make_eval_step
from trainers.evaluate import paired_standard_error
from trainers.evaluate import place_eval_batches
from trainers.evaluate import summarise
from trainers.log import eval_file
from trainers.mixture import main_of
from trainers.sharding import make_mesh

# Those that need no setting of their own.
DECAYS: dict[str, lrsched.DecayShape] = {
  type(shape).__name__: shape
  for shape in (
    lrsched.LinearDecay(),
    lrsched.CosineDecay(),
    lrsched.OneMinusSqrt(),
    lrsched.SquareDecay(),
    lrsched.MirrorCosine(),
    lrsched.ExponentialDecay(),
    lrsched.HalfLife(),
    lrsched.InverseDecay(),
    lrsched.InverseSqrtDecay(),
    lrsched.ReflectedExponential(),
  )
}


def coefficients_of(
  steps: Sequence[int], decay: lrsched.DecayShape | None, final_frac: float
) -> list[float]:
  """Coefficients of checkpoints; equal ones without a decay.

  Raises:
    ValueError: if the steps do not rise, or a decay is asked for and they are
      not at equal distances.
  """
  gaps = {b - a for a, b in itertools.pairwise(steps)}
  if len(steps) < 2 or min(gaps) <= 0:
    raise ValueError(
      f'--steps must be two or more, from early to late, got {_listed(steps)}'
    )
  if decay is None:
    return [1 / len(steps)] * len(steps)
  if len(gaps) > 1:
    raise ValueError(
      '--steps must be at equal distances to stand for a decay, got distances '
      f'{_listed(sorted(gaps))}; choose others, or --uniform'
    )
  return lrsched.merge_weights(decay, len(steps), final_frac).tolist()


def merged(
  saved: Saved, steps: Sequence[int], coefficients: Sequence[float]
) -> Any:
  """The weighted mean of the weights; two sets are in memory at a time."""
  trees = (load_params(saved, step) for step in steps)
  return lrsched.average(trees, coefficients)


def write_weights(path: pathlib.Path, params: Any, origin: Any) -> None:
  """Writes weights by parameter path, and their origin; all or nothing."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  arrays = {
    jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in leaves
  }
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('wb') as file:
    np.savez(file, _origin=np.asarray(json.dumps(origin)), **arrays)
  os.replace(temporary, path)


def evaluator_of(saved: Saved) -> Callable[[Any], EvalResult]:
  """A function that evaluates weights on the run's validation set.

  Raises:
    ValueError: if the corpus is not there, or not the one of the run.
  """
  config = saved.config
  name = main_of(domains_of(config.data))
  source = domains_of(config.data)[name].source
  corpus = materialise(source, config.data.cache_dir)
  if corpus.hash != saved.hashes[name]:
    raise ValueError(
      f'{source} must be the text that the run was trained on, hash '
      f'{saved.hashes[name][:12]}, got {corpus.hash[:12]}; merge without '
      '--evaluate'
    )
  batches = eval_batches(
    corpus,
    config.data.seq_len,
    config.eval.n_sequences,
    config.eval.batch_size,
  )
  mesh = make_mesh(MeshConfig())
  placed = place_eval_batches(batches, mesh)
  eval_step = make_eval_step(config.model, mesh)

  def of(params: Any) -> EvalResult:
    with jax.set_mesh(mesh):
      result = evaluate(eval_step, params, placed)
    assert result is not None  # nothing tells it to stop
    return result

  return of


def comparison(
  workdir: pathlib.Path,
  saved: Saved,
  steps: Sequence[int],
  params: Any,
) -> list[str]:
  """A line for the merged weights, and one for each checkpoint.

  A checkpoint's losses are those of the run's own evaluation, if it had one.
  """
  evaluation_of = evaluator_of(saved)
  ours = evaluation_of(params)
  lines = [
    f'merged: validation loss {ours.mean:.4f} +- {ours.standard_error:.4f} '
    'nats/token'
  ]
  for step in steps:
    path = eval_file(workdir, step)
    theirs = (
      summarise(np.load(path))
      if path.exists()
      else evaluation_of(load_params(saved, step))
    )
    error = paired_standard_error(ours.losses, theirs.losses)
    lines.append(
      f'step {step}: {theirs.mean:.4f} +- {theirs.standard_error:.4f}; merged '
      f'less this: {ours.mean - theirs.mean:+.4f} +- {error:.4f} (paired)'
    )
  return lines


def _parsed(steps: Sequence[str]) -> list[int]:
  if wrong := [step for step in steps if not step.isdecimal()]:
    raise ValueError(f'--steps must be whole numbers >= 0, got {wrong[0]!r}')
  return [int(step) for step in steps]


def _listed(numbers: Sequence[int]) -> str:
  """As they are given to a flag."""
  return ','.join(map(str, numbers))


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  workdir, out = pathlib.Path(given.workdir), pathlib.Path(given.out)
  try:
    steps = _parsed(given.steps)
    decay = None if given.uniform else DECAYS[given.decay]
    coefficients = coefficients_of(steps, decay, given.final_frac)
    saved = read_saved(workdir, steps, '--steps')
    params = merged(saved, steps, coefficients)
    origin = {
      'run_id': saved.run_id,
      'workdir': str(workdir.resolve()),
      'steps': steps,
      'coefficients': coefficients,
      'decay': None if decay is None else lrsched.to_dict(decay),
      'final_frac': given.final_frac,
    }
    write_weights(out, params, origin)
    shown = ', '.join(f'{c:.4g}' for c in coefficients)
    print(f'{out}: {workdir}@{_listed(steps)} with coefficients {shown}')
    if given.evaluate:
      print('\n'.join(comparison(workdir, saved, steps, params)))
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
  flags.DEFINE_list('steps', None, 'Checkpoints, early first.', required=True)
  flags.DEFINE_enum('decay', None, list(DECAYS), 'Decay that it stands for.')
  flags.DEFINE_bool('uniform', None, 'Give all checkpoints the same weight.')
  flags.DEFINE_float('final_frac', 0.0, 'Final LR of the decay over the peak.')
  flags.DEFINE_string('out', None, 'The .npz to write.', required=True)
  flags.DEFINE_bool('evaluate', False, 'Evaluate it and the checkpoints.')
  flags.mark_flags_as_mutual_exclusive(['decay', 'uniform'], required=True)
  app.run(main)
