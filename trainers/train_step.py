"""The training step: a pure function of state, batch and schedules.

One donated `jax.jit`. The schedules are an argument, so runs that differ in
their LRs or lengths share one program; the optimizer is built from them inside.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lrsched
from lrsched import laws
from trainers.averaging import init_lawa
from trainers.averaging import updated_lawa
from trainers.config import ModelConfig
from trainers.config import RunConfig
from trainers.fields import to_dict
from trainers.model import Decoder
from trainers.objectives import Objective
from trainers.objectives import Replay
from trainers.objectives import of_replay
from trainers.objectives import of_views
from trainers.objectives import plain
from trainers.optimizer import Schedules
from trainers.optimizer import applied_lrs
from trainers.optimizer import groups_of
from trainers.optimizer import make_optimizer
from trainers.optimizer import schedules_of
from trainers.sharding import BATCH_AXES
from trainers.sharding import state_shardings
from trainers.views import Draw
from trainers.views import views_of


class TrainState(NamedTuple):
  """What training changes, and a checkpoint holds.

  Attributes:
    params: nested dict of float32 weights.
    opt_state: state of the optax chain; its LR transform counts the updates.
    ema: moving average of `params`, or None.
    track: the LR so far as loss laws need it, or None.
    lawa: snapshots of the latest weights, or None.
  """

  params: Any
  opt_state: Any
  ema: Any
  track: Any = None
  lawa: Any = None


def graph_of(model: ModelConfig) -> nnx.GraphDef:
  """The structure of the network, to merge with `TrainState.params`."""
  return nnx.split(nnx.eval_shape(lambda: Decoder(model, rngs=nnx.Rngs(0))))[0]


def init_params(config: RunConfig, seed: jax.typing.ArrayLike) -> Any:
  """New weights; `seed` is apart so that seeds share a compiled program."""
  model = Decoder(config.model, rngs=nnx.Rngs(jax.random.key(seed)))
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def state_of(
  config: RunConfig, params: Any, step: jax.typing.ArrayLike = 0
) -> TrainState:
  """A state that begins with given weights, its next update being `step`."""
  tx = make_optimizer(config.optimizer, schedules_of(config.optimizer))
  opt_state = lrsched.at_step(tx.init(params), step)
  # A copy: the donated step must not receive one buffer twice.
  ema = jax.tree.map(jnp.copy, params) if config.ema_decay else None
  track = laws.init_track() if config.forecast else None
  lawa = init_lawa(params, config.lawa) if config.lawa else None
  return TrainState(params, opt_state, ema, track, lawa)


def init_state(config: RunConfig, seed: jax.typing.ArrayLike) -> TrainState:
  """A new state with new weights."""
  return state_of(config, init_params(config, seed))


def abstract_state(config: RunConfig, mesh: Mesh) -> TrainState:
  """Shapes, dtypes and shardings of the state; nothing is compiled."""
  shapes = jax.eval_shape(lambda: init_state(config, config.seed))
  shardings = state_shardings(shapes, mesh)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )


Step = Callable[..., tuple[TrainState, dict]]
_steps: dict[str, Step] = {}  # by all that a step is compiled from


def train_step_for(
  config: RunConfig, mesh: Mesh, law: laws.Law | None = None
) -> Step:
  """`make_train_step`, made once for runs that differ in schedule values only.

  So a sweep or a set of branches in one process traces and compiles once.
  """
  optimizer = {
    name: value
    for name, value in to_dict(config.optimizer).items()
    if name not in schedules_of(config.optimizer)
  }
  frozen = {p: s is None for p, s in groups_of(config.optimizer).items()}
  key = json.dumps(
    [
      to_dict(config.model),
      optimizer | {'groups': frozen},
      config.ema_decay,
      to_dict(config.lawa),
      config.log.grad_norm_l1,
      [[axis, n] for axis, n in mesh.shape.items()],
      type(law).__name__,
      config.gere and config.gere.weight,
      to_dict(config.data.views),
    ]
  )
  if key not in _steps:
    _steps[key] = make_train_step(config, mesh, law)
  return _steps[key]


def make_train_step(
  config: RunConfig, mesh: Mesh, law: laws.Law | None = None
) -> Step:
  """The compiled step: `(state, tokens, schedules) -> (state, metrics)`.

  `tokens` is int32 [accum_steps, microbatch, seq_len + 1], placed by
  `place_batch`; `schedules` are those of `schedules_of`, as arrays. The state
  is donated. Metrics are float32 scalars: the loss (nats per token, with z-loss
  if there is one) before the update, the LR the update was multiplied by, the
  L2 norm of the gradient before clipping, and the norm of the update over the
  norm of the parameters.

  What a config has beyond that, the step takes one more argument for, by name:

  - A law, `outlook`: the metrics have what it expects after the update; the
    residual is of the loss before it.
  - `config.gere`, `replay`: the update's replayed batch, with metrics
    `replay_loss` and `gere_loss`; see `trainers.objectives.of_replay`.
  - `config.data.views`, `draw`: `tokens` then holds `1/n` of the microbatch,
    the windows, and the metrics have `views_loss` and `views_kl`; see
    `trainers.objectives.of_views`.

  The metric `loss` is of the new batch as it is, with all of them.
  """
  graph = graph_of(config.model)
  gere, views = config.gere, config.data.views

  def step(
    state: TrainState,
    tokens_AxBxL: jax.Array,
    schedules: Schedules,
    outlook: laws.Outlook | None = None,
    replay: Replay | None = None,
    draw: Draw | None = None,
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    _check_extras(config, replay, draw)
    tx = make_optimizer(config.optimizer, schedules)
    batch: Any = tokens_AxBxL
    loss_of = plain
    if views is not None and draw is not None:
      batch = views_of(tokens_AxBxL, views, config.model.vocab_size, draw)
      kl_weight = views.kl_weight * (draw.step >= views.kl_from_step)
      loss_of = functools.partial(of_views, kl_weight=kl_weight)
    (new, extras), grads = _mean_gradient(
      lambda params, batch: loss_of(nnx.merge(graph, params), batch),
      state.params,
      batch,
    )
    if gere is not None and replay is not None:
      again = lambda params: of_replay(
        nnx.merge(graph, params), replay, gere.weight, new
      )
      (_, replayed), more = jax.value_and_grad(again, has_aux=True)(
        state.params
      )
      grads = jax.tree.map(lambda a, b: a / 2 + b, grads, more)
      extras = extras | replayed
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if config.ema_decay is not None:
      ema = optax.incremental_update(params, ema, 1 - config.ema_decay)
    metrics = {
      'loss': new,
      **applied_lrs(config.optimizer, opt_state),
      'grad_norm': optax.tree.norm(grads),
      'update_ratio': optax.tree.norm(updates) / optax.tree.norm(params),
    }
    if config.log.grad_norm_l1:
      metrics['grad_norm_l1'] = optax.tree.norm(grads, ord=1)
    metrics |= extras
    track = state.track
    if law is not None and outlook is not None:
      track = laws.tracked(track, metrics['lr'], outlook.warmup_steps)
      expected = laws.foresee(law, outlook, track)
      metrics |= {
        'law_loss': expected.loss,
        'law_residual': metrics['loss'] - expected.loss,
        'law_final_loss': expected.final_loss,
        'law_decay_now_loss': expected.decay_now_loss,
      }
    lawa = state.lawa
    if config.lawa is not None:
      done = lrsched.steps_done(opt_state)
      lawa = updated_lawa(lawa, params, done, config.lawa)
    return TrainState(params, opt_state, ema, track, lawa), metrics

  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))
  replicated = NamedSharding(mesh, P())
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated))


def _check_extras(
  config: RunConfig, replay: Replay | None, draw: Draw | None
) -> None:
  """Raises ValueError unless the step is given what its config asks for."""
  asked = {
    'replay': (config.gere, replay, 'RunConfig.gere'),
    'draw': (config.data.views, draw, 'DataConfig.views'),
  }
  for name, (part, given, field) in asked.items():
    if (part is None) != (given is None):
      with_or_without = 'without' if part is None else 'with'
      raise ValueError(
        f'{name} must be given {with_or_without} {field}, got {given!r} for '
        f'{part!r}'
      )


def _mean_gradient(
  loss_of: Callable[..., Objective], params: Any, batch: Any
) -> tuple[Objective, Any]:
  """Value, metrics and gradient, averaged over the microbatches in order."""
  grad_of = functools.partial(jax.value_and_grad(loss_of, has_aux=True), params)
  n = jax.tree.leaves(batch)[0].shape[0]
  if n == 1:  # a scan of one still costs its carry
    return grad_of(jax.tree.map(lambda x: x[0], batch))

  def add(total: Any, part: Any) -> tuple[Any, Any]:
    (loss, metrics), grads = grad_of(part)
    return jax.tree.map(jnp.add, total, (loss, grads)), metrics

  zero = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params))
  total, metrics_A = jax.lax.scan(add, zero, batch)
  loss, grads = jax.tree.map(lambda x: x / n, total)
  return (loss, jax.tree.map(jnp.mean, metrics_A)), grads


def place_batch(
  tokens_BxL: np.ndarray, accum_steps: int, mesh: Mesh
) -> jax.Array:
  """This process's share of a batch, as the global array the step takes."""
  tokens_AxBxL = tokens_BxL.reshape(accum_steps, -1, tokens_BxL.shape[-1])
  rows = tokens_AxBxL.shape[1] * jax.process_count()
  return jax.make_array_from_process_local_data(
    NamedSharding(mesh, P(None, BATCH_AXES, None)),
    tokens_AxBxL,
    global_shape=(accum_steps, rows, tokens_AxBxL.shape[-1]),
  )


def schedule_arrays(schedules: Schedules) -> Schedules:
  """The schedules as the step takes them: strong float32 and int32 leaves."""
  return {name: lrsched.as_arrays(spec) for name, spec in schedules.items()}
