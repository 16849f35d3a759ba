"""The gallery of schedules: a page, a picture of each, and its spec.

  python -m experiments.gallery --out=docs/gallery

writes README.md, NAME.svg for each entry, and specs/NAME.json, which
`experiments.plot` shows; an entry of several schedules has a spec for each.
"""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib
from absl import app
from absl import flags
from absl import logging

import lrsched
from experiments.drawing import Shown
from experiments.drawing import picture
from experiments.drawing import save
from experiments.gallery_combinators import COMBINATORS
from experiments.gallery_combinators import NUMBERS
from experiments.gallery_entries import ONE_FORMULA
from experiments.gallery_entries import Entry
from experiments.gallery_stages import CYCLES
from experiments.gallery_stages import STAGES

GROUPS = {
  'One formula': ONE_FORMULA,
  'Stages': STAGES,
  'Cycles and stairs': CYCLES,
  'From numbers': NUMBERS,
  'From other schedules': COMBINATORS,
}
SIZE_INCHES = (6.4, 2.5)
# Text stays text, in the reader's own font; curves are exact to half a
# point.
SMALL: dict[Any, Any] = {
  'svg.fonttype': 'none',
  'font.sans-serif': ['DejaVu Sans', 'Verdana', 'Arial'],
  'path.simplify_threshold': 0.5,
}
INTRO = """\
# Gallery

Every schedule of lrsched, and schedules of papers that are made of them: of
each the idea, when to take it, and what to mind. LRs are examples, with a peak
of 1e-3 or 3e-4 in a run of 1000 steps, unless the text says otherwise.

Pictures of a single schedule are shaded orange in a warmup and blue in a decay.
Each spec can be looked at and tabulated:

```sh
.venv/bin/python -m experiments.plot --spec=docs/gallery/specs/wsd.json
```

and read with `lrsched.from_json`. This folder is written by
`.venv/bin/python -m experiments.gallery --out=docs/gallery`.
"""


def entries() -> list[Entry]:
  return [entry for group in GROUPS.values() for entry in group]


def texts() -> dict[str, str]:
  """Every text file of the gallery, by its path in the folder."""
  files = {'README.md': _page()}
  for entry in entries():
    for label, schedule in entry.schedules.items():
      files[spec_path(entry, label)] = lrsched.to_json(schedule) + '\n'
  return files


def write_gallery(folder: pathlib.Path) -> None:
  """Writes all files; those of entries that are gone are left to be deleted."""
  (folder / 'specs').mkdir(parents=True, exist_ok=True)
  for path, text in texts().items():
    (folder / path).write_text(text, encoding='utf-8')
  with matplotlib.rc_context(SMALL):
    for entry in entries():
      save(picture(_shown(entry), SIZE_INCHES), folder / f'{entry.name}.svg')


def _shown(entry: Entry) -> list[Shown]:
  shown = []
  for label, schedule in entry.schedules.items():
    total_steps = entry.total_steps or schedule.end_step
    if total_steps is None:
      raise ValueError(f'{entry.name}: {label} has no end; give total_steps')
    shown.append(Shown(label, schedule, total_steps))
  return shown


def spec_path(entry: Entry, label: str) -> str:
  words = re.findall(r'[a-z0-9.]+', f'{entry.name} {label}'.lower())
  return f'specs/{"_".join(words)}.json'


def _page() -> str:
  lines = [INTRO]
  for title, group in GROUPS.items():
    links = ' · '.join(
      f'[{entry.title}](#{_anchor(entry.title)})' for entry in group
    )
    lines.append(f'- **{title}**: {links}')
  for title, group in GROUPS.items():
    lines.append(f'\n## {title}')
    for entry in group:
      lines.append(f'\n### {entry.title}\n')
      lines.append(f'![{entry.title}]({entry.name}.svg)\n')
      lines.append(f'- {entry.idea}')
      lines.append(f'- **Take it:** {entry.use}')
      lines.append(f'- **Mind:** {entry.care}')
      specs = ', '.join(
        f'[{label or entry.name}]({spec_path(entry, label)})'
        for label in entry.schedules
      )
      lines.append(f'- Spec: {specs}')
  return '\n'.join(lines) + '\n'


def _anchor(title: str) -> str:
  """The name that GitHub gives a heading."""
  return re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-')


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  out = pathlib.Path(flags.FLAGS.out)
  try:
    write_gallery(out)
  except OSError as error:
    sys.exit(f'error: {error}')
  print(out / 'README.md')


if __name__ == '__main__':
  flags.DEFINE_string('out', None, 'Folder to write.')
  flags.mark_flag_as_required('out')
  app.run(main)
