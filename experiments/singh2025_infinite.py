"""Infinite schedule or repeated cosine (Singh et al. 2025, arXiv:2503.02844).

The paper trains on one corpus after another. A cosine re-warms for each; an
infinite schedule cools down once, then keeps a constant LR over all, and
anneals on a branch whenever a model is wanted. It claims that with the infinite
schedule less is forgotten where the corpus changes, and that the result is
better.

  python -m experiments.singh2025_infinite --workdir=runs/singh2025_infinite

Three tasks of equal length: docstrings, Python code, German. The infinite run
of a task is a branch of the last one, at its end; the model of a task is an
annealing over the last tenth of the task, branched off that run, so that both
models of a task have had as many updates. The cosine re-warms over 1 % of a
task; the optimizer's state goes on in both. The constant LR is .55 of the peak,
as in arXiv:2403.08763 (1.65e-4 of 3e-4), and both peaks are tuned by the mean
loss of the last models on all three. Forgetting grows with the peak, so the
claims are also judged against `same_peak`, cosines at the peak of the infinite
schedule.
"""

from __future__ import annotations

import functools

from absl import app

import lrsched
from experiments.arms import Arm
from experiments.claims import Claim
from experiments.continual import FINAL_FRAC
from experiments.continual import SIZES
from experiments.continual import TRUNK_WARMUP_FRAC
from experiments.continual import WARMUP_FRAC
from experiments.continual import Size
from experiments.continual import config_of
from experiments.continual import mean_loss
from experiments.continual import rewarmed
from experiments.continual import warm_cosine
from experiments.reproduce import Experiment
from experiments.reproduce import Peaks
from experiments.reproduce import Rows
from experiments.reproduce import define_flags
from experiments.reproduce import main

PAPER = '2503.02844'
TASKS = ('docstrings', 'python', 'german')
CONST_FRAC = 0.55  # of the peak
COOLDOWN_FRAC = 0.6  # of the first task, as in arXiv:2403.08763
ANNEAL_FRAC = 0.1  # of a task


# `rise_N` is the highest loss on all earlier tasks during task N less that at
# its beginning; `forgot_N` the same between the models of task N-1 and task N.
def _forgetting_claims(than: str, where: str) -> tuple[Claim, ...]:
  says = {
    'rise': 'the loss on earlier tasks rises less at the switch to task',
    'forgot': 'less is forgotten by the model of task',
  }
  return tuple(
    Claim(PAPER, f'{text} {task}{where}', 'infinite', than, f'{what}_{task}')
    for what, text in says.items()
    for task in (2, 3)
  )


EXPECTED: tuple[Claim, ...] = (
  *_forgetting_claims('cosine', ''),
  *_forgetting_claims('same_peak', ', one peak'),
  Claim(
    PAPER,
    'the last model is better on average',
    'infinite',
    'cosine',
    'average',
  ),
  Claim(
    PAPER,
    'the last model is no worse on the last task',
    'infinite',
    'cosine',
    'last_task',
    margin=-0.02,
  ),
)


def _config_of(
  size: Size, task: int, schedule: lrsched.Schedule, seed: int, keep: int
):
  """Task `task`, counted from 1."""
  end = task * size.phase_steps
  return config_of(
    size,
    TASKS[task - 1],
    schedule,
    end,
    seed,
    watched=TASKS[: max(task, 2)],  # two, so that rows name each loss
    keep_steps=(keep,),
  )


def cosines(
  preset: str, peak: float, seed: int, prefix: str = 'cosine'
) -> list[Arm]:
  size = SIZES[preset]
  n = size.phase_steps
  schedule: lrsched.Schedule = warm_cosine(
    peak, round(TRUNK_WARMUP_FRAC * n), n
  )
  arms = [Arm(f'{prefix}_1', _config_of(size, 1, schedule, seed, n))]
  for task in range(2, len(TASKS) + 1):
    start = (task - 1) * n
    again = warm_cosine(peak, round(WARMUP_FRAC * n), n)
    schedule = rewarmed(schedule, start, again)
    config = _config_of(size, task, schedule, seed, start + n)
    arms.append(Arm(f'{prefix}_{task}', config, f'{prefix}_{task - 1}', start))
  return arms


def infinites(preset: str, peak: float, seed: int) -> list[Arm]:
  size = SIZES[preset]
  n, n_tasks = size.phase_steps, len(TASKS)
  warmup_steps = round(TRUNK_WARMUP_FRAC * n)
  cooldown_steps = round(COOLDOWN_FRAC * n)
  anneal_steps = round(ANNEAL_FRAC * n)
  schedule = lrsched.Infinite(
    peak_lr=peak,
    const_lr=CONST_FRAC * peak,
    final_lr=FINAL_FRAC * peak,
    warmup_steps=warmup_steps,
    cooldown_steps=cooldown_steps,
    const_steps=n_tasks * n - warmup_steps - cooldown_steps,
    anneal_steps=anneal_steps,
  )
  arms = []
  for task in range(1, n_tasks + 1):
    name, start, end = f'infinite_{task}', (task - 1) * n, task * n
    fork = end - anneal_steps
    config = _config_of(size, task, schedule, seed, fork)
    parent = f'infinite_{task - 1}' if start else None
    arms.append(Arm(name, config, parent, start))
    anneal = schedule.anneal_from(fork, anneal_steps)
    config = _config_of(size, task, anneal, seed, end)
    arms.append(Arm(f'annealed_{task}', config, name, fork))
  return arms


def trial(preset: str, peaks: Peaks, name: str, seed: int) -> list[Arm]:
  make = {'cosine': cosines, 'infinite': infinites}[name]
  return make(preset, peaks[name], seed)


# The runs that go on, and the models of the tasks.
MODELS = {
  'cosine': 'cosine',
  'same_peak': 'same_peak',
  'infinite': 'annealed',
}


def score(name: str, rows: Rows) -> float:
  return mean_loss(rows[f'{MODELS[name]}_{len(TASKS)}'][-1], TASKS)


def arms(preset: str, peaks: Peaks, seed: int) -> list[Arm]:
  return [
    *cosines(preset, peaks['cosine'], seed),
    *cosines(preset, peaks['infinite'], seed, 'same_peak'),
    *infinites(preset, peaks['infinite'], seed),
  ]


def measures(rows: Rows) -> dict[str, dict[str, float]]:
  found: dict[str, dict[str, float]] = {}
  for arm, model in MODELS.items():
    ends = [rows[f'{model}_{i}'][-1] for i in range(1, len(TASKS) + 1)]
    found[arm] = {}
    for task in range(2, len(TASKS) + 1):
      earlier = TASKS[: task - 1]
      means = [mean_loss(row, earlier) for row in rows[f'{arm}_{task}']]
      found[arm][f'rise_{task}'] = max(means) - means[0]
      after, before = ends[task - 1], ends[task - 2]
      found[arm][f'forgot_{task}'] = mean_loss(after, earlier) - mean_loss(
        before, earlier
      )
    found[arm]['average'] = mean_loss(ends[-1], TASKS)
    found[arm]['last_task'] = ends[-1][f'eval_loss/{TASKS[-1]}']
    found[arm]['first_task'] = ends[-1][f'eval_loss/{TASKS[0]}']
  return found


EXPERIMENT = Experiment(
  name='singh2025_infinite',
  about='Docstrings, Python code, German, one after the other; nats per byte. '
  'rise: of the mean loss on earlier tasks, at its highest during a task, from '
  'its beginning; forgot: from the model of the task before to that of the '
  'task.',
  claims=EXPECTED,
  seeds=(0, 1, 2, 3, 4),
  tuned=('cosine', 'infinite'),
  grid=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
  tuning_seeds=(101, 102, 103),
  trial=trial,
  score=score,
  arms=arms,
  measures=measures,
)

if __name__ == '__main__':
  define_flags(EXPERIMENT)
  app.run(functools.partial(main, EXPERIMENT))
