"""TFRecord files: framed records with masked CRC-32C, written in order and read at any offset.

A record is its length (uint64), the length's CRC, the payload and the payload's CRC, all little-endian.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import google_crc32c

FRAMING_BYTES = 16
"""What a record takes besides its payload."""

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class DamagedRecordError(Exception):
    """A record whose framing, checksum or content is wrong; the message is the reason."""


def _masked_crc(payload: bytes) -> int:
    """CRC-32C, rotated and offset so that a CRC of data that holds CRCs is still good."""
    crc = google_crc32c.value(payload)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file: BinaryIO, payload: bytes) -> None:
    """Appends one record."""
    length = struct.pack("<Q", len(payload))
    file.write(length + _FOOTER.pack(_masked_crc(length)) + payload + _FOOTER.pack(_masked_crc(payload)))


def payload_of(record: bytes) -> bytes:
    """The payload of one whole record.

    Raises:
      DamagedRecordError: the record is cut, longer than it says, or a checksum does not match.
    """
    if len(record) < FRAMING_BYTES:
        raise DamagedRecordError("the file ends inside it")
    length, crc = _HEADER.unpack_from(record)
    if crc != _masked_crc(record[:8]):
        raise DamagedRecordError("the checksum of its length does not match")
    if length + FRAMING_BYTES != len(record):
        raise DamagedRecordError(f"it has {len(record) - FRAMING_BYTES} bytes instead of {length}")
    payload = record[_HEADER.size : -_FOOTER.size]
    if _FOOTER.unpack_from(record, len(record) - _FOOTER.size)[0] != _masked_crc(payload):
        raise DamagedRecordError("its checksum does not match")
    return payload
