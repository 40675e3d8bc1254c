"""`valle merge`: records, totals and TFDS metadata of the sum; what does not belong together is refused."""

import json
import os
import shutil

import numpy as np
import pytest
from small_corpora import contents, make_corpus, rejections

from data_prep.merging import merge
from data_prep.prepare import Prepare, prepare
from valle_jax import cli
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")


def prepared(folder, ids, **options):
    """A dataset of sounds with such ids."""
    manifest = make_corpus(folder / "corpus", len(ids))
    lines = [json.loads(line) | {"id": name} for name, line in zip(ids, manifest.open(), strict=True)]
    lines.append(lines[0] | {"id": f"silent {ids[0]}", "text": ""})
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = folder / "set"
    prepare(Prepare(source=str(manifest), out=str(out), processes=1, shard_utterances=3, **options), progress=False)
    return out


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merge")
    return [
        prepared(folder / name, [f"{name}{i}" for i in range(n)], valid_utterances=0.3)
        for name, n in [("a", 7), ("b", 5)]
    ]


def test_merged_dataset(parts, tmp_path, capsys):
    out = tmp_path / "sum"
    cli.main(["merge", *map(str, parts), "--out", str(out)])
    assert "12 utterances" in capsys.readouterr().out
    dataset, (a, b) = Dataset.open(out), map(Dataset.open, parts)
    assert [dataset.read(i).utterance_id for i in range(12)] == [f"a{i}" for i in range(7)] + [
        f"b{i}" for i in range(5)
    ]
    for i in range(12):
        mine, theirs = dataset.read(i), a.read(i) if i < 7 else b.read(i - 7)
        np.testing.assert_array_equal(mine.codes, theirs.codes)
        np.testing.assert_array_equal(mine.phonemes, theirs.phonemes)
    np.testing.assert_array_equal(dataset.index.split, np.concatenate([a.index.split, b.index.split]))
    for name in ("utterances", "frames", "phonemes"):
        assert dataset.info.totals[name] == a.info.totals[name] + b.info.totals[name]
    assert dataset.info.speaker_seconds["s1"] == pytest.approx(
        a.info.speaker_seconds["s1"] + b.info.speaker_seconds["s1"], abs=1e-9
    )
    assert dataset.info.options == {"merged": [a.info.options, b.info.options]}
    assert a.info.options["filters.unique_audio"] is False and a.info.options["seed"] == 0
    assert rejections(out) == [("silent a0", "no transcript"), ("silent b0", "no transcript")]
    cli.main(["inspect", str(out), "--verify"])
    assert "all 12 records are intact" in capsys.readouterr().out
    assert os.stat(out / "data-00000-of-00005.tfrecord").st_nlink > 1, "copied where a link would do"
    merge(list(map(str, parts)), str(tmp_path / "again"), progress=False)
    assert contents(out) == contents(tmp_path / "again")


def test_tensorflow_datasets_reads_a_merged_dataset(parts, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `prep` is not installed")
    merge(list(map(str, parts)), str(tmp_path / "sum"), progress=False)
    records = tfds.as_numpy(tfds.builder_from_directory(str(tmp_path / "sum")).as_dataset("data", shuffle_files=False))
    ids = [record["utterance_id"].decode() for record in records]
    assert ids == [f"a{i}" for i in range(7)] + [f"b{i}" for i in range(5)]


def test_utterance_ids_that_are_there_twice(parts, tmp_path):
    other = prepared(tmp_path, ["c0", "a5", "a2", "c1"])
    with pytest.raises(UserError, match=r"2 utterance ids are there twice, such as 'a5' of .*--duplicates drop"):
        merge([str(parts[0]), str(other)], str(tmp_path / "sum"), progress=False)
    assert not (tmp_path / "sum").exists() and not list(tmp_path.glob("*.tmp"))
    summary = merge([str(parts[0]), str(other)], str(tmp_path / "sum"), "drop", progress=False)
    dataset = Dataset.open(tmp_path / "sum")
    assert [dataset.read(i).utterance_id for i in range(9)] == [*(f"a{i}" for i in range(7)), "c0", "c1"]
    assert rejections(tmp_path / "sum")[-2:] == [("a5", "duplicate utterance id"), ("a2", "duplicate utterance id")]
    assert summary.info.totals["frames"] == dataset.index.n_frames.sum()
    assert summary.info.totals["phonemes"] == dataset.index.n_phonemes.sum()
    assert sum(summary.info.speaker_seconds.values()) == pytest.approx(dataset.index.n_frames.sum() / 75)
    assert list(dataset.verify()) == []


def test_datasets_made_otherwise_are_refused(parts, tmp_path):
    def changed(name, change):
        folder = tmp_path / name
        shutil.copytree(parts[1], folder)
        info = json.loads((folder / "dataset.json").read_text())
        change(info)
        (folder / "dataset.json").write_text(json.dumps(info))
        return str(folder)

    for other, message in [
        (
            changed("codec", lambda info: info["codec"].update(weight_hash="0" * 16)),
            r"but .* with mel_rvq \(0000000000000000",
        ),
        (
            changed("vocabulary", lambda info: info["vocabulary"].update(version="ipa-0")),
            "with vocabulary ipa-1 .* with ipa-0",
        ),
        (changed("schema", lambda info: info.update(schema_version=9)), "schema version 9"),
        (
            str(prepared(tmp_path / "leak", ["d0", "d1", "d2", "d3"], valid_speakers=0.4)),
            "1 speakers are in valid_speaker of",
        ),
        ("gs://bucket/other", "local dataset directories"),
    ]:
        with pytest.raises(UserError, match=message):
            merge([str(parts[0]), other], str(tmp_path / "sum"), progress=False)
    with pytest.raises(UserError, match="is there already"):
        merge(list(map(str, parts)), str(parts[0]), progress=False)
    with pytest.raises(UserError, match="two or more"):
        merge([str(parts[0])], str(tmp_path / "sum"), progress=False)
    assert not (tmp_path / "sum").exists()


def test_verify_finds_speakers_on_both_sides(parts, tmp_path):
    """The index of a dataset, changed by hand so that a speaker of train is in valid_speaker as well."""
    folder = tmp_path / "leak"
    shutil.copytree(parts[0], folder)
    path = folder / "data-00000-of-00003.index.npz"
    columns = dict(np.load(path))
    columns["split"][0] = 2
    np.savez(path, **columns)
    assert any(
        "1 speakers of split valid_speaker are in other splits too" in line for line in Dataset.open(folder).verify()
    )
