"""The espeak-ng front end: golden phonemes, correspondence of lines, languages."""

import collections
import concurrent.futures
import multiprocessing
import subprocess
import sys

import pytest

from valle_jax.errors import UserError
from valle_jax.text import phonemizer
from valle_jax.text.phonemizer import Phonemizer
from valle_jax.text.vocabulary import Vocabulary

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")

TEXTS = [
    "Hello, world!",
    "",
    "... ?",
    "the QUICK\nbrown fox;\r\njumps 123",
    "“Quoted” text — dash…",
    "'",
    "- ! x",
    "Well, 1,000.5 at 10:30: fine.",
    "IT WAS GOOD FOR US",
    "(yes) [no] {maybe}",
    "half \ud83d a pair,\x00one two",
]


@pytest.fixture(scope="module")
def english():
    return Phonemizer("en-us")


def test_golden(english):
    """Written down with espeak-ng 1.52; another version may say some words otherwise."""
    assert english(TEXTS) == [
        "həlˈoʊ, wˈɜːld!",
        "",
        "",
        "ðə kwˈɪk bɹˈaʊn fˈɑːks; dʒˈʌmps wˈʌnhˈʌndɹɪd twˈɛnti θɹˈiː",
        "“kwˈoʊɾᵻd” tˈɛkst — dˈæʃ…",
        "",
        "! ˈɛks",
        "wˈɛl, wˈʌn θˈaʊzənd pɔɪnt fˈaɪv æt tˈɛn θˈɜːɾi: fˈaɪn.",
        "ɪt wʌz ɡˈʊd fɔːɹ ˌʌs",
        "(jˈɛs) [nˈoʊ] {mˈeɪbiː}",
        "hˈæf ɐ pˈɛɹ, wˈʌn tˈuː",
    ]


def test_one_call_equals_one_by_one(english):
    assert english(TEXTS * 3) == [english([text])[0] for text in TEXTS] * 3
    assert english([]) == []


def test_one_call_of_the_back_end_for_all(english, monkeypatch):
    calls = []
    original = english._backend.phonemize
    monkeypatch.setattr(english._backend, "phonemize", lambda words, **kw: calls.append(words) or original(words, **kw))
    english(TEXTS)
    assert len(calls) == 1


def test_no_process_per_line():
    """Python reports every process that is begun (PEP 578); loading the library may begin some, a line may not."""
    code = """
import collections, sys
from valle_jax.text.phonemizer import Phonemizer
phonemizer = Phonemizer("en-us")
phonemizer(["one line"])
events = collections.Counter()
sys.addaudithook(lambda name, _: events.update([name]))
phonemizer([f"this is line {i}, of many" for i in range(200)])
begun = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec")
print(sum(events[name] for name in begun))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_language_is_a_parameter():
    """Goldens of espeak-ng 1.52; one process speaks several languages in turn."""
    american, british, german = (Phonemizer(language) for language in ("en-us", "en-gb", "de"))
    for _ in range(2):
        assert american(["a bath, the wind"]) == ["ɐ bˈæθ, ðə wˈɪnd"]
        assert british(["a bath, the wind"]) == ["ɐ bˈaθ, ðə wˈɪnd"]
        assert german(["der Wind"]) == ["dɛɾ vˈɪnt"]


def test_language_flags_are_left_out():
    assert Phonemizer("fr-fr")(["j'aime le football, ça va"]) == ["ʒˈɛm lə- fˈʊtbɔːl, sa vˈa"]


def test_unknown_language_lists_near_ones():
    with pytest.raises(UserError, match=r"unknown language 'en'; near ones: .*en-us"):
        Phonemizer("en")
    with pytest.raises(UserError, match="unknown language 'German'; near ones: de"):
        Phonemizer("German")


def test_missing_extra_is_named(monkeypatch):
    phonemizer._espeak.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'valle-jax\[text\]'"):
        phonemizer.versions()


def test_shipped_table_covers_every_language():
    """Numbers are the one text that espeak reads in all its languages."""
    unknown = collections.Counter()
    text = "hello, world " + " ".join(map(str, [*range(21), 34, 57, 68, 89, 100, 1000, 2345, 1_000_000]))
    for language in phonemizer.languages().keys() - {"kl"}:  # espeak-ng 1.52 itself crashes on Greenlandic numbers
        (phonemes,) = Phonemizer(language)([text])
        Vocabulary.default().encode(phonemes, unknown)
    assert not unknown


def test_works_in_a_spawned_process():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_phonemize_elsewhere, ["two words"]).result() == ["tˈuː wˈɜːdz"]


def _phonemize_elsewhere(texts):
    return Phonemizer("en-us")(texts)
