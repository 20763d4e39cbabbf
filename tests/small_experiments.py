"""The experiments small enough for a test's training."""

import importlib


def small(name):
  """Half the demo's pixels a side and fewer layers, all of its kinds."""
  module = importlib.import_module(f"experiments.{name}")
  experiment = module.get_config("scratch")
  experiment.data.resolution = 64
  if name == "triplane":
    model = experiment.stage.model
    model.resolution, model.feature_resolution = 64, 16
    model.constant_side, model.plane_resolution = 16, 32
    model.renderer.num_coarse = model.renderer.num_fine = 4
  if name == "inpainting":
    model = experiment.stage.model
    model.num_global_blocks = model.num_local_blocks = 1
  if name != "expression":
    experiment.stage.perceptual_layers = 1
  return experiment
