"""What a run is told from outside while it trains: to stop, or to decay.

SIGTERM stops it with a checkpoint. SIGUSR1, or a file called `decay` in its
folder, begins the decay; the file may hold the length in updates.
"""

from __future__ import annotations

import math
import pathlib
import signal
import sys
import threading
import time
import types
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

STOP = signal.SIGTERM
DECAY = signal.SIGUSR1


# Seconds between looks at the file: on a network's disk a look is not free.
LOOK_EVERY_S = 0.1


class Stopped(Exception):
  """The run was told to stop, and has saved where it stands.

  Attributes:
    step: updates done.
  """

  def __init__(self, workdir: pathlib.Path, step: int):
    super().__init__(
      f'{workdir}: stopped by SIGTERM at step {step}, which is saved; the same '
      'launch goes on from there'
    )
    self.step = step


class Order(NamedTuple):
  """What is to be done before the next update.

  Attributes:
    stop: save, and end the process.
    decay: begin the decay.
    decay_steps: its length, if one was given.
  """

  stop: bool
  decay: bool
  decay_steps: int | None


class Orders:
  """Listens while a run trains; use it as a context manager.

  Signals set a flag and nothing else: it is read between updates, between the
  batches of an evaluation and after a compilation, where the state is whole.
  With several processes, all act on what any of them was told, at the same
  update; they compare notes every `every_steps`. The first of them looks at the
  file, which it also removes.

  Attributes:
    every_steps: updates from one chance to follow an order to the next.
  """

  def __init__(self, workdir: pathlib.Path, every_steps: int):
    self._file = workdir / 'decay'
    self.every_steps = every_steps if jax.process_count() > 1 else 1
    self._told: set[int] = set()
    self._before: dict[int, Any] = {}
    self._refused: set[str] = set()
    self._looked = -math.inf
    self._was_empty = False

  def __enter__(self) -> Orders:
    # Python runs handlers in the main thread only, and sets them only there.
    if threading.current_thread() is threading.main_thread():
      for number in (STOP, DECAY):
        self._before[number] = signal.signal(number, self._hear)
    return self

  def __exit__(self, *error: Any) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _hear(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    self._told.add(number)

  def poll(self, step: int, is_late: bool) -> Order:
    """What to do before update `step`.

    Args:
      step: the next update.
      is_late: whether a decay must begin now by this process's clock.
    """
    if step % self.every_steps:
      return Order(False, False, None)
    decay, decay_steps = self._decay()
    order = Order(STOP in self._told, decay or is_late, decay_steps)
    if jax.process_count() == 1:
      return order
    told = DECAY in self._told
    mine = [order.stop, order.decay, decay_steps or 0, told]
    all_of = multihost_utils.process_allgather(np.asarray(mine, np.int32))
    stop, decay, decay_steps, told = np.max(all_of, axis=0).tolist()
    if told:
      self._told.add(DECAY)  # for `keep`, which the first process does
    return Order(bool(stop), bool(decay), decay_steps or None)

  def is_stopping(self) -> bool:
    """Whether to leave an evaluation; alone, a process knows at once."""
    return jax.process_count() == 1 and STOP in self._told

  def _decay(self) -> tuple[bool, int | None]:
    """Whether a signal or the file says so, and the length in the file."""
    told, now = DECAY in self._told, time.monotonic()
    if jax.process_index() != 0 or now - self._looked < LOOK_EVERY_S:
      return told, None
    self._looked = now
    try:
      text = self._file.read_text(errors='replace').strip()
    except FileNotFoundError:
      self._was_empty = False
      return told, None
    was_empty, self._was_empty = self._was_empty, not text
    if not text:
      # Only the second time: it may have been made just now, to be written to.
      return told or was_empty, None
    # Nine digits are an int32, as which they go from process to process.
    if text.isdecimal() and len(text) <= 9 and int(text) >= 1:
      return True, int(text)
    rule = 'must be empty or hold updates, from 1 to 999999999'
    self.refuse(text, f'{self._file} {rule}, got {text[:40]!r}')
    return told, None

  def refuse(self, what: str, why: str) -> None:
    """Says why an order is not followed yet, once for each `what`."""
    if what not in self._refused and jax.process_index() == 0:
      print(why, file=sys.stderr)
    self._refused.add(what)

  def keep(self) -> None:
    """Leaves a signal that was not followed yet to the next launch: a file."""
    if DECAY in self._told and jax.process_index() == 0:
      self._file.touch()  # what it holds stays

  def follow(self) -> None:
    """Forgets an order to decay that is being followed."""
    self._told.discard(DECAY)
    if jax.process_index() == 0:
      self._file.unlink(missing_ok=True)
