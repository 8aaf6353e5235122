#!/usr/bin/env bash
# Puts the servers and tools that the tests run into target/tools, unless they are at hand already: named by an
# environment variable, or on the path. On Debian and Ubuntu the packages are downloaded and unpacked; nothing is
# installed, no service is started and no root is needed. Elsewhere it says what to install, and the tests that need
# them are reported as ignored (with CI=true they fail).
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
alertmanager=github.com/prometheus/alertmanager/cmd
alertmanager_version=v0.28.1

# missing PROGRAM VARIABLE: succeeds when the program is nowhere to be found.
missing() {
    [ -z "${!2:-}" ] && ! command -v "$1" >/dev/null && [ ! -x "$tools/usr/bin/$1" ]
}

# left_out MESSAGE…: what is missing costs tests, which CI does not accept.
left_out() {
    printf 'tools: %s\n' "$@" >&2
    [ "${CI:-}" != true ] || exit 1
}

# Debian's Alertmanager looks for its templates under /usr/share and cannot run unpacked elsewhere, so it is built.
commands=()
! missing alertmanager ALERTMANAGER || commands+=("$alertmanager/alertmanager@$alertmanager_version")
! missing amtool AMTOOL || commands+=("$alertmanager/amtool@$alertmanager_version")
if [ ${#commands[@]} -gt 0 ] && command -v go >/dev/null; then
    echo "tools: building ${commands[*]}"
    GOBIN=$tools/usr/bin go install "${commands[@]}" || echo "tools: go cannot build it" >&2
fi

packages=()
if missing prometheus PROMETHEUS || missing promtool PROMTOOL; then
    packages+=(prometheus)
fi
# Upstream's binary is called pushgateway, Debian's prometheus-pushgateway.
if missing pushgateway PUSHGATEWAY && missing prometheus-pushgateway PUSHGATEWAY; then
    packages+=(prometheus-pushgateway)
fi
if missing jsonnet JSONNET; then
    packages+=(jsonnet)
fi
# Its amtool checks the configuration, if an older form of it.
if missing amtool AMTOOL; then
    packages+=(prometheus-alertmanager)
fi

if [ ${#packages[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        mkdir -p "$tools/usr/bin"
        cd "$work"
        # The machine's own package lists may be absent or old. Fresh ones are fetched into this folder, not into the
        # system's, so that no root is needed.
        mkdir -p state/lists/partial cache/archives/partial
        fresh=(-o "Dir::State=$PWD/state" -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$PWD/cache"
            -o APT::Sandbox::User=)
        if ! apt-get download -q "${packages[@]}" >download.log 2>&1 && ! {
            apt-get "${fresh[@]}" update -qq && apt-get "${fresh[@]}" download -q "${packages[@]}"
        } >>download.log 2>&1; then
            cat download.log >&2
            left_out "cannot download ${packages[*]}; the tests that need them are left out."
            packages=()
        fi
        for package in "${packages[@]}"; do
            program=$package
            if [ "$package" = prometheus-alertmanager ]; then
                program=amtool
                dpkg -x "$package"_*.deb unpacked
                cp unpacked/usr/bin/amtool "$tools/usr/bin"
            else
                dpkg -x "$package"_*.deb "$tools"
            fi
            echo "tools: $("$tools/usr/bin/$program" --version 2>&1 | head -n 1)"
        done
    else
        left_out "not here, and no apt-get to fetch it with: ${packages[*]}." \
            "Install prometheus with promtool, pushgateway and amtool (https://prometheus.io/download/), and jsonnet." \
            "Put them on the path, or set PROMETHEUS, PROMTOOL, PUSHGATEWAY, AMTOOL and JSONNET. The tests that need" \
            "them are left out."
    fi
fi

if missing alertmanager ALERTMANAGER; then
    left_out "no alertmanager is here, and none could be built. Install it (https://prometheus.io/download/), put it" \
        "on the path or set ALERTMANAGER, or install go. The tests that need it are left out."
fi
