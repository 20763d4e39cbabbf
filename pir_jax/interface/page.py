"""The page: Prepare, Train, Speak, Compare, in Gradio.

Thin: what buttons do is in `actions`, what is shown in `views`. Every part is
rendered from what is on disk, again and again, so that a reload, a second
browser and a restart of the server show the same.
"""

import functools
import html
from typing import Any

import gradio as gr

from pir_jax.interface import actions, jobs, people, views
from pir_jax.types import InputError

_SECONDS = 2.0  # Between two looks at what the jobs do.
TITLE = "pir_jax"
# System fonts: others would be loaded from another host.
THEME = gr.themes.Default(
  font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(block_info_text_color="*neutral_500")
_INTRODUCTION = """# pir_jax
A video of a person and a speech file in; the video with the face speaking the
new words out. Everything stays on this computer."""
_PREPARE = """A good video shows **one person talking to the camera for half a
minute**, well lit, nothing before the face; ten seconds are enough to try. Of a
longer one the best minute is taken. It is prepared as soon as it is
uploaded."""
_SPEAK = """Any sound or video file with speech, for example a voice memo; or
record a few sentences. The video gets as long as the speech."""


def build(desk: actions.Actions) -> gr.Blocks:
  """Builds the page."""
  with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
    shown = gr.State([])
    gr.Markdown(_INTRODUCTION)
    person = gr.Dropdown(
      [], label="Person", info="Whoever was prepared on this page."
    )
    status = gr.HTML()
    stop = gr.Button(
      "Stop", variant="stop", size="sm", visible=False, elem_classes="pir-stop"
    )
    with gr.Tabs():
      with gr.Tab("Prepare"):
        with gr.Row():
          with gr.Column():
            gr.Markdown(_PREPARE)
            name = gr.Textbox(
              label="Name",
              info="Optional: else the name of the file.",
              placeholder="Katie",
              max_length=60,
            )
            prepare = gr.Button("Prepare the recording", visible=False)
          video = gr.Video(
            label="Video of the person",
            sources=["upload", "webcam"],
            webcam_options=gr.WebcamOptions(mirror=False),
            include_audio=True,
            buttons=[],
          )
        verdict = gr.HTML()
      with gr.Tab("Train"):
        with gr.Row():
          with gr.Column():
            consent = gr.Checkbox(
              label="This is me, or I have this person's consent."
            )
            variant = gr.Radio(
              [(words, name) for name, words in people.VARIANTS.items()],
              value="demo",
              label="Size",
            )
          with gr.Column():
            steps = gr.Number(
              0,
              label="Steps of each network",
              info="0 takes as many as the size needs; 20 only show that it "
              "works.",
              minimum=0,
              precision=0,
            )
            train = gr.Button("Train", variant="primary", interactive=False)
            gr.Markdown("It may be stopped at any time and goes on from there.")
        training = gr.HTML()
      with gr.Tab("Speak"):
        with gr.Row():
          speech = gr.Audio(
            label="Speech",
            sources=["upload", "microphone"],
            type="filepath",
            editable=False,
            buttons=[],
          )
          with gr.Column():
            gr.Markdown(_SPEAK)
            speak = gr.Button("Speak", variant="primary", interactive=False)
        videos = gr.HTML()
      with gr.Tab("Compare"):
        compare = gr.Button("Measure on held-out frames", interactive=False)
        comparison = gr.HTML()
    with gr.Accordion("Log of the newest job", open=False):
      log = gr.HTML()
    with gr.Accordion("Delete this person", open=False):
      gr.Markdown("Deletes the video, the networks and all that was made.")
      sure = gr.Checkbox(label="Yes, delete all of it.")
      delete = gr.Button("Delete", variant="stop")

    looked_at = [person, shown]
    parts = [status, verdict, training, videos, comparison, log]
    buttons = [stop, train, speak, compare, consent]
    everything = [person, *parts, *buttons, shown]
    quiet = {
      "api_visibility": "private",
      "show_progress": "hidden",
      "queue": True,
      "concurrency_limit": None,
    }
    look = functools.partial(_look, desk)
    # Raw values: a page that is still open when the server was started again
    # names people that this server has not listed to it.
    refresh = {
      "fn": look,
      "inputs": looked_at,
      "outputs": everything,
      "preprocess": False,
      **quiet,
    }

    def on(trigger, action, inputs, outputs):
      # Raw values, which `actions` and `uploads` check.
      done = trigger(
        _sentences(functools.partial(action, desk)),
        inputs,
        outputs,
        preprocess=False,
        **quiet,
      )
      done.then(**refresh)

    taken = [person, video, name, prepare]
    on(video.upload, _prepare, [name, video], taken)
    on(prepare.click, _prepare, [name, video], taken)
    video.stop_recording(
      lambda: gr.Button(visible=True), None, prepare, **quiet
    )
    video.clear(lambda: gr.Button(visible=False), None, prepare, **quiet)
    on(train.click, _train, [person, consent, variant, steps], [])
    on(speak.click, _speak, [person, speech], [speech])
    on(compare.click, _compare, [person], [])
    on(stop.click, _stop, [person], [])
    on(delete.click, _delete, [person, sure], [person, sure])
    person.input(**refresh)
    page.load(**refresh)
    gr.Timer(_SECONDS).tick(**refresh)
  return page


def _sentences(action):
  """Shows an InputError of an action as its sentence."""

  @functools.wraps(action, assigned=())
  def guarded(*values):
    try:
      return action(*values)
    except InputError as error:
      # The toast takes HTML, and a sentence may name a file.
      raise gr.Error(
        html.escape(str(error)), duration=15, print_exception=False
      ) from None

  return guarded


def _prepare(desk, name, upload) -> list[Any]:
  person = desk.prepare(name if isinstance(name, str) else "", upload)
  return [
    _picker(desk, person.id),
    None,
    "",
    gr.Button(visible=False),
  ]


def _train(desk, id, consent, variant, steps) -> None:
  desk.train(id, consent=consent, variant=variant, steps=steps)


def _speak(desk, id, upload) -> None:
  desk.speak(id, upload)


def _compare(desk, id) -> None:
  desk.compare(id)


def _stop(desk, id) -> None:
  desk.stop(id)


def _delete(desk, id, sure) -> list[Any]:
  if sure is not True:
    raise InputError("Tick the box first: what is deleted is gone.")
  desk.delete(id)
  return [_picker(desk, None), False]


def _picker(desk, id: object) -> dict:
  """Returns the list of people, one of them chosen, else the newest."""
  everybody = desk.people.all()
  ids = [person.id for person in everybody]
  chosen = id if id in ids else next(iter(ids), None)
  choices = [(person.name, person.id) for person in everybody]
  return gr.update(choices=choices, value=chosen)


def _look(desk, id: object, shown: list[int]) -> list[Any]:
  """Returns what changed since the last look of this browser."""
  picker = _picker(desk, id)
  chosen = picker["value"]
  person = desk.people.get(chosen) if chosen else None
  own = desk.queue.jobs(chosen) if chosen else []
  busy = {job.kind for job in own if job.state in jobs.ACTIVE}
  is_trained = person is not None and person.variant() is not None
  is_prepared = person is not None and person.prepared() is not None
  last = person and desk.newest(person, actions.TRAIN)
  goes_on = last is not None and last.state in (jobs.STOPPED, jobs.FAILED)
  values = [
    picker,
    *map(str, views.render(desk, person)),
    gr.update(visible=bool(busy)),
    gr.update(
      interactive=is_prepared and actions.TRAIN not in busy,
      value="Go on" if goes_on else "Train",
    ),
    gr.update(interactive=is_trained and actions.SPEAK not in busy),
    gr.update(interactive=is_trained and actions.COMPARE not in busy),
    gr.update(visible=not (person and person.record.get("consent"))),
  ]
  # Values that did not change are not sent: a video would begin anew.
  new = [hash(repr(value)) for value in values]
  old = shown or [None] * len(new)
  pairs = zip(values, old, new, strict=True)
  return [*(gr.skip() if a == b else value for value, a, b in pairs), new]
