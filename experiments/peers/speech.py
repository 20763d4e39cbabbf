"""wav2vec 2.0 of transformers, and FaceFormer's decoder, in PyTorch.

b batch, t frames, h heads, d width.
"""

import math

import torch
import transformers
from torch import nn
from torch.nn import functional

from pir_jax.models import faceformer, wav2vec2


def encoder(config: wav2vec2.Config) -> transformers.Wav2Vec2Model:
  """Builds transformers' network of a Config, its convolutions frozen."""
  network = transformers.Wav2Vec2Model(
    transformers.Wav2Vec2Config(
      hidden_size=config.width,
      num_hidden_layers=config.num_layers,
      num_attention_heads=config.num_heads,
      intermediate_size=config.ffn,
      conv_dim=list(config.conv_sizes),
      conv_bias=config.conv_bias,
      num_conv_pos_embeddings=config.position_kernel,
      num_conv_pos_embedding_groups=config.position_groups,
      feat_extract_norm=config.feature_norm,
      do_stable_layer_norm=config.pre_norm,
      layerdrop=config.layer_drop,
    )
  )
  network.freeze_feature_encoder()
  return network


def encode(network, waveform, num_frames):
  """Encodes speech (b n), resampled to video frames as FaceFormer does."""
  features = network.feature_extractor(waveform)
  features = functional.interpolate(
    features, size=num_frames, mode="linear", align_corners=True
  )
  hidden, _ = network.feature_projection(features.transpose(1, 2))
  if network.training:
    hidden = network._mask_hidden_states(hidden)
  return network.encoder(hidden).last_hidden_state


class Decoder(nn.Module):
  """FaceFormer's decoder, frame after frame.

  The published code runs all frames anew for each; here keys and values of the
  past are kept, which is quicker and has the same values without dropout.
  """

  def __init__(self, config: faceformer.Config):
    super().__init__()
    self.config = config
    width = config.width
    self.audio_feature_map = nn.Linear(config.audio_size, width)
    self.obj_vector = nn.Linear(config.identity_size, width, bias=False)
    self.vertice_map = nn.Linear(config.expression_size, width)
    self.vertice_map_r = nn.Linear(width, config.expression_size)
    layer = nn.TransformerDecoderLayer(
      width, config.num_heads, config.ffn, config.dropout, batch_first=True
    )
    self.transformer_decoder = nn.TransformerDecoder(layer, 1)
    # FaceFormer's own, under which the first expression is the mean.
    nn.init.zeros_(self.vertice_map_r.weight)
    nn.init.zeros_(self.vertice_map_r.bias)
    frequency = 10000.0 ** (-torch.arange(0, width, 2) / width)
    phase = torch.arange(config.period)[:, None] * frequency
    table = torch.stack([phase.sin(), phase.cos()], -1).flatten(1)
    self.register_buffer("positions", table[:, :width], persistent=False)
    # ALiBi's slopes, for 2^n heads.
    ratio = 2.0 ** (-8.0 / config.num_heads)
    slopes = ratio ** torch.arange(1, config.num_heads + 1)
    self.register_buffer("slopes", slopes, persistent=False)

  def forward(self, audio, identity):
    """Predicts expressions (b t e) of audio features (b t a)."""
    config, layer = self.config, self.transformer_decoder.layers[0]
    cross = layer.multihead_attn
    # The softmax over one key is 1: the values pass.
    audio = self.audio_feature_map(audio)
    *_, weight = cross.in_proj_weight.chunk(3)
    *_, bias = cross.in_proj_bias.chunk(3)
    value = functional.linear(audio, weight, bias)
    if self.training:
      kept = torch.ones(*value.shape[:2], config.num_heads, 1)
      kept = functional.dropout(kept, config.dropout)
      value = (value.unflatten(-1, (config.num_heads, -1)) * kept).flatten(2)
    attended = cross.out_proj(value)
    style = self.obj_vector(identity)
    token, keys, values, out = style, [], [], []
    for frame in range(audio.shape[1]):
      x = token + self.positions[frame % config.period]
      x = functional.dropout(x, config.dropout, self.training)
      query, key, value = functional.linear(
        x, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
      ).chunk(3, -1)
      keys.append(key)
      values.append(value)
      x = layer.norm1(x + layer.dropout1(self._attend(query, keys, values)))
      x = layer.norm2(x + layer.dropout2(attended[:, frame]))
      y = layer.linear2(layer.dropout(functional.relu(layer.linear1(x))))
      x = layer.norm3(x + layer.dropout3(y))
      expression = self.vertice_map_r(x)
      out.append(expression)
      token = self.vertice_map(expression) + style
    return torch.stack(out, 1)

  def _attend(self, query, keys, values):
    config = self.config
    first = 0 if config.context is None else max(0, len(keys) - config.context)
    split = (config.num_heads, -1)
    query = query.unflatten(-1, split)
    past = torch.stack(keys[first:], 1).unflatten(-1, split)
    logits = torch.einsum("bhc,bshc->bhs", query, past)
    age = torch.arange(len(keys) - 1 - first, -1, -1) // config.period
    bias = -self.slopes[:, None] * age
    weights = torch.softmax(logits / math.sqrt(query.shape[-1]) + bias, -1)
    weights = functional.dropout(weights, config.dropout, self.training)
    past = torch.stack(values[first:], 1).unflatten(-1, split)
    mixed = torch.einsum("bhs,bshc->bhc", weights, past).flatten(1)
    return self.transformer_decoder.layers[0].self_attn.out_proj(mixed)
