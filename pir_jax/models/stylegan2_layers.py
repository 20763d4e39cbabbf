"""Layers with an equalised learning rate, and the StyleGAN2 building blocks.

b batch, h height, w width, i input channels, o output channels, s style size.
Kernels are stored near unit variance and scaled when used, so that one learning
rate suits all layers (StyleGAN2).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pir_jax.ops import activations, convolution, filters


class Buffer(nnx.Variable):
  """State that is saved but not trained."""


class Linear(nnx.Module):
  """Affine map; `lr_multiplier` slows its learning, not its output."""

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    *,
    bias: float = 0.0,
    lr_multiplier: float = 1.0,
    rngs: nnx.Rngs,
  ):
    kernel = jax.random.normal(rngs.params(), (num_inputs, num_outputs))
    self.kernel = nnx.Param(kernel / lr_multiplier)
    self.bias = nnx.Param(jnp.full((num_outputs,), bias / lr_multiplier))
    self.gain = lr_multiplier / math.sqrt(num_inputs)
    self.bias_gain = lr_multiplier

  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    kernel = (self.kernel[...] * self.gain).astype(x.dtype)
    bias = (self.bias[...] * self.bias_gain).astype(x.dtype)
    return x @ kernel + bias


class Conv(nnx.Module):
  """Convolution, then leaky ReLU; `down` halves the size.

  `linear` leaves out both the bias and the activation.
  """

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    kernel_size: int,
    *,
    down: bool = False,
    linear: bool = False,
    rngs: nnx.Rngs,
  ):
    shape = (kernel_size, kernel_size, num_inputs, num_outputs)
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
    self.bias = None if linear else nnx.Param(jnp.zeros(num_outputs))
    self.gain = 1 / math.sqrt(num_inputs * kernel_size**2)
    self.down = down

  def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
    convolve = convolution.conv2d_down2 if self.down else convolution.conv2d
    x = convolve(x, (self.kernel[...] * self.gain).astype(x.dtype))
    if self.bias is None:
      return x
    return activations.leaky_relu(x + self.bias[...].astype(x.dtype))


class StyledConv(nnx.Module):
  """Modulated 3x3 convolution, noise, bias, leaky ReLU.

  Noise is one fixed image without a key and a new one per example with it; the
  strength is learned and starts at 0. `quick` trades a digit or two for time,
  see `convolution.modulated_conv2d`; `remat` keeps only the inputs for the
  gradient and computes the rest again.
  """

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    style_size: int,
    resolution: int,
    *,
    up: bool = False,
    noise: bool = True,
    quick: bool = False,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    shape = (3, 3, num_inputs, num_outputs)
    self.affine = Linear(style_size, num_inputs, bias=1.0, rngs=rngs)
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
    self.bias = nnx.Param(jnp.zeros(num_outputs))
    self.noise_strength = nnx.Param(jnp.zeros(())) if noise else None
    self.noise = (
      Buffer(jax.random.normal(rngs.params(), (resolution, resolution)))
      if noise
      else None
    )
    self.up = 2 if up else 1
    self.quick = quick
    self.remat = remat

  def __call__(
    self,
    x: Float[Array, "b h w i"],
    w: Float[Array, "b s"],
    *,
    key: Key[Array, ""] | None = None,
  ) -> Float[Array, "b h2 w2 o"]:
    run = jax.checkpoint(self._run) if self.remat else self._run
    return run(x, w, key)

  def _run(self, x, w, key):
    y = convolution.modulated_conv2d(
      x, self.kernel[...], self.affine(w), up=self.up, quick=self.quick
    )
    if self.noise is not None:
      noise = self.noise[...][..., None]
      if key is not None:
        noise = jax.random.normal(key, (*y.shape[:3], 1))
      y += (noise * self.noise_strength[...]).astype(y.dtype)
    return activations.leaky_relu(y + self.bias[...].astype(y.dtype))


class ToImage(nnx.Module):
  """Modulated 1x1 convolution to an image; no demodulation, no activation."""

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    style_size: int,
    *,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    shape = (1, 1, num_inputs, num_outputs)
    self.affine = Linear(style_size, num_inputs, bias=1.0, rngs=rngs)
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
    self.bias = nnx.Param(jnp.zeros(num_outputs))
    self.gain = 1 / math.sqrt(num_inputs)
    self.remat = remat

  def __call__(
    self, x: Float[Array, "b h w i"], w: Float[Array, "b s"]
  ) -> Float[Array, "b h w o"]:
    run = jax.checkpoint(self._run) if self.remat else self._run
    return run(x, w)

  def _run(self, x, w):
    styles = self.affine(w) * self.gain
    y = convolution.modulated_conv2d(
      x, self.kernel[...], styles, demodulate=False
    )
    # Images are sums over all resolutions: keep that sum in full precision.
    return y.astype(jnp.float32) + self.bias[...]


class SynthesisBlock(nnx.Module):
  """Doubles the features and adds to an image that is doubled likewise."""

  def __init__(
    self,
    num_inputs: int,
    num_outputs: int,
    num_image: int,
    style_size: int,
    resolution: int,
    *,
    noise: bool = True,
    quick: bool = False,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    self.conv0 = StyledConv(
      num_inputs,
      num_outputs,
      style_size,
      resolution,
      up=True,
      noise=noise,
      remat=remat,
      rngs=rngs,
    )
    self.conv1 = StyledConv(
      num_outputs,
      num_outputs,
      style_size,
      resolution,
      noise=noise,
      quick=quick,
      remat=remat,
      rngs=rngs,
    )
    self.to_image = ToImage(
      num_outputs, num_image, style_size, remat=remat, rngs=rngs
    )

  def __call__(
    self,
    x: Float[Array, "b h w i"],
    image: Float[Array, "b h w c"],
    ws: Float[Array, "b 3 s"],
    *,
    key: Key[Array, ""] | None = None,
  ) -> tuple[Float[Array, "b h2 w2 o"], Float[Array, "b h2 w2 c"]]:
    keys = (None, None) if key is None else jax.random.split(key)
    x = self.conv0(x, ws[:, 0], key=keys[0])
    x = self.conv1(x, ws[:, 1], key=keys[1])
    return x, filters.upsample2(image) + self.to_image(x, ws[:, 2])
