"""The random model of tests/inference."""

from inference.conftest import model_dir, tts  # noqa: F401
