"""The facts that datasets and models record about their codec."""

import dataclasses
import json

import pytest

from valle_jax.codec import CodecInfo, get_codec
from valle_jax.errors import UserError

INFO = CodecInfo("encodec_24khz", 24_000, 75.0, 8, 1024, "0123456789abcdef", {"bandwidth_kbps": 6.0})


def test_json_round_trip():
    assert CodecInfo.from_json(json.loads(json.dumps(INFO.to_json()))) == INFO


@pytest.mark.parametrize("change", [{"weight_hash": "f" * 16}, {"parameters": {"bandwidth_kbps": 3.0}}])
def test_another_codec_is_named_with_both_artefacts(change):
    INFO.check_same(dataclasses.replace(INFO), "model/", "data/")
    with pytest.raises(UserError, match=r"model/ .* data/"):
        INFO.check_same(dataclasses.replace(INFO, **change), "model/", "data/")


def test_unknown_codec_lists_the_known_ones():
    with pytest.raises(UserError, match="mel_rvq, encodec_24khz"):
        get_codec("opus")
