"""metrics.jsonl, TensorBoard's file as TensorFlow reads it, and what throughput counts."""

import io
import json
import time

import numpy as np
import pytest
import soundfile
from train_helpers import sized, tiny_config

from valle_jax.inference.model_dir import flatten
from valle_jax.model import build
from valle_jax.parallel.chips import peak_flops
from valle_jax.train.metrics import MetricsWriter, Throughput, model_flops, truncate


def test_truncation_keeps_whole_lines_up_to_the_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    truncate(path, 3)
    assert not path.exists()
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 2, 3, 4)]
    for content, step, kept in [
        (lines, 3, lines[:4]),
        (lines, 9, lines),
        ([*lines, '{"step": 5, "lo'], 9, lines),
        (lines, 0, []),
    ]:
        path.write_text("".join(content))
        truncate(path, step)
        assert path.read_text() == "".join(kept)


def test_a_line_has_the_step_first_and_null_for_what_is_not_finite(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "loss": 8.0}\n')
    writer = MetricsWriter(tmp_path, resume_step=1, active=True)
    writer.scalars(2, {"loss": float("nan"), "fill": 0.5, "grad_norm": float("inf")})
    writer.close()
    expected = '{"step": 1, "loss": 9.0}\n{"step": 2, "loss": null, "fill": 0.5, "grad_norm": null}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == expected


def test_processes_but_the_first_write_nothing(tmp_path):
    writer = MetricsWriter(tmp_path, resume_step=0, active=False)
    writer.scalars(1, {"loss": 1.0})
    writer.audio(1, "ar/a", np.zeros(10, np.float32), 24_000)
    writer.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_files_are_read_by_tensorflow(tmp_path):
    tf = pytest.importorskip("tensorflow")
    wave = np.sin(np.arange(2400) * 0.1).astype(np.float32) / 2
    for resume_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # killed after step 3, resumed from step 2
        writer = MetricsWriter(tmp_path, resume_step=resume_step, active=True)
        for step in steps:
            writer.scalars(step, {"loss": 10.0 - step, "fill": 0.5})
        writer.audio(steps[-1], "ar/u1", wave, 24_000)
        writer.close()
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    runs = [list(tf.compat.v1.train.summary_iterator(str(file))) for file in files]
    scalars = [
        [(event.step, value.simple_value) for event in run for value in event.summary.value if value.tag == "loss"]
        for run in runs
    ]
    assert scalars == [[(1, 9.0), (2, 8.0), (3, 7.0)], [(3, 7.0), (4, 6.0)]]
    # TensorBoard hides what an earlier file says from the step on of which a later one announces its start.
    starts = [e.step for e in runs[1] if e.HasField("session_log") and e.session_log.status == e.session_log.START]
    assert starts == [3]
    (audio,) = [v.audio for event in runs[1] for v in event.summary.value if v.HasField("audio")]
    assert audio.sample_rate == 24_000
    samples, sample_rate = soundfile.read(io.BytesIO(audio.encoded_audio_string))
    assert sample_rate == 24_000
    np.testing.assert_allclose(samples, wave, atol=2 / 32768)  # 16 bits


def test_throughput_leaves_out_the_compiled_step_and_pauses():
    throughput = Throughput(build(sized(tiny_config()).model), devices=1)
    throughput.add(1e9, 1e9)
    assert throughput.take() == {}
    start = time.perf_counter()
    throughput.add(100, 200)
    with throughput.paused():
        time.sleep(0.5)
    time.sleep(0.1)
    values = throughput.take()
    most = time.perf_counter() - start
    assert values.keys() == {"frames_per_second", "seconds_per_step"}  # no mfu: the peak of a CPU is not known
    assert 100 / (most - 0.5) <= values["frames_per_second"] <= 100 / 0.1
    assert throughput.take() == {}


def test_peaks_and_flops():
    kinds = ("TPU v5 lite", "TPU v5", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "cpu")
    assert [peak_flops(kind) for kind in kinds] == [197e12, 459e12, 989e12, 756e12, None]
    decoder = build(sized(tiny_config()).model)
    matrices = sum(
        leaf.size for name, leaf in flatten(decoder.abstract_params).items() if name.split(".")[-1].startswith("w_")
    )
    assert model_flops(decoder, 10) == 6 * 10 * (matrices + 17 * 16)  # 16 codes and the end of speech, 16 wide
