"""Opens a person: at once, where their networks were kept ready."""

import importlib
import pathlib

from pir_jax.inference import ready
from pir_jax.inference.person import Person
from pir_jax.runtime import section_timer
from pir_jax.types import InputError

Path = str | pathlib.Path


def load(
  model: Path,
  *,
  person: int = 0,
  batch_size: int = ready.BATCHES[-1],
  phases: section_timer.SectionTimer | None = None,
) -> Person:
  """Opens a person: the runs of the three stages, each once.

  The first time, their networks are kept as programs; from then on they are
  opened in a second, as long as runs, package and machine are the same.

  Args:
    model: folder with the runs `expression`, `triplane` and `inpainting`, or
      one that `python -m pir_jax.export` wrote.
    person: which one, counted from 0, where they were trained on several.
    batch_size: frames rendered at once.
    phases: where the time of every batch is recorded.

  Raises:
    InputError: a run is missing or has no checkpoint, they were trained with
      different face models, or there is no such person.
  """
  model = pathlib.Path(model)
  # Its imports take longer than all that follows here.
  heavy = "pir_jax.inference.loading"
  place = ready.place_of(model)

  def opened():
    return importlib.import_module(heavy).open_networks(model)[0]

  opened_before = ready.read(place, opened)
  if opened_before is None:
    opened_before = importlib.import_module(heavy).open_networks(model, place)
  networks, people = opened_before
  if not 0 <= person < len(people):
    raise InputError(
      f"the people of {model} are numbered from 0 to {len(people) - 1}: there "
      f"is no person={person}."
    )
  opened_person = Person(
    networks,
    people,
    people[person].identity,
    people[person].stats,
    batch_size=batch_size,
    phases=phases,
  )
  opened_person.folder = model
  return opened_person
