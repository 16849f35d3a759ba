"""Text to tokens: trains a SentencePiece BPE and writes token files.

  python -m experiments.tokenize_text --folder=books --out=tokens \
    --vocab_size=8192

writes `tokens/{train,valid}.bin` (uint16) and `tokens/tokenizer.model`, to be
trained on with `TokenFile` and a model of that `vocab_size`. Files are held out
as `TextFolder` does it, and the tokenizer sees the training part only. It is
lossless: what BPE does not know is spelled in bytes. Needs the extra `text`.
"""

from __future__ import annotations

import io
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import app
from absl import flags
from absl import logging

from trainers.corpus import materialise
from trainers.sources import TextFolder
from trainers.sources import TokenFile

END = 1  # token between documents


def train_bpe(documents: Sequence[str], vocab_size: int) -> bytes:
  """A serialised SentencePiece model that decodes to what it encoded."""
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=(line for d in documents for line in d.splitlines()),
    model_writer=model,
    vocab_size=vocab_size,
    model_type='bpe',
    byte_fallback=True,
    # Lossless: spaces and line ends are text, not layout.
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    add_dummy_prefix=False,
    allow_whitespace_only_pieces=True,
    user_defined_symbols=['\n'],
    unk_id=0,
    eos_id=END,
    bos_id=-1,
    pad_id=-1,
    max_sentence_length=16_384,
    minloglevel=2,
  )
  return model.getvalue()


def encode(documents: Sequence[str], model: bytes) -> np.ndarray:
  """All documents as uint16 ids, END after each."""
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  ids = [[*document, END] for document in processor.encode(list(documents))]
  return np.concatenate([np.asarray(x, np.uint16) for x in ids])


def tokenize(
  folder: str, pattern: str, out: pathlib.Path, vocab_size: int
) -> dict[str, float]:
  """Writes the files; returns bytes per token of each part."""
  if out.exists() and any(out.iterdir()):
    raise ValueError(f'--out: {out} is not empty; name a new folder')
  source = TextFolder(path=folder, pattern=pattern)
  out.mkdir(parents=True, exist_ok=True)
  corpus = materialise(source, str(out / 'bytes'))
  parts = {
    'train': pathlib.Path(corpus.train_path).read_bytes(),
    'valid': pathlib.Path(corpus.valid_path).read_bytes(),
  }
  documents = {
    name: [d.decode('utf-8', 'replace') for d in data.split(b'\0') if d]
    for name, data in parts.items()
  }
  try:
    model = train_bpe(documents['train'], vocab_size)
  except RuntimeError as error:  # too little text for that many tokens
    raise ValueError(f'--vocab_size={vocab_size}: {error}') from error
  (out / 'tokenizer.model').write_bytes(model)
  ratios = {}
  for name in parts:
    ids = encode(documents[name], model)
    ids.tofile(out / f'{name}.bin')
    ratios[name] = len(parts[name]) / len(ids)
  return ratios


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  given = flags.FLAGS
  out = pathlib.Path(given.out)
  try:
    ratios = tokenize(given.folder, given.pattern, out, given.vocab_size)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'error: {error}')
  for name, ratio in ratios.items():
    print(f'{out / name}.bin: {ratio:.2f} bytes per token')
  source = TokenFile(
    train_path=str(out / 'train.bin'),
    valid_path=str(out / 'valid.bin'),
    bytes_per_token=round(ratios['valid'], 4),
  )
  print(source)


if __name__ == '__main__':
  flags.DEFINE_string('folder', None, 'Folder of text.', required=True)
  flags.DEFINE_string('pattern', '*.txt', 'Glob on file names.')
  flags.DEFINE_string('out', None, 'Folder to write.', required=True)
  flags.DEFINE_integer(
    'vocab_size', 8192, 'Tokens.', lower_bound=300, upper_bound=65_536
  )
  app.run(main)
