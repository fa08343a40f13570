# The image of kata-pulse: one static binary in an empty root. `make image` builds it; so does `docker build .`.
#
# Both base images are arguments, so that they can be pinned by digest or taken from a mirror:
#   --build-arg RUST_IMAGE=rust:1.95.0-slim-bookworm@sha256:...
# RUST_IMAGE needs cargo, gcc and the static glibc of libc6-dev. protoc is fetched if it is not there.
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm
# Nothing but the binary. An image with certificates or a time zone database goes as well.
ARG RUNTIME_IMAGE=scratch

# What decides about dependencies, and nothing else: a change of a source file leaves this stage's result as it was.
# The builder's own platform is meant, which is what the rule warns of.
# hadolint ignore=DL3029
FROM --platform=${BUILDPLATFORM} ${RUST_IMAGE} AS manifests
WORKDIR /src
COPY . .
# The paths in manifests have no spaces.
# hadolint ignore=SC2013
RUN rm -r src \
 && for manifest in Cargo.toml tests/*/Cargo.toml; do \
      directory="${manifest%Cargo.toml}"; \
      mkdir -p "${directory}src" && echo '//! A stand-in.' > "${directory}src/lib.rs" || exit 1; \
      for path in $(sed -n 's/^path = "\(.*\.rs\)"$/\1/p' "${manifest}"); do \
        mkdir -p "$(dirname "${directory}${path}")" && echo '//! A stand-in.' > "${directory}${path}" || exit 1; \
      done; \
    done \
 && sed -i '/^default-run = /d' tests/*/Cargo.toml \
 && { echo '//! A stand-in.'; echo 'fn main() {}'; } > src/main.rs \
 && find . -exec touch --no-dereference --date=@0 {} +

# Compiles on the builder's own processor for the target's: emulating a compiler takes many times as long.
# hadolint ignore=DL3029
FROM --platform=${BUILDPLATFORM} ${RUST_IMAGE} AS dependencies
ARG TARGETARCH
# The packages of the base image's own day will do, and their list is to be split into words.
# hadolint ignore=DL3008,SC2086
RUN case "${TARGETARCH:-$(uname -m)}" in \
      amd64|x86_64) machine=x86_64; package=gcc-x86-64-linux-gnu; libc=libc6-dev-amd64-cross ;; \
      arm64|aarch64) machine=aarch64; package=gcc-aarch64-linux-gnu; libc=libc6-dev-arm64-cross ;; \
      *) echo "no build for ${TARGETARCH}: amd64 and arm64 only" >&2; exit 1 ;; \
    esac \
 && missing="" \
 && { command -v protoc > /dev/null || missing="protobuf-compiler"; } \
 && { command -v "${machine}-linux-gnu-gcc" > /dev/null || missing="${missing} ${package} ${libc}"; } \
 && if [ -n "${missing}" ]; then \
      apt-get update && apt-get install -y --no-install-recommends ${missing} && rm -rf /var/lib/apt/lists/* || exit 1; \
    fi \
 && if [ "${machine}" != "$(uname -m)" ]; then rustup target add "${machine}-unknown-linux-gnu"; fi \
 && echo "${machine}-unknown-linux-gnu" > /target
# Static against glibc: the same allocator and resolver as on a bare node, so what was measured there holds here.
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    RUSTFLAGS="-C target-feature=+crt-static"
WORKDIR /src
COPY --from=manifests /src ./
RUN cargo build --release --locked --package kata-pulse --target "$(cat /target)"

FROM dependencies AS build
ARG REVISION=""
ARG SOURCE_DATE_EPOCH=0
COPY src src
# The stand-ins for the two roots were compiled later than the files were edited; cargo goes by the time.
RUN touch src/lib.rs src/main.rs \
 && KATA_PULSE_REVISION="${REVISION}" cargo build --release --locked --package kata-pulse --target "$(cat /target)" \
 && install -D --mode=0755 "target/$(cat /target)/release/kata-pulse" /image/usr/bin/kata-pulse \
 && install -D --mode=0644 docs/LICENSE /image/usr/share/doc/kata-pulse/copyright \
 && find /image -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

# The target's platform, not the builder's. Nothing is run in this stage: there is nothing to run it with.
FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="kata-pulse" \
      org.opencontainers.image.description="Node agent that measures Kata and runc pods where the truth is and serves it in cAdvisor's words" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="kata-pulse" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /image/ /
# Inside a pod the loopback address reaches nobody.
ENV KATA_PULSE_LISTEN=0.0.0.0:8090
# Enough to serve; the runtime's and the shims' sockets want root, which the chart says.
USER 65532:65532
EXPOSE 8090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/kata-pulse"]
