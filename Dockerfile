# syntax=docker/dockerfile:1
# An image with one static binary: no shell, no package manager, no libc. Builds for the platform it runs on (linux/amd64,
# linux/arm64).

FROM rust:1.95.0-slim-bookworm AS build
# musl-gcc compiles SQLite and ring. The certificates are copied into the image, because rolecall uses the system's trust store.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates musl-tools \
 && rm -rf /var/lib/apt/lists/*
# Uses the toolchain of this image, without the components that rust-toolchain.toml requests.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin rolecall --target "$(uname -m)-unknown-linux-musl" \
 && cp "target/$(uname -m)-unknown-linux-musl/release/rolecall" /rolecall \
 && strip /rolecall
# Folders for the database when no volume is mounted, and for SQLite's temporary files.
RUN install -d /empty/tmp /empty/var/lib/rolecall

FROM scratch
LABEL org.opencontainers.image.title="rolecall" \
      org.opencontainers.image.description="Keeps Google Cloud Run IAM in sync with your identity provider" \
      org.opencontainers.image.source="https://github.com/rolecall/rolecall" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build --chown=65532:65532 /empty/ /
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /rolecall /rolecall
USER 65532:65532
EXPOSE 8080 8081 8082
ENTRYPOINT ["/rolecall"]
