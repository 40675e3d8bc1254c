"""How fast `valle prepare` is on this machine, by stage and by number of processes, and what 60,000 h would take.

    python benchmarks/prepare.py --source ../shared/speech/LibriSpeech
    python benchmarks/prepare.py --source ../shared/speech/LibriSpeech --codec encodec_24khz --minutes 5

One line of JSON. The limit: two processes on two cores do at least 1.8 times what one does. Without weights EnCodec's
are random, of the real architecture: as fast as the true ones. On a GPU, EnCodec runs there.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import platform
import tempfile
import time

import codec_speed
import soundfile
import tyro

from data_prep import sources
from data_prep.prepare import Prepare, prepare
from data_prep.shards import ShardReport
from valle_jax.audio import read_audio
from valle_jax.codec import get_codec
from valle_jax.text.phonemizer import Phonemizer

PAPER_HOURS = 60_000
PHONEMES_PER_SECOND = 14
RECORD_BYTES = 250  # ids, text and framing of an utterance of 12 s


@dataclasses.dataclass(frozen=True)
class PrepareSpeed:
    """Times preparation."""

    source: str
    """A corpus of local audio files, as `valle prepare --source` takes it."""
    codec: str = "mel_rvq"
    """mel_rvq or encodec_24khz."""
    codec_weights: str | None = None
    """File with the codec's weights."""
    minutes: float = 20.0
    """Of audio that is used, from the start of the source."""
    processes: tuple[int, ...] = (1, 2)
    """How many worker processes are tried."""

    def run(self) -> None:
        """Prints the result."""
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            weights = self.codec_weights
            if self.codec.startswith("encodec") and weights is None:
                weights = codec_speed.random_weights(folder)
            manifest, hours = self._corpus(folder)
            stages = self._stages(manifest, weights)
            rates = {n: self._rate(manifest, weights, folder / f"out{n}", n) for n in self.processes}
        core_seconds = sum(stages.values()) * 3600
        codec = get_codec(self.codec, weights).info
        hour_bytes = 3600 * (codec.frames_per_second * codec.codebooks * 2 + PHONEMES_PER_SECOND + RECORD_BYTES / 12)
        result = {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "codec": self.codec,
            "audio_minutes": round(hours * 60, 1),
            "seconds_per_audio_hour": {stage: round(share * 3600, 1) for stage, share in stages.items()},
            "audio_hours_per_core_hour": round(3600 / core_seconds, 1),
            "audio_hours_per_hour": {n: round(rate, 1) for n, rate in rates.items()},
            "scaling": round(rates[max(rates)] / rates[min(rates)], 2),
            "core_hours_for_60000_h": round(PAPER_HOURS * core_seconds / 3600),
            "gigabytes_for_60000_h": round(PAPER_HOURS * hour_bytes / 1e9),
        }
        print(json.dumps(result))

    def _corpus(self, folder: pathlib.Path) -> tuple[pathlib.Path, float]:
        """A manifest of the first recordings of the source, and their hours."""
        seconds, lines = 0.0, []
        for recording in sources.list_recordings(self.source, sources.detect_layout(self.source)):
            if seconds >= self.minutes * 60:
                break
            seconds += soundfile.info(recording.audio_path).duration
            path = os.path.abspath(recording.audio_path)
            lines.append({"audio": path, "text": recording.text, "speaker": recording.speaker_id})
        manifest = folder / "manifest.jsonl"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return manifest, seconds / 3600

    def _stages(self, manifest: pathlib.Path, weights: str | None) -> dict[str, float]:
        """Processor seconds of each stage for a second of audio, in this process."""
        codec = get_codec(self.codec, weights, implementation="torch")
        lines = [json.loads(line) for line in manifest.read_text().splitlines()][:40]
        phonemizer = Phonemizer("en-us")
        phonemizer(["warm up"])
        clock = time.process_time
        start = clock()
        audio = [read_audio(line["audio"], codec.info.sample_rate) for line in lines]
        read = clock()
        for samples in audio:
            codec.encode([samples])
        encoded = clock()
        phonemizer([line["text"] for line in lines])
        spoken = clock()
        seconds = sum(map(len, audio)) / codec.info.sample_rate
        ends = (start, read, encoded, spoken)
        times = [(later - earlier) / seconds for earlier, later in itertools.pairwise(ends)]
        return dict(zip(("read", "codec", "phonemes"), times, strict=True))

    def _rate(self, manifest: pathlib.Path, weights: str | None, out: pathlib.Path, processes: int) -> float:
        """Audio hours an hour, from the first shard of each process to the last: without the start."""
        options = Prepare(
            source=str(manifest), out=str(out), codec=self.codec, codec_weights=weights, processes=processes,
            shard_utterances=8,
        )  # fmt: skip
        summary = prepare(options, progress=False)
        assert summary is not None
        frames_per_second = summary.info.codec.frames_per_second
        paths = sorted((out / "reports").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        frames = [ShardReport.load(path).frames.total() for path in paths]
        seconds = (paths[-1].stat().st_mtime_ns - paths[processes - 1].stat().st_mtime_ns) / 1e9
        return sum(frames[processes:]) / frames_per_second / seconds


if __name__ == "__main__":
    tyro.cli(PrepareSpeed).run()
