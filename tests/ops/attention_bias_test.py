"""Attention biases are what the equations say; spans have their length."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from pir_jax.ops import attention_bias


def test_slopes_are_geometric():
  np.testing.assert_array_equal(
    attention_bias.head_slopes(4), [1 / 4, 1 / 16, 1 / 64, 1 / 256]
  )
  # ALiBi's rule between powers of two: 4 heads, then 2 of the 8-head slopes.
  np.testing.assert_array_equal(
    attention_bias.head_slopes(6),
    [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8],
  )


class AgreementTest(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  @parameterized.parameters(1, 25, 30)
  def test_temporal_bias_is_the_equation(self, period):
    frames = jnp.arange(60)
    bias = self.variant(
      lambda i, j: attention_bias.temporal_bias(
        i, j, num_heads=4, period=period
      )
    )(frames, frames)
    bias = np.asarray(bias)
    for head, slope in enumerate((1 / 4, 1 / 16, 1 / 64, 1 / 256)):
      for i in range(60):
        for j in range(60):
          want = -slope * ((i - j) // period) if j <= i else -np.inf
          assert bias[head, i, j] == want

  @chex.variants(with_jit=True, without_jit=True)
  def test_padding_gets_no_weight_and_a_row_of_it_stays_finite(self):
    valid = jnp.array([[True, True, False], [False, False, False]])

    def weights(logits):
      return jax.nn.softmax(attention_bias.padding_bias(valid) + logits)

    logits = jnp.zeros((2, 1, 1, 3))
    got = self.variant(weights)(logits)
    np.testing.assert_array_equal(got[0, 0, 0], [0.5, 0.5, 0.0])
    # 1 / 3 in float32.
    np.testing.assert_allclose(got[1, 0, 0], 1 / 3, rtol=1e-6)
    chex.assert_tree_all_finite(self.variant(jax.jacobian(weights))(logits))

  @chex.variants(with_jit=True, without_jit=True)
  def test_diagonal_bias_shows_one_key(self):
    logits = 1e4 * jnp.arange(25.0).reshape(5, 5)
    weights = self.variant(
      lambda x: jax.nn.softmax(x + attention_bias.diagonal_bias(5))
    )(logits)
    np.testing.assert_array_equal(weights, np.eye(5))

  @chex.variants(with_jit=True, without_jit=True)
  def test_spans_depend_on_the_key_alone(self):
    def spans(key):
      return attention_bias.random_spans(
        key, (3, 40), probability=0.3, span=5, min_spans=1
      )

    got, want = self.variant(spans)(jax.random.key(0)), spans(jax.random.key(0))
    np.testing.assert_array_equal(got, want)


def test_negative_keys_are_empty_slots():
  bias = attention_bias.temporal_bias(
    jnp.array([3]), jnp.array([0, -1, 3, -5]), num_heads=1, period=2
  )
  np.testing.assert_array_equal(np.isfinite(bias[0, 0]), [1, 0, 1, 0])


def test_context_hides_what_is_too_long_ago():
  frames = jnp.arange(60)
  near, all_of_them = (
    attention_bias.temporal_bias(
      frames, frames, num_heads=2, period=25, context=context
    )
    for context in (7, None)
  )
  distance = frames[:, None] - frames[None, :]
  np.testing.assert_array_equal(
    near, jnp.where(distance < 7, all_of_them, -jnp.inf)
  )
  np.testing.assert_array_equal(
    np.isfinite(near[0]).sum(axis=1), np.minimum(np.arange(60) + 1, 7)
  )


def test_frame_indices_may_be_large():
  frames = jnp.arange(60)
  near, far = (
    attention_bias.temporal_bias(
      frames[-1:] + late, frames + late, num_heads=2, period=7, context=40
    )
    for late in (0, 2_000_000_000)  # float32 is exact up to 2^24 only.
  )
  np.testing.assert_array_equal(near, far)


def runs_of(row):
  """Lengths of the runs of True."""
  edges = np.diff(np.concatenate([[0], row.astype(int), [0]]))
  return np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)


@pytest.mark.parametrize("seed", range(3))
def test_spans_have_their_length_and_stay_inside(seed):
  lengths = jnp.array([100, 40, 10, 9])
  hidden = np.asarray(
    attention_bias.random_spans(
      jax.random.key(seed),
      (4, 100),
      probability=0.05,
      span=10,
      min_spans=2,
      lengths=lengths,
    )
  )
  for row, length, spans in zip(hidden, lengths, (2, 2, 1, 0), strict=True):
    assert not row[length:].any()
    assert all(run >= 10 for run in runs_of(row))
    assert row.sum() <= 10 * spans
    # Distinct starts: two spans cover at least one frame more than one does.
    assert row.sum() >= (10 + spans - 1 if spans else 0)


def test_spans_start_everywhere_equally():
  hidden = attention_bias.random_spans(
    jax.random.key(0), (20_000, 12), probability=0.0, span=3, min_spans=1
  )
  starts = np.argmax(np.asarray(hidden), axis=1)
  share = np.bincount(starts, minlength=12) / 20_000
  # Ten starts fit; three standard deviations of a share of 0.1 are 0.0064.
  np.testing.assert_allclose(share[:10], 0.1, atol=0.0064)
  np.testing.assert_array_equal(share[10:], 0)


def test_span_longer_than_the_sequence_is_refused():
  with pytest.raises(ValueError, match="span=10 must lie in 1..5"):
    attention_bias.random_spans(
      jax.random.key(0), (1, 5), probability=0.1, span=10, min_spans=1
    )
