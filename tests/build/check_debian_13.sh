#!/bin/bash
# Sets the clone up on Debian 13, in a root folder that holds nothing else, and tests it there: what continuous
# integration runs as the last part of `make test`, after tests on this system and of the image.
#
# It mounts and changes root, so it does nothing unless RENET_CHECK_SYSTEMS=1 asks for it. Debian is made by debootstrap,
# with this machine's own certificate authorities and compiler cache; everything lies in build/system-check. Where the
# machine does not allow all this, it says why and passes. What does not build, and a test that fails, fail.
#
# usage: RENET_CHECK_SYSTEMS=1 tests/build/check_debian_13.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=$PWD/build/system-check
log=$PWD/build/logs/system-check.log
root=$folder/root
limit=1500  # seconds for setting up and testing; with a warm compiler cache it takes a third of that

skip() { echo "Debian 13 is not tried: $1"; exit 0; }
# a step that may not work here: skipping says which, and the log why
attempt() {
  local reason=$1 seconds=$2; shift 2
  timeout --kill-after=10 "$seconds" "$@" >>"$log" 2>&1 </dev/null || skip "$reason (the log is ${log#"$PWD/"})"
}

[[ ${RENET_CHECK_SYSTEMS:-} == 1 ]] || skip "RENET_CHECK_SYSTEMS=1 asks for it, as continuous integration does"
[[ $(id -u) == 0 ]] || skip "this takes root"
mkdir -p "$folder" "${log%/*}"
: >"$log"
unshare --mount --propagation private true 2>>"$log" || skip "nothing can be mounted here"
command -v debootstrap >/dev/null || attempt "debootstrap cannot be installed" 180 bash -c '
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=60 install -y --no-install-recommends debootstrap'

rm -rf --one-file-system "$root"
trap 'rm -rf --one-file-system "$root"' EXIT
# shellcheck disable=SC2016  # it is apt that expands this
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 2>/dev/null | head -n 1 || true)
attempt "Debian 13 cannot be fetched" 400 debootstrap --variant=minbase --include=ca-certificates,git,make trixie "$root" ${mirror:+"$mirror"}
# what the network needs, as this machine has it
authorities=/usr/local/share/ca-certificates
[[ ! -d $authorities ]] || cp -rL $authorities/. "$root$authorities"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
network=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  [[ -z ${!name:-} ]] || network+=("$name=${!name}")
done

# the files of this commit and what is changed in them; not what was built of them
mkdir -p "$root/root/renet-caffe" "$root/ccache" "$root/downloads"
git ls-files -z | tar --null -T - -cf - | tar -C "$root/root/renet-caffe" -xf -
ccache=$(ccache --get-config cache_dir)
mkdir -p "$ccache" build/downloads
cat >"$folder/inside.sh" <<'END'
set -eu
update-ca-certificates >/dev/null
cd /root/renet-caffe
mkdir -p build && ln -s /downloads build/downloads
make system
make caffe-tests wheel
make demo DEMO_ARGS="--short /tmp/demo"
.venv/bin/python -m pip check
echo "== the layers"
(cd build/caffe-source && OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive ../cpu/bin/caffe-tests \
  --gtest_filter='ReNet*:*DenseCRF*:SegmentationData*:OneDNN*:BilinearInterpolation*:Interp*:Unpooling*:Permut*:Normalize*:L2Normalization*:BN*:SegAccuracy*:ListData*:ForeignNetworks*:Resume*-*GPU*' | tail -n 3)
echo "== pycaffe and the tools"
.venv/bin/python -m unittest discover -s build/caffe-source/python/caffe/test
.venv/bin/python -m pytest -q tests/packaging/test_wheel.py tests/runtime tests/api tests/evaluation
echo "== the wheel, in an environment of its own"
python3 -m venv /tmp/installed
/tmp/installed/bin/pip install -q --disable-pip-version-check dist/*.whl
/tmp/installed/bin/pip check
mkdir /tmp/elsewhere && cd /tmp/elsewhere && /tmp/installed/bin/renet-demo --short demo
END
export root folder ccache PWD
status=0
# shellcheck disable=SC2016  # the inner shell expands this
timeout --kill-after=60 $limit unshare --mount --propagation private bash -c '
  mount -t proc proc "$root/proc"
  mount -t sysfs sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount --bind "$ccache" "$root/ccache"
  mount --bind build/downloads "$root/downloads"
  exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CCACHE_DIR=/ccache "$@" bash -s <"$folder/inside.sh"
' - "${network[@]}" >>"$log" 2>&1 || status=$?
[[ $status != 124 && $status != 137 ]] || skip "it took longer than $limit s (the log is ${log#"$PWD/"})"
grep -E '^\[  (PASSED|FAILED)|^(OK|FAILED)|passed|failed' "$log" | tail -n 4 || true
if [[ $status != 0 ]]; then
  echo "Debian 13: it failed; the log is ${log#"$PWD/"}" >&2
  exit 1
fi
echo "Debian 13: set up, tested, and the wheel installed"
