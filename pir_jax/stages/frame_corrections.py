"""Learned corrections of each training frame's fit.

A fit is never exact, and what a network cannot explain it blurs. The paper has
no such step; it is our choice, and off by default. Held-out frames have no
corrections.
b batch, n training frames, e expression coefficients.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax import ranges
from pir_jax.geometry import cameras as camera_geometry
from pir_jax.runtime import optim as optim_lib
from pir_jax.stages import conditioning
from pir_jax.types import ConfigError, FaceBatch, FaceSpace


@ranges.declare()
@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Corrections, small and regularised.

  Attributes:
    enabled: whether there are any.
    num_frames: of the training data; `train` sets it.
    rotation: expected std of a camera's rotation about the head, radians.
    translation: expected std of its position, head units.
    expression: expected std of a standardised expression coefficient.
    optim: of the corrections, which are stored in units of the stds above. No
      momentum: a frame moves only when it is in the batch.
  """

  enabled: bool = False
  num_frames: int = 0
  rotation: float = 0.02
  translation: float = 0.01
  expression: float = 0.3
  optim: optim_lib.Config = dataclasses.field(
    default_factory=lambda: optim_lib.Config(
      learning_rate=0.03, b1=0.0, b2=0.9, decay_start=0.5
    )
  )


# Of frames, by name, in units of the expected stds.
Corrections = dict[str, Float[Array, "n _size"]]


def check(config: Config) -> None:
  """Raises ConfigError where corrections are enabled without a frame count."""
  if config.enabled and config.num_frames < 1:
    raise ConfigError(
      f"refinement.num_frames={config.num_frames} must be the number of "
      "training frames."
    )


def zeros(config: Config, expression_size: int) -> Corrections:
  """Returns a table of zero corrections for every frame."""
  sizes = {"rotation": 3, "translation": 3, "expression": expression_size}
  return {
    name: jnp.zeros((config.num_frames, size)) for name, size in sizes.items()
  }


def apply(
  config: Config, corrections: Corrections, space: FaceSpace, batch: FaceBatch
) -> conditioning.Inputs:
  """Returns the generator's inputs, with a correction for each example."""
  cameras = camera_geometry.moved(
    batch.cameras,
    config.rotation * corrections["rotation"],
    config.translation * corrections["translation"],
  )
  conditions = conditioning.inputs(
    space, batch.identity, batch.expression, cameras
  )
  change = config.expression * corrections["expression"]
  return conditions._replace(expression=conditions.expression + change)


def inputs(
  config: Config,
  corrections: Corrections | None,
  space: FaceSpace,
  batch: FaceBatch,
) -> tuple[conditioning.Inputs, dict[str, Float[Array, "b"]]]:
  """Returns the generator's inputs, corrected where there are corrections.

  Those of all frames together have mean zero: a common shift of the cameras is
  the network's to learn, and held-out frames would not share it.

  Returns:
    (conditions, the term `refinement`: mean square of a frame's corrections in
    units of the expected stds; no term without corrections)
  """
  if corrections is None:
    return conditioning.inputs(
      space, batch.identity, batch.expression, batch.cameras
    ), {}
  rows = {name: table[batch.index] for name, table in corrections.items()}
  # No gradient through the mean: Adam would make whole steps of its traces.
  centred = {
    name: row - jax.lax.stop_gradient(jnp.mean(corrections[name], 0))
    for name, row in rows.items()
  }
  size = jnp.concatenate(list(rows.values()), -1)
  terms = {"refinement": jnp.mean(jnp.square(size), -1)}
  return apply(config, centred, space, batch), terms
