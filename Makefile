# The only door: every command that a person needs is a target here. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -e -u -o pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := setup
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
PYTEST_ARGS ?=
# processes that pytest's files and the C++ tests are shared out to; more would want more memory than most machines have
TEST_PROCESSES ?= $(shell echo $$(($(JOBS) < 4 ? $(JOBS) : 4)))
DEMO_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
SOAK_ARGS ?= --minutes 60 --images 20000 --iterations 20000
GPU_DATA_ARGS ?=
MPICXX ?=
CLUSTER_ARGS ?=
EMULATED_ARGS ?=
# random shapes that `make sanitize` tries; what `make fuzz` takes of time for each program, and where its inputs grow
SHAPES ?= 10000
FUZZ_SECONDS ?= 600
FUZZ_FOLDER ?= build/fuzz-inputs
CLANGXX ?= $(or $(shell command -v clang++),$(lastword $(sort $(wildcard /usr/bin/clang++-*))))
OS_RELEASE ?= /etc/os-release
PROC ?= /proc
# compute capabilities that GPU code is made for; later GPUs run what is made from the last one's PTX
CUDA_ARCHS ?= 75 80 90

# of the images: what builds and runs them, the Debian 12 to start from, what the image is called, more options of
# `docker build`
ENGINES ?= docker podman buildah
BASE_IMAGE ?= debian:bookworm-slim
IMAGE ?= renet-caffe
IMAGE_ARGS ?=

LOGS := build/logs
PYTHON := .venv/bin/python
# what set-up is for; packages.txt says what differs
SYSTEMS := debian-12 debian-13 ubuntu-22.04 ubuntu-24.04
SYSTEM := $(shell . $(abspath $(OS_RELEASE)) 2>/dev/null && echo $$ID-$$VERSION_ID)
# tests need a browser, which nothing else does
PACKAGES := $(shell awk -v on=$(SYSTEM) '!/^\#/ && (NF == 1 || index($$0 " ", " " on " ")) { print $$1 }' \
  packages.txt $(if $(filter test,$(MAKECMDGOALS)),packages-dev.txt))

# Shell functions for the recipes. Every recipe that changes build/ or .venv holds the lock, so that a second make in
# this folder waits for the first. A failed step ends in one line that names it and its log.
define BEGIN
mkdir -p $(LOGS)
exec 9>build/.lock
flock -n 9 || { echo "waiting for another make in this folder"; flock 9; }
failed() { echo "make: the step '$$1' failed; its log is $(LOGS)/$$2.log" >&2; exit 1; }
quietly() { local name=$$1 log=$$2; shift 2; echo "== $$name"; "$$@" >$(LOGS)/$$log.log 2>&1 || failed "$$name" $$log; }
shown() { local name=$$1 log=$$2; shift 2; echo "== $$name"; "$$@" 2>&1 | tee $(LOGS)/$$log.log || failed "$$name" $$log; }
endef

.PHONY: setup
setup: caffe ## system packages, .venv and Caffe with our layers; what `make` alone does
	@echo "ready: build/cpu/bin/caffe, and 'import caffe' in .venv/bin/python; next: make demo"

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: system
system:
	@NAME=unknown; VERSION_ID=; [[ ! -r $(OS_RELEASE) ]] || . $(abspath $(OS_RELEASE))
	if [[ -z "$(filter $(SYSTEM),$(SYSTEMS))" ]]; then
	  echo "make: set-up knows $(SYSTEMS); this system is $$NAME $$VERSION_ID; what serves instead: the image of" \
	    "'make image' (docs/docker.md), or the wheel that 'make wheel' makes on Debian 12 (docs/pip.md)" >&2
	  exit 2
	fi
	$(if $(filter system,$(MAKECMDGOALS)),echo "set-up knows this system: $$NAME $$VERSION_ID")
	[[ -e $(PROC)/self ]] || { echo "make: $(PROC) is not mounted: mount -t proc proc /proc" >&2; exit 2; }

.PHONY: packages
packages: system
	@$(BEGIN)
	installed=$$(dpkg-query -W -f='$${Package} $${db:Status-Abbrev}\n' $(PACKAGES) 2>/dev/null | awk '$$2 == "ii" { print $$1 }' || true)
	missing=$$(comm -23 <(printf '%s\n' $(PACKAGES) | sort) <(sort <<<"$$installed"))
	[[ -n $$missing ]] || exit 0
	sudo=
	if [[ $$(id -u) != 0 ]]; then
	  sudo=sudo
	  command -v sudo >/dev/null || { echo "make: neither root nor sudo: let an administrator install:" $$missing >&2; exit 2; }
	fi
	install() {
	  # a killed installation leaves packages half configured
	  $$sudo dpkg --configure -a && $$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive \
	    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $$missing
	}
	quietly "system packages: $$(tr '\n' ' ' <<<"$$missing")" packages install

.PHONY: venv
venv: packages
	@$(BEGIN)
	stamp=.venv/requirements.installed
	# of the Python that runs: another one than made .venv finds no such folder, nor does one that is gone
	site() { $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null || true; }
	if ! cmp -s requirements.lock $$stamp || [[ ! -d "$$(site)" ]]; then
	  create() {
	    # without its stamp .venv was left half made: it is made anew
	    [[ -f $$stamp && -d "$$(site)" ]] || /usr/bin/python3 -m venv --clear .venv || return
	    rm -f $$stamp
	    $(PYTHON) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	  }
	  quietly "Python packages into .venv" venv create
	  cp requirements.lock $$stamp
	fi
	# `import caffe` and `import renet` from every folder; an image compiles Caffe without the library
	site=$$(site)
	[[ "$$(cat $$site/pycaffe.pth 2>/dev/null || true)" == "$$PWD/build/cpu/python" ]] || echo "$$PWD/build/cpu/python" >$$site/pycaffe.pth
	library=$$site/_renet_caffe_editable.pth
	if [[ -f pyproject.toml && ( pyproject.toml -nt $$library || VERSION -nt $$library || "$$(cat $$library)" != "$$PWD" ) ]]; then
	  quietly "the library renet into .venv" library $(PYTHON) -m pip install --disable-pip-version-check --no-deps -e .
	fi

# Shell function `configured FOLDER NAME LOG OPTION...`: a build folder of CMake's that is up to its options.
define CONFIGURE
[[ -z "$${CAFFE_SOURCE:-}" ]] || export CAFFE_SOURCE="$$(realpath -m -- "$$CAFFE_SOURCE")"
[[ -z "$${CUDA_HOME:-}" ]] || export CUDA_HOME="$$(realpath -m -- "$$CUDA_HOME")"
configured() {
  local folder=$$1 name=$$2 log=$$3 option wanted=1; shift 3
  # a copied or moved folder still has the old place's paths in it
  [[ ! -f $$folder/CMakeCache.txt ]] || grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$$PWD/caffe_layers" $$folder/CMakeCache.txt || rm -rf $$folder
  for option; do
    grep -qsxF -- "$${option#-D}" <(sed 's/:[A-Z]*=/=/' $$folder/CMakeCache.txt 2>/dev/null) || wanted=0
  done
  [[ -f $$folder/build.ninja && $$wanted == 1 ]] || shown "configuring $$name" $$log cmake -G Ninja -S caffe_layers -B $$folder "$$@"
}
endef

.PHONY: caffe
caffe: venv ## Caffe with our layers alone, into build/cpu
	@$(BEGIN)
	$(CONFIGURE)
	configured build/cpu "Caffe" configure
	shown "building Caffe with our layers" caffe cmake --build build/cpu --parallel $(JOBS)

.PHONY: caffe-tests
caffe-tests: caffe ## the C++ test program, Caffe's own tests and ours
	@$(BEGIN)
	shown "building the C++ tests" caffe-tests cmake --build build/cpu --parallel $(JOBS) --target caffe-tests

.PHONY: mpi
mpi: caffe ## training by several processes, on one machine or many, with mpirun or srun; MPICXX= chooses the MPI
	@$(BEGIN)
	mpicxx=$(MPICXX)
	[[ -n $$mpicxx ]] || mpicxx=$$(command -v mpicxx || echo .venv/bin/mpicxx)
	command -v "$$mpicxx" >/dev/null || { echo "make: MPICXX=$$mpicxx: there is no such compiler" >&2; exit 2; }
	for folder in build/cpu $$(ls -d build/gpu 2>/dev/null); do
	  quietly "the library that knows MPI, by $$mpicxx" mpi $(PYTHON) caffe_layers/scripts/mpi_library.py "$$mpicxx" $$folder/lib/libcaffe_mpi.so
	done

.PHONY: gpu
gpu: venv ## Caffe with CUDA, cuDNN and NCCL, into build/gpu; CUDA_ARCHS="75 80 90" and CUDA_HOME choose
	@$(BEGIN)
	$(CONFIGURE)
	configured build/gpu "Caffe with CUDA" configure-gpu -DGPU=ON "-DCUDA_ARCHS=$(CUDA_ARCHS)"
	shown "building Caffe with CUDA" gpu cmake --build build/gpu --parallel $(JOBS)

.PHONY: gpu-tests
gpu-tests: gpu ## the C++ test program of the CUDA build
	@$(BEGIN)
	shown "building the C++ tests with CUDA" gpu-tests cmake --build build/gpu --parallel $(JOBS) --target caffe-tests

.PHONY: gpu-bundle
gpu-bundle: gpu-tests ## the CUDA build as one archive for a bare GPU machine: build/renet-caffe-gpu.tar.xz
	@$(BEGIN)
	$(PYTHON) tools/gpu_bundle.py

.PHONY: dist
dist: caffe ## the CPU build as one archive that runs on any Linux: build/renet-caffe-<version>.tar.xz
	@$(BEGIN)
	$(PYTHON) tools/dist.py

.PHONY: wheel
wheel: caffe ## the CPU build as a wheel for pip: dist/renet_caffe-<version>-...whl
	@$(BEGIN)
	$(PYTHON) tools/wheel.py

# Shell function `image FLAVOUR NAME`: build an image with docker, podman or buildah.
define IMAGES
engine=
for name in $(ENGINES); do
  # docker's command alone builds nothing where no engine answers
  [[ -n $$engine ]] || ! $$name info >/dev/null 2>&1 || engine=$$name
done
[[ -n $$engine ]] || { echo "make: images are built by docker, podman or buildah, and none of $(ENGINES) works here" >&2; exit 2; }
image() {
  local commit
  commit=$$(git rev-parse HEAD 2>/dev/null || echo unknown)
  [[ $$commit == unknown || -z $$(git status --porcelain -uno) ]] || commit+=+changes
  echo "== building the image $$2 with $$engine"
  # without the first, podman and buildah drop SHELL; buildah alone keeps no layers without the second
  BUILDAH_FORMAT=docker BUILDAH_LAYERS=true DOCKER_BUILDKIT=1 $$engine build -f docker/Dockerfile -t $$2 \
    --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg FLAVOUR=$$1 --build-arg JOBS=$(JOBS) \
    --build-arg "CUDA_ARCHS=$(CUDA_ARCHS)" --build-arg COMMIT=$$commit --build-arg VERSION=$$(cat VERSION) $(IMAGE_ARGS) .
}
endef

.PHONY: image
image: ## the Docker image renet-caffe; BASE_IMAGE=, IMAGE= and IMAGE_ARGS= choose
	@$(IMAGES)
	image cpu $(IMAGE)

.PHONY: image-gpu
image-gpu: ## the same with CUDA, cuDNN and NCCL: renet-caffe:gpu
	@$(IMAGES)
	image gpu $(if $(filter file,$(origin IMAGE)),$(IMAGE):gpu,$(IMAGE))

.PHONY: image-test
image-test: image venv ## builds the image, and runs what its users run in it
	@$(IMAGES)
	RENET_IMAGE=$(IMAGE) RENET_ENGINE=$$engine $(PYTHON) -m pytest tests/build/test_image.py $(PYTEST_ARGS)

.PHONY: gpu-data
gpu-data: venv ## a small prepared dataset beside it: build/renet-caffe-data.tar.xz; GPU_DATA_ARGS="--archive FILE"
	@$(BEGIN)
	$(PYTHON) tools/gpu_data.py $(GPU_DATA_ARGS)

.PHONY: kernels
kernels: venv ## our CUDA kernels, compiled for the first and the last of CUDA_ARCHS: do they compile, what do they take
	@$(BEGIN)
	$(CONFIGURE)
	configured build/kernels "our kernels" configure-kernels -DGPU=KERNELS "-DCUDA_ARCHS=$(firstword $(CUDA_ARCHS)) $(lastword $(CUDA_ARCHS))"
	# all of them every time, most of it out of ccache: the compiler's report is of all of them then
	quietly "compiling our CUDA kernels" kernels cmake --build build/kernels --parallel $(JOBS) --clean-first --target kernels
	$(PYTHON) caffe_layers/scripts/kernel_resources.py $(LOGS)/kernels.log --out $(LOGS)/kernel_resources.md

.PHONY: test-emulated-gpu
test-emulated-gpu: venv ## GPU mode without a GPU: layers, networks and memory, CUDA played by the processor; EMULATED_ARGS="--only networks"
	@$(BEGIN)
	$(CONFIGURE)
	configured build/gpu-emulated "Caffe with a GPU that the processor plays" configure-emulated -DGPU=EMULATED
	shown "building it and its tests" emulated cmake --build build/gpu-emulated --parallel $(JOBS) --target all --target caffe-tests
	exec 9>&-
	$(PYTHON) tests/gpu_check/emulated.py $(EMULATED_ARGS)

.PHONY: lint
lint: venv ## ruff and import-linter over all Python, hadolint over the Dockerfile
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/hadolint -c docker/hadolint.yaml docker/Dockerfile

.PHONY: test
test: caffe-tests mpi ## every test: lint, Caffe's and our C++ tests, pycaffe's, pytest
	@mkdir -p $(LOGS)
	status=0
	echo "== lint"
	$(MAKE) lint || status=1
	$(MAKE) kernels || status=1
	echo "== C++ tests: Caffe's own and ours"
	# Caffe's tests leave thousands of files: those of each test, and a log for each process that is to die
	scratch=$$(mktemp -d)
	trap 'kill $$(jobs -p) 2>/dev/null || true; rm -rf "$$scratch"' EXIT
	# `cpp_tests LOG FILTER VARIABLE...`, shared out to processes, as most tests keep one processor busy. They find their files
	# from the source's root; idle threads sleep, as all share the processors.
	cpp_tests() {
	  local name=$$1 filter=$$2 shard processes=() failed=0; shift 2
	  for ((shard = 0; shard < $(TEST_PROCESSES); ++shard)); do
	    (cd build/caffe-source && exec env TMPDIR=$$scratch OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive GTEST_SHARD_INDEX=$$shard \
	      GTEST_TOTAL_SHARDS=$(TEST_PROCESSES) "$$@" ../cpu/bin/caffe-tests --gtest_filter="$$filter") >$(LOGS)/$$name-$$shard.log 2>&1 &
	    processes+=($$!)
	  done
	  for shard in $${!processes[@]}; do
	    wait $${processes[shard]} || { failed=1; echo "C++ tests failed; the log is $(LOGS)/$$name-$$shard.log"; }
	    sed -n '/^\[==========\] .* ran/,$$p' $(LOGS)/$$name-$$shard.log
	  done
	  return $$failed
	}
	cpp_tests test-cpp '-*GPU*' || status=1
	for limit in DNNL_MAX_CPU_ISA=AVX2 CAFFE_WINOGRAD=0; do
	  echo "== C++ tests of the layers on oneDNN with $$limit"
	  cpp_tests test-$${limit%=*} '*OneDNN*-*GPU*' $$limit || status=1
	done
	echo "== C++ tests of convolutions in bfloat16 without a processor's tiles"
	cpp_tests test-vectors '*Bfloat16Convolution*:OneDNN*Round*' RENET_INSTRUCTION_SET=avx512_bf16 || status=1
	echo "== pycaffe's tests"
	TMPDIR=$$scratch $(PYTHON) -m unittest discover -s build/caffe-source/python/caffe/test \
	  >$(LOGS)/test-pycaffe.log 2>&1 || { status=1; echo "pycaffe's tests failed; the log is $(LOGS)/test-pycaffe.log"; }
	tail -n 3 $(LOGS)/test-pycaffe.log
	echo "== pytest"
	$(PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS) 2>&1 | tee $(LOGS)/test-pytest.log || status=1
	echo "== the image"
	docker/check_image.sh || status=1
	echo "== Debian 13"
	tests/build/check_debian_13.sh || status=1
	exit $$status

.PHONY: test-cluster
test-cluster: mpi ## what is too long for make test: hosts, cut links, killed processes, Slurm, every network; CLUSTER_ARGS="--quick"
	@$(PYTHON) tests/cluster/trial.py $(CLUSTER_ARGS)

.PHONY: sanitize
sanitize: caffe ## our C++ tests with the sanitizers of memory, undefined behaviour and threads; SHAPES=10000 random shapes
	@$(BEGIN)
	$(CONFIGURE)
	for kind in address thread; do
	  shown "what is around our sources" around-$$kind cmake --build build/cpu --parallel $(JOBS) --target around_$$kind
	  configured build/sanitize-$$kind "the sanitizer: $$kind" configure-$$kind -DSANITIZE=$$kind
	  shown "building our sources and tests with it" sanitize-$$kind cmake --build build/sanitize-$$kind --parallel $(JOBS) --target caffe-tests
	done
	exec 9>&-
	# what is left behind where a CHECK ends a test is no leak of ours; tests ask for more memory than there may be; OpenMP's
	# threads are unknown to the sanitizer
	export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 CAFFE_TEST_SHAPES=$(SHAPES) OMP_WAIT_POLICY=passive
	export TSAN_OPTIONS="allocator_may_return_null=1 suppressions=$(CURDIR)/caffe_layers/tests/thread_sanitizer.txt"
	for kind in address thread; do
	  [[ $$kind == address ]] && threads=2 || threads=1
	  echo "== C++ tests with the sanitizer: $$kind"
	  (cd build/caffe-source && OMP_NUM_THREADS=$$threads ../sanitize-$$kind/bin/caffe-tests --gtest_filter='-*GPU*') \
	    >$(LOGS)/test-$$kind.log 2>&1 || failed "C++ tests with the sanitizer: $$kind" test-$$kind
	  sed -n '/^\[==========\] .* ran/,$$p' $(LOGS)/test-$$kind.log
	done

.PHONY: fuzz
fuzz: caffe ## libFuzzer over layers and images, by clang; FUZZ_SECONDS=600 each, FUZZ_FOLDER= keeps the inputs
	@$(BEGIN)
	$(CONFIGURE)
	[[ -n "$(CLANGXX)" ]] || { echo "make: fuzz needs clang with libFuzzer and OpenMP: apt-get install clang libclang-rt-14-dev libomp-14-dev" >&2; exit 2; }
	shown "what is around our sources" around-address cmake --build build/cpu --parallel $(JOBS) --target around_address
	configured build/fuzz "the fuzzer's programs" configure-fuzz -DFUZZ=ON -DCMAKE_CXX_COMPILER=$(CLANGXX)
	shown "building the fuzzer's programs" fuzz-programs cmake --build build/fuzz --parallel $(JOBS) --target fuzz
	exec 9>&-
	$(PYTHON) caffe_layers/scripts/fuzz_seeds.py $(FUZZ_FOLDER)/datum
	for program in layer datum; do
	  mkdir -p $(FUZZ_FOLDER)/$$program
	  # each run is a process of its own: what a CHECK leaves in memory goes with it; 70 and 71 are the last one's out of
	  # time or memory, as large maps are
	  fuzzed() {
	    local status=0
	    ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 build/fuzz/bin/fuzz_$$program -fork=1 -max_total_time=$(FUZZ_SECONDS) \
	      -timeout=20 -rss_limit_mb=4096 -artifact_prefix=$(FUZZ_FOLDER)/$$program- $(FUZZ_FOLDER)/$$program || status=$$?
	    ((status == 0 || status == 70 || status == 71))
	  }
	  shown "fuzzing: $$program" fuzz-$$program fuzzed
	done

.PHONY: demo
demo: caffe ## the whole path on drawn scenes: data, training, prediction, scores, a page with pictures
	@$(PYTHON) tools/demo.py $(DEMO_ARGS)

.PHONY: bench
bench: caffe ## speed and memory of all that is computed beside PyTorch, stock Caffe, pydensecrf and ONNX engines; BENCH_ARGS="--only networks"
	@$(BEGIN)
	$(CONFIGURE)
	configured build/stock "stock Caffe" configure-stock -DSTOCK=ON
	shown "building stock Caffe to compare with" stock cmake --build build/stock --parallel $(JOBS) --target pycaffe
	exec 9>&-
	$(PYTHON) tools/benchmark.py $(BENCH_ARGS)

.PHONY: lock
lock: ## requirements.lock and requirements-run.lock anew: the packages of requirements*.txt with the SHA-256 of their files
	@$(BEGIN)
	lock() {
	  [[ -x build/lock-venv/bin/uv ]] || { /usr/bin/python3 -m venv --clear build/lock-venv && build/lock-venv/bin/pip install uv==0.13.9; } || return
	  local compile="build/lock-venv/bin/uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-annotate"
	  $$compile requirements.txt requirements-dev.txt -o requirements.lock && $$compile requirements.txt -o requirements-run.lock
	}
	quietly "requirements.lock and requirements-run.lock" lock lock

.PHONY: fuzz-readers
fuzz-readers: caffe ## the readers of files, each fuzzed for a minute by atheris, led by coverage; FUZZ_ARGS="--seconds 3600 image"
	@$(BEGIN)
	[[ -d build/atheris/atheris ]] || quietly "atheris" atheris $(PYTHON) -m pip install --no-deps --target build/atheris atheris==3.0.0
	exec 9>&-
	PYTHONPATH=build/atheris $(PYTHON) tests/fuzz_readers.py --corpus build/corpus $(FUZZ_ARGS)

.PHONY: soak
soak: caffe ## commands killed, stopped, out of disk, on damaged snapshots, at random, for an hour; SOAK_ARGS="--minutes 600"
	@$(PYTHON) tests/soak.py $(SOAK_ARGS)

.PHONY: clean
clean: ## removes what was built, not what was downloaded, prepared or trained
	@$(BEGIN)
	find build -mindepth 1 -maxdepth 1 ! -name downloads ! -name cuda ! -name onednn ! -name .lock -exec rm -rf {} +
