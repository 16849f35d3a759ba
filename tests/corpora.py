"""Installed packages made for a test, and how much two texts share."""

import numpy as np


def install(folder, name, code, version='1.0'):
  """Makes an installed distribution of one package in a folder of them."""
  package = folder / name
  package.mkdir(parents=True, exist_ok=True)
  (package / '__init__.py').write_text(code, 'utf-8')
  info = folder / f'{name}.dist-info'
  info.mkdir(exist_ok=True)
  (info / 'METADATA').write_text(
    f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
  )
  (info / 'top_level.txt').write_text(f'{name}\n')


def _hashes_of_50(tokens):
  """A 64-bit hash of every run of 50 tokens."""
  hashes = tokens.astype(np.uint64) + np.uint64(1)
  # Runs of 2, 4, 8, 16, 32, then 50 as two that overlap.
  for shift in (1, 2, 4, 8, 16, 18):
    factor = np.uint64(pow(0x9E3779B97F4A7C15, shift, 2**64))
    hashes = hashes[:-shift] * factor + hashes[shift:]
  return hashes


def shared_pieces(train, valid):
  """The share of 50-byte pieces of `valid` that are in `train`, uint8 both."""
  probes = np.unique(_hashes_of_50(valid)[::97])
  # A table over the first 20 bits leaves few training pieces to compare.
  candidate = np.zeros(2**20, bool)
  candidate[probes >> np.uint64(44)] = True
  found = [
    hashes[candidate[hashes >> np.uint64(44)]]
    for hashes in map(_hashes_of_50, np.array_split(train, 16))
  ]
  return np.mean(np.isin(probes, np.concatenate(found)))
