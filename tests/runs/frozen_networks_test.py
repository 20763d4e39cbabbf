"""What the losses know of the face is the data's own face model's."""

import numpy as np
import pytest

from pir_jax.face import morphable
from pir_jax.runs import frozen_networks
from pir_jax.types import FaceSpace, InputError


def _space(model, **changes):
  size = len(model.expression_names)
  space = FaceSpace(
    len(model.identity_basis),
    model.expression_names,
    np.zeros(size, np.float32),
    np.ones(size, np.float32),
    model.sha256,
  )
  return space._replace(**changes)


def test_lips_move_as_in_the_model_that_was_fitted(tmp_path, monkeypatch):
  head = morphable.load()
  basis = frozen_networks.lip_basis(_space(head))
  assert basis.shape == (52, 3 * len(morphable.LIPS))
  jaw = basis[head.expression_names.index("jawOpen")].reshape(-1, 3)
  low = morphable.LIPS.tolist().index(14)
  np.testing.assert_array_equal(jaw[low], head.landmark_expression[24, 14])
  monkeypatch.setattr(morphable.assets, "cache_directory", lambda: tmp_path)
  small = head._replace(
    expression_basis=head.expression_basis[:3],
    landmark_expression=2 * head.landmark_expression[:3],
    expression_names=("a", "b", "c"),
    jaw=np.zeros(3, np.float32),
  )
  small = morphable.save(small, tmp_path / "small.npz")
  found = frozen_networks.lip_basis(_space(small))
  np.testing.assert_array_equal(found, 2 * basis[:3])


def test_coefficients_of_no_known_model_are_refused():
  head = morphable.load()
  names = ("x", *head.expression_names[1:])
  with pytest.raises(InputError, match="none of the open head's"):
    frozen_networks.lip_basis(_space(head, expression_names=names))
  with pytest.raises(InputError, match="is not on this machine"):
    frozen_networks.lip_basis(_space(head, face_model="another"))
