#!/bin/bash
# Removes from a virtual environment what only the packages' own developers need: tests, C headers, symbols, type stubs
# (scikit-image's stay: it finds its modules by them), example pictures. OpenCV's own OpenBLAS gives way to Caffe's.
# The modules that the tools import are compiled, so that they load as fast as elsewhere; the rest stays as source.
#
# usage: slim_packages.sh VENV LIBRARIES
set -euo pipefail

venv=$1
libraries=$2
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

find "$site" -depth -type d \( -name tests -o -name test \) ! -path '*/numpy/_core/tests' -exec rm -rf {} +
find "$site" -type f -name '*.pyi' ! -path "$site/skimage/*" -delete
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
find "$site/skimage/data" "$site/matplotlib/mpl-data/sample_data" -type f ! -name '*.py' ! -name '*.pyi' -delete
# symbols for debuggers; the folders NAME.libs are left alone, whose files have been edited in a way that strip may undo
find "$site" -type f -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
# programs of packages; all but Python itself
find "$venv/bin" -type f -delete
"$venv/bin/python" - <<'PYTHON'
import cv2, google.protobuf.text_format, h5py, jinja2, lmdb, matplotlib.pyplot, networkx, numpy, PIL.Image, pycocotools.mask
import pydot, scipy.io, scipy.ndimage, scipy.stats, skimage.io, skimage.transform, tqdm
PYTHON
# Caffe's OpenBLAS, which is put beside the environment later, has the same functions under the same names; NumPy's and
# SciPy's have names of their own. What it needs is looked for in the folder of the link.
opencv=$site/opencv_python_headless.libs
own=("$opencv"/libopenblas*.so)
rm "$opencv"/lib{gfortran,quadmath}-*
ln -sf "$libraries/libopenblas.so.0" "${own[0]}"
for name in libgfortran.so.5 libquadmath.so.0 libgomp.so.1; do
  ln -s "$libraries/$name" "$opencv/$name"
done
