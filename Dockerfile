# The image of api-monitoring: the binary, the C library that it is linked to, and the root certificates; nothing else,
# no shell either. It needs no network but for the crates, and no BuildKit.
#
#   docker build -t api-monitoring --build-arg REVISION=$(git rev-parse --short=12 HEAD) .

ARG RUST_VERSION=1.95.0
FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /build

# The dependencies first, with a library that does nothing: this layer lasts as long as manifest and lock file do.
# The manifest names benches and examples, so there must be files of those names.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/micro bench/ours \
    && touch src/lib.rs benches/micro/main.rs bench/main.rs bench/ours/uninstrumented.rs bench/ours/series.rs \
    && cargo build --release --locked --lib

COPY build.rs ./
COPY src src
# Shown by `api_build_info` and `--version`; the checkout itself stays outside.
ARG REVISION=
# cargo goes by file times, and ours are older than those of the library that does nothing.
RUN touch src/lib.rs src/main.rs \
    && BUILD_REVISION=$REVISION cargo build --release --locked --bin api-monitoring

# The root of the image. glibc itself reads /etc/hosts and asks DNS; its other name services need files that are not here.
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/tmp \
    && cp target/release/api-monitoring /image/usr/local/bin/ \
    && ldd target/release/api-monitoring | grep -o '/[^ ]*' | xargs cp -L --parents -t /image \
    && cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && echo 'api-monitoring:x:65532:65532::/data:/sbin/nologin' >/image/etc/passwd \
    && echo 'api-monitoring:x:65532:' >/image/etc/group \
    && chmod 1777 /image/tmp \
    && mkdir -p /owned/data /owned/spool \
    && chown -R 65532:65532 /owned

FROM scratch
COPY --from=build /image /
# Where volumes go: a new volume takes the owner from the folder that it is mounted on.
COPY --from=build --chown=65532:65532 /owned /
USER 65532:65532
WORKDIR /data
ENV API_LISTEN=0.0.0.0:8000 \
    DATABASE_URL=sqlite:///data/users.db
EXPOSE 8000
# No HEALTHCHECK: the image runs jobs as well, which have nothing to ask. docker-compose.yml has the API's.
ENTRYPOINT ["/usr/local/bin/api-monitoring"]
CMD ["serve"]
