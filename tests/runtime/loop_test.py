"""The loop: exact resume, whole checkpoints, a sentence for what is wrong."""

import functools
import os
import signal

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.runtime import (
  checkpoint,
  chips,
  compiler_options,
  loop,
  optim,
  preemption,
  prng,
  sharding,
)
from pir_jax.stages import base, train_state
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
    # Of all tests here together: no resumed state is compiled for anew.
    traced_once = chex.assert_max_traces(self._phase, n=1)
    self._train = self.compile_step(traced_once)
    self.poison, self.spoils, self.seen = {}, None, 0

  def init_state(self, key):
    params = {"offset": jnp.zeros(()), "slope": jax.random.normal(key, ())}
    net = train_state.NetState(params, {}, self._optimizer.init(params))
    return train_state.TrainState(jnp.int32(0), {"line": net}, {"line": params})

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
      return train_state.total(
        {"error": (found - 3.0 * batch + noise) ** 2}, {"error": 1.0}
      )

    gradients, metrics = jax.grad(objective, has_aux=True)(net.params)
    gradients["offset"] *= factor
    net, found = train_state.update("line", net, gradients, self._optimizer)
    return train_state.advance(state, {"line": net}, 0.9), metrics | found


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
  scored = options.pop("scored", list)
  of_fit = {
    name: options.pop(name)
    for name in ("profile", "compile_ahead", "watch")
    if name in options
  }
  config = loop.Config(
    num_steps=num_steps, **{"save_every": 5, "log_every": 5, **options}
  )
  return loop.fit(stage, config, batches(), scored, workdir, seed=1, **of_fit)


def saved(workdir):
  checkpoints = checkpoint.Checkpoints(workdir)
  try:
    return checkpoints.steps()
  finally:
    checkpoints.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """The last state and the directory of a run without interruption."""
  workdir = tmp_path_factory.mktemp("whole")
  return run(workdir, 12, save_every=12), workdir


def test_stopped_and_resumed_is_bit_identical(tmp_path, whole):
  run(tmp_path, 7, save_every=12)
  compiled = []
  ahead = lambda: compiled.append(True)  # noqa: E731
  state = run(tmp_path, 12, save_every=12, compile_ahead=ahead)
  assert compiled == [True]
  chex.assert_trees_all_equal(state, whole[0])
  assert int(state.step) == 12


def test_a_watched_run_is_bit_identical_and_seen_after_each_step(
  tmp_path, whole
):
  steps = []

  def watch(step, state):
    assert int(state.step) == step
    steps.append(float(state.ema["line"]["slope"]))

  watched = run(tmp_path, 12, save_every=12, watch=watch)
  chex.assert_trees_all_equal(watched, whole[0])
  assert len(set(steps)) == 12


def test_finished_run_is_not_trained_further(whole):
  state, workdir = whole
  assert (workdir / loop.FINISHED).read_text() == "12\n"
  compiled = []
  again = run(workdir, 12, compile_ahead=lambda: compiled.append(True))
  chex.assert_trees_all_equal(again, state)
  assert not compiled
  with pytest.raises(InputError, match="the run is finished"):
    run(workdir, 12, profile=(1, 2))
  with pytest.raises(InputError, match="at step 12 already, past"):
    run(workdir, 8)
  assert saved(workdir) == [12]


def test_training_moves_towards_the_answer(tmp_path):
  state = run(tmp_path, 60, log_every=60, save_every=60)
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


def preempt():
  os.kill(os.getpid(), signal.SIGTERM)


def test_preempted_it_saves_and_goes_on_bit_identically(tmp_path, whole):
  def stop(state, terms):
    preempt()
    return state, terms

  with pytest.raises(preemption.Preempted) as error:
    run(tmp_path, 12, {2: stop}, save_every=12)
  assert error.value.step == 3
  assert saved(tmp_path) == [3]
  assert not (tmp_path / loop.FINISHED).exists()
  compiled = []
  ahead = lambda: compiled.append(True)  # noqa: E731
  state = run(tmp_path, 12, save_every=12, compile_ahead=ahead)
  assert compiled == [True]
  chex.assert_trees_all_equal(state, whole[0])


def test_preempted_it_leaves_an_evaluation_between_batches(tmp_path):
  def data():
    for i, batch in enumerate(held_out()):
      if line().seen and i == 2:  # Not in the warm-up.
        preempt()
      yield batch

  with pytest.raises(preemption.Preempted):
    run(tmp_path, 9, scored=data, evaluate_every=3)
  assert line().seen == 1 + 2  # The warm-up's, and two of five.
  assert saved(tmp_path) == [3]


def test_the_best_checkpoint_is_kept_besides_the_newest(tmp_path):
  def jump(state, terms):  # Away from the answer, for good.
    return state._replace(ema=jax.tree.map(lambda x: x + 100, state.ema)), terms

  poison = {i: jump for i in range(3, 6)}
  options = dict(scored=held_out, evaluate_every=2, best="-distance", keep=1)
  run(tmp_path, 6, poison, save_every=6, **options)
  assert saved(tmp_path) == [2, 6]


def test_a_best_that_is_not_measured_is_refused_before_training(tmp_path):
  with pytest.raises(InputError, match="best=psnr .*choose one of distance"):
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


def test_reports_are_few_numbers_and_none_of_them_an_index(
  tmp_path, capsys, monkeypatch
):
  chip = chips.Chip("of this test", 1e12, 1, 1.0)
  monkeypatch.setattr(chips, "find", lambda kind: chip)
  # No chip with a known peak is a CPU, whose options no inner program may have.
  monkeypatch.setattr(compiler_options, "_CPU", None)
  monkeypatch.setitem(globals(), "line", Line)
  # The operations are counted in another trace.
  monkeypatch.setattr(chex, "assert_max_traces", lambda phase, n: phase)
  run(tmp_path, 10, scored=held_out, save_every=10)
  lines = [line for line in capsys.readouterr().out.splitlines() if line]
  assert lines[0] == "line from step 0, compiling ..."
  assert "1/10  compiled and done in" in lines[1]
  assert "norm/line" in lines[2] and "s/step" in lines[2]
  assert "MFU" in lines[2] and "examples/s/device" in lines[2]
  assert lines[-1].startswith("line 10: held-out distance")
  assert "bad/" not in " ".join(lines)
  assert all(len(line) < 160 for line in lines)
