#!/bin/bash
# Removes from a virtual environment what only the packages' own developers need: tests, C headers, symbols, type stubs
# (scikit-image's stay: it finds its modules by them), example pictures.
# The modules that the tools import are compiled, so that they load as fast as elsewhere; the rest stays as source.
#
# usage: slim_packages.sh VENV
set -euo pipefail

venv=$1
site=$venv/lib/python3.11/site-packages

find "$site" -depth -type d \( -name tests -o -name test \) ! -path '*/numpy/_core/tests' -exec rm -rf {} +
find "$site" -type f -name '*.pyi' ! -path "$site/skimage/*" -delete
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
find "$site/skimage/data" "$site/matplotlib/mpl-data/sample_data" -type f ! -name '*.py' ! -name '*.pyi' -delete
# symbols for debuggers; the folders NAME.libs are left alone, whose files have been edited in a way that strip may undo
find "$site" -type f -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
# programs of packages; all but Python itself
find "$venv/bin" -type f -delete
"$venv/bin/python" - <<'PYTHON'
import cv2, google.protobuf.text_format, jinja2, lmdb, matplotlib.pyplot, networkx, numpy, PIL.Image, pycocotools.mask
import pydot, scipy.io, scipy.ndimage, scipy.stats, skimage.io, skimage.transform, tqdm
PYTHON
