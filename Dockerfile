# clusterd alone, with its built-in demo:
#
#   docker build -t clusterd .
#   docker run --rm -p 3000:3000 clusterd --workers 4
#
# In the image of your own server, copy the binary:
#
#   COPY --from=clusterd /usr/local/bin/clusterd /usr/local/bin/
#   ENTRYPOINT ["clusterd", "--"]
#   CMD ["node", "app.js"]

# For a server that needs no library either, such as one in Go, use the static one; the image needs nothing else:
#
#   docker build -t clusterd:static --target static .
#
#   FROM golang:1 AS server
#   WORKDIR /build
#   COPY . .
#   RUN CGO_ENABLED=0 go build -o /server .
#   FROM clusterd:static
#   COPY --from=server /server /server
#   CMD ["--", "/server"]

# The first and the last stage use the same Debian release: the binary needs libgcc_s and a glibc that is not older than the one it was
# built with. So does an image into which you copy it; an image with another C library needs a build of its own.
FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
# Cargo wants to see every member and target that Cargo.toml names; `src` has links into `crates`.
COPY crates crates
COPY xtask xtask
COPY benches benches
RUN cargo build --release --locked --bin clusterd

# The target is named so that build scripts stay dynamic.
FROM build AS build-static
RUN target=$(uname -m)-unknown-linux-gnu && \
    RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$target" --target-dir target/static --bin clusterd && \
    cp "target/static/$target/release/clusterd" /clusterd

FROM scratch AS static
COPY --from=build-static /clusterd /clusterd
USER 10001:10001
EXPOSE 3000
ENTRYPOINT ["/clusterd"]

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home clusterd
COPY --from=build /build/target/release/clusterd /usr/local/bin/clusterd
# A number, so that Kubernetes can verify that it is not root.
USER 10001
EXPOSE 3000
ENTRYPOINT ["clusterd"]
