"""Write Caffe's messages as a Python module, from a file of descriptors that protoc made.

The module is what protoc itself writes since 3.20. Ubuntu 22.04's is older, and what that one writes is refused by
today's protobuf.

usage: python_messages.py DESCRIPTORS MODULE
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

TEXT = '''"""Caffe's messages."""

from google.protobuf import descriptor_pool
from google.protobuf.internal import builder

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({content!r})
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
'''


def module_text(descriptors: bytes) -> str:
    """Text of the module for a set of descriptors, which has one file: one that imports no other.

    Raises:
        ValueError: it has another number of files.
    """
    (file,) = FileDescriptorSet.FromString(descriptors).file
    return TEXT.format(content=file.SerializeToString())


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(module_text(Path(sys.argv[1]).read_bytes()), encoding="utf-8")
