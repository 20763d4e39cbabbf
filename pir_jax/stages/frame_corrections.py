"""What is learnt of each training frame by itself: corrections of its fit.

A fit is never exact, and what a network cannot explain it blurs. The paper says
nothing of such a step; it is our choice, and off unless asked for. Held-out
frames have no corrections.
b batch, n training frames, e expression coefficients.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pir_jax.geometry import cameras as camera_geometry
from pir_jax.runtime import optim as optim_lib
from pir_jax.stages import conditioning
from pir_jax.types import FaceBatch, FaceSpace


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Corrections, small and regularised.

  Attributes:
    enabled: whether there are any.
    num_frames: of the training data; `train` sets it.
    rotation: deviation expected of a camera's rotation about the head, radians.
    translation: of its place, head units.
    expression: of a standardised expression coefficient.
    optim: of the corrections, which are counted in the deviations above. No
      momentum: a frame moves only when it is seen.
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


# Of frames, by name, in the deviations expected.
Corrections = dict[str, Float[Array, "n _size"]]


def check(config: Config) -> None:
  """Raises ValueError where the number of frames is wanted and not known."""
  if config.enabled and config.num_frames < 1:
    raise ValueError(
      f"refinement.num_frames={config.num_frames} must be that of the training "
      "data"
    )


def tables(config: Config, expression_size: int) -> Corrections:
  """No corrections yet."""
  sizes = {"rotation": 3, "translation": 3, "expression": expression_size}
  return {
    name: jnp.zeros((config.num_frames, size)) for name, size in sizes.items()
  }


def corrected(
  config: Config, found: Corrections, space: FaceSpace, batch: FaceBatch
) -> conditioning.Inputs:
  """What the generator is given of a batch with a correction for each frame."""
  cameras = camera_geometry.moved(
    batch.cameras,
    config.rotation * found["rotation"],
    config.translation * found["translation"],
  )
  given = conditioning.inputs(space, batch.identity, batch.expression, cameras)
  change = config.expression * found["expression"]
  return given._replace(expression=given.expression + change)


def inputs(
  config: Config, learnt: Corrections | None, space: FaceSpace, batch: FaceBatch
) -> tuple[conditioning.Inputs, dict[str, Float[Array, "b"]]]:
  """What the generator is given, corrected where corrections are learnt.

  Those of all frames together have mean zero: a common shift of the cameras is
  the network's to learn, and held-out frames would not share it.

  Returns:
    (conditions, the term `refinement`: mean square of a frame's corrections in
    the deviations expected; no term without corrections)
  """
  if learnt is None:
    given = (batch.identity, batch.expression, batch.cameras)
    return conditioning.inputs(space, *given), {}
  rows = {name: table[batch.index] for name, table in learnt.items()}
  # No gradient through the mean: Adam would make whole steps of its traces.
  centred = {
    name: row - jax.lax.stop_gradient(jnp.mean(learnt[name], 0))
    for name, row in rows.items()
  }
  size = jnp.concatenate(list(rows.values()), -1)
  terms = {"refinement": jnp.mean(jnp.square(size), -1)}
  return corrected(config, centred, space, batch), terms
