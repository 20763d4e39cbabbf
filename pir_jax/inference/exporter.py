"""Exports a person's three runs to files that others can read."""

import dataclasses
import pathlib
from typing import Any

from pir_jax.runs import network_file
from pir_jax.runs.run import (
  Run,
  check_person,
  open_run,
  place_of,
  read_record,
)
from pir_jax.stages import expression, train_state
from pir_jax.types import InputError

_CARD = """\
# {people}

Three networks of the design of PIR (CVPR 2023), trained with
pir_jax {version}: from speech to the expressions of one face, from expressions
to its rendering, and from a masked frame to the frame.

| network | steps | parameters |
|---|---|---|
{rows}

- Learnt from: {people}. The identity coefficients of whom it shows are in the
  files: treat them as personal data.
- Made for: videos of the people above who agreed to it, at {side}x{side} pixels
  of the face's window. It knows no other face.
- Not for: showing people what they did not say as if they had said it.
- Licence: the weights follow the terms of the footage, and of the networks that
  training began from{start}.

```python
import pir_jax
person = pir_jax.load("path/to/this/folder")
pir_jax.reenact(person, video="me.mp4", audio="speech.wav", output="out.mp4")
```

Train on from here: `--config.stage.init_from=path/to/this/folder`.
Files: safetensors, with hashes in config.json; nothing in them is executed.
"""

_BASE_CARD = """\
# A base for new people

Three networks of the design of PIR (CVPR 2023), trained with
pir_jax {version} on many people, to begin the training of another from:
`--config.stage.init_from=path/to/this/folder`.

| network | steps | parameters |
|---|---|---|
{rows}

Made for windows of the face of {side}x{side} pixels. Whom it learnt from is not
in the files: names, identity coefficients and videos' hashes are left out.
Files: safetensors, with hashes in config.json; nothing in them is executed.
"""


def export(
  model: pathlib.Path, output: pathlib.Path, *, base: bool = False
) -> str:
  """Writes trained networks to a new folder, and returns a summary.

  Args:
    model: folder with the runs of the three stages.
    output: to make.
    base: leave out whom they learnt from: others are to begin from them, and
      they show nobody.

  Raises:
    InputError: a run is missing, the folder is there, or a network needs a file
      that is not part of it.
  """
  if output.exists():  # Before the runs are opened, which takes a while.
    raise InputError(f"{output} is there already: choose another --output.")
  check_person(model)
  records, arrays = {}, {}
  for stage in network_file.STAGES:
    place = place_of(model, stage)
    run = open_run(place)
    records[stage] = _record(place, run)
    if base:
      records[stage]["people"] = []
    arrays[stage] = train_state.learnt(run.state)
  card = _card(_BASE_CARD if base else _CARD, records, arrays)
  name = "MODEL_CARD.md" if base else "README.md"
  network_file.write_person(output, records, arrays, card, name)
  size = sum(path.stat().st_size for path in output.iterdir())
  return f"{output}: {len(arrays)} networks, {size / 2**20:.1f} MiB"


def _record(place: pathlib.Path, run: Run) -> dict[str, Any]:
  record = read_record(place) | {"step": run.step}
  record.setdefault("triplane_step", None)
  config = run.experiment.stage
  if isinstance(config, expression.Config):
    if run.stage.tuned:
      record["encoder"] = dataclasses.asdict(run.stage.encoder_config)
    elif config.encoder_path:
      raise InputError(
        f"the expression network needs {config.encoder_path}, a file "
        "that is not part of it: export a run with the packaged encoder."
      )
  return record


def _card(template, records, arrays) -> str:
  people = [p["source"] for p in records["triplane"]["people"]]
  rows = [
    f"| {stage} | {record['step']} | "
    f"{sum(array.size for array in arrays[stage].values()) / 1e6:.2f} M |"
    for stage, record in records.items()
  ]
  begun = {
    pathlib.PurePath(record["config"]["stage"].get("init_from", "")).name
    for record in records.values()
  } - {""}
  return template.format(
    people=", ".join(people),
    version=records["inpainting"]["versions"]["pir_jax"],
    rows="\n".join(rows),
    side=records["inpainting"]["config"]["data"]["resolution"],
    start=f" ({', '.join(sorted(begun))})" if begun else "",
  )
