"""`valle inspect`: the report, and --verify on records with flipped bytes."""

import json
import shutil

import numpy as np
import pytest

from data_prep.inspection.description import describe, histogram
from data_prep.prepare import Prepare, prepare
from valle_jax import cli
from valle_jax.data.dataset import Dataset

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    options = Prepare(source=str(corpus), out=str(out), processes=1, shard_utterances=15, valid_utterances=0.2)
    prepare(options, progress=False)
    return out


def test_report(prepared):
    dataset = Dataset.open(prepared)
    text = describe(dataset, n_speakers=2)
    assert "30 utterances" in text and "3 speakers" in text
    assert "codec: mel_rvq" in text and "24000 Hz, 75 frames/s, 8 codebooks of 1024" in text
    assert "vocabulary: ipa-1, 238 ids" in text and "unknown symbols: none" in text
    # 0.6, 0.8, ..., 1.6 s at 75 frames/s
    assert "frames per utterance: least 45, median 82.5, most 120" in text
    words = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert words["s2"] == words["s1"] == ["0.00"] and "s0" not in words and "1 others" in text  # s2 has most
    assert int(words["train"][0]) + int(words["valid_utterance"][0]) == 30


def test_inspect_reads_a_url(prepared, bucket, tmp_path, capsys):
    url = bucket.put(prepared, "set")
    cli.main(["inspect", url, "--verify"])
    output = capsys.readouterr().out
    assert output.startswith(f"{url}: 30 utterances") and "all 30 records are intact" in output
    cli.main(["inspect", url, "--compare", str(prepared)])
    assert "hold the same" in capsys.readouterr().out
    pytest.importorskip("matplotlib", reason="the extra `prep` is not installed")
    cli.main(["inspect", url, "--report", str(tmp_path)])
    assert f"<h1>{url}</h1>" in (tmp_path / "index.html").read_text()


def test_histogram_counts_everything():
    lengths = np.random.default_rng(0).integers(40, 900, 1000)
    lines = histogram("frames", lengths)
    assert sum(int(line[13:23].replace(",", "")) for line in lines[1:]) == 1000
    assert max(line.count("█") for line in lines) == 40
    assert histogram("frames", np.array([7, 7]))[1:] == ["     7-7              2 " + "█" * 40]


def test_verify_of_an_intact_dataset(prepared, capsys):
    cli.main(["inspect", str(prepared), "--verify"])
    assert "all 30 records are intact" in capsys.readouterr().out


def test_verify_names_every_damaged_record(prepared, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(prepared, folder)
    offsets = Dataset.open(folder).index.offset
    for shard, byte in [(0, offsets[4] + 100), (1, offsets[15 + 2] + 3)]:
        path = folder / f"data-{shard:05d}-of-00002.tfrecord"
        content = bytearray(path.read_bytes())
        content[byte] ^= 1
        path.write_bytes(content)
    cli.main(["inspect", str(folder)])  # reads no record
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", str(folder), "--verify"])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    damaged = [line for line in out.splitlines() if ".tfrecord: record" in line]
    assert len(damaged) == 2
    assert f"data-00000-of-00002.tfrecord: record 4 at offset {offsets[4]}" in damaged[0] and "'004'" in damaged[0]
    assert f"data-00001-of-00002.tfrecord: record 2 at offset {offsets[17]}" in damaged[1] and "'017'" in damaged[1]
    assert "2 damaged or inconsistent records" in err


def test_a_damaged_shard_is_prepared_again(corpus, prepared, tmp_path):
    folder = tmp_path / "mended"
    shutil.copytree(prepared, folder)
    for name in ("data-00001-of-00002.tfrecord", "data-00001-of-00002.index.npz"):
        (folder / name).unlink()
    options = Prepare(source=str(corpus), out=str(folder), processes=1, shard_utterances=15, valid_utterances=0.2)
    prepare(options, progress=False)
    for path in prepared.glob("*.*"):
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_codes_outside_the_codebook_are_found(prepared, tmp_path, capsys):
    folder = tmp_path / "ranges"
    shutil.copytree(prepared, folder)
    info = json.loads((folder / "dataset.json").read_text())
    info["codec"]["codebook_size"] = 4
    (folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(folder), "--verify"])
    assert capsys.readouterr().out.count(": a code is outside the codebook") == 30


def test_not_a_dataset(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", str(tmp_path)])
    assert stop.value.code == 2
    assert "is not a complete dataset directory" in capsys.readouterr().err
