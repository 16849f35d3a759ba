"""The config that runs: as asked, or with a decay that was begun since.

A decay that a command or a deadline began is in the lineage, not in the config,
so that the same launch goes on with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import lrsched
from trainers.config import RunConfig
from trainers.fields import to_dict
from trainers.finish import Finish
from trainers.optimizer import Schedules
from trainers.optimizer import with_schedules


def decided(
  resolved: dict[str, Any], lineage: lrsched.Lineage
) -> dict[str, Any]:
  """A resolved config as it runs; a replacement after the decay ends it."""
  event = lineage.begun_decay
  if event is None:
    return resolved
  end_step = lrsched.from_dict(event.spec or {}, 'lineage: decay').end_step
  decay_steps = (end_step or 0) - event.step
  optimizer = {
    name: _decayed(value, event.step, decay_steps)
    for name, value in resolved['optimizer'].items()
  }
  kept = resolved['checkpoint']['keep_steps']
  return resolved | {
    'optimizer': optimizer | {'schedule': event.spec},
    'total_steps': end_step,
    # Steps to keep after the end do not come any more.
    'checkpoint': resolved['checkpoint']
    | {'keep_steps': [step for step in kept if step <= (end_step or 0)]},
    'finish': to_dict(Finish()),  # it is spent
  }


def _decayed(value: Any, step: int, decay_steps: int) -> Any:
  """A field of an optimizer with every schedule in it decayed from a step."""
  if not isinstance(value, dict):
    return value
  if 'kind' not in value:
    return {k: _decayed(v, step, decay_steps) for k, v in value.items()}
  spec = lrsched.from_dict(value, 'optimizer')
  [branch] = lrsched.decay_branches(spec, (step,), (decay_steps,)).branches
  return lrsched.to_dict(branch.spec)


def as_decided(config: RunConfig, lineage: lrsched.Lineage) -> RunConfig:
  """The same for a config."""
  if lineage.begun_decay is None:
    return config
  runs = decided(to_dict(config), lineage)
  optimizer = with_schedules(config.optimizer, schedules_in(runs))
  keep_steps = tuple(runs['checkpoint']['keep_steps'])
  return dataclasses.replace(
    config,
    optimizer=optimizer,
    total_steps=runs['total_steps'],
    checkpoint=dataclasses.replace(config.checkpoint, keep_steps=keep_steps),
    finish=Finish(),
  )


def schedules_in(resolved: dict[str, Any]) -> Schedules:
  """The schedules of a resolved config, named as `schedules_of` names them."""
  optimizer = resolved['optimizer']
  fields = {n: v for n, v in optimizer.items() if n.endswith('schedule')}
  groups = optimizer.get('groups', {}).items()
  fields |= {f'groups.{p}': value for p, value in groups if value is not None}
  return {
    name: lrsched.from_dict(value, f'optimizer.{name}')
    for name, value in fields.items()
  }
