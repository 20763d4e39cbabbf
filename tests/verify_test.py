"""`pir-jax verify` names the marks of files, or what is wrong with them."""

import json

from pir_jax.data import synthetic


def test_files_are_examined_and_a_wrong_one_is_a_sentence(
  run_command, tmp_path
):
  video = tmp_path / 'a "b".mp4'
  synthetic.write_video(video, num_frames=4)
  code, lines, _ = run_command("verify", video)
  assert code == 0 and lines[0] == str(video)
  assert any("manifest:  none" in line for line in lines)
  code, lines, _ = run_command("verify", "--json", video)
  assert code == 0 and json.loads("\n".join(lines))["manifest"] is None
  text = tmp_path / "text.mp4"
  text.write_text("text")
  for arguments in ((), (text,), (tmp_path / "nowhere.mp4",)):
    code, _, errors = run_command("verify", *arguments)
    assert code == 1 and len(errors) == 1
  # What can be examined is, and every other one is named.
  code, lines, errors = run_command("verify", text, video, tmp_path / "no.mp4")
  assert code == 1 and str(video) in lines
  assert "text.mp4" in errors[0] and "no.mp4" in errors[1]
