"""The page, in Gradio: what is asked for, and the takes that come of it."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any

import gradio as gr

from valle_jax.demo.picture import draw_take
from valle_jax.demo.speaking import Takes, heard, read_recording, speak
from valle_jax.errors import UserError, WorkError
from valle_jax.inference.request import Options
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.voice import Voice, find_voice, list_voices
from valle_jax.inference.voice_command import complaints

REPETITION_WINDOW = 10  # VALL-E 2's K
NO_VOICE = "the recording"
_LONGEST_TEXT = 2_000  # letters
_MOST_WAITING = 32  # people
_CACHE = (600, 3600)  # seconds between two looks at Gradio's copies of audio and pictures; and how old they become
_THEME = gr.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
_PLAYER = gr.WaveformOptions(show_recording_waveform=False)  # the picture below has one with a scale
_STYLE = """
.gradio-container { max-width: 1400px !important }
#takes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)) }
#takes > * { max-width: 600px }
"""


class Page:
    """The page of a model.

    Args:
      tts: the model.
      options: what the controls are set to.
      voices: folder of stored voices; None: the user's.
      recogniser: that writes down what a recording without a transcript says.
      most_takes: of a text that can be asked for.
    """

    def __init__(self, tts: Synthesizer, options: Options, *, voices: str | None, recogniser: str, most_takes: int):
        self._tts, self._options = tts, options
        self._voices, self._recogniser, self._most_takes = voices, recogniser, most_takes
        self._folder = tempfile.TemporaryDirectory(prefix="valle-demo-")  # the last takes: Gradio shows copies
        self._blocks = self._build()

    def launch(self, host: str, port: int) -> str:
        """Starts to serve and returns the address; UserError where the port is taken."""
        try:
            _, url, _ = self._blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                max_file_size="20mb",
                theme=_THEME,
                css=_STYLE,
            )
        except OSError:
            raise UserError(f"cannot listen on {host}, port {port}; --port names another one") from None
        return url

    def serve(self, host: str, port: int) -> None:
        """Serves until it is interrupted."""
        print(self.launch(host, port), flush=True)
        self._blocks.block_thread()

    def close(self) -> None:
        """Stops serving."""
        self._blocks.close(verbose=False)
        self._folder.cleanup()

    def _build(self) -> gr.Blocks:
        info = self._tts.codec.info
        with gr.Blocks(title="valle-jax", analytics_enabled=False, fill_width=True, delete_cache=_CACHE) as blocks:
            gr.Markdown(
                f"## VALL-E: a text, in the voice of three seconds\n{info.name}: {info.codebooks} codebooks, "
                f"{info.frames_per_second:g} frames a second. "
                "Use voices of people who agreed to it, and label the result."
            )
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    asked, voice, button = self._controls()
                with gr.Column(scale=4, min_width=480):
                    table = gr.Dataframe(
                        headers=["take", "seconds", "log-probability", "problems"],
                        label="Takes",
                        interactive=False,
                        buttons=[],
                        elem_id="table",
                    )
                    with gr.Row(elem_id="takes"):
                        shown = [self._take(i) for i in range(self._most_takes)]
            button.click(
                self._speak,
                asked,
                [asked[2], table, *(part for parts in shown for part in parts)],
                concurrency_limit=1,
                api_visibility="private",
            )
            blocks.load(self._choices, None, voice, api_visibility="private")
        return blocks.queue(max_size=_MOST_WAITING)

    def _controls(self) -> tuple[list[gr.components.Component], gr.Dropdown, gr.Button]:
        """All controls, in the order of the arguments of `_speak`; of them the voices; and what starts it."""
        options, sampling = self._options, self._options.sampling
        text = gr.Textbox(label="Text", lines=2, max_length=_LONGEST_TEXT, placeholder="What to say", elem_id="text")
        recording = gr.Audio(label="Voice: about 3 seconds", type="filepath", buttons=[], elem_id="prompt")
        transcript = gr.Textbox(
            label="What the recording says", placeholder=f"empty: what {self._recogniser} hears", elem_id="transcript"
        )
        voice = gr.Dropdown(
            [NO_VOICE, *list_voices(self._voices)], value=NO_VOICE, label="Or a stored voice", elem_id="voice"
        )
        with gr.Row():
            takes = gr.Slider(1, self._most_takes, value=min(2, self._most_takes), step=1, label="Takes", min_width=120)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=120, elem_id="seed")
        button = gr.Button("Speak", variant="primary", elem_id="speak")
        with gr.Accordion("Sampling", open=False):
            temperature = _slider("Temperature", sampling.temperature, 0, 2, 0.05)
            top_p = _slider("Top-p: 1 switches it off", sampling.top_p, 0.05, 1, 0.05)
            top_k = _slider("Top-k: 0 switches it off", sampling.top_k, 0, 200, 1)
            min_p = _slider("Min-p: 0 switches it off", sampling.min_p, 0, 0.5, 0.01)
            aware = gr.Checkbox(sampling.repetition_window > 0, label="Repetition-aware (VALL-E 2)")
            guidance = _slider("Guidance by the text, for decoders trained with it", sampling.guidance, 1, 5, 0.5)
            nar_temperature = _slider("NAR temperature", options.nar_temperature, 0, 2, 0.05)
            nar_guidance = _slider("NAR guidance by the voice", options.nar_guidance, 1, 5, 0.5)
        asked = [text, recording, transcript, voice, takes, seed, temperature, top_p, top_k, min_p, aware, guidance]
        return [*asked, nar_temperature, nar_guidance], voice, button

    @staticmethod
    def _take(number: int) -> tuple[gr.Column, gr.Audio, gr.Image]:
        """The place of a take."""
        with gr.Column(visible=False, min_width=300, elem_id=f"take-{number}") as column:
            audio = gr.Audio(interactive=False, buttons=["download"], waveform_options=_PLAYER)
            picture = gr.Image(interactive=False, show_label=False, buttons=["download", "fullscreen"])
        return column, audio, picture

    def _choices(self) -> gr.Dropdown:
        """The voices that are there now."""
        return gr.Dropdown([NO_VOICE, *list_voices(self._voices)])

    def _speak(
        self,
        text: str,
        recording: str | None,
        transcript: str,
        voice: str,
        takes: int,
        seed: int,
        temperature: float,
        top_p: float,
        top_k: int,
        min_p: float,
        aware: bool,
        guidance: float,
        nar_temperature: float,
        nar_guidance: float,
    ) -> list[Any]:
        """The transcript, the table and the takes."""
        window = (self._options.sampling.repetition_window or REPETITION_WINDOW) if aware else 0
        try:
            sampling = dataclasses.replace(
                self._options.sampling,
                temperature=temperature,
                top_p=top_p,
                top_k=int(top_k),
                min_p=min_p,
                repetition_window=window,
                guidance=guidance,
            )
            options = dataclasses.replace(
                self._options,
                sampling=sampling,
                best_of=int(takes),
                nar_temperature=nar_temperature,
                nar_guidance=nar_guidance,
            )
            spoken_by, transcript = self._voice(recording, transcript, voice)
            said = speak(self._tts, text, spoken_by, seed=seed, options=options)
        except (UserError, WorkError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        return [transcript, _table(said), *self._show(said, seed)]

    def _voice(self, recording: str | None, transcript: str, name: str) -> tuple[Voice, str]:
        """The voice, and the transcript of the recording."""
        if name != NO_VOICE:
            return find_voice(name, self._voices), transcript
        if recording is None:
            raise UserError("record a voice, upload one, or choose a stored one")
        samples = read_recording(self._tts, recording)
        transcript = transcript.strip() or heard(self._tts, samples, self._recogniser)
        voice = self._tts.voice(samples, transcript)
        for complaint in complaints(samples):
            gr.Warning(f"the recording can be used, but {complaint}")
        return voice, transcript

    def _show(self, said: Takes, seed: int) -> list[Any]:
        """What fills the places of the takes; the others are hidden."""
        folder = pathlib.Path(self._folder.name)
        for old in folder.iterdir():
            old.unlink()
        seconds = max(audio.info["seconds"] for audio in said.audios)
        updates: list[Any] = []
        for i, audio in enumerate(said.audios):
            path = folder / f"seed{seed}-take{i}.wav"
            audio.save(path)
            draw_take(path.with_suffix(".png"), audio, max(seconds, 0.1))
            label = f"Take {i}" + (" (best)" if i == said.best else "")
            updates += [gr.Column(visible=True), gr.Audio(str(path), label=label), str(path.with_suffix(".png"))]
        hidden = self._most_takes - len(said.audios)
        return updates + [gr.Column(visible=False), None, None] * hidden


def _slider(label: str, value: float, least: float, most: float, step: float) -> gr.Slider:
    """A control that can be set to the value it has."""
    return gr.Slider(min(least, value), max(most, value), value, step=step, label=label)


def _table(said: Takes) -> list[list[str]]:
    """A row of each take."""
    return [
        [
            f"{i} (best)" if i == said.best else str(i),
            f"{audio.info['seconds']:.2f}",
            f"{audio.info['log_probability']:.3f}",
            ", ".join(audio.info["problems"]).replace("_", " ") or "none",
        ]
        for i, audio in enumerate(said.audios)
    ]
