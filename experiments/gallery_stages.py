"""What the gallery shows: schedules in stages, in cycles and in stairs."""

from __future__ import annotations

from typing import Any

import lrsched
from experiments.gallery_entries import PEAK
from experiments.gallery_entries import Entry
from experiments.gallery_entries import warm


def _wsd(decay: lrsched.DecayShape, final_lr: float = 0.0) -> lrsched.Schedule:
  return lrsched.WSD(
    peak_lr=PEAK,
    final_lr=final_lr,
    warmup_steps=50,
    stable_steps=150,
    decay_steps=800,
    decay=decay,
  )


def _infinite(cooldown: lrsched.DecayShape) -> lrsched.Schedule:
  return lrsched.Infinite(
    peak_lr=3e-4,
    const_lr=1.65e-4,
    final_lr=3e-5,
    warmup_steps=20,
    cooldown_steps=480,
    const_steps=350,
    anneal_steps=150,
    cooldown=cooldown,
  )


# WSD-S, its three budgets and the rest but the lengths of the decays.
WSDS: dict[str, Any] = {
  'peak_lr': PEAK,
  'final_lr': 0.1 * PEAK,
  'warmup_steps': 30,
  'cycle_ends': (200, 500, 1000),
}

STAGES = (
  Entry(
    'wsd',
    'WSD: warmup, stable, decay',
    {
      '': lrsched.WSD(
        peak_lr=PEAK,
        warmup_steps=50,
        stable_steps=750,
        decay_steps=200,
        decay=lrsched.OneMinusSqrt(),
      )
    },
    'A warmup, a constant phase of any length, a decay by one of the shapes '
    'below.',
    'When the length is open, or several budgets are wanted: decays branch off '
    'one trunk. MiniCPM (arXiv:2404.06395); as good as cosine with decays of '
    '10 to 20 % (Haegele et al., arXiv:2405.18392).',
    'Late in the stable phase its loss is above that of cosine; the decay '
    'makes up for it. `decay_steps` holds neither warmup nor stable phase.',
  ),
  Entry(
    'wsd_shapes',
    'WSD: the shapes of the decay',
    {
      'linear': _wsd(lrsched.LinearDecay()),
      'cosine': _wsd(lrsched.CosineDecay()),
      '1-sqrt': _wsd(lrsched.OneMinusSqrt()),
      'square': _wsd(lrsched.SquareDecay()),
      'mirror cosine': _wsd(lrsched.MirrorCosine()),
      'exponential': _wsd(lrsched.ExponentialDecay(), 0.1 * PEAK),
      'half-life': _wsd(lrsched.HalfLife(halvings=3.0)),
      'inverse': _wsd(lrsched.InverseDecay(), 0.1 * PEAK),
      'inverse sqrt': _wsd(lrsched.InverseSqrtDecay(alpha=10.0)),
      'power of left': _wsd(lrsched.PowerOfLeft(power=3.0)),
      '1-s^3': _wsd(lrsched.OneMinusPower(power=3.0)),
      'REX': _wsd(lrsched.ReflectedExponential(beta=0.9)),
    },
    'A shape takes the fraction of the decay that is done to a factor of the '
    'peak; WSD, WSD-S, WSDC and Power take any of them.',
    '1-sqrt did best among those compared by Haegele et al. '
    '(arXiv:2405.18392); MiniCPM decays by half-lives, WSD-S by the inverse.',
    'Exponential and inverse need a final LR above 0; here it is a tenth. A '
    'shape that falls early has less LR to spend: compare areas.',
  ),
  Entry(
    'trapezoid',
    'Trapezoid',
    {
      '': lrsched.WSD(
        peak_lr=PEAK, warmup_steps=100, stable_steps=400, decay_steps=500
      )
    },
    'WSD with lines: up, along, and down to 0.',
    'Another name of it, and what `WSD` is without another shape; a constant '
    'LR with a cooldown in Haegele et al. (arXiv:2405.18392).',
    'With long decays the choice of the length comes back: the decay starts '
    'half way here.',
  ),
  Entry(
    'wsds',
    'WSD-S, in its three readings',
    {
      'of_cycle': lrsched.WSDS.of_cycle(decay_frac=0.3, **WSDS),
      'of_total': lrsched.WSDS.of_total(decay_frac=0.3, **WSDS),
      'of_steps': lrsched.WSDS.of_steps(decay_steps=60, **WSDS),
    },
    'One run for all budgets: at each one a decay, then straight back to the '
    'peak from the decayed weights. `1/lr` grows linearly in a decay.',
    'A good checkpoint at every budget from one run (Wen et al., '
    'arXiv:2410.05192).',
    'Code disagrees on what a decay fraction is of: the cycle (Levanter, '
    'OLMo-core), all steps so far (lingua); or it is a length.',
  ),
  Entry(
    'wsdc',
    'WSDC: warmup, stable, decay, constant',
    {
      '': lrsched.WSDC(
        peak_lr=PEAK,
        const_lr=0.1 * PEAK,
        warmup_steps=50,
        stable_steps=500,
        decay_steps=200,
      )
    },
    'WSD that goes on at a small constant LR.',
    'Training that goes on after the decay: PLM (arXiv:2503.12167), which '
    'gives the name and the phases.',
    'It has no end. The paper names no shape for its decay; ours is a line.',
    1000,
  ),
  Entry(
    'infinite',
    'Infinite, with both cooldowns',
    {
      'cosine': _infinite(lrsched.CosineDecay()),
      'inverse sqrt': _infinite(lrsched.InverseSqrtDecay(alpha=10.0)),
    },
    'Warmup, cooldown to a constant LR held as long as data comes, and an '
    'exponential annealing to release a checkpoint.',
    'Continual pre-training without re-warming (Ibrahim et al., '
    'arXiv:2403.08763, section 7.4); LRs are those of its 405M model.',
    'Anneal on a branch (`anneal_from`); the next data goes on from the '
    'constant phase, not from the annealed weights.',
  ),
  Entry(
    'octothinker',
    'OctoThinker: stable, then decay',
    {
      '': lrsched.Sequence(
        schedules=(
          lrsched.Constant(lr=2e-5),
          lrsched.Cosine(peak_lr=2e-5, final_lr=2e-6, total_steps=5_000),
        ),
        boundaries=(50_000,),
      )
    },
    'A constant LR without a warmup for 50,000 steps, then a cosine to a tenth '
    'in 5,000.',
    'Mid-training of a finished model: OctoThinker (arXiv:2506.20512), 200B '
    'tokens and then 20B, with several decays off one trunk.',
    'The first update is at the full LR. Lengths and peak are those of the 3B '
    'model, at 4M tokens a batch.',
  ),
  Entry(
    'olmo',
    'OLMo 2: cosine cut short, then a line',
    {
      '': lrsched.Chained(
        schedules=(
          warm(lrsched.Cosine(peak_lr=3e-4, final_lr=3e-5, total_steps=1_000)),
          lrsched.Linear(peak_lr=3e-4, total_steps=200),
        ),
        boundaries=(800,),
      )
    },
    'A cosine made for more steps than are run, then a line to 0 from where it '
    'stands.',
    'Pre-training and mid-training of OLMo 2 7B (arXiv:2501.00656): the cosine '
    'is for 5T tokens and cut at 4T.',
    '`Chained` finds the LR at the cut; a `Sequence` would take the peak of '
    'the second piece as written, and jump.',
  ),
)

CYCLES = (
  Entry(
    'cosine_restarts',
    'Cosine with restarts',
    {
      '': lrsched.CosineRestarts.of_period(
        peak_lr=PEAK, first_steps=100, multiplier=2, n_cycles=3, peak_factor=0.8
      )
    },
    'SGDR: a cosine in each cycle, each twice as long as the one before; here '
    'each peak is 0.8 of the last.',
    'Checkpoints at the end of every cycle (Loshchilov and Hutter, '
    'arXiv:1608.03983), and ensembles of them (Huang et al., '
    'arXiv:1704.00109).',
    'A run should stop at the end of a cycle: after a restart the loss is '
    'worse for a while.',
  ),
  Entry(
    'one_cycle',
    'One cycle',
    {
      'cosine': lrsched.OneCycle.of_torch(max_lr=PEAK, total_steps=1000),
      'three phases': lrsched.OneCycle.of_torch(
        max_lr=PEAK,
        total_steps=1000,
        three_phase=True,
        anneal_strategy='linear',
      ),
    },
    'Up once, down once, far below the start; the form of the paper has lines '
    'and a tail.',
    'Short runs at a high peak (Smith and Topin, arXiv:1708.07120); `of_torch` '
    "takes the arguments of PyTorch's `OneCycleLR`.",
    'In the paper the momentum goes the other way: `Tied`. PyTorch is at its '
    'end one step earlier.',
  ),
  Entry(
    'triangular',
    'Triangular',
    {
      f'k={factor:g}': lrsched.Triangular(
        low_lr=1e-4,
        peak_lr=PEAK,
        up_steps=125,
        down_steps=125,
        peak_factor=factor,
      )
      for factor in (1.0, 0.5)
    },
    'Up and down in lines, again and again; with `k = 1/2` the height halves '
    'each time.',
    'Cyclical learning rates, which need no tuned decay (Smith, '
    'arXiv:1506.01186).',
    'It has no end: let the run stop between cycles, where the LR is low.',
    1000,
  ),
  Entry(
    'step',
    'Stairs',
    {
      '30-60-90': lrsched.Step.of_30_60_90(peak_lr=PEAK, total_steps=1000),
      'DeepSeek': lrsched.Step.of_deepseek(peak_lr=PEAK, total_steps=1000),
    },
    '`peak` times a factor that changes at each boundary.',
    'A tenth at 30, 60 and 90 % of an ImageNet run; 31.6 % and 10 % of the '
    'peak from 80 and 90 % on in DeepSeek LLM (arXiv:2401.02954), which reuses '
    'the first stair for longer runs.',
    'Factors are of the peak, not of the stair before: 0.1, 0.01, 0.001.',
    1000,
  ),
)
