"""`valle inspect --report`: figures on codes of which they are known, and a page that needs no other file."""

import base64
import collections
import html.parser
import io
import json
import sys

import numpy as np
import pytest
import soundfile
from small_corpora import utterance, write_dataset

from data_prep.inspection.statistics import CodeUsage, distance, divergence_bits, draw, source_group, survey
from valle_jax import cli
from valle_jax.codec import get_codec
from valle_jax.codec.base import pad_codes
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError


class Page(html.parser.HTMLParser):
    """The rows of a page's tables under each heading, its text, and what it embeds."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.embedded, self.text = collections.defaultdict(list), collections.defaultdict(list), ""
        self._tag = self._heading = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self._tag = tag
        if tag == "tr":
            self.rows[self._heading].append([])
        if source := dict(attributes).get("src"):
            kind, _, content = source.partition(";base64,")
            self.embedded[kind].append(base64.b64decode(content, validate=True))

    def handle_data(self, data):
        self.text += data
        if self._tag == "h2" and data.strip():
            self._heading = data.split(",")[0]
        elif self._tag in ("td", "th") and data.strip():
            self.rows[self._heading][-1].append(data)


@pytest.fixture
def known(tmp_path):
    """A dataset whose first level uses each code once and whose second uses each even one twice."""
    every = np.arange(1024)
    codes = np.stack([every, every // 2 * 2], axis=1)
    utterances = [
        utterance("one", codes[:300], speaker="anna", folder="clean"),
        utterance("two", codes[300:600], speaker="<b>", folder="clean", text="a<script>"),
        utterance("three", codes[600:], speaker="anna", folder="other"),
    ]
    return write_dataset(tmp_path / "known", utterances)


def test_usage_of_known_codes(known):
    found = survey(Dataset.open(known), sample=0, seed=0, progress=False)
    assert found.n_records == 3 and found.n_frames == 1024
    np.testing.assert_allclose(found.usage.entropy_bits, [10, 9], rtol=1e-12)
    assert found.usage.dead.tolist() == [0, 512]
    assert found.source_frames == {"clean": 600, "other": 424}


def test_one_code_has_no_entropy_and_none_at_all_neither():
    usage = CodeUsage(2, 4)
    assert usage.entropy_bits.tolist() == [0, 0] and usage.dead.tolist() == [4, 4]
    usage.add(np.array([[1, 3], [1, 3]], np.uint16))
    assert usage.entropy_bits.tolist() == [0, 0] and usage.dead.tolist() == [3, 3]
    assert usage.counts.tolist() == [[0, 2, 0, 0], [0, 0, 0, 2]]
    with pytest.raises(UserError, match="code 4 is outside the codebook of 4"):
        usage.add(np.array([[4, 0]], np.uint16))


def test_distances_of_distributions():
    usages = [CodeUsage(2, 2) for _ in range(2)]
    usages[0].add(np.array([[0, 0]], np.uint16))
    usages[1].add(np.array([[1, 0]], np.uint16))
    assert divergence_bits(*usages).tolist() == [1, 0]
    assert distance(np.array([1, 2, 3]), np.array([3, 1, 2, 1, 2, 3])) == 0
    assert distance(np.array([1, 2]), np.array([3, 4, 5])) == 1
    assert distance(np.array([1, 2, 3, 4]), np.array([4, 4])) == 0.75


def test_draws_and_sources():
    drawn = draw(10_000_000, 50, seed=1)
    assert len(np.unique(drawn)) == 50 and (np.diff(drawn) > 0).all() and drawn.max() > 5_000_000
    assert np.array_equal(drawn, draw(10_000_000, 50, seed=1)) and not np.array_equal(drawn, draw(10_000_000, 50, 2))
    assert draw(3, 50, seed=1).tolist() == [0, 1, 2]
    names = ["dev/84/1.flac", "1.wav", "gs://bucket/x/1.wav"]
    assert [source_group(name) for name in names] == ["dev", ".", "gs://bucket"]


def test_page_of_known_codes(known, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `prep` is not installed")
    reasons = ["too long", "silent audio", "too long"]
    (known / "rejected.jsonl").write_text("".join(json.dumps({"reason": reason}) + "\n" for reason in reasons))
    cli.main(["inspect", str(known), "--report", str(tmp_path / "new" / "folder")])
    path = tmp_path / "new" / "folder" / "index.html"
    assert capsys.readouterr().out.endswith(f"report: {path}\n")
    page = Page(path)
    assert page.rows["Codes"][1][:4] == ["1", "10.00", "1024", "0"]
    assert page.rows["Codes"][2] == ["2", "9.00", "512", "512", "0", "0.20%"]
    assert page.rows["Rejected"][1:] == [["too long", "2"], ["silent audio", "1"]]
    assert page.rows["Splits"][1] == ["train", "3", "2", "0.00"]
    assert [row[0] for row in page.rows["Hours by speaker"][1:]] == ["anna", "<b>"]  # escaped, so read back as text
    assert "a<script>" in page.text and "From all 3 records, 1,024 frames" in page.text
    assert "Not to be heard" in page.text and "0000000000000000" in page.text  # a codec with other weights
    assert set(page.embedded) == {"data:image/png"} and len(page.embedded["data:image/png"]) == 5
    assert all(png.startswith(b"\x89PNG") for png in page.embedded["data:image/png"])


def test_records_to_hear_are_those_of_the_seed(unbroken, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `prep` is not installed")
    path = tmp_path / "report.html"
    cli.main(["inspect", str(unbroken), "--report", str(path), "--sample", "10", "--listen", "2", "--seed", "3"])
    page, dataset, codec = Page(path), Dataset.open(unbroken), get_codec("mel_rvq")
    assert "From 10 of 30 records, drawn at random (seed 3)" in page.text
    heard = [dataset.read(int(i)) for i in draw(30, 2, seed=3)]
    audio = codec.decode(*pad_codes([chosen.codes for chosen in heard], codebooks=8))
    for flac, chosen, decoded in zip(page.embedded["data:audio/flac"], heard, audio, strict=True):
        samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
        assert rate == 24_000
        np.testing.assert_allclose(samples, np.clip(decoded, -1, 1), atol=2**-15)  # 16 bits
        assert chosen.text in page.text and dataset.info.vocabulary.decode(chosen.phonemes) in page.text


def test_reports_that_cannot_be(known, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()

    def refused(*options):
        with pytest.raises(SystemExit) as stop:
            cli.main(["inspect", str(known), *options])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "cannot write the report" in refused("--report", str(tmp_path / "file"))
    assert "give a local file or folder" in refused("--report", "gs://bucket/report")
    assert "cannot be negative" in refused("--sample", "-1")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    error = refused("--report", str(tmp_path / "report.html"))
    assert error == "valle inspect: the report needs matplotlib: pip install 'valle-jax[prep]'\n"
    cli.main(["inspect", str(known)])  # which needs none


def test_a_page_with_nothing_to_hear_needs_no_codec(known, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `prep` is not installed")
    cli.main(["inspect", str(known), "--report", str(tmp_path), "--listen", "0"])
    page = Page(tmp_path / "index.html")
    assert "Not to be heard" not in page.text and "data:audio/flac" not in page.embedded
