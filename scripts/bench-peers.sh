#!/usr/bin/env bash
# Builds what bench/ compares the service with into target/bench, and puts wrk there where it is not installed. Says
# nothing but what it has to leave out, and why: the measurements go on without a peer whose tools are not here.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh
bench=$PWD/target/bench
mkdir -p "$bench"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

left_out() {
    printf 'bench-peers: %s\n' "$*" >&2
}

# quietly COMMAND…: shows what the command says only when it fails, which ends everything.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
}

for peer in hyper axum; do
    quietly "${CARGO:-cargo}" build --release --locked --manifest-path "bench/$peer/Cargo.toml" \
        --target-dir "$bench/cargo"
    ln -sf "cargo/release/bench-$peer" "$bench/$peer"
done

# Fails where there is no go, and where it is older than go.mod asks for and cannot fetch a newer one.
if (cd bench/client_golang && go list -m) >/dev/null 2>&1; then
    (cd bench/client_golang && quietly go build -o "$bench/client_golang" .)
else
    rm -f "$bench/client_golang"
    left_out "no go as new as bench/client_golang/go.mod asks for is here; client_golang is left out."
fi

# The virtual environment is complete once it has the list that it was made of.
venv=$bench/venv
requirements=bench/fastapi/requirements.txt
if [ -x "$bench/fastapi" ] && cmp -s $requirements "$venv/requirements.txt" &&
    "$venv/bin/python" --version >/dev/null 2>&1; then
    :
elif python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    quietly python3 -m venv --clear "$venv"
    quietly "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r $requirements
    quietly "$venv/bin/pip" check
    # shellcheck disable=SC2016 # it finds its own folder
    printf '#!/bin/sh\nexec "${0%%/*}/venv/bin/python" "${0%%/*}/../../bench/fastapi/main.py" "$@"\n' >"$bench/fastapi"
    chmod +x "$bench/fastapi"
    cp $requirements "$venv"
else
    rm -f "$bench/fastapi"
    left_out "no python3 from 3.11 on with its module venv is here; fastapi is left out."
fi

# runs WRK: succeeds when it can be started. Told to name its version, it fails all the same.
runs() {
    [[ $("$1" -v 2>/dev/null) == "wrk "* ]]
}

# unpack_wrk: makes target/bench/wrk of Debian's packages.
unpack_wrk() {
    local unpacked=$PWD/target/tools/wrk package
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return
    (cd "$work" && fetch wrk libluajit-5.1-2) || return
    for package in "$work"/*.deb; do
        dpkg -x "$package" "$unpacked" || return
    done
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$(dirname "$unpacked"/usr/lib/*/libluajit-5.1.so.2)" \
        "$unpacked/usr/bin/wrk" >"$bench/wrk"
    chmod +x "$bench/wrk"
}

if ! runs wrk && ! runs "$bench/wrk" && ! { unpack_wrk && runs "$bench/wrk"; }; then
    rm -f "$bench/wrk"
    left_out "no wrk is here; install it. Without it nothing can be measured."
fi
