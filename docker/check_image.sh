#!/bin/bash
# Builds the CPU image and runs its tests where no container engine is set up: what continuous integration runs as the
# last part of `make test`.
#
# It installs podman, so it does nothing unless RENET_CHECK_IMAGE=1 asks for it. Debian's base image is made by
# debootstrap, with this machine's own certificate authorities, as a company has them; everything lies in build/image-check.
# Where the machine does not allow all this, it says why and passes. A Dockerfile that does not build, and a test that
# fails, fail.
#
# usage: RENET_CHECK_IMAGE=1 docker/check_image.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$PWD/build/image-check
log=$PWD/build/logs/image-check.log
limit=900  # seconds for building and testing
base=localhost/debian:bookworm

skip() { echo "the image is not tested: $1"; exit 0; }
# a step that may not work here: skipping says which, and the log why
attempt() {
  local reason=$1 seconds=$2; shift 2
  timeout --kill-after=10 "$seconds" "$@" >>"$log" 2>&1 </dev/null || skip "$reason (the log is ${log#"$PWD/"})"
}
remove() {
  local rest
  podman rmi --all --force >/dev/null 2>&1 || true
  while read -r rest; do umount "$rest" || true; done < <(awk -v "f=$folder/" 'index($2, f) == 1 { print $2 }' /proc/mounts | sort -r)
  rm -rf --one-file-system "$folder/storage" "$folder/run" "$folder/root" "$folder/tmp"
}

[[ ${RENET_CHECK_IMAGE:-} == 1 ]] || skip "make image-test does it with docker or podman, RENET_CHECK_IMAGE=1 as continuous integration"
[[ $(id -u) == 0 ]] || skip "this takes root"
grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release || skip "this takes Debian 12"
mkdir -p "$folder" "${log%/*}"
: >"$log"

for program in podman runc debootstrap; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if [[ -n ${missing:-} ]]; then
  attempt "${missing[*]} cannot be installed" 180 bash -c '
    apt-get update && DEBIAN_FRONTEND=noninteractive \
      apt-get -o DPkg::Lock::Timeout=60 install -y --no-install-recommends "$@"' - "${missing[@]}"
fi

export CONTAINERS_STORAGE_CONF=$folder/storage.conf CONTAINERS_CONF=$folder/containers.conf BUILDAH_ISOLATION=chroot
export TMPDIR=$folder/tmp
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$folder/storage"
runroot = "$folder/run"
END
# runc, limits that need no more rights than root in a container has, and no journal
cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
events_logger = "file"
END
remove
trap remove EXIT
mkdir -p "$TMPDIR"

if [[ ! -f $folder/base.tar ]]; then
  # shellcheck disable=SC2016  # it is apt that expands this
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 2>/dev/null | head -n 1 || true)
  attempt "Debian's base cannot be fetched" 300 debootstrap --variant=minbase bookworm "$folder/root" ${mirror:+"$mirror"}
  authorities=/usr/local/share/ca-certificates
  if [[ -n $(find $authorities -name '*.crt' 2>/dev/null) ]]; then
    mkdir -p "$folder/root$authorities" "$folder/root/etc/ssl/certs"
    cp -L $authorities/*.crt "$folder/root$authorities"
    # pip has authorities of its own, and ca-certificates, which reads ours, is not installed yet
    cp -L /etc/ssl/certs/ca-certificates.crt "$folder/root/etc/ssl/certs"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$folder/root/etc/pip.conf"
  fi
  rm -rf "$folder"/root/var/cache/apt/* "$folder"/root/var/lib/apt/lists/*
  attempt "Debian's base cannot be packed" 60 tar -C "$folder/root" -cf "$folder/base.tar.part" .
  mv "$folder/base.tar.part" "$folder/base.tar"
fi
# This machine's compiler cache serves the build inside; the language of messages is part of what ccache goes by
ccache=$(ccache --get-config cache_dir)
mkdir -p "$ccache"
changes=(--change "ENV CCACHE_DIR=/ccache")
for name in LANG LC_ALL LC_CTYPE LC_MESSAGES; do
  [[ -z ${!name:-} ]] || changes+=(--change "ENV $name=${!name}")
done
attempt "podman keeps no image here" 60 podman import "${changes[@]}" "$folder/base.tar" $base
attempt "podman runs nothing here" 60 podman run --rm --network=none $base true
mkdir -p "$folder/probe"
printf 'FROM %s\nRUN apt-get update\n' $base >"$folder/probe/Dockerfile"
attempt "nothing can be fetched in a build" 120 podman build --pull=never "$folder/probe"

status=0
timeout --kill-after=60 $limit make image-test ENGINES=podman BASE_IMAGE=$base \
  IMAGE_ARGS="--pull=never --jobs=2 --volume=$ccache:/ccache" </dev/null >>"$log" 2>&1 || status=$?
[[ $status != 124 && $status != 137 ]] || skip "it took longer than $limit s (the log is ${log#"$PWD/"})"
tail -n 3 "$log"
if [[ $status != 0 ]]; then
  echo "the image's test failed; its log is ${log#"$PWD/"}" >&2
  exit 1
fi
