"""The loop: exact resume, whole checkpoints, a sentence for what is wrong."""

import functools
import os
import signal
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.runtime import (
  checkpoint,
  chips,
  loop,
  optim,
  preemption,
  prng,
  sharding,
)
from pir_jax.stages import base
from pir_jax.types import InputError

NAN = jnp.float32(np.nan)


class Line(base.Stage):
  """Fits a line to noisy points: the least that is a stage.

  Attributes:
    poison: step index -> state and terms to spoilt ones, after that step.
    spoils: step index at which the gradient of the offset is not finite.
    seen: batches evaluated.
  """

  name = "line"

  def __init__(self):
    super().__init__(sharding.make_mesh(devices=jax.devices()[:1]), {})
    self._optimizer = optim.build(optim.Config(learning_rate=0.1), 100)
    self._train = self.compile_step(self._phase)
    self.poison, self.spoils, self.seen = {}, None, 0

  def init_state(self, key):
    params = {"offset": jnp.zeros(()), "slope": jax.random.normal(key, ())}
    net = base.NetState(params, {}, self._optimizer.init(params))
    return base.TrainState(jnp.int32(0), {"line": net}, {"line": params})

  def step(self, state, batch, key, *, index):
    factor = np.nan if index == self.spoils else 1.0
    state, metrics = self._train(
      state, (batch, jnp.float32(factor)), prng.at_step(key, index)
    )
    if index in self.poison:
      state, metrics = self.poison[index](state, metrics)
    return state, metrics

  def evaluate(self, state, batch, key):
    self.seen += 1
    return {"distance": jnp.abs(state.ema["line"]["slope"] - 3.0)}

  def _phase(self, state, frozen, given, key):
    batch, factor = given
    net = state.nets["line"]
    noise = 0.1 * jax.random.normal(key, batch.shape)

    def objective(params):
      found = params["slope"] * batch + 0.1 * params["offset"]
      return base.total(
        {"error": (found - 3.0 * batch + noise) ** 2}, {"error": 1.0}
      )

    gradients, metrics = jax.grad(objective, has_aux=True)(net.params)
    gradients["offset"] *= factor
    net, found = base.update("line", net, gradients, self._optimizer)
    return base.advance(state, {"line": net}, 0.9), metrics | found


def batches():
  return (
    grain.MapDataset.source(np.linspace(0.1, 1, 7, dtype=np.float32))
    .seed(3)
    .shuffle()
    .repeat()
    .batch(4)
    .to_iter_dataset()
  )


def held_out():
  return [np.ones(2, np.float32)] * 5


@functools.cache
def line():
  """The only one: every other would be compiled anew."""
  return Line()


def run(workdir, num_steps, poison=None, *, spoils=None, **options):
  stage = line()
  stage.poison, stage.spoils, stage.seen = poison or {}, spoils, 0
  scored, profile = options.pop("scored", list), options.pop("profile", None)
  config = loop.Config(
    num_steps=num_steps, **{"save_every": 5, "log_every": 5, **options}
  )
  return loop.fit(
    stage, config, batches(), scored, workdir, seed=1, profile=profile
  )


def saved(workdir):
  checkpoints = checkpoint.Checkpoints(workdir)
  try:
    return checkpoints.steps()
  finally:
    checkpoints.close()


def test_stopped_and_resumed_is_bit_identical(tmp_path):
  whole = run(tmp_path / "whole", 20, save_every=20)
  run(tmp_path / "parts", 11)
  parts = run(tmp_path / "parts", 20)
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  assert int(parts.step) == 20


def test_finished_run_is_not_trained_further(tmp_path):
  first = run(tmp_path, 6)
  again = run(tmp_path, 6)
  jax.tree.map(np.testing.assert_array_equal, first, again)


def test_training_moves_towards_the_answer(tmp_path):
  state = run(tmp_path, 100, log_every=50, save_every=100)
  # Noise of 0.1 on points of about 0.5 leaves the slope within a few tenths.
  assert abs(float(state.nets["line"].params["slope"]) - 3.0) < 0.5


def test_nan_stops_with_the_name_and_keeps_the_last_good_state(tmp_path):
  poison = {9: lambda state, terms: (state, {**terms, "error": NAN})}
  with pytest.raises(InputError, match="error is nan at step 10"):
    run(tmp_path, 20, poison)
  assert saved(tmp_path) == [5]


def test_nan_is_seen_at_its_step_however_rare_the_reports(tmp_path):
  poison = {3: lambda state, terms: (state, {**terms, "error": NAN})}
  with pytest.raises(InputError, match="error is nan at step 4:"):
    run(tmp_path, 20, poison, log_every=20)


def test_a_bad_gradient_names_its_tensor_and_step(tmp_path):
  with pytest.raises(
    InputError, match="^the gradient of line's offset is not finite at step 7:"
  ):
    run(tmp_path, 20, spoils=6)
  assert saved(tmp_path) == [5]


@pytest.mark.parametrize("index", [4, 5])
def test_a_spoilt_optimiser_names_the_tensor_it_began_with(tmp_path, index):
  def poison(state, terms):
    def spoil(path, leaf):
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      return leaf * NAN if name.endswith("mu/slope") else leaf

    net = state.nets["line"]
    opt_state = jax.tree_util.tree_map_with_path(spoil, net.opt_state)
    return state._replace(
      nets={"line": net._replace(opt_state=opt_state)}
    ), terms

  # Step 5 is saved: the state itself is looked at. Step 6 is not: its next
  # update spoils the parameters, and the step after that has a bad term.
  says = r"the state's nets/line/opt_state/\S*mu/slope"
  step = {4: "is not finite at step 5", 5: "at step 8"}[index]
  with pytest.raises(InputError, match=rf"{says}.*{step}|{step}.*{says}"):
    run(tmp_path, 20, {index: poison})
  assert saved(tmp_path) == ([5] if index > 4 else [])


def test_a_directory_that_is_no_run_is_named(tmp_path):
  with pytest.raises(InputError, match="is not a training run"):
    checkpoint.read_record(tmp_path)


def tell_to_end():
  os.kill(os.getpid(), signal.SIGTERM)
  deadline = time.monotonic() + 30
  # The thread that watches hears it, sooner or later.
  while not preemption._watching.pending and time.monotonic() < deadline:
    time.sleep(0.01)


def test_told_to_end_saves_and_goes_on_bit_identically(tmp_path):
  def tell(state, terms):
    tell_to_end()
    return state, terms

  whole = run(tmp_path / "whole", 9, save_every=9)
  with pytest.raises(preemption.Preempted) as error:
    # One more step may pass before the notice is there.
    run(tmp_path / "parts", 9, {2: tell})
  assert error.value.step in (3, 4)
  assert saved(tmp_path / "parts") == [error.value.step]
  parts = run(tmp_path / "parts", 9)
  jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_told_to_end_leaves_an_evaluation_between_batches(tmp_path):
  def data():
    for i, batch in enumerate(held_out()):
      if line().seen and i == 2:  # Not in the rehearsal.
        tell_to_end()
      yield batch

  with pytest.raises(preemption.Preempted):
    run(tmp_path, 9, scored=data, evaluate_every=3)
  assert line().seen == 1 + 2  # The rehearsal's, and two of five.
  assert saved(tmp_path) == [3]


def test_the_best_checkpoint_is_kept_besides_the_newest(tmp_path):
  def jump(state, terms):  # Away from the answer, for good.
    ema = {"line": {**state.ema["line"], "slope": jnp.float32(100.0)}}
    return state._replace(ema=ema), terms

  poison = {i: jump for i in range(5, 9)}
  options = dict(scored=held_out, evaluate_every=2, best="-distance", keep=1)
  run(tmp_path, 8, poison, save_every=8, **options)
  kept = saved(tmp_path)
  assert kept[-1] == 8 and len(kept) == 2 and kept[0] <= 4


def test_a_best_that_is_not_measured_is_refused_before_training(tmp_path):
  with pytest.raises(InputError, match="best=psnr .*say one of distance"):
    run(tmp_path, 20, scored=held_out, best="psnr")
  assert not saved(tmp_path)


def test_a_trace_is_written_where_it_can_be_read(tmp_path, capsys):
  run(tmp_path, 6, profile=(3, 2), save_every=6)
  (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
  assert trace.stat().st_size > 1000
  assert "steps 3 to 4 are traced" in capsys.readouterr().out


def test_a_trace_of_steps_that_do_not_come_is_refused(tmp_path):
  with pytest.raises(InputError, match="goes from step 1 to 6"):
    run(tmp_path, 6, profile=(6, 2))
  run(tmp_path, 6, save_every=6)
  with pytest.raises(InputError, match="the run is finished"):
    run(tmp_path, 6, profile=(1, 2))


def test_reports_are_few_numbers_and_none_of_them_an_index(
  tmp_path, capsys, monkeypatch
):
  chip = chips.Chip("of this test", 1e12, 1, 1.0)
  monkeypatch.setattr(chips, "find", lambda kind: chip)
  run(tmp_path, 10, scored=held_out, save_every=10)
  lines = [line for line in capsys.readouterr().out.splitlines() if line]
  assert lines[0] == "line from step 0, compiling ..."
  assert "1/10  compiled and done in" in lines[1]
  assert "norm/line" in lines[2] and "s/step" in lines[2]
  assert "MFU" in lines[2] and "examples/s/device" in lines[2]
  assert lines[-1].startswith("line 10: held-out distance")
  assert "bad/" not in " ".join(lines)
  assert all(len(line) < 160 for line in lines)


def test_a_run_past_its_last_step_is_not_called_finished(tmp_path):
  run(tmp_path, 6)
  with pytest.raises(InputError, match="at step 6 already, past"):
    run(tmp_path, 4)
