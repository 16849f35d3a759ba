r"""Pools the kernel of loss laws over data sets, and writes it as Python.

  LRSCHED_CURVES=CURVES .venv/bin/python -m experiments.pool_priors \
    --out=lrsched/laws/priors.py

reads every curve under CURVES whose data set is in its `protocol.json`.
"""

from __future__ import annotations

import pathlib
import pprint
import sys
from collections.abc import Sequence

from absl import app
from absl import flags
from absl import logging

from experiments.protocol import curves_folder
from experiments.protocol import data_sets
from lrsched.laws import pool

OUT = flags.DEFINE_string('out', None, 'File to write.', required=True)

TEXT = '''"""The shipped prior, from `python -m experiments.pool_priors`."""

from lrsched.laws.pooling import Pooled

SHIPPED = Pooled(
  kernel={kernel},
  information=(
{information}
  ),
  own_mean={own_mean},
  own_sd={own_sd},
  model_error={model_error!r},
  sources={sources},
)
'''


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  try:
    pooled = pool(data_sets(curves_folder(), exclude_source=None))
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)
  rows = (f'    {row},' for row in pooled.information)
  text = TEXT.format(
    kernel=pooled.kernel,
    information='\n'.join(rows),
    own_mean=pooled.own_mean,
    own_sd=pooled.own_sd,
    model_error=pooled.model_error,
    sources=pooled.sources,
  )
  pathlib.Path(OUT.value).write_text(text)
  pprint.pprint(pooled._asdict())


if __name__ == '__main__':
  app.run(main)
