#!/usr/bin/env bash
# Puts the servers that the tests run against into target/tools, unless they are at hand already: named by an
# environment variable, or on the path. On Debian and Ubuntu the packages are downloaded and unpacked; nothing is
# installed, no service is started and no root is needed. Elsewhere it says what to install, and the tests that need
# them are reported as ignored (with CI=true they fail).
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools

# missing PROGRAM VARIABLE: succeeds when the program is nowhere to be found.
missing() {
    [ -z "${!2:-}" ] && ! command -v "$1" >/dev/null && [ ! -x "$tools/usr/bin/$1" ]
}

if ! missing prometheus PROMETHEUS && ! missing promtool PROMTOOL; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "tools: no prometheus and promtool here; install them (https://prometheus.io/download/) and put them on the path," >&2
    echo "tools: or set PROMETHEUS and PROMTOOL. The tests that need them are left out." >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$tools"
cd "$work"
# The machine's own package lists may be absent or old. Fresh ones are fetched into this folder, not into the system's,
# so that no root is needed.
mkdir -p state/lists/partial cache/archives/partial
fresh=(-o "Dir::State=$PWD/state" -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$PWD/cache"
    -o APT::Sandbox::User=)
if ! apt-get download -q prometheus >download.log 2>&1; then
    if ! { apt-get "${fresh[@]}" update -qq && apt-get "${fresh[@]}" download -q prometheus; } >>download.log 2>&1; then
        cat download.log >&2
        echo "tools: the package prometheus cannot be downloaded; the tests that need it are left out." >&2
        [ "${CI:-}" != true ] || exit 1
        exit 0
    fi
fi
dpkg -x prometheus_*.deb "$tools"
echo "tools: $("$tools/usr/bin/prometheus" --version 2>&1 | head -n 1)"
