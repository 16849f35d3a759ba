"""Scalars out of TensorBoard event files, without TensorBoard.

An event file is a sequence of frames: the length of the data, the checksum of
the length, the data, the checksum of the data. The data is an Event message.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2
from tensorboardX.record_writer import masked_crc32c

# A scalar is a simple_value, or with TensorFlow's second writer a tensor of no
# axes: the types a number can have there, by their number in the message.
TENSOR_DTYPES = {1: '<f4', 2: '<f8'}

Scalars = dict[str, list[tuple[int, float]]]


def event_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The event files in a folder, in the order in which TensorBoard reads."""
  return sorted(path for path in folder.glob('*tfevents*') if path.is_file())


def read_scalars(path: pathlib.Path) -> Scalars:
  """Steps and values of every scalar tag, in the order written.

  A last frame that a running or killed process left unfinished is ignored.

  Raises:
    ValueError: if the file is damaged elsewhere.
    OSError: if it cannot be read.
  """
  found: Scalars = {}
  for data in _frames(path):
    try:
      event = event_pb2.Event.FromString(data)
    except DecodeError as error:
      raise ValueError(f'{path}: an event cannot be decoded') from error
    for value in event.summary.value:
      number = _number(value)
      if number is not None:
        found.setdefault(value.tag, []).append((event.step, number))
  return found


def _frames(path: pathlib.Path) -> Iterator[bytes]:
  with path.open('rb') as file:
    while len(head := file.read(12)) == 12:
      length, checksum = struct.unpack('<QI', head)
      if masked_crc32c(head[:8]) != checksum:
        raise ValueError(
          f'{path} is damaged, or no event file, before byte {file.tell()}'
        )
      frame = file.read(length + 4)
      if len(frame) < length + 4:
        return
      data, (checksum,) = frame[:-4], struct.unpack('<I', frame[-4:])
      if masked_crc32c(data) != checksum:
        raise ValueError(f'{path} is damaged before byte {file.tell()}')
      yield data


def _number(value: summary_pb2.Summary.Value) -> float | None:
  if value.HasField('simple_value'):
    return value.simple_value
  tensor = value.tensor
  dtype = TENSOR_DTYPES.get(tensor.dtype)
  if not value.HasField('tensor') or dtype is None or tensor.tensor_shape.dim:
    return None
  given = (*tensor.float_val, *tensor.double_val)
  if tensor.tensor_content:
    given = tuple(np.frombuffer(tensor.tensor_content, dtype).tolist())
  return given[0] if len(given) == 1 else None
