#!python
"""Caffe's program, as a wheel has it: run inside the interpreter, whose functions layers in Python need."""

import ctypes
import importlib.util
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(importlib.util.find_spec("caffe").origin).parent
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Caffe's own handling follows, where it has any
    program = ctypes.PyDLL(str(folder / "_program.so"))  # holds the interpreter's lock, as layers in Python expect
    words = [b"caffe", *map(os.fsencode, sys.argv[1:])]
    raise SystemExit(program.main(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None)))
