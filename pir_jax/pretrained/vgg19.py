"""VGG19 for pix2pixHD's perceptual loss: torchvision's state dict.

Names are `features.N.weight` with N the place in torchvision's sequence of
convolutions, activations and poolings.
"""

from pathlib import Path

from flax import nnx

from pir_jax.models import vgg
from pir_jax.pretrained import weight_map, weights, zeros

# Of the convolutions up to conv5_1.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)


def load(
  path: str | Path, *, num_layers: int = vgg.NUM_LAYERS, quick: bool = False
) -> vgg.Vgg19:
  """Reads `vgg19-dcbb9e9d.pth` or the same as .npz or .safetensors.

  Args:
    path: of the file; what is in it is read, not run.
    num_layers: keep only so many leading feature layers.
    quick: see `models.vgg.Features`.

  Raises:
    InputError: the file is not there, holds no arrays, or has names or shapes
      that do not fit; all mismatches in one message.
  """
  model = zeros.module(
    lambda: vgg.Vgg19(num_layers=num_layers, quick=quick, rngs=nnx.Rngs(0))
  )
  rules = []
  for i, place in zip(range(len(model.layers)), _PLACES, strict=False):
    name = rf"features\.{place}"
    rules += [
      weight_map.Rule(
        rf"{name}\.weight", f"layers.{i}.kernel", weight_map.conv2d
      ),
      weight_map.Rule(rf"{name}\.bias", f"layers.{i}.bias"),
    ]
  # The rest of the convolutions, and the classifier.
  rules.append(weight_map.Rule(r"(features|classifier)\..*", None))
  weight_map.apply(rules, weights.read(path), model)
  return model
