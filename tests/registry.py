"""Every kind of schedule once or more: what the property tests run over."""

import numpy as np

import lrsched

SHAPES = {
  'linear': lrsched.LinearDecay(),
  'cosine': lrsched.CosineDecay(),
  'one_minus_sqrt': lrsched.OneMinusSqrt(),
  'square': lrsched.SquareDecay(),
  'mirror_cosine': lrsched.MirrorCosine(),
  'exponential': lrsched.ExponentialDecay(),
  'half_life': lrsched.HalfLife(halvings=1.0),
  'inverse': lrsched.InverseDecay(),
  'inverse_sqrt': lrsched.InverseSqrtDecay(),
  'one_minus_power': lrsched.OneMinusPower(power=1.5),
  'power_of_left': lrsched.PowerOfLeft(power=1.5),
  'reflected_exponential': lrsched.ReflectedExponential(beta=0.9),
}

WSD = lrsched.WSD(
  peak_lr=1e-3, warmup_steps=10, stable_steps=70, decay_steps=20
)
WSDS = lrsched.WSDS(
  peak_lr=1e-3,
  final_lr=1e-4,
  warmup_steps=5,
  cycle_ends=(25, 50, 100),
  decay_steps=(3, 5, 10),
)

SCHEDULES = {
  'constant': lrsched.Constant(lr=3e-4),
  'linear': lrsched.Linear(peak_lr=1e-3, total_steps=100),
  'linear_floor': lrsched.Linear(peak_lr=1e-3, final_lr=1e-4, total_steps=100),
  'cosine': lrsched.Cosine(peak_lr=1e-3, total_steps=100),
  'cosine_floor': lrsched.Cosine(peak_lr=1, final_lr=0.1, total_steps=1),
  'wsd': WSD,
  **{
    f'wsd_{name}': lrsched.WSD(
      peak_lr=1e-3,
      final_lr=1e-4,
      warmup_steps=0,
      stable_steps=50,
      decay_steps=50,
      decay=shape,
    )
    for name, shape in SHAPES.items()
  },
  'wsds': WSDS,
  'wsds_one': lrsched.WSDS.of_total(
    peak_lr=1e-3,
    final_lr=0.0,
    warmup_steps=0,
    cycle_ends=(100,),
    decay_frac=0.1,
    decay=lrsched.OneMinusSqrt(),
  ),
  'polynomial': lrsched.Polynomial(peak_lr=1e-3, total_steps=100, power=0.5),
  'rex': lrsched.REX(peak_lr=1e-3, total_steps=100),
  'rex_late': lrsched.REX(
    peak_lr=1e-3, final_lr=1e-4, total_steps=100, beta=0.9
  ),
  'exponential': lrsched.Exponential(
    peak_lr=1e-3, final_lr=1e-5, factor=0.5, every_steps=20
  ),
  'inverse_sqrt': lrsched.InverseSqrt(peak_lr=1e-3, timescale_steps=20),
  'inverse_time': lrsched.InverseTime(peak_lr=1e-3, timescale_steps=20),
  'power': lrsched.Power(
    peak_lr=0.02, batch_size=128, tokens_per_step=524_288, warmup_steps=10
  ),
  'power_decay': lrsched.Power(
    peak_lr=0.02,
    batch_size=8,
    tokens_per_step=4_194_304,
    stable_steps=70,
    decay_steps=30,
    final_lr=1e-6,
  ),
  'wsdc': lrsched.WSDC(
    peak_lr=1e-3,
    const_lr=1e-4,
    warmup_steps=10,
    stable_steps=50,
    decay_steps=20,
  ),
  'infinite': lrsched.Infinite(
    peak_lr=3e-4,
    const_lr=1.65e-4,
    final_lr=3e-5,
    warmup_steps=5,
    cooldown_steps=40,
    const_steps=30,
    anneal_steps=25,
    cooldown=lrsched.InverseSqrtDecay(alpha=10.0),
  ),
  'cosine_restarts': lrsched.CosineRestarts.of_period(
    peak_lr=1e-3,
    final_lr=1e-4,
    first_steps=15,
    multiplier=2,
    n_cycles=3,
    peak_factor=0.5,
  ),
  'one_cycle': lrsched.OneCycle.of_torch(max_lr=1e-3, total_steps=100),
  'one_cycle_tail': lrsched.OneCycle.of_torch(
    max_lr=1e-3,
    total_steps=100,
    three_phase=True,
    anneal_strategy='linear',
  ),
  'triangular': lrsched.Triangular(
    low_lr=1e-4, peak_lr=1e-3, up_steps=10, down_steps=15, peak_factor=0.5
  ),
  'step': lrsched.Step.of_30_60_90(peak_lr=1e-3, total_steps=100),
  'warmup_linear': lrsched.Warmup(
    schedule=lrsched.Linear(peak_lr=1e-3, total_steps=90), warmup_steps=10
  ),
  'warmup_none': lrsched.Warmup(
    schedule=lrsched.Cosine(peak_lr=1e-3, total_steps=90), warmup_steps=0
  ),
  'sequence': lrsched.Sequence(
    schedules=(
      lrsched.Warmup(schedule=lrsched.Constant(lr=1e-3), warmup_steps=10),
      lrsched.WSD(
        peak_lr=5e-4,
        final_lr=5e-5,
        warmup_steps=4,
        stable_steps=30,
        decay_steps=20,
        decay=lrsched.InverseDecay(),
      ),
      lrsched.Cosine(peak_lr=2e-4, total_steps=40),
    ),
    boundaries=(20, 60),
  ),
  'warmup_exponential': lrsched.Warmup(
    schedule=lrsched.Cosine(peak_lr=1e-3, total_steps=90),
    warmup_steps=10,
    from_lr=1e-5,
    rise=lrsched.ExponentialDecay(),
  ),
  'chained': lrsched.Chained(
    schedules=(
      lrsched.Cosine(peak_lr=1e-3, final_lr=1e-4, total_steps=100),
      lrsched.Linear(peak_lr=1.0, total_steps=20),
      lrsched.Constant(lr=1.0),
    ),
    boundaries=(70, 85),
  ),
  'rewarm': lrsched.Rewarm(
    before=lrsched.Cosine(peak_lr=1e-3, final_lr=1e-4, total_steps=50),
    rewarm_step=45,
    warmup_steps=5,
    after=lrsched.Cosine(peak_lr=5e-4, final_lr=1e-4, total_steps=50),
  ),
  'rewarm_down': lrsched.Rewarm(
    before=lrsched.Constant(lr=1e-3),
    rewarm_step=45,
    warmup_steps=5,
    after=lrsched.Linear(peak_lr=5e-4, total_steps=50),
    rise=lrsched.CosineDecay(),
  ),
  'scaled': lrsched.Scaled(schedule=WSD, factor=0.5),
  'clipped': lrsched.Clipped(
    schedule=lrsched.InverseSqrt(peak_lr=1e-3, timescale_steps=20),
    low_lr=5e-4,
    high_lr=9e-4,
  ),
  'product': lrsched.Product(
    schedules=(
      lrsched.Warmup(schedule=lrsched.Constant(lr=1e-3), warmup_steps=10),
      lrsched.Step.of_30_60_90(peak_lr=1.0, total_steps=100),
    )
  ),
  'tied': lrsched.Tied(
    schedule=lrsched.OneCycle.of_torch(max_lr=1e-3, total_steps=100),
    low_lr=4e-5,
    high_lr=1e-3,
    at_low=0.95,
    at_high=0.85,
  ),
  'stretched': lrsched.Stretched(schedule=WSD, from_steps=90, to_steps=101),
  'shifted': lrsched.Shifted(schedule=WSD, by_steps=85),
  'sampled': lrsched.Sampled(
    schedule=lrsched.REX(peak_lr=1e-3, total_steps=100), every_steps=7
  ),
  'ramped': lrsched.Ramped(
    schedule=lrsched.WSD(
      peak_lr=1e-3, warmup_steps=5, stable_steps=45, decay_steps=20
    ),
    boundaries=(20, 40),
    batch_sizes=(4, 6, 16),
  ),
  'tabulated': lrsched.Tabulated(lrs=np.linspace(1e-3, 1e-4, 13)),
  'tabulated_long': lrsched.Tabulated(lrs=np.geomspace(1e-3, 1e-5, 110)),
  'piecewise_linear': lrsched.PiecewiseLinear(
    steps=(10, 20, 70, 100), lrs=(0.0, 1e-3, 5e-4, 1e-4)
  ),
  'table_inside': lrsched.Sequence(
    schedules=(
      lrsched.Tabulated(lrs=(1e-3, 2e-3)),
      lrsched.Scaled(
        schedule=lrsched.PiecewiseLinear(steps=(0, 50), lrs=(1.0, 0.0)),
        factor=2e-3,
      ),
    ),
    boundaries=(30,),
  ),
}


def boundaries(schedule: lrsched.Schedule) -> list[int]:
  """Every start and end of a phase."""
  edges = {p.start for p in schedule.phases()}
  return sorted(edges | {p.end for p in schedule.phases() if p.end is not None})
