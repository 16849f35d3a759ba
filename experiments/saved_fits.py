"""Fits of laws, as files."""

from __future__ import annotations

import json
import pathlib

from lrsched import laws


def saved_fit(path: str) -> laws.Fit:
  """The fit that `experiments.forecast --save` wrote.

  Raises:
    ValueError: naming the file, if it does not hold a fit.
  """
  try:
    return laws.Fit.from_dict(json.loads(pathlib.Path(path).read_text()))
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'{path} is not a fit that --save wrote ({type(error).__name__}: {error})'
    ) from error
