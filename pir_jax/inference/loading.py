"""Opens a person from the runs of their networks.

It imports all that training needs; `opening` knows a quicker way.
"""

import functools
import pathlib

from pir_jax.inference import ready
from pir_jax.inference.person import KnownPerson, Networks
from pir_jax.runs import network_file
from pir_jax.runs.experiment import prior_of
from pir_jax.runs.run import Run, check_person, open_run, place_of, read_record
from pir_jax.types import InputError

_STAGES = ("expression", "inpainting")

Path = str | pathlib.Path


def known_people(model: Path) -> list[KnownPerson]:
  """Reads whom the runs in a folder were trained on, opening no network.

  Raises:
    InputError: there are no such runs.
  """
  record = read_record(place_of(pathlib.Path(model), "inpainting"))
  return [KnownPerson.from_record(person) for person in record["people"]]


def networks_of(expression: Run, inpainting: Run) -> Networks:
  """Joins two opened runs; the second holds the tri-plane network, frozen.

  Raises:
    InputError: they were trained with different face models.
  """
  if not inpainting.space.is_like(expression.space):
    raise InputError(
      "the runs were trained with different face models: train them again on "
      "one data set."
    )
  stages = (run.experiment.stage for run in (expression, inpainting))
  return Networks(
    expression.stage.speaker(expression.state),
    functools.partial(inpainting.stage.inpaint, inpainting.state),
    functools.partial(inpainting.stage.render, inpainting.state),
    inpainting.space,
    inpainting.experiment.data.resolution,
    prior_of(*stages),
    {x["sha256"]: x.get("shift", 0) for x in expression.people},
  )


def open_networks(
  model: pathlib.Path, place: pathlib.Path | None = None
) -> tuple[Networks, list[KnownPerson]]:
  """Opens the runs of a person; returns them and whom they were trained on.

  Args:
    model: folder with the runs `expression`, `triplane` and `inpainting`, or
      one that `python -m pir_jax.export` wrote.
    place: where they are kept for the next time; None keeps nothing.

  Raises:
    InputError: a run is missing or has no checkpoint, or they were trained with
      different face models.
  """
  check_person(model)
  if (model / network_file.INDEX).exists():
    network_file.check(model)
  people = known_people(model)
  if not people:
    raise InputError(
      f"{model} is a base and shows nobody: train a person from it, "
      f"--config.stage.init_from={model}."
    )
  runs = [open_run(place_of(model, name)) for name in _STAGES]
  networks = networks_of(*runs)
  if place is not None:
    ready.write(place, *runs, networks, runs[1].people)
    return ready.read(place, lambda: networks) or (networks, people)
  return networks, people
