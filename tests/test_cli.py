"""The command line's manners: help, versions, exit codes, one-line errors."""

import subprocess
import sys

import pytest

from valle_jax.cli import VERBS, main
from valle_jax.version import __version__


def _exit_code(arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_overview_names_every_verb(capsys):
    main([])
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert _exit_code([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"valle {verb}" in out
    assert "xample" in out


def test_wrong_arguments_exit_with_2(capsys):
    assert _exit_code(["sing"]) == 2
    assert "unknown verb" in capsys.readouterr().err
    assert _exit_code(["synthesize", "--nonsense"]) == 2
    capsys.readouterr()
    arguments = [
        "synthesize",
        "--model",
        "nowhere",
        "--text",
        "a",
        "--prompt",
        "b",
        "--prompt-text",
        "c",
        "--out",
        "d.wav",
    ]
    assert _exit_code(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not a model directory" in error


def test_help_does_not_load_the_heavy_packages():
    """`valle --help` answers at once, and no verb's help needs torch or tensorflow."""
    code = (
        "import sys; from valle_jax.cli import main; main(['--help']); "
        "print(sorted({'jax', 'torch', 'tensorflow'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
