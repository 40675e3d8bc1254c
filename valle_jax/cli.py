"""The command line: `valle VERB [options]`. Each verb is a dataclass with a `run` method, imported when used."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

import tyro

from valle_jax.errors import EXIT_RESTART, RestartError, UserError, WorkError
from valle_jax.version import __version__

# verb: (module, class, what it does)
VERBS = {
    "quickstart": ("valle_jax.quickstart.command", "Quickstart", "train a small VALL-E from nothing and hear it speak"),
    "transcribe": ("data_prep.transcription.command", "Transcribe", "audio without text to a manifest for `prepare`"),
    "prepare": ("data_prep.prepare", "Prepare", "audio and text to a dataset of codes and phonemes"),
    "merge": ("data_prep.merging", "Merge", "datasets that were made alike become one"),
    "inspect": ("data_prep.inspection.command", "Inspect", "what is in a dataset, and whether it is intact"),
    "train": ("valle_jax.train.command", "Train", "train the AR or the NAR decoder"),
    "plan": ("valle_jax.plan.command", "Plan", "what training or sampling costs on chips that are not there"),
    "export": ("valle_jax.inference.export", "Export", "a model directory from two training runs"),
    "ablate": ("valle_jax.ablation.command", "Ablate", "train, evaluate and compare the members of a suite"),
    "import-checkpoint": (
        "valle_jax.interop.command",
        "ImportCheckpoint",
        "a model directory from a PyTorch checkpoint",
    ),
    "codec": ("valle_jax.codec.command", "CodecCommand", "audio to codes and back; check EnCodec's weights"),
    "synthesize": ("valle_jax.inference.command", "Synthesize", "text and a voice prompt to audio"),
    "edit": ("valle_jax.inference.edit_command", "Edit", "other words in a recording, in its own voice"),
    "batch": ("valle_jax.inference.batch_command", "BatchCommand", "any number of texts to audio files"),
    "serve": ("valle_jax.serving.command", "Serve", "texts to audio for whoever asks by HTTP, as OpenAI's API does"),
    "voice": ("valle_jax.inference.voice_command", "VoiceCommand", "voice prompts, encoded once and kept by name"),
    "demo": ("valle_jax.demo.command", "Demo", "a web page: a text, a voice, takes to compare"),
    "evaluate": ("valle_jax.evaluation.command", "Evaluate", "a model by the papers' protocols"),
    "compare-run": ("valle_jax.evaluation.compare_run", "CompareRun", "a training run over a reference curve"),
}


def _overview() -> str:
    verbs = "\n".join(f"  {verb:18} {text}" for verb, (_, _, text) in VERBS.items())
    return (
        f"valle {__version__}: VALL-E text to speech in JAX\n\nusage: valle VERB [options]\n\n{verbs}\n\n"
        "`valle VERB --help` shows a verb's options and an example.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb; exits 0, 1 when the work failed, 2 when the arguments are wrong, 75 when it is to be restarted."""
    verb, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if verb in ("-h", "--help"):
        print(_overview(), end="")
        return
    if verb == "--version":
        print(__version__)
        return
    if verb not in VERBS:
        print(f"valle: unknown verb {verb!r}; known: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    module, name, _ = VERBS[verb]
    try:
        command = tyro.cli(getattr(importlib.import_module(module), name), prog=f"valle {verb}", args=rest)
        command.run()
    except UserError as error:
        print(f"valle {verb}: {error}", file=sys.stderr)
        sys.exit(2)
    except WorkError as error:
        print(f"valle {verb}: {error}", file=sys.stderr)
        sys.exit(1)
    except RestartError as error:
        print(f"valle {verb}: {error}", file=sys.stderr)
        sys.exit(EXIT_RESTART)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"valle {verb}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
