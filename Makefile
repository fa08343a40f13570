# kata-pulse. `make test` is what CI runs; `make demo` shows the agent at work; `make run` serves this node.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
VENV := .tools/venv
CARGO_DEB := 3.8.0

# What Debian supplies: protoc for the CRI bindings; containerd, runc, CNI plugins and a static busybox for the
# end-to-end tests and the demo; promtool; Python for an independent OpenMetrics parser.
BUILD_PACKAGES := protobuf-compiler
TEST_PACKAGES := containerd runc containernetworking-plugins busybox-static iproute2 util-linux prometheus python3 python3-venv
# For the image and the Debian package: a builder that needs no daemon; checks of the package, its manual page and its
# unit; the library behind system call filters.
PACKAGE_PACKAGES := buildah runc binutils gcc libc6-dev iproute2 util-linux dpkg-dev lintian mandoc bsdextrautils systemd libseccomp2

# What a package is made of: the release build, or the debug build for a quick look and for tests.
DEB_PROFILE ?= release
DEB_DIR ?= target/packages

.PHONY: help setup setup-build setup-test demo run test lint unit image deb packages bench golden clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: setup-build setup-test ## Install what Debian must supply (asks apt only for what is missing)

setup-build:
	@$(call install,$(BUILD_PACKAGES))

setup-test: $(VENV)/.ready
	@$(call install,$(TEST_PACKAGES))

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

demo: setup ## Embed a node of real processes on this host and serve it (root; DEMO_PORT=8090)
	$(CARGO) build --release --locked -p kata-pulse -p kata-pulse-simulator
	target/release/demo target/release/kata-pulse

run: setup-build ## Serve the node this stands on (ARGS="--log-level debug")
	$(CARGO) run --release --locked -p kata-pulse -- $(ARGS)

test: setup lint unit packages ## Everything CI runs: format, lints, documentation, unit to end-to-end tests, demo, packages

lint: setup-build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

# The end-to-end tests own real cgroups and network devices: one test program at a time, as cargo does by itself.
unit: export KATA_PULSE_PYTHON := $(CURDIR)/$(VENV)/bin/python
unit: setup
	$(CARGO) build --workspace --locked
	target/debug/demo --check target/debug/kata-pulse
	$(CARGO) test --workspace --locked

image: ## Build the container image with docker, podman or buildah (IMAGE=name:tag PLATFORM=linux/arm64 ...)
	tests/deploy/image/build

# The tool once more without optimisation and options: it is run a few times and compiles in a third of the time.
.tools/bin/cargo-deb: Makefile
	@echo "compiling cargo-deb $(CARGO_DEB) into .tools"
	@$(CARGO) install --quiet cargo-deb --version $(CARGO_DEB) --locked --root .tools --debug --no-default-features
	@touch $@

deb: setup-build .tools/bin/cargo-deb ## Build the Debian package into target/packages
	@$(call install,dpkg-dev xz-utils)
	$(CARGO) build --profile $(DEB_PROFILE) --locked $(if $(filter dev,$(DEB_PROFILE)),--workspace,-p kata-pulse -p kata-pulse-package)
	rm -rf target/package && target/$(if $(filter dev,$(DEB_PROFILE)),debug,$(DEB_PROFILE))/package-files target/package
	.tools/bin/cargo-deb --no-build --profile $(DEB_PROFILE) $(if $(filter dev,$(DEB_PROFILE)),--fast) --output $(DEB_DIR)/

# The image is compiled by its own Dockerfile, without optimisation unless KATA_PULSE_IMAGE=optimised; the package is made
# of the debug build that `unit` has made. The last lines say so.
packages: setup ## Build the image and the Debian package, install and run them, check the unit (root)
	@$(call install,$(PACKAGE_PACKAGES))
	$(CARGO) fetch --locked
	$(CARGO) build --workspace --locked
	rm -rf target/packages-checked
	$(MAKE) deb DEB_PROFILE=dev DEB_DIR=target/packages-checked
	KATA_PULSE_DEB="$$(ls target/packages-checked/*.deb)" \
	  $(VENV)/bin/python -B -m pytest -q -p no:cacheprovider tests/deploy/unit tests/deploy/image

golden: setup ## Write golden files and docs/metrics.md anew; read the difference before you commit it
	UPDATE_GOLDEN=1 $(CARGO) test --locked --test recorded_node --test recorded_kata --test catalog

bench: setup-build ## Measure a collection against the floor: the same files read, the same bytes copied
	$(CARGO) bench --locked --bench collect

clean: ## Remove everything built and installed here
	rm -rf target .tools
