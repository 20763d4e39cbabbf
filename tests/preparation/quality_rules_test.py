"""What makes a clip good, usable or rejected, in figures and in words."""

import pytest

from pir_jax.preparation import quality_figures, quality_rules

GOOD = dict(
  level="good",
  reasons=[],
  seconds=8.0,
  rate=25.0,
  width=512,
  height=512,
  num_frames=200,
  measured=0.99,
  interpolated=0.01,
  absent=0.0,
  longest_gap=0.08,
  num_shots=1,
  num_people=1,
  learnable=0.98,
  hidden=0.0,
  cut=0.0,
  text=0.0,
  hidden_times=[],
  cut_times=[],
  text_times=[],
  light=120.0,
  white=0.0,
  even=0.08,
  tilt=3.0,
  noise_level=1.5,
  lip_motion=0.05,
  face_height=300.0,
  smallest_face=280.0,
  detail=1.8,
  effective_height=166.0,
  fit_error=0.011,
  worst_error=0.02,
  worst_time=3.1,
  yaw=[-12.0, 9.0],
  pitch=[-3.0, 8.0],
  roll=[-4.0, 4.0],
  blinks=20.0,
  sound_seconds=8.0,
  sound_rate=48000,
  loudness=-20.0,
  noise=-60.0,
  speech=-18.0,
  clipped=0.0001,
  silence=0.2,
  shift=0.01,
  shift_error=0.024,
  shift_unknown="",
  num_phones=120,
  num_closures=9,
)
DOUBTS = [
  (dict(measured=0.8), "usable"),
  (dict(measured=0.4), "rejected"),
  (dict(measured=0.1), "rejected"),
  (dict(face_height=54.0, effective_height=40.0), "usable"),
  (dict(face_height=20.0, effective_height=15.0), "rejected"),
  (dict(detail=6.0, effective_height=50.0), "usable"),
  (dict(detail=15.0, effective_height=20.0), "rejected"),
  (dict(hidden=0.3, hidden_times=[[0.0, 2.4]]), "usable"),
  (dict(hidden=0.9, hidden_times=[[0.0, 8.0]]), "rejected"),
  (dict(cut=0.3, cut_times=[[0.0, 2.4]]), "usable"),
  (dict(text=0.3, text_times=[[0.0, 2.4]]), "usable"),
  (dict(learnable=0.1), "rejected"),
  (dict(light=25.0), "usable"),
  (dict(light=5.0), "rejected"),
  (dict(white=0.2), "usable"),
  (dict(white=0.8), "rejected"),
  (dict(even=0.6), "rejected"),
  (dict(tilt=-90.0), "rejected"),
  (dict(tilt=179.0), "rejected"),
  (dict(lip_motion=0.001), "rejected"),
  (dict(noise_level=12.0), "usable"),
  (dict(fit_error=0.03), "usable"),
  (dict(fit_error=0.08), "rejected"),
  (dict(worst_error=0.2), "usable"),
  (dict(yaw=[-70.0, 5.0]), "usable"),
  (dict(sound_seconds=0.0), "usable"),
  (dict(sound_seconds=4.0), "usable"),
  (dict(loudness=None), "usable"),
  (dict(loudness=-50.0), "usable"),
  (dict(clipped=0.02), "usable"),
  (dict(noise=-25.0), "usable"),
  (dict(silence=0.9), "usable"),
  (dict(shift=0.1), "usable"),
  (dict(shift=-0.1), "usable"),
  (dict(shift=0.3), "rejected"),
  (dict(shift=-0.3), "rejected"),
]


def test_nothing_wrong_is_good():
  assert quality_rules.grade(GOOD) == ("good", [])


@pytest.mark.parametrize("change, level", DOUBTS, ids=str)
def test_a_doubt_has_a_level_words_and_a_place(change, level):
  worst, reasons = quality_rules.grade(GOOD | change)
  assert worst == level == reasons[0]["level"]
  for reason in reasons:
    assert reason["what"].endswith(".") and reason["remedy"].endswith(".")
  # Without a second reason for the same thing.
  shown = quality_figures.figures(GOOD | change)
  places = [[f.title for f in shown if r["figure"] in f.names] for r in reasons]
  assert all(len(place) == 1 for place in places), reasons
  if change != dict(measured=0.1):
    assert len(reasons) == 1


def test_the_worst_reason_comes_first():
  change = dict(clipped=0.02, shift=0.3, face_height=54.0)
  worst, reasons = quality_rules.grade(GOOD | change)
  levels = [reason["level"] for reason in reasons]
  assert worst == "rejected"
  assert levels == ["rejected", "usable", "usable"]


def test_what_is_unknown_is_no_fault():
  unknown = dict(
    detail=None,
    effective_height=None,
    blinks=None,
    shift=None,
    shift_error=None,
  )
  assert quality_rules.grade(GOOD | unknown)[0] == "good"


@pytest.mark.parametrize("shift", [0.25, -0.25])
def test_the_remedy_moves_the_sound_back(shift):
  _, (reason,) = quality_rules.grade(GOOD | dict(shift=shift))
  assert f"-itsoffset {-shift:.3f} " in reason["remedy"]
  assert ("after" in reason["what"]) == (shift > 0)


def test_limits_are_a_config():
  strict = quality_rules.Config(face_height=(400.0, 32.0))
  assert quality_rules.grade(GOOD, strict)[0] == "usable"


def test_lines_hold_all_of_it():
  change = dict(shift=None, shift_unknown="the video is silent.", clipped=0.02)
  values = GOOD | change
  values["level"], values["reasons"] = quality_rules.grade(values)
  text = "\n".join(quality_figures.lines(values))
  assert "unknown: the video is silent." in text
  assert "quality: usable" in text
  assert "clipped" in text and "300 px" in text


def test_a_face_that_was_never_seen_can_be_described():
  names = (
    "face_height smallest_face detail effective_height fit_error worst_error "
    "worst_time yaw pitch roll blinks loudness noise speech clipped silence"
  )
  nothing = dict.fromkeys(names.split()) | dict(measured=0.0, sound_seconds=0.0)
  assert quality_rules.grade(GOOD | nothing)[0] == "rejected"
  shown = quality_figures.figures(GOOD | nothing)
  assert [f.text for f in shown].count(quality_figures.UNKNOWN) >= 4
