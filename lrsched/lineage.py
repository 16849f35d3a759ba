"""Where a run comes from: its parent, and what happened to it since."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Carry = Literal['all', 'no_optimizer', 'weights']
CARRIES = ('all', 'no_optimizer', 'weights')


class Parent(NamedTuple):
  """The run and step that a branch started from.

  Attributes:
    run_id: id of the parent run.
    workdir: folder of the parent run when the branch was made.
    step: updates made when it branched.
    carry: what the branch took along. 'all': the whole state; 'no_optimizer':
      all but the optimizer's; 'weights': the weights only, and its steps count
      from 0 again.
  """

  run_id: str
  workdir: str
  step: int
  carry: Carry = 'all'


class Event(NamedTuple):
  """Something that happened to a run.

  Attributes:
    step: updates made when it happened.
    kind: 'start', 'branch', 'resume', 'replace' (of a schedule or a length),
      'change' (of what else may change in a run), 'fallback' (a damaged
      checkpoint was passed over), 'decay' (a decay that a command or a deadline
      began) or 'stop' (a signal ended the process).
    note: lines that say what changed.
    spec: of an event that decided a schedule, such as 'decay': what runs from
      then on, as `to_dict` gives it.
  """

  step: int
  kind: str
  note: tuple[str, ...]
  spec: dict[str, Any] | None = None


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

  @property
  def start_step(self) -> int:
    """The count of updates that the run began at."""
    if self.parent is None or self.parent.carry == 'weights':
      return 0
    return self.parent.step

  @property
  def begun_decay(self) -> Event | None:
    """The decay that runs instead of the config's schedule, if one was begun.

    The latest 'decay' event; a 'replace' after it ends it, a 'change' does not.
    """
    for event in reversed(self.events):
      if event.kind == 'replace':
        return None
      if event.kind == 'decay' and event.spec is not None:
        return event
    return None

  def recorded(
    self,
    step: int,
    kind: str,
    note: tuple[str, ...],
    spec: dict[str, Any] | None = None,
  ) -> Lineage:
    """The lineage with one more event."""
    event = Event(step, kind, note, spec)
    return self._replace(events=(*self.events, event))

  def to_dict(self) -> dict[str, Any]:
    """As JSON values; what is as usual (`carry`, `spec`) is left out."""
    parent = self.parent and self.parent._asdict()
    if parent and parent['carry'] == 'all':
      del parent['carry']
    events = []
    for event in self.events:
      written = event._asdict() | {'note': list(event.note)}
      if event.spec is None:
        del written['spec']
      events.append(written)
    return {'run_id': self.run_id, 'parent': parent, 'events': events}

  @classmethod
  def from_dict(cls, data: dict[str, Any]) -> Lineage:
    """What `to_dict` wrote; raises ValueError if it is something else."""
    try:
      parent = None if data['parent'] is None else Parent(**data['parent'])
      events = tuple(Event(**event) for event in data['events'])
      texts = [data['run_id'], *(e.kind for e in events)]
      texts += [line for e in events for line in e.note]
      texts += [parent.run_id, parent.workdir] if parent else []
      steps = [e.step for e in events] + ([parent.step] if parent else [])
      lists = [data['events'], *(e.note for e in events)]
    except (KeyError, TypeError) as error:
      raise ValueError(f'not a lineage record: {data!r}') from error
    if not (
      data.keys() == {'run_id', 'parent', 'events'}
      and all(isinstance(x, str) for x in texts)
      and all(type(x) is int for x in steps)
      and all(isinstance(x, list) for x in lists)
      and all(e.spec is None or isinstance(e.spec, dict) for e in events)
      and (parent is None or parent.carry in CARRIES)
    ):
      raise ValueError(f'not a lineage record: {data!r}')
    events = tuple(e._replace(note=tuple(e.note)) for e in events)
    return cls(data['run_id'], parent, events)
