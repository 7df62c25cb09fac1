# syntax=docker/dockerfile:1
# One image with the four programs; docker-compose.yml says which of them a container runs.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive the build, so what it made has to be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release -p roost-coordinator -p roost-ws-node -p roost-archiver -p roost \
    && install -D -t /out target/release/coordinator target/release/ws-node target/release/archiver target/release/roost

FROM debian:bookworm-slim
# zlib is what librdkafka links to; the certificates are for rediss://, JWKS and Kafka over TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin roost
COPY --from=build /out/ /usr/local/bin/
USER roost
# Coordinator: 7300 and 7400; ws-node: 7301 and 7401; archiver: 7310 and 7410. The second is health and metrics.
EXPOSE 7300 7301 7310 7400 7401 7410
CMD ["roost", "--help"]
