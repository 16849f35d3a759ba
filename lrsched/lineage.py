"""Where a run comes from: its parent, and what happened to it since."""

from __future__ import annotations

from typing import Any, NamedTuple


class Parent(NamedTuple):
  """The run and step that a branch started from.

  Attributes:
    run_id: id of the parent run.
    workdir: folder of the parent run when the branch was made.
    step: updates made when it branched.
  """

  run_id: str
  workdir: str
  step: int


class Event(NamedTuple):
  """Something that happened to a run.

  Attributes:
    step: updates made when it happened.
    kind: 'start', 'branch', 'resume', 'replace' or 'fallback' (a damaged
      checkpoint was passed over).
    note: lines that say what changed.
  """

  step: int
  kind: str
  note: tuple[str, ...]


class Lineage(NamedTuple):
  """A run's id, its parent if it is a branch, and its events in order.

  Example:
    >>> run = Lineage('b2', Parent('a1', 'runs/trunk', 900), ())
    >>> run = run.recorded(
    ...   900, 'branch', ('schedule.decay_steps: 90 -> 45',)
    ... )
    >>> Lineage.from_dict(run.to_dict()) == run
    True
  """

  run_id: str
  parent: Parent | None
  events: tuple[Event, ...]

  def recorded(self, step: int, kind: str, note: tuple[str, ...]) -> Lineage:
    """The lineage with one more event."""
    return self._replace(events=(*self.events, Event(step, kind, note)))

  def to_dict(self) -> dict[str, Any]:
    """As JSON values."""
    return {
      'run_id': self.run_id,
      'parent': self.parent and self.parent._asdict(),
      'events': [{**e._asdict(), 'note': list(e.note)} for e in self.events],
    }

  @classmethod
  def from_dict(cls, data: dict[str, Any]) -> Lineage:
    """What `to_dict` wrote; raises ValueError if it is something else."""
    try:
      parent = data['parent'] and Parent(**data['parent'])
      events = tuple(
        Event(e['step'], e['kind'], tuple(e['note'])) for e in data['events']
      )
      texts = [data['run_id'], *(e.kind for e in events)]
      texts += [line for e in data['events'] for line in e['note']]
      texts += [parent.run_id, parent.workdir] if parent else []
      steps = [e.step for e in events] + ([parent.step] if parent else [])
      lists = [data['events'], *(e['note'] for e in data['events'])]
    except (KeyError, TypeError) as error:
      raise ValueError(f'not a lineage record: {data!r}') from error
    if not (
      all(isinstance(x, str) for x in texts)
      and all(isinstance(x, int) for x in steps)
      and all(isinstance(x, list) for x in lists)
    ):
      raise ValueError(f'not a lineage record: {data!r}')
    return cls(data['run_id'], parent, events)
