"""`valle evaluate` end to end with random decoders on a few seconds of real speech: rows, cache, shards, report."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from random_model import save_random_model

from valle_jax.cli import main
from valle_jax.errors import UserError
from valle_jax.evaluation.codebooks import CodebookAccuracy
from valle_jax.evaluation.evaluate import evaluate
from valle_jax.evaluation.measures import BadTakes, Duration
from valle_jax.evaluation.papers import PAPER_ROWS
from valle_jax.evaluation.report import main_table
from valle_jax.evaluation.results import Column, Results
from valle_jax.evaluation.runner import Runner
from valle_jax.evaluation.sample import Figure
from valle_jax.evaluation.systems import SYSTEMS
from valle_jax.evaluation.trials import TrialList
from valle_jax.inference.synthesizer import Options, Synthesizer

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")
pytest.importorskip("matplotlib", reason="the extra `eval` is not installed")

SPEAKERS, EACH = 2, 2
# Random decoders do not end by themselves: few frames, and one shape for all.
OPTIONS = Options(min_rate_ratio=0.1, max_rate_ratio=0.2, batch_size=2)


@pytest.fixture(scope="module")
def corpus(speech, tmp_path_factory) -> pathlib.Path:
    """Two speakers of two utterances of 2 to 3 s each."""
    folder = tmp_path_factory.mktemp("corpus")
    entries = [json.loads(line) for line in (speech / "manifest.jsonl").read_text().splitlines()]
    short = [e for e in entries if e["corpus"] == "speechocean762" and 2.0 <= e["seconds"] <= 2.6]
    of_speaker: dict[str, list[dict]] = {}
    for entry in short:
        of_speaker.setdefault(entry["speaker"], []).append(entry)
    chosen = [of for of in of_speaker.values() if len(of) >= EACH][:SPEAKERS]
    with open(folder / "manifest.jsonl", "w") as manifest:
        for entry in [entry for of in chosen for entry in of[:EACH]]:
            name = pathlib.Path(entry["audio"]).name
            shutil.copy(speech / entry["audio"], folder / name)
            manifest.write(json.dumps({"audio": name, "speaker": entry["speaker"], "text": entry["text"]}) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """A model directory of random decoders."""
    path = tmp_path_factory.mktemp("model")
    save_random_model(path)
    return path


class Loudness:
    """A measure that says what a recogniser would, at no cost: the level, and a word error for each quiet take."""

    name = "words_loudness"
    figures: tuple[Figure, ...] = (Figure("wer", of="word_errors", per="words"),)

    def measure(self, samples):
        """One word a sample."""
        return [{"word_errors": float(np.abs(s.audio).mean() < 0.01), "words": 1.0, "heard": s.text} for s in samples]


class Nearness:
    """1 where audio equals the prompt after the codec, less the further apart their mean levels are."""

    name = "similarity_level"
    figures: tuple[Figure, ...] = (
        Figure("similarity_prompt_resynthesised", of="similarity_prompt_resynthesised", best=1),
        Figure("similarity_reference", of="similarity_reference", best=1),
    )

    def measure(self, samples):
        """Of both."""

        def near(a, b):
            a, b = (float(np.abs(x).mean()) if len(x) else 0.0 for x in (a, b))
            return 1 - abs(a - b) / max(a + b, 1e-9)

        return [
            {
                "similarity_prompt_resynthesised": near(s.audio, s.prompt_resynthesised),
                "similarity_reference": near(s.audio, s.reference),
            }
            for s in samples
        ]


MEASURES = (Loudness(), Nearness(), Duration(), BadTakes(), CodebookAccuracy(8))


def _evaluate(model, corpus, out, **options) -> Results:
    defaults = {"measures": MEASURES, "seeds": 1, "options": OPTIONS, "progress": False}
    return evaluate(model, "short", corpus, out, **(defaults | options))


@pytest.fixture(scope="module")
def done(model, corpus, tmp_path_factory) -> tuple[Results, pathlib.Path]:
    """The results of all rows, and their folder."""
    out = tmp_path_factory.mktemp("evaluation")
    return _evaluate(model, corpus, out), out


def _files(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*.*")}


def test_every_row_has_every_trial(done):
    results, out = done
    trials = TrialList.load(out / "trials.jsonl").trials
    assert len(trials) == SPEAKERS * EACH
    expected = {"ground-truth", "codec", "valle", "nar", "ar-no-prompt", "best-of-5", "other-speaker", "other-text"}
    assert results.rows.keys() == expected
    for row in results.rows.values():
        assert not row.failed and sorted(s.trial for s in row.samples) == sorted(t.id for t in trials)


def test_known_answers(done):
    results, _ = done
    # Audio is kept in 16 bits.
    same = results.estimate("ground-truth", "similarity_level:similarity_reference")
    assert same.value == pytest.approx(1, abs=1e-4)
    assert results.estimate("ground-truth", "duration:duration_ratio").value == 1
    # The codec fills up the last frame (1/75 s) and the NAR keeps the true codebook 1's frames.
    assert results.estimate("codec", "duration:duration_ratio").value == pytest.approx(1, abs=0.02)
    assert results.estimate("nar", "duration:duration_ratio").value == pytest.approx(1, abs=0.02)
    assert results.estimate("valle", "duration:duration_ratio").value < 0.5  # as the options limit it
    assert results.estimate("valle", "bad_takes:bad_takes").value == 1  # random decoders do not end
    for k in range(2, 9):  # of random decoders about 1 code in 1,024 is right; only the NAR's row has it
        assert results.estimate("nar", f"codebooks:accuracy_codebook_{k}").value < 0.1
        assert results.estimate("valle", f"codebooks:accuracy_codebook_{k}") is None
    assert results.difference("ground-truth", "words_loudness:wer") is None  # it has no baseline
    assert results.difference("codec", "duration:duration_ratio", "codec").value == 0


def test_the_best_of_five_is_as_similar_as_a_single_take(done):
    results, _ = done
    key = "similarity_level:similarity_prompt_resynthesised"
    assert results.estimate("best-of-5", key).value >= results.estimate("valle", key).value - 1e-9


def test_results_are_read_again_as_they_were(done):
    results, out = done
    again = Results.load(out)
    assert again.columns == results.columns and again.rows == results.rows
    assert again.to_json() == json.loads((out / "results.json").read_text())
    with pytest.raises(UserError, match="no results"):
        Results.load(out / "cache")


def test_the_report_shows_tables_audio_and_pictures(done):
    _, out = done
    page, table = (out / "index.html").read_text(), (out / "table.md").read_text()
    assert "control: prompt of another speaker" in table and "no difference shown" in table
    assert "NAR from true codebook 1" in page
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    # A prompt and eight rows for each trial, and the plots; all of them are there.
    assert sum(s.endswith(".flac") for s in sources) == SPEAKERS * EACH * 9
    plots = ("wer_words_loudness", "accuracy_by_codebook", "similarity_reference_similarity_level")
    assert {f"plots/{name}.png" for name in plots} <= set(sources)
    assert all((out / source).stat().st_size > 100 for source in sources)


def test_a_rerun_says_and_measures_nothing(done, model, corpus, monkeypatch):
    results, out = done
    before = _files(out / "cache")

    def refuse(*_, **__):
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(Synthesizer, "load", refuse)
    monkeypatch.setattr(Loudness, "measure", refuse)
    assert _evaluate(model, corpus, out).rows == results.rows
    assert _files(out / "cache") == before


def test_after_a_kill_only_what_is_missing_is_said_again(done, model, corpus, tmp_path):
    """A half-written file of a killed process is there, one take and its values are not."""
    results, out = done
    cache = tmp_path / "cache"
    shutil.copytree(out / "cache", cache)
    lost = cache / pathlib.Path(results.rows["valle"].samples[1].audio).relative_to("cache")
    content = lost.read_bytes()
    kept = _files(cache)
    for path in (lost, lost.with_suffix(".json")):
        path.unlink()
    lost.with_suffix(".123.flac").write_bytes(content[:100])
    again = _evaluate(model, corpus, tmp_path, cache=cache, systems=["valle"])
    assert again.rows["valle"].samples[1].values == results.rows["valle"].samples[1].values
    assert lost.read_bytes() == content  # alone in its batch, it is what it was beside others
    after = _files(cache)
    name = lost.relative_to(cache)
    changed = {path for path in kept if after[path] != kept[path]}
    assert changed == {str(name), str(name.with_suffix(".json"))}


def test_shards_put_together_are_the_whole(done, model, corpus, tmp_path, monkeypatch):
    results, _ = done
    systems = ["ground-truth", "codec"]
    for i in range(3):
        _evaluate(model, corpus, tmp_path, systems=systems, shard=(i, 3))
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(Synthesizer, "load", None)
    merged = _evaluate(model, corpus, tmp_path, systems=systems)
    for name in systems:
        assert [s.values for s in merged.rows[name].samples] == [s.values for s in results.rows[name].samples]


def test_other_options_or_another_seed_are_other_audio(done, model, corpus):
    _, out = done
    runner = Runner(model, corpus, out, None, MEASURES, OPTIONS)
    other = Runner(model, corpus, out, None, MEASURES, Options(batch_size=4))
    trial = TrialList.load(out / "trials.jsonl").trials[0]
    keys = [r._key(SYSTEMS["valle"], trial, seed) for r in (runner, other) for seed in (0, 1)]
    assert len(set(keys)) == 4
    faster = Runner(model, corpus, out, None, MEASURES, Options(**{**vars(OPTIONS), "batch_size": 1}))
    assert faster._key(SYSTEMS["valle"], trial, 0) == keys[0]  # how many are said at once is no part of it


def test_a_trial_that_the_model_cannot_say_fails_alone(done, model, corpus, tmp_path):
    """It is asked for together with one that is new as well; the others are cached."""
    _, out = done
    header, *trials = (out / "trials.jsonl").read_text().splitlines()
    long, new = (json.loads(t) | {"text": text} for t, text in zip(trials, ("seven " * 300, "seven"), strict=False))
    lines = [header, json.dumps(long), json.dumps(new), *trials[2:]]
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    results = _evaluate(model, corpus, tmp_path, systems=["valle"], trials=tmp_path / "list.jsonl", cache=out / "cache")
    (failure,) = results.rows["valle"].failed
    assert failure[0] == long["id"] and "600 tokens" in failure[1]
    assert len(results.rows["valle"].samples) == SPEAKERS * EACH - 1
    assert "1 trials could not be asked of VALL-E" in (tmp_path / "table.md").read_text()


def test_papers_figures_are_marked_where_another_model_read_them():
    def marks(wer, similarity):
        columns = (
            Column(wer, Figure("wer", of="e", per="w")),
            Column(similarity, Figure("similarity_prompt_resynthesised", of="s", best=1)),
        )
        table = main_table(Results({"protocol": "p1-librispeech"}, columns, {}))
        return next(line[1:] for line in table if line[0] == "VALL-E paper: VALL-E")

    assert marks("words_pocketsphinx", "similarity_resemblyzer") == ["0.059 †", "0.580 ‡"]
    assert marks("words_hubert-large", "similarity_wavlm-tdnn") == ["0.059", "0.580 ‡"]
    assert {row.label for row in PAPER_ROWS["p1-librispeech"]} >= {"ground truth", "YourTTS", "VALL-E"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systems": ["magic"]}, "unknown system 'magic'"),
        ({"seeds": 0}, "must be positive"),
        ({"shard": (3, 3)}, "shard 3/3"),
        ({"options": Options(best_of=2)}, "best-of-5"),
        ({"trials": "list.jsonl", "limit": 2}, "--trials gives one"),
        ({"measures": ["magic"]}, "unknown measure 'magic'"),
        ({"systems": ["best-of-5"], "measures": ["duration"]}, "measures of wer and similarity"),
    ],
)
def test_mistakes(model, corpus, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        _evaluate(model, corpus, tmp_path, **options)


def test_the_command(done, model, corpus, tmp_path, capsys):
    """Ground truth with the offline recogniser."""
    out = tmp_path / "out"
    command = ["evaluate", str(model), "--protocol=short", f"--data={corpus}", f"--out={out}"]
    main([*command, "--systems", "ground-truth", "--measures", "words_pocketsphinx", "duration", "--limit=2"])
    assert "| ground truth |" in capsys.readouterr().out
    results = Results.load(out)
    assert results.estimate("ground-truth", "words_pocketsphinx:wer").n == 2
    assert all(s.values["words_pocketsphinx"]["heard"] for s in results.rows["ground-truth"].samples)
    for wrong, message in ((["--protocol=p9"], "unknown protocol"), (["--shard=1"], "form i/n")):
        with pytest.raises(SystemExit) as stop:
            main([*command, *wrong])
        assert stop.value.code == 2 and message in capsys.readouterr().err
