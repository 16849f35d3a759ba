"""What the gallery shows: schedules from numbers and from other schedules."""

from __future__ import annotations

import math

import lrsched
from experiments.gallery_entries import PEAK
from experiments.gallery_entries import Entry

COSINE = lrsched.Cosine(peak_lr=PEAK, final_lr=0.1 * PEAK, total_steps=1000)
WSD = lrsched.WSD(
  peak_lr=PEAK, warmup_steps=50, stable_steps=750, decay_steps=200
)


def _measured(step: int) -> float:
  """A table that no formula gives: a fall with waves, to 9 decimals."""
  wave = 1 + 0.12 * math.sin(step / 11) + 0.05 * math.sin(step / 3)
  rise = min((step + 1) / 15, 1)
  return round(0.85 * PEAK * rise * (1 - step / 200) ** 0.7 * wave, 9)


NUMBERS = (
  Entry(
    'tabulated',
    'Tabulated',
    {'': lrsched.Tabulated(lrs=tuple(_measured(t) for t in range(200)))},
    '`lr(t) = lrs[t]`, and the last one from there on.',
    "For what comes from elsewhere: another framework's log, or a schedule "
    'optimised under a loss law or refined from gradient norms (Defazio et '
    'al., arXiv:2310.07831).',
    'A table has the length it has: `Stretched` takes it to another. All its '
    'values are in the JSON.',
  ),
  Entry(
    'piecewise_linear',
    'Piecewise linear',
    {
      '': lrsched.PiecewiseLinear(
        steps=(0, 150, 400, 700, 1000),
        lrs=(1e-4, PEAK, 6e-4, 5e-4, 0.0),
      )
    },
    'Lines between knots: at `steps[i]` the LR is `lrs[i]`; constant outside.',
    'A schedule given as points, or drawn by hand.',
    'The first knot is a value at step 0, not `(t+1)/W` of a warmup: a knot at '
    '0 with an LR of 0 wastes update 0.',
  ),
)

COMBINATORS = (
  Entry(
    'warmup',
    'Warmup, in three shapes',
    {
      name: lrsched.Warmup(
        schedule=lrsched.Constant(lr=PEAK),
        warmup_steps=200,
        from_lr=1e-5,
        rise=rise,
      )
      for name, rise in (
        ('linear', lrsched.LinearDecay()),
        ('cosine', lrsched.CosineDecay()),
        ('exponential', lrsched.ExponentialDecay()),
      )
    },
    'A rise from `from_lr` to the first LR of any schedule: a decay shape run '
    'backwards.',
    'Large batches and high peaks: linear in Goyal et al. (arXiv:1706.02677), '
    'and by default.',
    'Update 0 is one step up already, and the schedule counts its own steps '
    'after the warmup: the whole is as long as both.',
    400,
  ),
  Entry(
    'sequence',
    'Sequence',
    {
      '': lrsched.Sequence(
        schedules=(
          lrsched.Warmup(schedule=lrsched.Constant(lr=PEAK), warmup_steps=50),
          lrsched.Constant(lr=5e-4),
          lrsched.Linear(peak_lr=2.5e-4, total_steps=300),
        ),
        boundaries=(400, 700),
      )
    },
    'Schedules one after another; each counts its own steps from 0.',
    'Stages of a run with LRs of their own, such as other data or other '
    'sequence lengths.',
    'A boundary is the first step of the later piece, and the LR may jump '
    'there; `Chained` does not.',
  ),
  Entry(
    'chained',
    'Chained',
    {
      '': lrsched.Chained(
        schedules=(
          lrsched.Warmup(
            schedule=lrsched.InverseSqrt(peak_lr=PEAK, timescale_steps=100),
            warmup_steps=100,
          ),
          lrsched.Linear(peak_lr=1.0, total_steps=200),
        ),
        boundaries=(800,),
      )
    },
    'A sequence whose later pieces are scaled to start at the LR where the one '
    'before stands.',
    'A decay after a schedule that has none, such as the inverse square root '
    'of Zhai et al. (arXiv:2106.04560).',
    'Only the shape of a later piece counts: its own peak is divided out.',
  ),
  Entry(
    'rewarm',
    'Rewarm: re-warm and re-decay',
    {
      '': lrsched.Rewarm(
        before=lrsched.Warmup(
          schedule=lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=480),
          warmup_steps=20,
        ),
        rewarm_step=500,
        warmup_steps=20,
        after=lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=480),
      )
    },
    'The schedule of the run so far, a warmup from its LR, and a new schedule.',
    'Continual pre-training on new data (Ibrahim et al., arXiv:2403.08763; '
    'Gupta et al., arXiv:2308.04014).',
    'Re-warming forgets old data, the more the higher the new peak; the paper '
    'replays some of it.',
  ),
  Entry(
    'scaled',
    'Scaled',
    {
      'schedule': COSINE,
      'factor=0.5': lrsched.Scaled(schedule=COSINE, factor=0.5),
    },
    '`lr(t) = factor schedule(t)`.',
    'A group of parameters with a share of the LR; a batch size that changes, '
    'by the linear rule (Goyal et al., arXiv:1706.02677).',
    'A floor is scaled too.',
  ),
  Entry(
    'clipped',
    'Clipped',
    {
      '': lrsched.Warmup(
        schedule=lrsched.Clipped(
          schedule=lrsched.InverseSqrt(peak_lr=PEAK, timescale_steps=50),
          low_lr=3e-4,
        ),
        warmup_steps=50,
      )
    },
    '`lr(t) = min(max(schedule(t), low), high)`; here a floor under an inverse '
    'square root.',
    'The least LR that Megatron-LM puts under its schedules.',
    'Outside a `Warmup` the floor holds in the warmup too.',
    1000,
  ),
  Entry(
    'stretched',
    'Stretched',
    {
      'schedule': WSD,
      'from 1000 to 1500 steps': lrsched.Stretched(
        schedule=WSD, from_steps=1000, to_steps=1500
      ),
    },
    '`lr(t) = schedule(t from/to)`: the same schedule on another horizon.',
    'A table or a schedule in epochs for a run of another length.',
    'Everything is stretched, the warmup too; where only the end should move, '
    'change `stable_steps` or `total_steps`.',
    1500,
  ),
  Entry(
    'shifted',
    'Shifted',
    {
      'schedule': COSINE,
      'by 400 steps': lrsched.Shifted(schedule=COSINE, by_steps=400),
    },
    '`lr(t) = schedule(t + k)`: a schedule entered in its middle.',
    'As a piece of a `Sequence`, which counts from 0: half a cosine, or the '
    'rest of a decay that an earlier run began.',
    'It ends earlier by as much. A run that resumes needs none: its steps go '
    'on.',
  ),
  Entry(
    'sampled',
    'Sampled',
    {
      '': lrsched.Sampled(
        schedule=lrsched.REX(peak_lr=PEAK, total_steps=1000), every_steps=100
      )
    },
    '`lr(t) = schedule(k floor(t/k))`: read at every k-th update.',
    'Schedules that change once an epoch, and the sampling rates of REX (Chen '
    'et al., arXiv:2107.04197).',
    'The last stair is above the final LR: with few stairs by much.',
  ),
  Entry(
    'product',
    'Product',
    {
      '': lrsched.Product(
        schedules=(
          WSD,
          lrsched.Step(peak_lr=1.0, boundaries=(400,), factors=(0.5,)),
        )
      )
    },
    '`lr(t) = schedules[0](t) schedules[1](t) ...`; here WSD times a stair.',
    'One LR and factors of it: halved from a step on, or a second warmup.',
    'All count steps from the same 0, and an LR times an LR is no LR: the '
    'others are factors with a peak of 1.',
    1000,
  ),
  Entry(
    'tied',
    'Tied',
    {
      '': lrsched.Tied(
        schedule=WSD, low_lr=0.0, high_lr=PEAK, at_low=0.0, at_high=0.1
      )
    },
    'A weight decay, or a momentum, that follows an LR linearly: here a weight '
    'decay of 0.1 at the peak of WSD.',
    'The corrected weight decay of Defazio (arXiv:2506.02285); the momentum of '
    'one cycle, high while the LR is low (Smith and Topin, arXiv:1708.07120).',
    "It is no LR: optax's decay multiplies by the LR once more.",
  ),
  Entry(
    'ramped',
    'Ramped',
    {
      'full batches': WSD,
      'ramped': lrsched.Ramped(
        schedule=WSD, boundaries=(200, 400), batch_sizes=(64, 128, 256)
      ),
    },
    '`lr(t) = schedule(p(t))`, where `p` counts samples, in full batches.',
    'Batch sizes that ramp up, as in GPT-3 (arXiv:2005.14165): warmup, stable '
    'phase and decay end at the samples they were given.',
    'A ramp makes the run longer in updates: `steps_for` says by how much.',
    1250,
  ),
)
