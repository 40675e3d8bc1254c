"""The symbol table: stable ids, round trips, comparison of tables."""

import collections
import json
import unicodedata

import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.text.vocabulary import EOS_ID, PAD_ID, UNK_ID, Vocabulary

PHRASE = "həlˈoʊ, wˈɜːld! ɡɑ̃t͡sçᵻ5"
# Written down when the table was made; a change means that every checkpoint reads its text wrongly.
PHRASE_IDS = [42, 66, 46, 25, 49, 81, 5, 3, 57, 25, 69, 27, 46, 38, 6, 3, 93, 61, 174, 54, 205, 53, 37, 192, 168, 211]


def test_golden_ids():
    assert (PAD_ID, EOS_ID, UNK_ID) == (0, 1, 2)
    assert Vocabulary.default().version == "ipa-1"
    assert Vocabulary.default().encode(PHRASE).tolist() == PHRASE_IDS


def test_golden_table():
    """Version ipa-1 had 235 symbols; a later version may only add behind them."""
    symbols = Vocabulary.default().symbols
    assert len(symbols) >= 235
    assert (symbols[0], symbols[100], symbols[200], symbols[234]) == (" ", "ɬ", "\u033d", "`")


def test_decode_inverts_encode():
    vocabulary = Vocabulary.default()
    ids = vocabulary.encode(PHRASE)
    assert ids.dtype == np.int32
    assert vocabulary.decode(ids) == unicodedata.normalize("NFD", PHRASE)
    assert vocabulary.decode([*ids, EOS_ID, PAD_ID, PAD_ID]) == unicodedata.normalize("NFD", PHRASE)
    with pytest.raises(UserError, match="id 9999 is outside vocabulary ipa-1"):
        vocabulary.decode([3, 9999])


def test_composition_does_not_matter():
    vocabulary = Vocabulary.default()
    assert vocabulary.encode("\u00e3\u00e7").tolist() == vocabulary.encode("a\u0303c\u0327").tolist()


def test_unknown_symbols_are_mapped_and_counted():
    unknown = collections.Counter()
    ids = Vocabulary.default().encode("a日b日本", unknown)
    assert ids.tolist()[1] == UNK_ID and (ids == UNK_ID).sum() == 3
    assert unknown == {"日": 2, "本": 1}
    assert Vocabulary.default().decode(ids) == "a\ufffdb\ufffd\ufffd"
    Vocabulary.default().encode("日c", unknown)  # the count of a corpus goes on from text to text
    assert unknown == {"日": 3, "本": 1}


def test_a_table_of_a_corpus_knows_all_of_it_and_nothing_else():
    vocabulary, unknown = Vocabulary.from_corpus(["bã", "ab"]), collections.Counter()
    assert UNK_ID not in vocabulary.encode("bãab", unknown) and not unknown
    assert vocabulary.encode("abc", unknown).tolist() == [3, 4, UNK_ID]
    assert unknown == {"c": 1}


def test_table_from_a_corpus_round_trips(tmp_path):
    vocabulary = Vocabulary.from_corpus(["bã", "ab"])
    assert vocabulary.symbols == ("a", "b", "\u0303") and vocabulary.size == 6
    assert vocabulary == Vocabulary.from_corpus(["ab", "ba\u0303"])
    assert vocabulary.version.startswith("corpus-")
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(vocabulary.to_json()))
    assert Vocabulary.load(path) == vocabulary
    assert hash(Vocabulary.load(path)) == hash(vocabulary)


def test_extension_and_sameness():
    small, large, other = (
        Vocabulary("s", ("a", "b")),
        Vocabulary("l", ("a", "b", "c")),
        Vocabulary("o", ("b", "a", "c")),
    )
    assert large.is_extension_of(small) and small.is_extension_of(small)
    assert not small.is_extension_of(large) and not other.is_extension_of(small)
    small.check_same(Vocabulary("another name", ("a", "b")), "x", "y")
    with pytest.raises(UserError, match=r"dataset/a was made with vocabulary s .* but model/b with l "):
        small.check_same(large, "dataset/a", "model/b")


@pytest.mark.parametrize("symbols", [("a", "a"), ("ab",), ("\u00e3",), ("",)])
def test_wrong_tables_are_refused(symbols):
    with pytest.raises(UserError, match="vocabulary v: symbol"):
        Vocabulary("v", symbols)


@pytest.mark.parametrize("content", ["", "[]", '{"version": "x"}', '{"version": "x", "symbols": 3}'])
def test_wrong_files_are_refused(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"vocabulary\.json is not a vocabulary"):
        Vocabulary.load(path)
    with pytest.raises(UserError, match="cannot read vocabulary"):
        Vocabulary.load(tmp_path / "nothing.json")
