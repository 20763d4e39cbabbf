"""A reenacted frame stage by stage: each has its row, and they add up."""

import re

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.face import detector, morphable
from pir_jax.models import faceformer
from pir_jax.profiling import pipeline
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import loop
from pir_jax.stages import expression
from pir_jax.types import InputError

NETWORKS = {"feature image": 0.2, "inpainting": 0.1}
STAGES = [
  "decode",
  "track",
  "fit the head",
  "window, mask and crop",
  "speech to expression",
  "feature image",
  "inpainting",
  "composite",
  "encode",
]


def test_a_stage_whose_models_cannot_be_had_says_so(monkeypatch):
  def refuse(*_, **__):
    raise InputError("Cannot download it: get it by hand.")

  monkeypatch.setattr(detector, "Tracker", refuse)
  monkeypatch.setattr(morphable, "load", refuse)
  monkeypatch.setattr(pipeline, "NUM_FRAMES", 3)
  monkeypatch.setattr(pipeline, "SECONDS", 1)
  speech = Experiment(
    stage=expression.Config(
      model=faceformer.Config(width=8, ffn=8, context=4),
      encoder="whisper",
      window=20,
      margin=2,
    ),
    loop=loop.Config(num_steps=1),
  )
  rows = list(pipeline.measure(speech, 64, NETWORKS, 1))
  assert [row.name for row in rows] == STAGES
  refused = {row.name for row in rows if row.seconds is None}
  assert refused == {"track", "fit the head", "window, mask and crop"}
  for row in rows:
    if row.name in refused:
      assert row.note.startswith("Cannot download it")
    else:
      assert 0 < row.seconds < 10, row.name
  assert {row.name: row.seconds for row in rows}.items() >= NETWORKS.items()
  *_, last = pipeline.as_lines(rows)
  assert last.startswith("all that could be measured")
  total, speed = re.findall(r"[\d.]+", last)
  known = sum(row.seconds or 0 for row in rows)
  assert float(total) == pytest.approx(1e3 * known, abs=0.01)
  assert float(speed) == pytest.approx(1 / known, rel=1e-2)


def test_landmarks_to_be_fitted_are_an_upright_face_in_the_frame():
  side = 100
  track = synthetic.synthetic_track(9, size=side)
  identity = np.zeros(morphable.NUM_IDENTITY, np.float32)
  model = morphable.load()
  all_points = pipeline.landmarks(track, model, identity, side)
  assert all_points.shape == (9, morphable.NUM_LANDMARKS, 3)
  points = all_points[:, model.landmark_valid]
  assert points[..., :2].min() > 0 and points[..., :2].max() < side
  assert np.ptp(points[..., 1], axis=1).min() > side / 4
  forehead, tip, chin = (all_points[:, i] for i in (10, 4, 152))
  assert (forehead[:, 1] < tip[:, 1]).all() and (tip[:, 1] < chin[:, 1]).all()
  assert (tip[:, 2] < 0).all()
