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

packages=()
if missing prometheus PROMETHEUS || missing promtool PROMTOOL; then
    packages+=(prometheus)
fi
# Upstream's binary is called pushgateway, Debian's prometheus-pushgateway.
if missing pushgateway PUSHGATEWAY && missing prometheus-pushgateway PUSHGATEWAY; then
    packages+=(prometheus-pushgateway)
fi
if [ ${#packages[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "tools: prometheus, promtool or pushgateway is not here; install them (https://prometheus.io/download/) and put" >&2
    echo "tools: them on the path, or set PROMETHEUS, PROMTOOL and PUSHGATEWAY. The tests that need them are left out." >&2
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
if ! apt-get download -q "${packages[@]}" >download.log 2>&1; then
    if ! { apt-get "${fresh[@]}" update -qq && apt-get "${fresh[@]}" download -q "${packages[@]}"; } >>download.log 2>&1; then
        cat download.log >&2
        echo "tools: cannot download ${packages[*]}; the tests that need them are left out." >&2
        [ "${CI:-}" != true ] || exit 1
        exit 0
    fi
fi
for package in "${packages[@]}"; do
    dpkg -x "$package"_*.deb "$tools"
    echo "tools: $("$tools/usr/bin/$package" --version 2>&1 | head -n 1)"
done
