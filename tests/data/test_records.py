"""Records and their framing: round trips, damage, and parity with TensorFlow's reader, writer and parser."""

import io
import struct

import numpy as np
import pytest
from small_datasets import equal, utterance

from valle_jax.data import tfrecord
from valle_jax.data.schema import Utterance
from valle_jax.data.tfrecord import DamagedRecordError


def framed(*payloads: bytes) -> bytes:
    file = io.BytesIO()
    for payload in payloads:
        tfrecord.write_record(file, payload)
    return file.getvalue()


def test_example_round_trip_and_equal_bytes():
    original = utterance(7, 5, 9, "s")
    payload = original.to_example()
    assert equal(Utterance.from_example(payload, codebooks=3), original)
    assert payload == utterance(7, 5, 9, "s").to_example()


@pytest.mark.parametrize(
    ("payload", "codebooks", "message"),
    [
        (b"\xff\xff", 3, "not a tf.train.Example"),
        (b"", 3, "0 values of feature 'utterance_id'"),
        (utterance(0, 5, 9, "s").to_example(), 8, "27 codes are not 9 frames of 8 codebooks"),
    ],
)
def test_payloads_that_are_no_utterance(payload, codebooks, message):
    with pytest.raises(ValueError, match=message):
        Utterance.from_example(payload, codebooks)


@pytest.mark.parametrize("payload", [b"", b"payload", bytes(range(256)) * 9])
def test_every_flipped_bit_of_a_record_is_noticed(payload):
    record = framed(payload)
    assert tfrecord.payload_of(record) == payload
    for bit in range(0, 8 * len(record), 7):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedRecordError):
            tfrecord.payload_of(bytes(damaged))


def test_cut_and_overlong_records():
    record = framed(b"payload")
    with pytest.raises(DamagedRecordError, match="ends inside"):
        tfrecord.payload_of(record[:10])
    with pytest.raises(DamagedRecordError, match="6 bytes instead of 7"):
        tfrecord.payload_of(record[:-1])
    with pytest.raises(DamagedRecordError, match="23 bytes instead of 7"):
        tfrecord.payload_of(record * 2 if len(record) == 16 else record + b"x" * 16)


def test_tensorflow_agrees(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="the extra `prep` is not installed")
    originals = [utterance(i, 1 + i, 3 * i + 1, "s") for i in range(4)]
    (tmp_path / "ours").write_bytes(framed(*(u.to_example() for u in originals)))
    payloads = [item.numpy() for item in tf.data.TFRecordDataset(str(tmp_path / "ours"))]
    assert len(payloads) == len(originals)
    for payload, original in zip(payloads, originals, strict=True):
        features = tf.io.parse_single_example(
            payload,
            {
                **{name: tf.io.FixedLenFeature([], tf.string) for name in ("utterance_id", "text", "codes")},
                "phonemes": tf.io.VarLenFeature(tf.int64),
                "n_frames": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        assert features["text"].numpy().decode() == original.text
        assert int(features["n_frames"]) == len(original.codes)
        np.testing.assert_array_equal(features["phonemes"].values.numpy(), original.phonemes)
        codes = tf.reshape(tf.io.decode_raw(features["codes"], tf.uint16), (-1, 3)).numpy()
        np.testing.assert_array_equal(codes, original.codes)
        # And back: what TensorFlow serializes and writes is what this project reads.
        again = tf.train.Example.FromString(payload).SerializeToString()
        assert equal(Utterance.from_example(again, 3), original)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()
    first = (tmp_path / "theirs").read_bytes()[: struct.unpack("<Q", (tmp_path / "ours").read_bytes()[:8])[0] + 16]
    assert equal(Utterance.from_example(tfrecord.payload_of(first), 3), originals[0])
