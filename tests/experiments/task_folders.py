"""Run folders of tasks in sequence, written by hand."""

from __future__ import annotations

import json
import math

import lrsched

SCHEDULE = lrsched.to_dict(lrsched.Constant(lr=0.01))


def make_run(
  folder, evaluations, *, main='text', replayed=(), watched=(), parent=None
):
  """A run folder; the run id is its name.

  Args:
    folder: to be made.
    evaluations: losses by name of corpus, by step; None for a plain evaluation
      of the main corpus alone.
    main: the corpus that is trained on.
    replayed: corpora that are mixed in.
    watched: corpora that are only evaluated.
    parent: run, step and what is carried.
  """
  folder.mkdir(parents=True)
  if parent is not None:
    run_id, step, *carry = parent
    parent = lrsched.Parent(run_id, f'elsewhere/{run_id}', step, *carry)
  lineage = lrsched.Lineage(folder.name, parent, ())
  (folder / 'lineage.json').write_text(json.dumps(lineage.to_dict()))
  shares = {main: None, **dict.fromkeys(replayed, 0.25)}
  domains = {
    name: {
      'kind': 'Domain',
      'source': {'kind': 'TextFolder', 'path': name},
      'share': share,
      'subset': 1.0,
    }
    for name, share in shares.items()
  }
  config = {
    'model': {'d_model': 16},
    'optimizer': {'kind': 'AdamW', 'schedule': SCHEDULE},
    'eval': {'every_steps': 2},
    'total_steps': max(evaluations, default=0),
    'data': {
      'source': {'kind': 'Mixture', 'domains': domains},
      'seq_len': 16,
      'batch_size': 8,
    },
    'corpora': {name: {'hash': f'hash of {name}'} for name in shares},
    'eval_corpora': {name: f'hash of {name}' for name in watched},
  }
  (folder / 'config.json').write_text(json.dumps(config))
  rows = [
    {'step': step, 'loss': 2.0, 'lr': 0.01}
    for step in range(lineage.start_step, max(evaluations, default=0))
  ]
  for step, losses in evaluations.items():
    row = {'step': step, 'eval_loss': losses[main], 'eval_se': 0.01}
    if len(losses) > 1:
      row |= {f'eval_loss/{name}': loss for name, loss in losses.items()}
      bits = losses[main] / math.log(2)
      row[f'eval_bits_per_byte/{main}'] = bits
    rows.append(row)
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(text)


def make_runs(folder):
  """Text, then code from it, then songs from that; and code with replay."""
  make_run(folder / 'trunk', {2: {'text': 3.0}, 4: {'text': 2.5}})
  make_run(
    folder / 'code',
    {
      4: {'code': 4.0, 'text': 2.5, 'songs': 5.0},
      6: {'code': 3.0, 'text': 3.25, 'songs': 4.5},
      8: {'code': 2.0, 'text': 2.75, 'songs': 4.0},
    },
    main='code',
    watched=('text', 'songs'),
    parent=('trunk', 4),
  )
  make_run(
    folder / 'songs',
    {
      8: {'songs': 4.0, 'code': 2.0, 'text': 2.75},
      10: {'songs': 1.5, 'code': 2.25, 'text': 2.5},
    },
    main='songs',
    watched=('code', 'text'),
    parent=('code', 8),
  )
  make_run(
    folder / 'replay',
    {
      4: {'code': 4.0, 'text': 2.5},
      6: {'code': 3.5, 'text': 2.75},
      8: {'code': 2.5, 'text': 2.5078125},
    },
    main='code',
    replayed=('text',),
    parent=('trunk', 4),
  )
