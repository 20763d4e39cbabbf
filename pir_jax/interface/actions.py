"""What the buttons of the page do: each makes a job of the commands.

No request names a path or an argument of a command: only people by their id,
uploads, and choices from lists.
"""

import pathlib
import shutil

from pir_jax.interface import jobs, people, uploads
from pir_jax.types import InputError

PREPARE, TRAIN = "prepare", "train"
SPEAK, COMPARE = "speak", "compare"
LONGEST = 60  # Seconds of a video that are learnt from.
_LOG_EVERY = 10
_MOST_STEPS = 100_000
# Steps between previews: evaluations cost about a second on a small clip.
_PREVIEW_EVERY = {"demo": 100, "live": 100, "small": 500}


class Actions:
  """The page's buttons."""

  def __init__(
    self,
    folder: pathlib.Path,
    experiments: pathlib.Path,
    most_bytes: int,
    **queue_options,
  ):
    """Opens the page's folder, and goes on with the jobs that wait in it.

    Args:
      folder: of the page; nothing outside it is written or shown.
      experiments: folder of the experiments' files.
      most_bytes: of an upload.
      **queue_options: see `jobs.Queue`.
    """
    self.people = people.People(folder / "people")
    self.uploads = uploads.Uploads(folder / "uploads", most_bytes)
    self._experiments = experiments
    self.queue = jobs.Queue(folder / "jobs", on_end=self.tidy, **queue_options)
    for person in self.people.all():
      self._tidy_person(person)
    self.queue.start()

  def prepare(self, name: str, upload: object) -> people.Person:
    """Makes a person of a video, and prepares it.

    Args:
      name: of the person; "" takes the file's.
      upload: the video, see `Uploads.take`.

    Raises:
      InputError: this is no video that can be taken.
    """
    person = self.people.add(name.strip() or _file_name(upload))
    try:
      clip = self.uploads.take(upload, "video", person.folder / "clip")
      self.queue.add(
        person.id,
        PREPARE,
        f"Preparing {person.name}",
        [
          [
            "prepare",
            f"--video={clip}",
            f"--output={person.data}",
            f"--max_seconds={LONGEST}",
          ],
          ["interface.source_copy", str(clip), str(person.source)],
        ],
      )
    except InputError:
      self.people.delete(person)
      raise
    return person

  def train(
    self, id: object, *, consent: object, variant: object, steps: object
  ) -> jobs.Job:
    """Trains a person's three networks, or goes on where it stopped.

    Args:
      id: of the person.
      consent: whether whoever clicks has this person's consent.
      variant: one of `people.VARIANTS`.
      steps: of each network; 0 takes the variant's own.

    Raises:
      InputError: something is missing, by name.
    """
    person = self._prepared(id)
    if not person.record.get("consent"):
      if consent is not True:
        raise InputError(
          "Training needs consent: tick the box if this is you, or if you have "
          "this person's consent."
        )
      person.allow()
    if not isinstance(variant, str) or variant not in people.VARIANTS:
      raise InputError("There is no such size: choose one of the list.")
    if type(steps) not in (int, float) or not 0 <= steps <= _MOST_STEPS:
      raise InputError(f"The steps must be 0 to {_MOST_STEPS}.")
    commands = [
      self._training(person, stage, variant, int(steps))
      for stage in people.STAGES
    ]
    done = [
      command
      for job in self.queue.jobs(person.id)
      for command in job.commands[: job.step]
    ]
    left = [command for command in commands if command not in done] or commands
    title = f"Training {person.name}"
    return self.queue.add(person.id, TRAIN, title, left, variant)

  def speak(self, id: object, upload: object) -> jobs.Job:
    """Makes a video in which a person speaks what was uploaded.

    Raises:
      InputError: the person is not trained, or this is no speech.
    """
    person = self._prepared(id)
    model = self._model(person)
    folder = person.new_video(_file_name(upload))
    try:
      speech = self.uploads.take(upload, "speech", folder / "speech")
      command = [
        "reenact",
        f"--model={model}",
        f"--video={person.clip}",
        f"--audio={speech}",
        f"--output={folder / 'out.mp4'}",
      ]
      title = f"{person.name} speaks"
      return self.queue.add(person.id, SPEAK, title, [command], folder.name)
    except InputError:
      shutil.rmtree(folder)
      raise

  def compare(self, id: object) -> jobs.Job:
    """Measures a trained person on the frames that were held out.

    Raises:
      InputError: the person is not trained.
    """
    person = self._prepared(id)
    model = self._model(person)
    command = [
      "evaluate",
      f"--model={model}",
      f"--data={person.data}",
      f"--output={model / 'report'}",
    ]
    title = f"Measuring {person.name}"
    return self.queue.add(person.id, COMPARE, title, [command])

  def stop(self, id: object) -> None:
    """Stops what runs or waits for a person."""
    for job in self.queue.jobs(self.people.get(id).id):
      self.queue.stop(job.name)

  def delete(self, id: object) -> None:
    """Deletes a person: clip, networks, videos, jobs and logs."""
    person = self.people.get(id)
    self.queue.forget(person.id)
    self.people.delete(person)

  def newest(self, person: people.Person, kind: str) -> jobs.Job | None:
    """Returns a person's newest job of a kind."""
    of_kind = [job for job in self.queue.jobs(person.id) if job.kind == kind]
    return of_kind[-1] if of_kind else None

  def tidy(self, job: jobs.Job) -> None:
    """Removes the speech of a video that was made, or was not."""
    try:
      self._tidy_person(self.people.get(job.person))
    except InputError:  # Deleted meanwhile.
      return

  def close(self) -> None:
    """Stops what runs, and removes what nobody took."""
    self.queue.close()
    self.uploads.sweep(0.0)

  def _tidy_person(self, person: people.Person) -> None:
    active = {
      job.note
      for job in self.queue.jobs(person.id)
      if job.kind == SPEAK and job.state in jobs.ACTIVE
    }
    for video in person.videos():
      folder = person.folder / "videos" / video.id
      if video.id in active:
        continue
      if not video.is_made:
        shutil.rmtree(folder, ignore_errors=True)
        continue
      for path in folder.glob("speech.*"):
        path.unlink(missing_ok=True)

  def _prepared(self, id: object) -> people.Person:
    person = self.people.get(id)
    if person.prepared() is None:
      raise InputError("This person's video is not prepared yet: wait for it.")
    return person

  def _model(self, person: people.Person) -> pathlib.Path:
    variant = person.variant()
    if variant is None:
      raise InputError("This person is not trained yet: train to the end.")
    return person.runs(variant)

  def _training(
    self, person: people.Person, stage: str, variant: str, steps: int
  ) -> list[str]:
    command = [
      "train",
      f"--config={self._experiments / stage}.py:{variant}",
      f"--config.data.path={person.data}",
      f"--workdir={person.runs(variant) / stage}",
      f"--config.loop.log_every={_LOG_EVERY}",
    ]
    if stage != "expression":
      every = _PREVIEW_EVERY[variant]
      command.append(f"--config.loop.evaluate_every={every}")
    if steps:
      command.append(f"--config.loop.num_steps={steps}")
    return command


def _file_name(upload: object) -> str:
  """Returns what a file was called where it is from, without its suffix."""
  values = upload if isinstance(upload, dict) else {}
  name = values.get("orig_name") or values.get("path") or ""
  return pathlib.PurePath(str(name).replace("\\", "/")).stem
