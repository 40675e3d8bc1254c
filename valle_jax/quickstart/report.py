"""report.html, report.json, the recordings and the pictures of a quickstart."""

from __future__ import annotations

import datetime
import html
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from valle_jax.audio import write_audio
from valle_jax.codec.mel_rvq import log_mel
from valle_jax.quickstart.scores import Scores
from valle_jax.quickstart.trial import Case, Spoken
from valle_jax.version import __version__

SHOWN = 8  # cases with players
PICTURED = 3  # cases with spectrograms

CONTROLS = {
    "codebook_1": "control: without the NAR, codebook 1 alone",
    "other_prompt": "control: prompt of another voice",
    "other_text": "control: text of another case",
}
SYSTEMS = {
    "original": "recording",
    "codec": "codec resynthesis of the recording: the best possible",
    "valle": "VALL-E",
    **CONTROLS,
}
FIGURES = {
    "digit_accuracy": "digits right",
    "end_of_speech": "ended by itself",
    "duration_ratio": "median duration / recording's",
    "voice_nearest_mel_statistics": "right voice nearest (mel statistics)",
    "voice_nearest_resemblyzer": "right voice nearest (resemblyzer)",
    "similarity_mel_statistics": "similarity (mel statistics)",
    "similarity_resemblyzer": "similarity (resemblyzer)",
    "mel_cepstral_distortion": "mel-cepstral distortion, dB",
    "mel_distortion": "distance of mel spectra, dB",
}


def write_report(
    out: pathlib.Path,
    cases: Sequence[Case],
    spoken: Mapping[str, Spoken],
    scores: Mapping[str, Scores],
    sample_rate: int,
    facts: Mapping[str, Any],
) -> None:
    """Writes OUT/report.html, OUT/report.json, OUT/audio and OUT/pictures.

    Args:
      out: of the quickstart; its runs `ar` and `nar` give the loss curves.
      cases: the test cases.
      spoken: audio by system.
      scores: figures by system.
      sample_rate: of the audio.
      facts: of the run; `wall_seconds` among them.
    """
    wavs = _write_wavs(out, cases, spoken, sample_rate)
    (out / "pictures").mkdir()
    _draw_spectrograms(out / "pictures" / "spectrograms.png", cases, spoken)
    _draw_losses(out / "pictures" / "losses.png", out)
    values = {name: {k: e.to_json() for k, e in score.estimates.items()} for name, score in scores.items()}
    changes = {name: {k: e.to_json() for k, e in scores[name].changes.items()} for name in CONTROLS}
    report = {
        "digit_accuracy_unseen": values["valle"]["digit_accuracy"]["value"],
        "digit_accuracy_codec": values["codec"]["digit_accuracy"]["value"],
        **facts,
        "version": __version__,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "scores": values,
        "controls": changes,
        "cases": [
            {"text": case.text, "speaker": case.speaker, "heard": scores["valle"].heard[i], **wavs[i]}
            for i, case in enumerate(cases)
        ],
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.html").write_text(_page(report), encoding="utf-8")


def _write_wavs(out: pathlib.Path, cases, spoken, sample_rate: int) -> list[dict[str, str]]:
    """Writes all audio; per case the paths by system, relative to `out`."""
    (out / "audio").mkdir()
    paths: list[dict[str, str]] = [{} for _ in cases]
    everything = {"prompt": [case.prompt for case in cases], **{name: said.audio for name, said in spoken.items()}}
    for system, audio in everything.items():
        for case, samples, mine in zip(cases, audio, paths, strict=False):
            mine[system] = f"audio/{case.name}-{system}.wav"
            write_audio(out / mine[system], samples, sample_rate)
    return paths


def _figure(rows: int, columns: int, width: float, height: float):
    """A matplotlib figure that needs no display, and its axes [rows, columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _draw_spectrograms(path: pathlib.Path, cases: Sequence[Case], spoken: Mapping[str, Spoken]) -> None:
    systems = {
        "prompt": "voice prompt",
        "valle": "VALL-E",
        "codebook_1": "without the NAR",
        "codec": "codec of the truth",
    }
    figure, axes = _figure(PICTURED, len(systems), 13, 2.3 * PICTURED)
    for row, case in enumerate(cases[:PICTURED]):
        for axis, (system, title) in zip(axes[row], systems.items(), strict=True):
            samples = case.prompt if system == "prompt" else spoken[system].audio[row]
            axis.imshow(
                log_mel(samples).T, origin="lower", aspect="auto", cmap="magma", extent=(0, len(samples) / 24e3, 0, 80)
            )
            axis.set_title(f"{title}: {case.prompt_text if system == 'prompt' else case.text}", fontsize=7)
            axis.set_yticks([])
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.savefig(path, dpi=110)


def _draw_losses(path: pathlib.Path, out: pathlib.Path) -> None:
    figure, (axes,) = _figure(1, 2, 11, 3.2)
    for axis, stage in zip(axes, ("ar", "nar"), strict=True):
        lines = (out / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        for key, label in {
            "loss": "training",
            "valid_utterance_loss": "unseen texts",
            "valid_speaker_loss": "unseen texts and voices",
        }.items():
            points = [(record["step"], record[key]) for record in records if key in record]
            axis.plot(*zip(*points, strict=True), label=label, marker="" if key == "loss" else "o", markersize=3)
        axis.set_title(f"{stage.upper()}: loss in nats per code")
        axis.set_xlabel("step")
        axis.legend()
    figure.savefig(path, dpi=110)


def _cell(value: Mapping[str, float] | None, change: Mapping[str, float] | None) -> str:
    """An estimate, and of a control below it what it changes."""
    lines = [] if value is None else [f"{value['value']:.2f} <small>[{value['low']:.2f}, {value['high']:.2f}]</small>"]
    if change is not None:
        lines.append(f"<small>{change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]</small>")
    return "<br>".join(lines)


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"


def _page(report: Mapping[str, Any]) -> str:
    """The HTML page."""
    scores = report["scores"]
    shown = [name for name in FIGURES if name in scores["valle"]]
    figures = _row(["", *(FIGURES[name] for name in shown)], "th")
    for system, description in SYSTEMS.items():
        changes = report["controls"].get(system, {})
        cells = (_cell(scores[system].get(name), changes.get(name)) for name in shown)
        figures += _row([html.escape(description), *cells])
    players = _row(["", "voice prompt", *SYSTEMS], "th")
    for case in report["cases"][:SHOWN]:
        texts = (
            f"{html.escape(case['text'])}<br><small>heard: {html.escape(case['heard'])}<br>{case['speaker']}</small>"
        )
        audio = (f'<audio controls preload="none" src="{case[name]}"></audio>' for name in ("prompt", *SYSTEMS))
        players += _row([texts, *audio])
    share = report["digit_accuracy_unseen"] / max(report["digit_accuracy_codec"], 1e-9)
    facts = (
        f"{report['wall_seconds'] / 60:.1f} minutes on {report['machine']}; seed {report['seed']}; "
        f"{report['steps']['ar']:,} AR and {report['steps']['nar']:,} NAR steps; "
        f"valle-jax {report['version']}, {report['date']}"
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>valle-jax quickstart</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .3em .6em; border-bottom: 1px solid #ccc; text-align: left }}
small {{ color: #666 }} audio {{ width: 150px }} img {{ max-width: 100% }}
</style>
<h1>A VALL-E trained on this machine</h1>
<p>{facts}.</p>
<p>It read {report["digit_accuracy_unseen"]:.0%} of the digits of {len(report["cases"])} unseen sequences in unseen
voices, {share:.0%} of what the codec's resynthesis of the recordings reaches. Intervals: 95 %, bootstrap. Below a
control's figure is how far it lies from VALL-E's on the same cases.</p>
<table>{figures}</table>
<h2>Listen</h2><table>{players}</table>
<h2>Spectrograms</h2><img src="pictures/spectrograms.png" alt="mel spectrograms">
<h2>Training</h2><img src="pictures/losses.png" alt="loss curves">
</html>
"""
