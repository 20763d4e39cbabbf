"""The public names work as the README prints them."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

import pir_jax
from pir_jax.data import synthetic, timing
from pir_jax.data.dataset import Dataset
from pir_jax.inference import exporter, loading, viewer
from pir_jax.inference import person as person_lib
from pir_jax.media import video_reader, video_writer
from pir_jax.models import (
  faceformer,
  patch_discriminator,
  renderer,
  triplane_generator,
  vgg,
  whisper,
)
from pir_jax.models import inpainting as inpainting_network
from pir_jax.preparation import pipeline, tracking
from pir_jax.runs import frozen_networks, run_record
from pir_jax.runs.experiment import Data, Experiment, mesh_for
from pir_jax.runs.run import (
  make_stage,
  network_space,
  open_run,
  read_record,
)
from pir_jax.runtime import checkpoint, loop
from pir_jax.stages import (
  conditioning,
  expression,
  inpainting,
  train_state,
  triplane,
)

ROOT = pathlib.Path(__file__).parents[1]
NUM_FRAMES = 22


def snippet():
  """Returns the Python block of the README."""
  (block,) = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
  )
  return block


class TrackedVideo(tracking.TrackedVideo):
  """A video whose face mask is the middle of its window."""

  def face_masks(self, frames, side):
    mask = np.zeros((len(frames), side, side), bool)
    mask[:, side // 4 : -side // 4, side // 4 : -side // 4] = True
    return mask


def write_runs(folder, data):
  """Writes the three runs, real networks of tiny sizes as they start."""
  stages = {
    "expression": expression.Config(
      model=faceformer.Config(context=20, width=16, ffn=16, num_heads=2),
      encoder="whisper",
      encoder_path="",
      weights=expression.Weights(expression=1.0, lips=0.0),
    ),
    "triplane": triplane.Config(
      model=triplane_generator.Config(
        map_depth=1,
        w_size=8,
        channel_base=32,
        channel_max=4,
        plane_resolution=8,
        plane_channels=4,
        feature_resolution=8,
        resolution=32,
        sr_channels=(4, 4),
        noise=False,
        renderer=renderer.Config(num_coarse=4, num_fine=0),
      ),
    ),
    "inpainting": inpainting.Config(
      model=inpainting_network.Config(
        channels=4, num_downsamples=1, num_global_blocks=1, num_local_blocks=1
      ),
      discriminator=patch_discriminator.Config(channels=4, max_channels=4),
    ),
  }
  clips = Dataset.open(data)
  # The networks know another space than that of the data.
  space = clips.space._replace(
    expression_mean=clips.space.expression_mean + np.float32(0.1),
    expression_scale=clips.space.expression_scale * np.float32(1.5),
  )
  for name, config in stages.items():
    experiment = Experiment(
      stage=config,
      loop=loop.Config(num_steps=1),
      data=Data(path=str(data), batch_size=1, resolution=32),
    )
    mesh = mesh_for(experiment, jax.devices()[:1])
    known = clips.space if name == "inpainting" else space
    stage = make_stage(experiment, known, folder / name, mesh)
    run_record.write(folder / name, experiment, clips, stage)
    checkpoints = checkpoint.Checkpoints(folder / name)
    checkpoints.save(1, stage.init(jax.random.key(0)), Iterator(), wait=True)
    checkpoints.close()


class Iterator:
  """Data that has no state."""

  def get_state(self):
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with me.mp4, speech.wav and the runs of runs/me."""
  folder = tmp_path_factory.mktemp("api")
  synthetic.write_video(folder / "me.mp4", num_frames=NUM_FRAMES)
  speech = synthetic.speech_like(1.0, 16000)
  soundfile.write(folder / "speech.wav", speech, 16000)
  patch = pytest.MonkeyPatch()
  # What needs a face in the video, or another's weights.
  info = video_reader.probe(folder / "me.mp4")
  track = synthetic.synthetic_track(NUM_FRAMES, size=info.height)
  square = np.float32([info.width / 2, info.height / 2, info.height * 0.8])
  track = track._replace(window=np.tile(square, (NUM_FRAMES, 1)))
  patch.setattr(
    tracking,
    "track",
    lambda path, **options: TrackedVideo(
      path, info, None, None, track, 1, options["config"]
    ),
  )
  patch.setattr(
    pipeline,
    "prepare",
    lambda video, output, **_: synthetic.write_synthetic(
      output, num_frames=NUM_FRAMES
    ),
  )
  patch.setattr(
    frozen_networks,
    "perceptual",
    lambda config: vgg.Lpips("vgg", num_layers=1, rngs=nnx.Rngs(0)),
  )
  patch.setattr(
    frozen_networks,
    "speech_encoder",
    lambda config: whisper.WhisperEncoder(
      whisper.Config(width=16, num_heads=2, num_layers=1), rngs=nnx.Rngs(0)
    ),
  )
  synthetic.write_synthetic(folder / "data" / "other", num_frames=NUM_FRAMES)
  write_runs(folder / "runs" / "me", folder / "data" / "other")
  yield folder
  patch.undo()


def test_the_readme_s_snippet_runs_as_printed(folder, monkeypatch):
  monkeypatch.chdir(folder)
  names = {}
  exec(compile(snippet(), "README.md", "exec"), names)
  clip, person = names["clip"], names["person"]
  chex.assert_shape(names["expression"], (25, len(person.expression_names)))
  chex.assert_shape(names["frames"], (25, 32, 32, 3))
  assert names["frames"].dtype == np.uint8
  assert clip.expression_names == person.expression_names
  written = list(video_reader.read_frames(folder / "out.mp4"))
  assert len(written) == 25


@pytest.fixture(scope="module")
def person(folder):
  return pir_jax.load(folder / "runs" / "me", batch_size=4)


def test_stage_3_is_of_the_space_of_its_stage_2(folder, person):
  triplane_run = open_run(folder / "runs" / "me" / "triplane")
  data = Dataset.open(folder / "data" / "other").space
  for name in ("expression_mean", "expression_scale"):
    known = getattr(triplane_run.space, name)
    np.testing.assert_array_equal(getattr(person.space, name), known)
    assert (known != getattr(data, name)).all()
  expression = np.zeros((1, len(person.expression_names)), np.float32)
  cameras = make_cameras(1)
  generator = viewer.Viewer.open(folder / "runs" / "me").generator
  alone = nnx.jit(generator)(
    *conditioning.inputs(
      triplane_run.space,
      jnp.asarray(person.identity[None]),
      jnp.asarray(expression),
      cameras,
    )
  )
  got = person.render_images(expression, cameras)
  np.testing.assert_allclose(got, np.clip(alone.image, -1, 1), atol=1e-4)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
  """The person written to files, in another place."""
  place = tmp_path_factory.mktemp("another place") / "it's me"
  exporter.export(folder / "runs" / "me", folder / "exported")
  shutil.move(folder / "exported", place)
  return place


def test_an_exported_person_is_the_same_to_the_bit(
  folder, person, exported, monkeypatch
):
  other = pir_jax.load(exported, batch_size=4)
  assert other.people[0].sha256 == person.people[0].sha256
  options = dict(video=folder / "me.mp4", audio=folder / "speech.wav")
  # As they are encoded: x264 itself now and then writes other bits of the same
  # pictures.
  frames = []
  write = video_writer.VideoWriter.write

  def record(self, image):
    frames.append(image.copy())
    write(self, image)

  monkeypatch.setattr(video_writer.VideoWriter, "write", record)
  for i, one in enumerate((person, other)):
    pir_jax.reenact(one, output=folder / f"{i}.mp4", **options)
  first, second = np.split(np.stack(frames), 2)
  assert len(first) == 25 and first.std() > 0
  np.testing.assert_array_equal(first, second)


def test_an_export_names_no_place_of_the_machine(folder, exported):
  for path in exported.iterdir():
    assert str(folder).encode() not in path.read_bytes(), path
  record = read_record(exported / "triplane.safetensors")
  assert record["config"]["data"]["path"] == ""
  card = (exported / "README.md").read_text()
  assert loading.known_people(exported)[0].source in card


def test_a_base_is_exported_without_whom_it_learnt_from(folder, tmp_path):
  runs, base = folder / "runs" / "me", tmp_path / "base"
  exporter.export(runs, base, base=True)
  known = loading.known_people(runs)[0]
  content = b"".join(path.read_bytes() for path in base.iterdir())
  for text in known.source, known.sha256, str(folder):
    assert text.encode() not in content
  assert "for new people" in (base / "MODEL_CARD.md").read_text()
  with pytest.raises(pir_jax.InputError, match="is a base and shows nobody"):
    pir_jax.load(base)


def test_a_changed_export_is_refused(folder, exported, tmp_path):
  damaged = tmp_path / "damaged"
  shutil.copytree(exported, damaged)
  path = damaged / "expression.safetensors"
  path.write_bytes(path.read_bytes()[:-1] + b"?")
  with pytest.raises(pir_jax.InputError, match="not the file that config.json"):
    pir_jax.load(damaged)
  with pytest.raises(pir_jax.InputError, match="there already"):
    exporter.export(folder / "runs" / "me", exported)


@pytest.mark.parametrize(
  "name, kind",
  [
    ("expression", "run"),
    ("triplane", "person"),
    ("inpainting", "file"),
    ("triplane", "file"),
  ],
)
def test_a_run_begins_from_another_whoever_it_is(folder, exported, name, kind):
  origin = {
    "run": folder / "runs" / "me" / name,
    "person": folder / "runs" / "me",
    "file": exported / f"{name}.safetensors",
  }[kind]
  run = open_run(folder / "runs" / "me" / name)
  config = dataclasses.replace(run.experiment.stage, init_from=str(origin))
  experiment = dataclasses.replace(run.experiment, stage=config)
  workdir = folder / "runs" / "me" / "another"
  data = Dataset.open(folder / "data" / "other").space
  space = network_space(experiment, data, workdir)
  np.testing.assert_array_equal(
    space.expression_mean, run.space.expression_mean
  )
  stage = make_stage(experiment, space, workdir, run.stage.mesh)
  state = stage.init(jax.random.key(9))
  chex.assert_trees_all_equal(
    train_state.learnt(state), train_state.learnt(run.state)
  )
  assert state.step == 0


def test_what_cannot_be_begun_from_is_refused(folder, tmp_path):
  run = open_run(folder / "runs" / "me" / "expression")

  def space_from(origin, data):
    config = dataclasses.replace(run.experiment.stage, init_from=str(origin))
    experiment = dataclasses.replace(run.experiment, stage=config)
    return network_space(experiment, data, tmp_path / "run")

  me, data = folder / "runs" / "me", Dataset.open(folder / "data/other").space
  with pytest.raises(pir_jax.InputError, match="init_from=no.where is no run"):
    space_from("no where", data)
  for wrong in (folder / "nothing", me / "expression"):
    with pytest.raises(
      pir_jax.InputError, match="name the folder with the runs"
    ):
      pir_jax.load(wrong)
  with pytest.raises(pir_jax.InputError, match="is of stage triplane"):
    space_from(me / "triplane", data)
  fewer = data._replace(expression_names=data.expression_names[1:])
  with pytest.raises(pir_jax.InputError, match="expression coefficients"):
    space_from(me / "expression", fewer)
  model = dataclasses.replace(run.experiment.stage.model, width=8)
  config = dataclasses.replace(
    run.experiment.stage, model=model, init_from=str(me / "expression")
  )
  experiment = dataclasses.replace(run.experiment, stage=config)
  stage = make_stage(experiment, run.space, tmp_path / "run", run.stage.mesh)
  with pytest.raises(pir_jax.InputError, match="networks of other shapes"):
    stage.init(jax.random.key(0))


def make_cameras(num):
  track = synthetic.synthetic_track(num)
  return pir_jax.Cameras(track.pose, track.intrinsics)


def test_fewer_cameras_go_forward_and_backward(person):
  size = len(person.expression_names)
  expression = np.zeros((5, size), np.float32)
  few = person.render(expression, make_cameras(5))
  three = pir_jax.Cameras(*(x[:3] for x in make_cameras(5)))
  frames = person.render(expression, three)
  np.testing.assert_array_equal(frames[:3], few[:3])
  np.testing.assert_array_equal(frames[3:], few[[1, 0]])


def test_what_makes_no_face_is_refused(person, folder):
  cameras = make_cameras(2)
  size = len(person.expression_names)
  with pytest.raises(pir_jax.InputError, match="expression_names lists"):
    person.render(np.zeros((2, size + 1), np.float32), cameras)
  none = pir_jax.Cameras(*(x[:0] for x in cameras))
  with pytest.raises(pir_jax.InputError, match="at least one camera"):
    person.render(np.zeros((2, size), np.float32), none)
  with pytest.raises(pir_jax.InputError, match="numbered from 0 to 0"):
    pir_jax.load(folder / "runs" / "me", person=1)


def test_all_batches_of_a_person_are_one_program(person, monkeypatch):
  stage = person.networks.inpaint.func.__self__
  for name in ("inpaint", "features", "render"):
    # A second trace fails: batches of any number of frames have one shape.
    once = chex.assert_max_traces(getattr(stage, f"{name}_phase"), n=1)
    attribute = {"features": "_render_features"}.get(name, f"_{name}")
    monkeypatch.setattr(stage, attribute, jax.jit(once))
  for num in (1, 4, 6):
    expression = np.zeros((num, len(person.expression_names)), np.float32)
    person.render(expression, make_cameras(num))
    image = np.zeros((num, 32, 32, 3), np.float32)
    mask = image[..., :1] + 1
    person.inpaint(image, mask, make_cameras(num), expression)


def test_a_clip_s_cameras_are_at_the_rate_of_expressions(tmp_path):
  synthetic.write_synthetic(tmp_path / "me", num_frames=NUM_FRAMES)
  clip = pir_jax.Clip.open(tmp_path / "me")
  present = clip.track.present.copy()
  present[:4] = False
  # Frames half as often, the first four without a face.
  times = 2 * clip.track.times
  track = clip.track._replace(present=present, times=times)
  clip = dataclasses.replace(clip, track=track)
  num_ticks = len(timing.tick_times(times))
  assert num_ticks == 2 * NUM_FRAMES
  chex.assert_shape(clip.cameras.pose, (num_ticks, 4, 4))
  chex.assert_shape(clip.expression, (num_ticks, len(clip.expression_names)))
  np.testing.assert_array_equal(clip.cameras.pose[:9], clip.track.pose[[4] * 9])
  np.testing.assert_array_equal(clip.cameras.pose[-2], clip.track.pose[-1])


def run_python(*lines):
  result = subprocess.run(
    [sys.executable, "-c", "\n".join(lines)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout.split()


@pytest.mark.parametrize(
  "name, command_first", [("prepare", True), ("reenact", False)]
)
def test_a_function_wins_over_the_command_of_its_name(name, command_first):
  lines = [f"import pir_jax.{name}", f"pir_jax.{name}"]
  lines = lines if command_first else lines[::-1]
  output = run_python(
    "import sys, pir_jax",
    "print('jax' in sys.modules)",
    *lines,
    f"from pir_jax import {name}",
    f"print({name}.__name__, sys.modules['pir_jax.{name}'].main.__name__)",
  )
  assert output == ["False", name, "main"]


def test_every_name_is_there_and_no_other():
  for name in pir_jax.__all__:
    assert getattr(pir_jax, name) is not None
  assert set(dir(pir_jax)) == set(pir_jax.__all__)
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    pir_jax.nothing  # noqa: B018
  assert pir_jax.Person is person_lib.Person
  assert re.fullmatch(r"\d+\.\d+\.\d+", pir_jax.__version__)
