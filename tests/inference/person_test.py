"""Who is in a video, and how they are tracked."""

import dataclasses

import numpy as np
import pytest

from pir_jax.face import masks
from pir_jax.inference import loading
from pir_jax.inference import person as person_lib
from pir_jax.runtime import checkpoint
from pir_jax.types import InputError

CONFIG = masks.Config(region="lower", face_margin=0.1)
KNOWN = {
  "sha256": "a",
  "source": "a.mp4",
  "identity": [1.0, 2.0],
  "masks": dataclasses.asdict(CONFIG),
  "resolution": 512,
}
OTHER = KNOWN | {"sha256": "b", "identity": [3.0, 4.0], "masks": {}}


def person_in(tmp_path, *people):
  checkpoint.write_record(tmp_path / "inpainting", {"people": list(people)})
  return person_lib.person_in(loading.known_people(tmp_path), "a")


def test_masks_are_those_the_person_was_trained_with(tmp_path):
  known = person_in(tmp_path, OTHER, KNOWN)
  np.testing.assert_array_equal(known.identity, [1, 2])
  assert known.masks == CONFIG
  assert person_in(tmp_path, OTHER).masks == masks.Config()


def test_a_new_video_of_one_of_several_is_refused(tmp_path):
  with pytest.raises(InputError, match="none of these videos"):
    person_in(tmp_path, OTHER, OTHER | {"sha256": "c"})


def test_a_head_model_of_another_machine_is_refused(tmp_path):
  bfm = KNOWN | {"face_model": {"name": "bfm", "sha256": "f"}}
  with pytest.raises(InputError, match="face model bfm .*is not on this"):
    person_in(tmp_path, bfm).tracking_options()
