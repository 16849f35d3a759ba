"""Every kind of schedule once or more: what the property tests run over."""

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
}


def boundaries(schedule: lrsched.Schedule) -> list[int]:
  """Every start and end of a phase."""
  edges = {p.start for p in schedule.phases()}
  return sorted(edges | {p.end for p in schedule.phases() if p.end is not None})
