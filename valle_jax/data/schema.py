"""The record of one utterance: a `tf.train.Example`, written and read without TensorFlow."""

from __future__ import annotations

import dataclasses

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

SPLITS = ("train", "valid_utterance", "valid_speaker", "test")
"""By number in the index; valid_utterance is of speakers in train, valid_speaker of others, test the corpus's own."""


@dataclasses.dataclass(frozen=True, eq=False)
class Utterance:
    """One utterance of a dataset.

    Attributes:
      utterance_id: unique in its corpus.
      speaker_id: unique in its corpus.
      language: as espeak-ng names it.
      text: the transcript.
      phonemes: int32 [S], ids of the dataset's vocabulary, without end of text.
      codes: uint16 [T, Q].
      source: where the recording came from.
      phoneme_frames: int32 [S], the frame at which each phoneme starts, ascending; None: not aligned.
    """

    utterance_id: str
    speaker_id: str
    language: str
    text: str
    phonemes: np.ndarray
    codes: np.ndarray
    source: str
    phoneme_frames: np.ndarray | None = None

    def to_example(self) -> bytes:
        """A serialized `tf.train.Example`; the same bytes for the same utterance.

        Its features: the strings as UTF-8; `phonemes` int64 [S]; `codes` as the little-endian uint16 bytes of [T, Q] in
        C order; `n_frames` int64; `phoneme_frames` int64 [S] only where they are known.
        """
        example = Example()
        features = example.features.feature
        for name in _STRINGS:
            features[name].bytes_list.value.append(getattr(self, name).encode())
        features["phonemes"].int64_list.value.extend(np.asarray(self.phonemes).tolist())
        features["codes"].bytes_list.value.append(np.ascontiguousarray(self.codes, "<u2").tobytes())
        features["n_frames"].int64_list.value.append(len(self.codes))
        if self.phoneme_frames is not None:
            features["phoneme_frames"].int64_list.value.extend(np.asarray(self.phoneme_frames).tolist())
        return example.SerializeToString(deterministic=True)

    @classmethod
    def from_example(cls, payload: bytes, codebooks: int) -> Utterance:
        """The inverse of `to_example`, for codes of so many codebooks.

        Raises:
          ValueError: the bytes are not such a record.
        """
        try:
            features = Example.FromString(payload).features.feature
            strings = {name: _only(features, name, "bytes_list").decode() for name in _STRINGS}
            codes = np.frombuffer(_only(features, "codes", "bytes_list"), "<u2")
            n_frames = _only(features, "n_frames", "int64_list")
        except DecodeError:
            raise ValueError("not a tf.train.Example") from None
        if codes.size != n_frames * codebooks:
            raise ValueError(f"{codes.size} codes are not {n_frames} frames of {codebooks} codebooks")
        phonemes = np.array(features["phonemes"].int64_list.value, np.int32)
        starts = None
        if "phoneme_frames" in features:
            starts = np.array(features["phoneme_frames"].int64_list.value, np.int32)
            inside = len(starts) == 0 or (starts[0] >= 0 and starts[-1] < n_frames and (np.diff(starts) >= 0).all())
            if len(starts) != len(phonemes) or not inside:
                raise ValueError("the frames at which phonemes start do not ascend inside the utterance")
        codes = codes.astype(np.uint16, copy=False).reshape(-1, codebooks)
        return cls(phonemes=phonemes, codes=codes, phoneme_frames=starts, **strings)


_STRINGS = ("utterance_id", "speaker_id", "language", "text", "source")


def _only(features, name: str, kind: str):
    """The single value of a feature."""
    values = getattr(features[name], kind).value
    if len(values) != 1:
        raise ValueError(f"{len(values)} values of feature {name!r} instead of one")
    return values[0]


def _example_class():
    """`tf.train.Example` as TensorFlow's example.proto and feature.proto define it.

    Built in a descriptor pool of its own: TensorFlow registers the same names in the default pool.
    """
    file = descriptor_pb2.FileDescriptorProto(name="valle_jax/example.proto", package="tensorflow", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, str]) -> descriptor_pb2.DescriptorProto:
        added = file.message_type.add(name=name)
        for field_name, number, kind, type_name in fields:
            field = added.field.add(name=field_name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
            if type_name:
                field.type_name = type_name
        return added

    for name, kind in (
        ("BytesList", kinds.TYPE_BYTES),
        ("FloatList", kinds.TYPE_FLOAT),
        ("Int64List", kinds.TYPE_INT64),
    ):
        message(name, ("value", 1, kind, "")).field[0].label = kinds.LABEL_REPEATED
    feature = message(
        "Feature",
        ("bytes_list", 1, kinds.TYPE_MESSAGE, ".tensorflow.BytesList"),
        ("float_list", 2, kinds.TYPE_MESSAGE, ".tensorflow.FloatList"),
        ("int64_list", 3, kinds.TYPE_MESSAGE, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".tensorflow.Features.FeatureEntry"))
    features.field[0].label = kinds.LABEL_REPEATED
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=kinds.TYPE_MESSAGE,
        type_name=".tensorflow.Feature",
        label=kinds.LABEL_OPTIONAL,
    )
    message("Example", ("features", 1, kinds.TYPE_MESSAGE, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _example_class()
