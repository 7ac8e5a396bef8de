# clusterd with its built-in demo:
#
#   docker build -t clusterd .
#   docker run --rm -p 3000:3000 clusterd --workers 4
#
# The binary is static, so it runs in the image of your own server, whatever C library that has:
#
#   COPY --from=clusterd /usr/local/bin/clusterd /usr/local/bin/
#   ENTRYPOINT ["clusterd", "--"]
#   CMD ["node", "app.js"]
#
# A server that needs no library either, such as one in Go, needs nothing else in its image:
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

FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
# Cargo wants to see every member and target that Cargo.toml names; `src` has links into `crates`.
COPY crates crates
COPY xtask xtask
COPY benches benches
# The target is named so that build scripts stay dynamic.
RUN target=$(uname -m)-unknown-linux-gnu && \
    RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=symbols \
    cargo build --release --locked --target "$target" --bin clusterd && \
    cp "target/$target/release/clusterd" /clusterd

FROM scratch AS static
COPY --from=build /clusterd /clusterd
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
EXPOSE 3000
ENTRYPOINT ["/clusterd"]

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home clusterd
COPY --from=build /clusterd /usr/local/bin/clusterd
USER 10001:10001
EXPOSE 3000
ENTRYPOINT ["clusterd"]
