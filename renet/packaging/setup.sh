#!/bin/sh
# Makes .venv beside this file, with the Python packages of requirements-run.lock and with pycaffe.
set -u

# the version that pycaffe is built for; what makes the archive fills it in
version=@PYTHON@

usage() {
  echo "usage: ./setup [--python PYTHON] [--wheels DIR]"
  echo
  echo "Makes .venv beside this file: the packages of requirements-run.lock, and 'import caffe'. A second call looks whether"
  echo "that is done already."
  echo
  echo "  --python PYTHON  a Python $version (default: python$version or python3 on the PATH)"
  echo "  --wheels DIR     install from the wheels in DIR, without network; on a machine with network,"
  echo "                   'python$version -m pip download -r requirements-run.lock -d DIR' fills it"
}

fail() {
  echo "setup: $*" >&2
  exit 2
}

is_wanted() {
  [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]
}

python=
wheels=
while [ $# -gt 0 ]; do
  case $1 in
    --python | --wheels) [ $# -gt 1 ] || fail "$1 needs a value (--help explains)" ;;
  esac
  case $1 in
    --python) python=$2 && shift 2 ;;
    --wheels) wheels=$2 && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown argument '$1' (--help explains)" ;;
  esac
done

if [ -n "$wheels" ]; then
  [ -d "$wheels" ] || fail "--wheels: $wheels is no folder"
  wheels=$(cd "$wheels" && pwd)
fi
if [ -n "$python" ]; then
  is_wanted "$python" || fail "--python: $python is no Python $version, for which pycaffe is built"
else
  for name in "python$version" python3; do
    if is_wanted "$name"; then
      python=$name
      break
    fi
  done
  [ -n "$python" ] || fail "there is no Python $version on the PATH, for which pycaffe is built: install one, or name it by --python"
fi
python=$(command -v "$python")
case $python in /*) ;; *) python=$PWD/$python ;; esac

cd "$(dirname "$0")" || exit 2
stamp=.venv/requirements.installed
if [ -f $stamp ] && [ "$(cat requirements-run.lock)" = "$(cat $stamp)" ] && .venv/bin/python -c 'import caffe' 2>/dev/null; then
  echo "ready already: .venv"
  exit 0
fi
# without its stamp .venv is half made
rm -rf .venv
if "$python" -c 'import ensurepip' 2>/dev/null; then
  "$python" -m venv .venv || fail "'$python -m venv' failed (see above)"
  pip=".venv/bin/python -m pip"
elif "$python" -m pip --version >/dev/null 2>&1; then
  "$python" -m venv --without-pip .venv || fail "'$python -m venv' failed (see above)"
  pip="$python -m pip --python .venv/bin/python"
else
  fail "$python has neither pip nor ensurepip: install pip for it (on Debian: apt-get install python$version-venv)"
fi
# shellcheck disable=SC2086 # words of a command
if [ -n "$wheels" ]; then
  $pip install --disable-pip-version-check --require-hashes --no-index --find-links "$wheels" -r requirements-run.lock
else
  $pip install --disable-pip-version-check --require-hashes -r requirements-run.lock
fi || fail "the packages of requirements-run.lock could not be installed (see above); without network: --wheels DIR"
# seen from site-packages, so that the folder can be moved
printf '%s\n' ../../../.. ../../../../python >".venv/lib/python$version/site-packages/renet-caffe.pth"
said=$(.venv/bin/python -c 'import caffe' 2>&1) || fail "pycaffe cannot be loaded: $(echo "$said" | tail -n 1)"
cp requirements-run.lock $stamp
echo "ready: bin/caffe, and 'import caffe' in .venv/bin/python; next: .venv/bin/python tools/demo.py"
