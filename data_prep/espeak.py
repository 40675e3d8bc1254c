"""espeak-ng as a speech synthesiser, through the shared library that `espeakng_loader` ships; no system package."""

from __future__ import annotations

import ctypes
import pathlib
import types

import numpy as np

from valle_jax.errors import UserError

_SYNCHRONOUS = 2  # audio is handed to the callback before the call returns
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The synthesiser; one per process.

    It keeps state between utterances (the flutter of the pitch goes on), so audio only repeats exactly where a new
    process says the same texts in the same order.
    """

    def __init__(self):
        """Loads the library.

        Raises:
          UserError: espeakng_loader is not installed.
        """
        espeakng_loader = _loader()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of the breath noise; the library takes the time else
        self._pieces: list[np.ndarray] = []
        self._callback = _Callback(self._collect)  # kept: the library holds no reference
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, *, pitch: int = 50, pitch_range: int = 50, rate: int = 175) -> np.ndarray:
        """Speech as float32 [samples] at `sample_rate`.

        Args:
          text: what to say.
          voice: as espeak-ng names it, such as "en-us" or "en-us+f3".
          pitch: 0 to 99.
          pitch_range: of the intonation, 0 (monotone) to 99.
          rate: words per minute, 80 to 450.

        Raises:
          UserError: no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        content = text.encode() + b"\0"
        self._library.espeak_Synth(content, ctypes.c_size_t(len(content)), 0, 0, 0, _UTF8, None, None)
        return np.concatenate([np.zeros(0, np.int16), *self._pieces]).astype(np.float32) / 32768

    def _collect(self, samples, count: int, _events) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def variants() -> list[str]:
    """Names of the voice variants that the data of espeak-ng hold, for "LANGUAGE+VARIANT"."""
    return sorted(path.name for path in (pathlib.Path(_loader().get_data_path()) / "voices" / "!v").iterdir())


def _loader() -> types.ModuleType:
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("espeak-ng is not installed: pip install 'valle-jax[quickstart]'") from None
    return espeakng_loader
