"""Caffe's Datum message, without a built Caffe.

The message is described here at run time and is wire compatible with `caffe.proto`: what one writes the other reads.
It lives in a descriptor pool of its own, so that `import caffe` may come before or after.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

# in the order of their numbers in caffe.proto, which begin with 1
_FIELDS = {
    "channels": "INT32",
    "height": "INT32",
    "width": "INT32",
    "data": "BYTES",
    "label": "INT32",
    "float_data": "FLOAT",
    "encoded": "BOOL",
}


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="renet_datum.proto", package="renet", syntax="proto2")
    message = file.message_type.add(name="Datum")
    for number, (name, kind) in enumerate(_FIELDS.items(), 1):
        label = "LABEL_REPEATED" if name == "float_data" else "LABEL_OPTIONAL"
        message.field.add(name=name, number=number, type=f"TYPE_{kind}", label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("renet.Datum"))


Datum = _message_class()


def pack_encoded(encoded: bytes, channels: int, height: int, width: int) -> bytes:
    """Pack an encoded image of `channels` x `height` x `width` into the bytes of a Datum."""
    return Datum(channels=channels, height=height, width=width, label=0, data=encoded, encoded=True).SerializeToString(
        deterministic=True
    )


def unpack_encoded(record: bytes) -> bytes:
    """Unpack the encoded image of a Datum's bytes.

    Raises:
        ValueError: the record is no Datum, or its image is not encoded.
    """
    try:
        datum = Datum.FromString(record)
    except DecodeError as error:
        raise ValueError("the record is no Caffe Datum") from error
    if not datum.encoded or not datum.data:
        raise ValueError("the Datum holds no encoded image")
    return bytes(datum.data)
