r"""Is the concave power of the LR in `Concave` an effective LR in disguise?

  LRSCHED_CURVES=CURVES .venv/bin/python -m experiments.effective_lr \
    --runs=runs/curves

An update moves a normalised weight by an angle of `lr |u| / |w|`, and `|w|`
follows the LR: so a law in that effective LR might need no power. Two tests:

- Runs of `experiments.record_curves`, which logged the norm of every update
  over that of the weights: for each seed, `Concave` fitted to all falling
  curves with `q` free, in the LR and in the logged ratio.
- Public curves, which logged no norm. With decoupled weight decay and updates
  of a fixed size the norm squared goes as

      n_{t+1} = (1 - lr_t wd)^2 n_t + c lr_t^2,    n_0 = 1

  whose stationary value at the peak is GROWTH; a GROWTH of 1 is the LR itself
  at a constant rate. The protocol is judged in `lr_t / sqrt(n_t)`, with a prior
  pooled in it from other sources.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import rich.console
import rich.table
from absl import app
from absl import flags
from absl import logging

from experiments.protocol import curves_folder
from experiments.protocol import data_sets
from experiments.protocol import read_groups
from experiments.record_curves import FALLS
from experiments.record_curves import WARMUP_STEPS
from lrsched import laws
from trainers.metrics import read_metrics

WEIGHT_DECAY = 0.1  # of all public curves
GROWTHS = (None, 1.0, 4.0, 16.0, 64.0)


def effective(curve: laws.Curve, growth: float | None) -> laws.Curve:
  """A curve in the effective LR, its highest as the peak LR was."""
  if growth is None:
    return curve
  lrs = curve.lr_of_updates()
  # At the peak, n = c lr^2 / (1 - (1 - lr wd)^2).
  kept = (1 - lrs * WEIGHT_DECAY) ** 2
  most = (1 - curve.peak_lr * WEIGHT_DECAY) ** 2
  added = growth * (1 - most) * (lrs / curve.peak_lr) ** 2
  norms, n = np.empty(len(lrs)), 1.0
  for t in range(len(lrs)):
    norms[t] = n
    n = kept[t] * n + added[t]
  return _in_lr(curve, lrs / np.sqrt(norms))


def _in_lr(curve: laws.Curve, lrs: np.ndarray) -> laws.Curve:
  """The losses of a curve under other LRs, of every update."""
  losses = np.full(len(lrs), np.nan)
  losses[curve.steps[curve.measured]] = curve.losses[curve.measured]
  # The peak is that at the end of the warmup.
  first = curve.warmup_steps
  top = lrs[first : first + max(first // 10, 1)].mean()
  lrs = np.minimum(lrs / top, 1.0) * curve.peak_lr
  return dataclasses.replace(
    curve, steps=np.arange(len(lrs)), lrs=lrs, losses=losses
  )


def logged(folder: pathlib.Path, curve: laws.Curve) -> laws.Curve:
  """A curve in the ratio of update to weights that its run logged."""
  rows, _ = read_metrics(folder)
  ratios = np.asarray([row['update_ratio'] for row in rows])
  # One batch's update is noisy; its size for an LR changes slowly.
  lrs = np.asarray([row['lr'] for row in rows])
  sizes = ratios / np.maximum(lrs, 1e-12)
  width = WARMUP_STEPS
  mean = np.convolve(np.pad(sizes, width, mode='edge'), np.ones(2 * width + 1))
  sizes = mean[2 * width : -2 * width] / (2 * width + 1)
  return _in_lr(curve, lrs * sizes)


def without_q(prior: laws.Prior) -> laws.Prior:
  """The prior without what it says of `q`."""
  root = prior.root.copy()
  root[:, laws.Concave.names().index('q')] = 0.0
  return laws.Prior(prior.mean, root)


def of_runs(folder: pathlib.Path, seeds: Sequence[int]) -> rich.table.Table:
  """The power that each input asks for, and how well it then fits."""
  table = rich.table.Table(title='own runs, falling LRs, q free')
  for column in ('seed', 'input', 'q', 's.e.', 'cost', 'noise'):
    table.add_column(column, justify='right')
  recorded = pathlib.Path(__file__).with_name('curves')
  prior = without_q(laws.SHIPPED.prior())
  for seed in seeds:
    curves = [
      laws.Curve.from_csv(
        (recorded / f'{name}_seed{seed}.csv').read_text(),
        name=name,
        warmup_steps=WARMUP_STEPS,
      )
      for name in FALLS
    ]
    ratios = [logged(folder / f'{c.name}_seed{seed}', c) for c in curves]
    for what, inputs in (('LR', curves), ('update ratio', ratios)):
      fit = laws.fit(laws.Concave(), inputs, prior=prior)
      q = fit.law.names().index('q')
      table.add_row(
        f'{seed}',
        what,
        f'{fit.params["q"]:.3f}',
        f'{np.sqrt(fit.covariance[q, q]):.3f}',
        f'{1e3 * fit.cost:.3f}e-3',
        f'{fit.noise:.4f}',
      )
  return table


def of_protocol() -> rich.table.Table:
  """Errors on the public protocol, in effective LRs of several growths."""
  table = rich.table.Table(title='public curves, prior without the source')
  for column in ('growth', 'FinalE', 'MAE', 'q of the pools'):
    table.add_column(column, justify='right')
  folder = curves_folder()
  groups = read_groups(folder / 'protocol.json')
  for growth in GROWTHS:
    pools = {}
    for source in sorted({group.source for group in groups}):
      sets = data_sets(folder, source)
      pools[source] = laws.pool(
        {n: [effective(c, growth) for c in cs] for n, cs in sets.items()}
      )
    finals, means = [], []
    for group in groups:
      fit = laws.auto(
        [effective(c, growth) for c in group.fit], pools[group.source]
      )
      errors = []
      for curve in group.test:
        mean = fit.forecast(effective(curve, growth)).mean
        errors.append(np.abs(curve.losses[curve.measured] - mean))
      finals.append(np.mean([e[-1] for e in errors]))
      means.append(np.mean([e.mean() for e in errors]))
    table.add_row(
      'the LR itself' if growth is None else f'{growth:g}',
      f'{np.mean(finals):.4f}',
      f'{np.mean(means):.4f}',
      ', '.join(f'{p.kernel[-1]:.3f}' for p in pools.values()),
    )
    print(f'growth {growth}: done', file=sys.stderr)
  return table


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  console = rich.console.Console()
  try:
    if flags.FLAGS.runs is not None:
      console.print(of_runs(pathlib.Path(flags.FLAGS.runs), (0, 1, 2)))
    console.print(of_protocol())
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.DEFINE_string(
    'runs', None, 'Folder of the runs of experiments.record_curves.'
  )
  app.run(main)
