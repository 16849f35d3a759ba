"""Writes the learning rates that the other frameworks really give.

    python tests/lrsched/golden/make.py torch transformers megatron levanter

writes one JSON file for each peer next to this script: the version it was, and
for each case its arguments, and the LRs of about 40 telling updates to 9
digits. What must be installed, in an environment of its own; the tests only
read the files:

- torch: `pip install torch`
- transformers: `pip install torch transformers`
- megatron: `pip install torch`, and in MEGATRON the path of a copy of
  `megatron/core/optimizer_param_scheduler.py` of NVIDIA/Megatron-LM, in
  MEGATRON_COMMIT its commit. What it imports from its package is replaced.
- levanter: `pip install draccus equinox optax`, and in LEVANTER the path
  of a copy of `levanter/optim/config.py` of the wheel `marin-levanter`, in
  LEVANTER_VERSION its version. What it imports from its package is replaced.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys
import types
import warnings

HERE = pathlib.Path(__file__).resolve().parent
COUNT = 40


def telling(lrs: list[float]) -> list[int]:
  """Some updates on a grid, and those at which the curve bends the most."""
  last = len(lrs) - 1
  steps = {0, 1, 2, last - 1, last, *range(0, last, max(1, last // 12))}
  bends = [
    (-abs(lrs[t - 1] - 2 * lrs[t] + lrs[t + 1]), t) for t in range(1, last)
  ]
  for _, t in sorted(bends):
    if len(steps) >= COUNT:
      break
    steps |= {t - 1, t, t + 1}
  return sorted(s for s in steps if 0 <= s <= last)


def write(peer: str, version: str, cases: list[dict]) -> None:
  lines = []
  for case in cases:
    lrs = case.pop('lrs')
    steps = telling(lrs)
    lines.append(
      json.dumps(
        {
          **case,
          'steps': steps,
          'lrs': [float(f'{lrs[t]:.9g}') for t in steps],
        }
      )
    )
  text = ',\n'.join(lines)
  path = HERE / f'{peer}.json'
  path.write_text(f'{{"peer": "{version}", "cases": [\n{text}\n]}}\n')
  print(f'{path}: {len(cases)} cases, {path.stat().st_size} bytes')


def module_from(path: str, name: str, replaced: dict[str, dict]):
  """The file as a module, with the modules it imports made of these names."""
  for module, names in replaced.items():
    sys.modules[module] = types.ModuleType(module)
    vars(sys.modules[module]).update(names)
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  spec.loader.exec_module(module)
  return module


def run_torch(optimizer, scheduler, updates: int) -> list[float]:
  lrs = []
  for _ in range(updates):
    lrs.append(float(optimizer.param_groups[0]['lr']))
    optimizer.step()
    scheduler.step()
  return lrs


def make_torch() -> None:
  import torch

  s = torch.optim.lr_scheduler

  def build(optimizer, name, given):
    if name == 'ChainedScheduler':
      members = [build(optimizer, n, g) for n, g in given['schedulers']]
      return s.ChainedScheduler(members)
    return getattr(s, name)(optimizer, **given)

  cases = []

  def case(base_lr, schedulers, milestones=(), total_steps=None, updates=None):
    optimizer = torch.optim.SGD(
      [torch.zeros(1, requires_grad=True)], lr=base_lr, momentum=0.9
    )
    made = [build(optimizer, n, g) for n, g in schedulers]
    scheduler = made[0]
    if milestones:
      scheduler = s.SequentialLR(optimizer, made, list(milestones))
    cases.append(
      {
        'base_lr': base_lr,
        'schedulers': schedulers,
        'milestones': list(milestones),
        'total_steps': total_steps,
        'lrs': run_torch(optimizer, scheduler, updates or total_steps or 160),
      }
    )

  case(0.3, [('ConstantLR', {})])
  case(0.3, [('ConstantLR', {'factor': 0.25, 'total_iters': 40})])
  case(0.3, [('LinearLR', {})])
  case(0.3, [('LinearLR', {'start_factor': 0.01, 'total_iters': 100})])
  fall = {'start_factor': 1.0, 'end_factor': 0.0, 'total_iters': 70}
  case(0.3, [('LinearLR', fall)])
  case(0.3, [('ExponentialLR', {'gamma': 0.97})])
  case(0.3, [('ExponentialLR', {'gamma': 0.9995})], updates=20000)
  case(0.3, [('ExponentialLR', {'gamma': 0.2})], updates=12)
  case(0.3, [('StepLR', {'step_size': 30})])
  case(0.3, [('StepLR', {'step_size': 7, 'gamma': 0.9})])
  case(0.3, [('MultiStepLR', {'milestones': [40, 90, 90, 130]})])
  case(0.3, [('MultiStepLR', {'milestones': [90, 20], 'gamma': 0.5})])
  case(0.3, [('PolynomialLR', {})])
  case(0.3, [('PolynomialLR', {'total_iters': 120, 'power': 2.5})])
  case(0.3, [('CosineAnnealingLR', {'T_max': 160, 'eta_min': 1e-5})])
  case(0.3, [('CosineAnnealingLR', {'T_max': 900})], updates=901)
  wave = ('CosineAnnealingLR', {'T_max': 30, 'eta_min': 0.02})
  case(0.3, [wave], total_steps=200)
  case(0.3, [('CosineAnnealingLR', {'T_max': 3})], total_steps=160)
  restarts = 'CosineAnnealingWarmRestarts'
  case(0.3, [(restarts, {'T_0': 40})], total_steps=200)
  twice = {'T_0': 10, 'T_mult': 2, 'eta_min': 1e-3}
  case(0.3, [(restarts, twice)], total_steps=200)
  case(0.3, [(restarts, {'T_0': 5})], total_steps=200)
  up_down = {'base_lr': 0.01, 'max_lr': 0.1, 'step_size_up': 20}
  case(0.3, [('CyclicLR', up_down)])
  skew = {**up_down, 'step_size_down': 35, 'mode': 'triangular2'}
  case(0.3, [('CyclicLR', skew)], updates=300)
  falling = {**up_down, 'mode': 'exp_range', 'gamma': 0.98}
  case(0.3, [('CyclicLR', falling)])
  one = {'max_lr': 0.1, 'total_steps': 100}
  case(0.3, [('OneCycleLR', one)], total_steps=100)
  case(0.3, [('OneCycleLR', {**one, 'total_steps': 117})], total_steps=117)
  flat = {**one, 'anneal_strategy': 'linear', 'pct_start': 0.25}
  case(0.3, [('OneCycleLR', {**flat, 'div_factor': 4.0})], total_steps=100)
  three = {**one, 'three_phase': True, 'epochs': None}
  case(0.3, [('OneCycleLR', three)], total_steps=100)
  late = {**three, 'pct_start': 0.33, 'anneal_strategy': 'linear'}
  case(0.3, [('OneCycleLR', {**late, 'total_steps': 101})], total_steps=101)
  high = {**one, 'final_div_factor': 0.5}
  case(0.3, [('OneCycleLR', high)], total_steps=100)
  case(0.3, [('OneCycleLR', {**one, 'pct_start': 0.0})], total_steps=100)
  warm = ('LinearLR', {'start_factor': 0.01, 'total_iters': 20})
  decay = ('CosineAnnealingLR', {'T_max': 140, 'eta_min': 1e-5})
  case(1e-3, [warm, decay], [20], updates=161)
  # A warmup that is cut short, a cosine that comes back up, and stairs.
  pieces = [warm, wave, ('StepLR', {'step_size': 10, 'gamma': 0.5})]
  case(1e-1, pieces, [15, 90], total_steps=160)
  case(1e-3, [warm, ('ExponentialLR', {'gamma': 0.95})], [20])
  case(1e-3, [warm, (restarts, {'T_0': 10, 'T_mult': 3})], [20], 160)
  case(1e-3, [warm, ('CyclicLR', up_down)], [20])
  case(1e-3, [('CyclicLR', up_down), ('PolynomialLR', {})], [50])
  last = ('MultiStepLR', {'milestones': [30, 60]})
  case(1e-3, [('ConstantLR', {'total_iters': 9}), last], [12])
  chain = [warm, ('ExponentialLR', {'gamma': 0.97})]
  case(0.3, [('ChainedScheduler', {'schedulers': chain})])
  chain = [warm, ('CosineAnnealingLR', {'T_max': 159})]
  case(0.3, [('ChainedScheduler', {'schedulers': chain})], total_steps=160)
  chain = [
    ('ConstantLR', {'factor': 0.5, 'total_iters': 11}),
    ('StepLR', {'step_size': 50}),
    ('PolynomialLR', {'total_iters': 130}),
    last,
  ]
  case(0.3, [('ChainedScheduler', {'schedulers': chain})])
  write('torch', f'torch {torch.__version__}', cases)


def make_transformers() -> None:
  import torch
  import transformers

  cases = []

  def case(name, learning_rate=2e-4, warmup=15, total=120, **given):
    optimizer = torch.optim.SGD(
      [torch.zeros(1, requires_grad=True)], lr=learning_rate
    )
    scheduler = transformers.get_scheduler(
      name, optimizer, warmup, total, dict(given)
    )
    cases.append(
      {
        'name': name,
        'learning_rate': learning_rate,
        'num_warmup_steps': warmup,
        'num_training_steps': total,
        'scheduler_specific_kwargs': given,
        'lrs': run_torch(optimizer, scheduler, total or 300),
      }
    )

  for name in ('linear', 'cosine', 'polynomial', 'constant'):
    case(name)
    case(name, warmup=0)
  case('linear', warmup=1, total=2000)
  case('cosine', num_cycles=0.25)
  case('cosine', num_cycles=1.5)
  case('cosine', num_cycles=0.8)
  case('cosine', num_cycles=12.5, warmup=20)
  case('constant_with_warmup')
  case('constant_with_warmup', warmup=0, total=None)
  case('polynomial', lr_end=1e-5, power=3.0)
  case('cosine_with_restarts')
  case('cosine_with_restarts', num_cycles=3)
  case('cosine_with_restarts', num_cycles=4)
  case('cosine_with_restarts', num_cycles=35, warmup=0, total=1050)
  case('cosine_with_restarts', num_cycles=49, warmup=0, total=98)
  case('inverse_sqrt')
  case('inverse_sqrt', warmup=0, total=None)
  case('inverse_sqrt', timescale=50, total=1000)
  case('cosine_with_min_lr', min_lr=1e-5)
  case('cosine_with_min_lr', min_lr_rate=0.1, num_cycles=1.5)
  case('cosine_warmup_with_min_lr', min_lr=1e-5)
  case('cosine_warmup_with_min_lr', min_lr_rate=0.1, warmup_lr_rate=0.2)
  case('cosine_warmup_with_min_lr', min_lr_rate=0.1, warmup=0)
  case('cosine_warmup_with_min_lr', min_lr_rate=0.1, warmup=1)
  case('cosine_warmup_with_min_lr', min_lr_rate=0.1, warmup=2)
  first = {'min_lr_rate': 0.1, 'warmup_lr_rate': 0.3}
  case('cosine_warmup_with_min_lr', **first, warmup=1)
  case('cosine_warmup_with_min_lr', min_lr_rate=0.0, num_cycles=2.5)
  wsd = 'warmup_stable_decay'
  for shape in ('linear', 'cosine', '1-sqrt'):
    case(wsd, num_decay_steps=30, warmup_type=shape, decay_type=shape)
    floor = {'warmup_type': shape, 'min_lr_ratio': 0.1}
    case(wsd, num_decay_steps=105, num_stable_steps=0, **floor)
  case(wsd, num_decay_steps=30, num_stable_steps=40, warmup=0)
  case(wsd, num_decay_steps=30, num_stable_steps=40, total=None)
  case(wsd, num_decay_steps=30, num_cycles=1.5, min_lr_ratio=0.2)
  versions = f'transformers {transformers.__version__}'
  write('transformers', versions, cases)


def make_megatron() -> None:
  module = module_from(
    os.environ['MEGATRON'],
    'optimizer_param_scheduler',
    {
      'megatron': {},
      'megatron.core': {},
      'megatron.core.utils': {'log_single_rank': lambda *_: None},
    },
  )
  cases = []

  def case(**flags):
    # Megatron counts samples: what its set-up makes of the flags.
    batch = flags.get('global_batch_size', 8)
    if 'train_iters' in flags:
      scale = lambda name, default=None: (
        default if flags.get(name) is None else flags[name] * batch
      )
      end = scale('lr_decay_iters', flags['train_iters'] * batch)
      wsd = scale('lr_wsd_decay_iters')
      warmup = scale('lr_warmup_iters', 0)
    else:
      end = flags.get('lr_decay_samples', flags.get('train_samples'))
      wsd = flags.get('lr_wsd_decay_samples')
      warmup = flags.get('lr_warmup_samples', 0)
    if 'lr_warmup_fraction' in flags:
      warmup = flags['lr_warmup_fraction'] * end
    optimizer = types.SimpleNamespace(param_groups=[{}])
    scheduler = module.OptimizerParamScheduler(
      optimizer,
      init_lr=flags.get('lr_warmup_init', 0.0),
      max_lr=flags['lr'],
      min_lr=flags.get('min_lr', 0.0),
      lr_warmup_steps=warmup,
      lr_decay_steps=end,
      lr_decay_style=flags.get('lr_decay_style', 'linear'),
      start_wd=0.0,
      end_wd=0.0,
      wd_incr_steps=end,
      wd_incr_style='constant',
      wsd_decay_steps=wsd,
      lr_wsd_decay_style=flags.get('lr_wsd_decay_style', 'exponential'),
    )
    lrs = []
    for _ in range(160):
      lrs.append(optimizer.param_groups[0]['lr'])
      scheduler.step(batch)
    cases.append({'flags': flags, 'lrs': lrs})

  for style in ('constant', 'linear', 'cosine', 'inverse-square-root'):
    both = {'lr': 3e-4, 'min_lr': 3e-5, 'lr_decay_style': style}
    case(**both, train_iters=150, lr_warmup_iters=15)
    case(**both, train_iters=150, global_batch_size=8)
    part = {'lr_warmup_init': 1e-5, 'lr_decay_iters': 100}
    case(**both, train_iters=150, lr_warmup_fraction=0.1, **part)
    case(**both, train_iters=145, lr_warmup_fraction=0.03)
    size = {'global_batch_size': 12, 'train_samples': 1500}
    case(**both, **size, lr_warmup_samples=120)
    case(**both, **size, lr_warmup_samples=125, lr_decay_samples=1400)
    case(**both, **size, lr_warmup_samples=7, lr_warmup_init=1e-4)
    case(**both, **size)
  case(lr=3e-4, train_iters=150)
  case(
    lr=3e-4,
    train_iters=150,
    lr_decay_style='inverse-square-root',
    global_batch_size=1,
  )
  for shape in ('exponential', 'linear', 'cosine', 'minus_sqrt'):
    wsd = {'lr_decay_style': 'WSD', 'lr_wsd_decay_style': shape}
    both = {'lr': 3e-4, 'min_lr': 3e-5, **wsd}
    case(**both, train_iters=150, lr_warmup_iters=15, lr_wsd_decay_iters=40)
    case(
      **both,
      train_samples=1500,
      global_batch_size=12,
      lr_warmup_samples=100,
      lr_wsd_decay_samples=400,
    )
  case(lr=3e-4, lr_decay_style='WSD', train_iters=150, lr_wsd_decay_iters=150)
  commit = os.environ['MEGATRON_COMMIT']
  write('megatron', f'NVIDIA/Megatron-LM {commit}', cases)


def make_levanter() -> None:
  import jax

  empty = types.SimpleNamespace()
  module = module_from(
    os.environ['LEVANTER'],
    'levanter_optim_config',
    {
      'haliax': {},
      'levanter': {},
      'levanter.tracker': {},
      'levanter.optim': {},
      'levanter.optim.clip_update_norm': {'ClipUpdateNormConfig': object},
      'levanter.optim.skipstep': {'SkipStepConfig': object},
      'levanter.optim.util': {
        'log_norm_passthrough': empty,
        'scan_aware_clip_by_block_rms': empty,
      },
      'levanter.utils': {},
      'levanter.utils.jax_utils': {'leaf_key_paths': empty},
    },
  )
  cases = []

  def case(num_train_steps=200, **config):
    fields = dict(config)
    if isinstance(given := fields.get('lr_schedule'), dict):
      arguments = {k: v for k, v in given.items() if k != 'type'}
      kind = module.LrSchedule.get_choice_class(given['type'])
      fields['lr_schedule'] = kind(**arguments)
    schedule = module.AdamConfig(**fields).lr_scheduler(num_train_steps)
    steps = jax.numpy.arange(num_train_steps)
    one = jax.jit(lambda t: jax.numpy.asarray(schedule(t), 'float32'))
    lrs = [float(one(t)) for t in steps]
    cases.append(
      {'config': config, 'num_train_steps': num_train_steps, 'lrs': lrs}
    )

  case()
  names = ('constant', 'linear', 'cosine', 'inv', 'inv_sqrt')
  for name in names:
    both = {'learning_rate': 1e-3, 'lr_schedule': name}
    case(**both, warmup=20)
    case(**both, warmup=0, decay=0.1, cycles=[60, 140], min_lr_ratio=0.2)
    case(**both, warmup=0.1, rewarmup=0.05, decay=0.5, cycles=3)
  case(
    1000,
    learning_rate=1e-3,
    lr_schedule='inv',
    warmup=0,
    decay=0.1,
    cycles=[300, 700],
  )
  case(
    30000,
    learning_rate=1e-3,
    lr_schedule='inv_sqrt',
    warmup=500,
    min_lr_ratio=0.6,
  )
  case(
    30000, learning_rate=1e-3, lr_schedule='inv_sqrt', warmup=12000, decay=0.5
  )
  case(warmup=0, lr_schedule='inv', decay=1.0 / 200)
  case(warmup=0, lr_schedule='inv', decay=2)
  case(warmup=1, lr_schedule='linear')
  case(warmup=1.0, lr_schedule='linear')
  case(warmup=300, lr_schedule='linear', cycles=2, rewarmup=10)
  case(decay=0, lr_schedule='linear')
  case(decay=500, cycle_length=70, lr_schedule='linear')
  case(decay=30, cycle_length=0.3, rewarmup=5, lr_schedule='linear')
  case(decay=0.3, cycle_length=[30, 50, 60], lr_schedule='inv')
  case(decay=0.3, haps=[30, 100], lr_schedule='cosine')
  case(cooldown=0.2, lr_schedule='inv_sqrt', min_lr_ratio=0.0)
  case(cooldown=30, lr_schedule='constant', decay=0.25)
  case(cooldown=30, lr_schedule='constant', cycles=2, rewarmup=0.1)
  for given in (
    {'type': 'cosine', 'exponent': 2.0},
    {'type': 'inv_sqrt', 'timescale': 50},
    {'type': 'polynomial'},
    {'type': 'polynomial', 'power': 0.5},
    {'type': 'inv_sqrt_decay'},
    {'type': 'inv_sqrt_decay', 'decay_constant': 400.0},
  ):
    case(lr_schedule=given, warmup=30)
    case(lr_schedule=given, decay=60, cycles=[110], rewarmup=11)
  for name in ('polynomial', 'inv_sqrt_decay'):
    case(lr_schedule=name)
  power = {'type': 'power', 'batch_size': 4, 'seq_length': 1000}
  case(learning_rate=0.02, lr_schedule=power, warmup=20)
  case(
    learning_rate=0.02,
    lr_schedule={**power, 'a': 3.0, 'b': -0.4},
    warmup=5,
    decay=0.9,
    cycles=2,
    rewarmup=5,
  )
  case(learning_rate=0.5, lr_schedule=power, warmup=20)  # a spike at its start
  version = os.environ['LEVANTER_VERSION']
  write('levanter', f'marin-levanter {version}', cases)


if __name__ == '__main__':
  warnings.simplefilter('ignore')
  for peer in sys.argv[1:]:
    globals()[f'make_{peer}']()
