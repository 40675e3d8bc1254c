"""Where texts are cut: abbreviations, quotes, languages; nothing is lost."""

import pytest

from valle_jax.text.sentences import clauses, paragraphs, sentences


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en-us", "Mr. Smith met Dr. J. R. Brown in Washington, D.C. on Jan. 5. | They talked until 3.30 p.m. | Then?"),
        ("en-us", '"Stop!" he said. | "Why?" | "Because." | So do I. | We left... and so on… | Yes?! | (No.) | End'),
        ("en-us", "No. 5 is alive. | No. | He is not. | See fig. 3, i.e. the U.S. map, etc. | Pi is 3.14."),
        ("en-us", "It was 1990. | 1. First. | 2. Second. | Apple Inc. makes it."),
        ("de", "Am 3. Oktober kam Dr. Müller z.B. nach Köln. | Danach ging er."),
        ("es", "¿Qué tal? | ¡Muy bien! | El Sr. López llegó."),
        ("fr-fr", "M. Dupont est là. | « Bien sûr ! » | Oui."),
        ("ja", "今日は。|元気ですか？|はい！"),
        ("hi", "क्या हाल है। | ठीक है।"),
    ],
)
def test_sentences(language, text):
    expected = [sentence.strip() for sentence in text.split("|")]
    assert sentences(text.replace("| ", "").replace("|", ""), language) == expected


def test_clauses_and_paragraphs_keep_every_character():
    sentence = "First, we go: then — after all – at 10:30 we stop; 1,000.5 of us, I think."
    assert clauses(sentence) == [
        "First,", "we go:", "then —", "after all –", "at 10:30 we stop;", "1,000.5 of us,", "I think.",
    ]  # fmt: skip
    assert clauses("我来，你走、他笑") == ["我来，", "你走、", "他笑"]
    assert paragraphs("One\ntwo.\n\n \nThree.\n") == ["One two.", "Three."]
    assert paragraphs(" \n\n ") == []
