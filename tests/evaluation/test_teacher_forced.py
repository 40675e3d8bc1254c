"""Teacher-forced figures of model directories on a dataset of random codes, and where the report shows them."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from corpora import utterances, write_corpus

from valle_jax.codec import get_codec
from valle_jax.codec.base import CodecInfo
from valle_jax.config import ModelConfig
from valle_jax.data.dataset import DatasetInfo, ShardWriter
from valle_jax.data.schema import SPLITS, Utterance
from valle_jax.errors import UserError
from valle_jax.evaluation.evaluate import evaluate
from valle_jax.evaluation.measures import Duration
from valle_jax.evaluation.plots import draw_plots
from valle_jax.evaluation.report import forced_table
from valle_jax.evaluation.results import Results
from valle_jax.evaluation.teacher_forced import teacher_forced
from valle_jax.inference.model_dir import ModelDir, save_model_dir
from valle_jax.model import build
from valle_jax.text.vocabulary import Vocabulary

CODEC = CodecInfo("mel_rvq", 24_000, 75.0, 3, 32, "0" * 16)
VOCABULARY = Vocabulary("test", tuple("abcdefg "))


def _dataset(folder, splits, codec=CODEC):
    rng = np.random.default_rng(0)
    folder.mkdir()
    with ShardWriter(folder, 0, 1) as writer:
        for i, split in enumerate(splits):
            phonemes = rng.integers(3, VOCABULARY.size, rng.integers(3, 8), dtype=np.int32)
            codes = rng.integers(0, codec.codebook_size, (rng.integers(8, 20), codec.codebooks)).astype(np.uint16)
            writer.write(Utterance(f"u{i}", "s", "en-us", "text", phonemes, codes, "random"), split)
    counts = {split: list(splits).count(split) for split in SPLITS}
    totals = {"utterances": len(splits), "frames": 0, "phonemes": 0, "hours": 0.0, "splits": counts}
    DatasetInfo(codec, VOCABULARY, totals).save(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return _dataset(tmp_path_factory.mktemp("data") / "d", ["train", "valid_speaker", "valid_speaker"] * 4)


@pytest.fixture(scope="module")
def model():
    """Random decoders."""
    parts = []
    for stage in ("ar", "nar"):
        config = ModelConfig(
            stage, d_model=16, n_layers=1, n_heads=2, d_ff=32, dtype="float32",
            n_symbols=VOCABULARY.size, codebooks=3, codebook_size=32,
        )  # fmt: skip
        parts += [config, jax.device_get(build(config).init(jax.random.key(1)))]
    return ModelDir(*parts, VOCABULARY, CODEC, max_tokens=64)


def _save(folder, model, **changes):
    save_model_dir(folder, dataclasses.replace(model, **changes), "")
    return folder


def test_they_do_not_depend_on_how_rows_are_packed(dataset, model, tmp_path):
    short, long = (teacher_forced(_save(tmp_path / str(n), model, max_tokens=n), dataset) for n in (32, 100))
    assert list(short) == ["valid_speaker"]
    # Float32 sums in another order.
    np.testing.assert_allclose(short["valid_speaker"]["loss"], long["valid_speaker"]["loss"], rtol=1e-4)
    assert short["valid_speaker"]["accuracy_top10"] == long["valid_speaker"]["accuracy_top10"]
    accuracies = short["valid_speaker"]["accuracy_top10"]
    assert all(abs(a - 10 / 32) < 0.2 for a in accuracies)  # some 100 targets of each codebook by chance


def test_decoders_that_know_nothing(dataset, model, tmp_path):
    params = {name: jax.tree.map(np.zeros_like, getattr(model, name)) for name in ("params_ar", "params_nar")}
    values = teacher_forced(_save(tmp_path / "zero", model, **params), dataset)["valid_speaker"]
    assert values["loss"] == pytest.approx([math.log(33), math.log(32), math.log(32)], rel=1e-5)  # the AR: and the end
    assert values["accuracy_top10"] == [1, 1, 1]  # nothing is more probable than the target


def test_valle_evaluate_reports_them(model, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("phonemizer")
    corpus = write_corpus(tmp_path / "corpus", utterances(2, 2, 2.0))
    info = get_codec("mel_rvq").info
    data = _dataset(tmp_path / "data", ["valid_speaker"] * 4, info)
    parts = []
    for config in (model.config_ar, model.config_nar):
        sized = dataclasses.replace(config, codebooks=info.codebooks, codebook_size=info.codebook_size)
        parts += [sized, jax.device_get(build(sized).init(jax.random.key(0)))]
    path = _save(tmp_path / "model", ModelDir(*parts, VOCABULARY, info, max_tokens=64))
    how = {"systems": ["ground-truth"], "measures": [Duration()], "progress": False}
    evaluate(path, "short", corpus, tmp_path / "out", dataset=data, **how)
    results = Results.load(tmp_path / "out")
    (values,) = results.facts["teacher_forced"].values()
    assert [len(of) for of in values.values()] == [info.codebooks] * 2
    assert "valid_speaker: loss, teacher-forced" in (tmp_path / "out" / "table.md").read_text()
    evaluate(path, "short", corpus, tmp_path / "without", **how)
    assert "they need a dataset directory (--dataset)" in (tmp_path / "without" / "table.md").read_text()


def test_what_does_not_fit_is_refused(dataset, model, tmp_path):
    other = dataclasses.replace(CODEC, weight_hash="1" * 16)
    with pytest.raises(UserError, match="was made with codec"):
        teacher_forced(_save(tmp_path / "codec", model, codec=other), dataset)
    with pytest.raises(UserError, match="was made with vocabulary"):
        teacher_forced(_save(tmp_path / "table", model, vocabulary=Vocabulary("x", tuple("gfedcba "))), dataset)
    empty = _dataset(tmp_path / "empty", ["train"] * 3)
    with pytest.raises(UserError, match="no usable utterances in valid_utterance or valid_speaker"):
        teacher_forced(_save(tmp_path / "model", model), empty)


def test_where_the_report_has_them(tmp_path):
    pytest.importorskip("matplotlib")
    forced = {"valid_speaker": {"loss": [2.5, 3.0, None], "accuracy_top10": [0.5, 0.25, None]}}
    results = Results({"teacher_forced": forced}, (), {})
    assert forced_table(results) == [
        ["", "codebook 1", "codebook 2", "codebook 3"],
        ["valid_speaker: loss, teacher-forced", "2.500", "3.000", ""],
        ["valid_speaker: accuracy_top10, teacher-forced", "0.500", "0.250", ""],
    ]
    assert forced_table(Results({}, (), {})) == [[""]]
    assert draw_plots(results, [], tmp_path) == {"accuracy by codebook": "plots/accuracy_by_codebook.png"}
    assert draw_plots(Results({}, (), {}), [], tmp_path) == {}
