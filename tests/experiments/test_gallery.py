"""The gallery: whole, and what the program writes now."""

import json
import pathlib
import re

import lrsched
from experiments import gallery
from experiments.plot import load

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'gallery'
REMEDY = 'run `python -m experiments.gallery --out=docs/gallery`'


def kinds(data):
  if isinstance(data, list):
    return {kind for item in data for kind in kinds(item)}
  if isinstance(data, dict):
    return {data['kind']} | kinds(list(data.values()))
  return set()


def test_every_public_schedule_and_shape_is_in_the_gallery():
  public = {
    name
    for name, value in vars(lrsched).items()
    if isinstance(value, type)
    and issubclass(value, lrsched.Schedule | lrsched.DecayShape)
  } - {'Schedule', 'DecayShape'}
  specs = [
    schedule
    for entry in gallery.entries()
    for schedule in entry.schedules.values()
  ]
  assert len(public) > 40
  assert public - kinds([lrsched.to_dict(spec) for spec in specs]) == set()


def test_the_texts_are_what_the_program_writes():
  for path, text in gallery.texts().items():
    committed = (FOLDER / path).read_text(encoding='utf-8')
    assert committed == text, f'{path} is old: {REMEDY}'


def test_there_is_a_small_picture_of_each_entry_and_no_other_file():
  entries = gallery.entries()
  for entry in entries:
    picture = FOLDER / f'{entry.name}.svg'
    assert 5_000 < picture.stat().st_size < 25_000, entry.name
    assert '<svg' in picture.read_text(encoding='utf-8')
  names = {f'{entry.name}.svg' for entry in entries}
  assert len(names) == len(entries)
  files = {
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob('*')
    if path.is_file()
  }
  assert files == names | set(gallery.texts())


def test_every_spec_reads_back_as_what_is_shown():
  n_specs = 0
  for entry in gallery.entries():
    for label, schedule in entry.schedules.items():
      text = gallery.texts()[gallery.spec_path(entry, label)]
      assert lrsched.from_json(text) == schedule
      n_specs += 1
  assert n_specs == len(gallery.texts()) - 1
  shown = load(FOLDER / 'specs' / 'wsd.json')
  assert json.loads(lrsched.to_json(shown.schedule))['kind'] == 'WSD'


def test_every_link_of_the_page_leads_somewhere():
  page = gallery.texts()['README.md']
  headings = re.findall(r'^#+ (.*)$', page, re.MULTILINE)
  # GitHub's rule: lower case, no punctuation, hyphens for spaces.
  anchors = [
    ''.join(c for c in h.lower() if c.isalnum() or c in ' -_').replace(' ', '-')
    for h in headings
  ]
  assert len(set(anchors)) == len(anchors)
  links = re.findall(r'\]\((.*?)\)', re.sub('`.*?`', '', page))
  assert len(links) > 100
  for link in links:
    if link.startswith('#'):
      assert link[1:] in anchors
    else:
      assert (FOLDER / link).is_file(), link
