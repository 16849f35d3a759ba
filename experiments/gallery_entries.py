"""An entry of the gallery, and the schedules of one formula.

Facts are those of the papers named; peaks and lengths are examples unless the
text says otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import lrsched

PEAK = 1e-3


class Entry(NamedTuple):
  """One picture and what is said of it.

  Attributes:
    name: of its files.
    title: heading.
    schedules: by the label in the picture; a single one needs no label.
    idea: what it does, the equation where there is a short one.
    use: when to take it, and who does.
    care: what to watch out for.
    total_steps: steps to show; None to the end of the schedule.
  """

  name: str
  title: str
  schedules: dict[str, lrsched.Schedule]
  idea: str
  use: str
  care: str
  total_steps: int | None = None


def warm(
  schedule: lrsched.Schedule, warmup_steps: int = 50
) -> lrsched.Schedule:
  return lrsched.Warmup(schedule=schedule, warmup_steps=warmup_steps)


ONE_FORMULA = (
  Entry(
    'constant',
    'Constant',
    {'': lrsched.Constant(lr=3e-4)},
    '`lr(t) = lr`, for ever.',
    'The trunk to branch decays off, and the baseline of every comparison of '
    'schedules.',
    'Without a decay the noise of the gradients stays in the weights; and it '
    'has no end, so the run has to say how long it is.',
    1000,
  ),
  Entry(
    'linear',
    'Linear to zero',
    {'': warm(lrsched.Linear(peak_lr=PEAK, total_steps=950))},
    'A warmup, then `lr(t) = peak (1 - t/T)`.',
    'When the length is known: worst-case optimal for the last iterate '
    '(Defazio et al., arXiv:2310.07831), and better than a decay to a tenth '
    'for language models (Bergsma et al., arXiv:2502.15938).',
    'The last update still has `peak/T`; 0 is reached after it. A longer run '
    'is another schedule from its first step on.',
  ),
  Entry(
    'cosine',
    'Cosine',
    {
      '': warm(
        lrsched.Cosine(peak_lr=PEAK, final_lr=0.1 * PEAK, total_steps=950)
      )
    },
    'A warmup, then `lr(t) = final + (peak - final) (1 + cos(pi t/T)) / 2`.',
    'The usual baseline (Loshchilov and Hutter, arXiv:1608.03983); Llama 2 '
    'ends it at a tenth of the peak (arXiv:2307.09288).',
    'Its length has to be that of the run: one that is more than a quarter too '
    'long costs loss (Hoffmann et al., arXiv:2203.15556). Checkpoints before '
    'the end are not decayed.',
  ),
  Entry(
    'polynomial',
    'Polynomial',
    {
      f'power={power:g}': lrsched.Polynomial(
        peak_lr=PEAK, total_steps=1000, power=power
      )
      for power in (0.5, 0.9, 2.0)
    },
    '`lr(t) = final + (peak - final) (1 - t/T)^p`; a power of 1 is the line.',
    'The poly policy of segmentation networks has `p = 0.9` (DeepLab, '
    'arXiv:1606.00915).',
    'Below 1 it stays high and falls steeply at the end; above 1 much of the '
    'run has a small LR.',
  ),
  Entry(
    'rex',
    'REX',
    {
      f'beta={beta:g}': lrsched.REX(peak_lr=PEAK, total_steps=1000, beta=beta)
      for beta in (0.5, 0.9)
    },
    'Reflected exponential: `u / (1 - b + b u)` of what is left, `u = 1 - '
    't/T`.',
    'For any budget, short ones above all (Chen et al., arXiv:2107.04197); it '
    'stays above the line and needs no other setting.',
    'The paper has `b = 1/2`, the code of a co-author `b = 0.9`: 0.67 or 0.91 '
    'of the peak half way. Say which one was run.',
  ),
  Entry(
    'exponential',
    'Exponential',
    {
      '': lrsched.Exponential(
        peak_lr=PEAK, final_lr=0.05 * PEAK, factor=0.5, every_steps=150
      )
    },
    '`lr(t) = max(final, peak f^(t/k))`: equal ratios in equal times.',
    'For runs of open length; EfficientNet multiplies by 0.97 every 2.4 epochs '
    '(arXiv:1905.11946), as stairs: `Sampled`.',
    'What others call exponential may be another curve: the one of GPT-NeoX '
    'only halves the LR in the whole run.',
    1000,
  ),
  Entry(
    'transformer',
    'Transformer: warmup and inverse square root',
    {
      '': lrsched.Warmup(
        schedule=lrsched.InverseSqrt(peak_lr=PEAK, timescale_steps=100),
        warmup_steps=100,
      )
    },
    '`lr(t) = peak min((t+1)/W, sqrt(W/t))`, with `peak = (d W)^-1/2` in the '
    'original (Vaswani et al., arXiv:1706.03762, Eq. 3).',
    'When the end is not known; scaling studies take it with a decay at the '
    'end of each branch (Zhai et al., arXiv:2106.04560).',
    'It has no end and never decays by itself: after `3 W` more steps it has '
    'only halved. The length of the warmup also sets the fall.',
    1000,
  ),
  Entry(
    'inverse_time',
    'Inverse time',
    {
      'InverseTime': lrsched.InverseTime(peak_lr=PEAK, timescale_steps=100),
      'InverseSqrt': lrsched.InverseSqrt(peak_lr=PEAK, timescale_steps=100),
    },
    '`lr(t) = peak q / (q + t)`; beside it the square root of that factor.',
    'The steps of stochastic approximation (Robbins and Monro, 1951).',
    'It falls fast and then hardly at all; `q` is the number of steps until it '
    'has halved. It has no end.',
    1000,
  ),
  Entry(
    'power',
    'Power',
    {
      'with a decay': lrsched.Power(
        peak_lr=0.02,
        batch_size=128,
        tokens_per_step=524_288,
        warmup_steps=100,
        stable_steps=2900,
        decay_steps=1000,
      ),
      'without': lrsched.Power(
        peak_lr=0.02, batch_size=128, tokens_per_step=524_288, warmup_steps=100
      ),
    },
    '`min(peak, batch a n^b)` of the tokens `n` seen, then a decay.',
    'One fit, `a = 4` and `b = -0.51`, for all batch sizes and numbers of '
    'tokens, with muP (Shen et al., arXiv:2408.13359).',
    'The LR follows the tokens, not the end: a longer run has the same start. '
    'Batches count in sequences.',
    4000,
  ),
)
