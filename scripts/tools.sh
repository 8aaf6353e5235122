#!/usr/bin/env bash
# Puts the servers and tools that the tests run into target/tools, unless they are at hand already: named by an
# environment variable, or on the path. On Debian and Ubuntu the packages are downloaded and unpacked; nothing is
# installed, no service is started and no root is needed. Elsewhere it says what to install, and the tests that need
# them are reported as ignored (with CI=true they fail).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh
tools=$PWD/target/tools
alertmanager=github.com/prometheus/alertmanager/cmd
alertmanager_version=v0.28.1
compose=github.com/docker/compose/v2
compose_version=v2.40.3
# What Compose 1.29 is made of. Debian's package names more, which is not needed to read a file.
compose_packages=(docker-compose python3-attr python3-certifi python3-chardet python3-distro python3-distutils
    python3-docker python3-dockerpty python3-docopt python3-dotenv python3-idna python3-jsonschema python3-pyrsistent
    python3-requests python3-six python3-texttable python3-urllib3 python3-websocket python3-yaml)

# missing PROGRAM VARIABLE: succeeds when the program is nowhere to be found.
missing() {
    [ -z "${!2:-}" ] && ! command -v "$1" >/dev/null && [ ! -x "$tools/usr/bin/$1" ]
}

# left_out MESSAGE…: what is missing costs tests, which CI does not accept.
left_out() {
    printf 'tools: %s\n' "$@" >&2
    [ "${CI:-}" != true ] || exit 1
}

# compose_is GENERATION COMMAND…: succeeds when the command is Docker Compose of this generation. The first is 1.29: what
# came before knows no profiles.
compose_is() {
    local version=${1/#1/1\\.29}
    shift
    "$@" version --short 2>/dev/null | grep -q "^v\?$version\."
}

# compose_at_hand GENERATION COMMAND…: takes the first of the commands that is of this generation, if any is, for
# target/tools/usr/bin/docker-compose-v1 or -v2: `docker-compose` may be either.
compose_at_hand() {
    local generation=$1 command=$tools/usr/bin/docker-compose-v$1
    shift
    ! compose_is "$generation" "$command" || return 0
    local candidate
    for candidate in "$@"; do
        # shellcheck disable=SC2086 # a command may be two words
        if compose_is "$generation" $candidate; then
            mkdir -p "$tools/usr/bin"
            printf '#!/bin/sh\nexec %s "$@"\n' "$candidate" >"$command"
            chmod +x "$command"
            return 0
        fi
    done
    return 1
}

# Debian's Alertmanager looks for its templates under /usr/share and cannot run unpacked elsewhere, so it is built.
commands=()
! missing alertmanager ALERTMANAGER || commands+=("$alertmanager/alertmanager@$alertmanager_version")
! missing amtool AMTOOL || commands+=("$alertmanager/amtool@$alertmanager_version")
if [ ${#commands[@]} -gt 0 ] && command -v go >/dev/null; then
    echo "tools: building ${commands[*]}"
    GOBIN=$tools/usr/bin go install "${commands[@]}" || echo "tools: go cannot build it" >&2
fi

# `go install` refuses a module that excludes versions of others, so it is built as another one's dependency.
if [ -z "${COMPOSE_V2:-}" ] && ! compose_at_hand 2 "docker compose" docker-compose && command -v go >/dev/null; then
    echo "tools: building $compose@$compose_version"
    module=$(mktemp -d)
    (
        cd "$module"
        go mod init compose && go get "$compose/cmd@$compose_version" &&
            go build -ldflags "-X $compose/internal.Version=$compose_version" -o "$tools/usr/bin/docker-compose-v2" \
                "$compose/cmd"
    ) >"$module/log" 2>&1 || {
        cat "$module/log" >&2
        echo "tools: go cannot build it" >&2
    }
    rm -rf "$module"
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

# unpack_compose: makes target/tools/usr/bin/docker-compose-v1 of Debian's packages. Its libraries are Debian's, and so
# must be the Python that runs it. Debian has distutils in two packages, this one and the interpreter's own.
unpack_compose() {
    local package python libraries=$tools/compose-v1/usr/lib
    for package in "${compose_packages[@]}"; do
        dpkg -x "$package"_*.deb "$tools/compose-v1"
    done
    python=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])') &&
        cp "/usr/lib/$python/distutils"/*.py "$libraries/$python/distutils" || return
    printf '#!/bin/sh\nPYTHONPATH=%q exec /usr/bin/python3 %q "$@"\n' "$libraries/python3/dist-packages:$libraries/$python" \
        "$tools/compose-v1/usr/bin/docker-compose" >"$tools/usr/bin/docker-compose-v1"
    chmod +x "$tools/usr/bin/docker-compose-v1"
}

want_compose=
if [ -z "${COMPOSE_V1:-}" ] && ! compose_at_hand 1 docker-compose; then
    want_compose=1
fi
if [ -n "$want_compose" ] || [ ${#packages[@]} -gt 0 ]; then
    mkdir -p "$tools/usr/bin"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi

if [ ${#packages[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        cd "$work"
        if ! fetch "${packages[@]}"; then
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

# By itself: newer distributions have no longer all of it, which must not cost the others.
if [ -n "$want_compose" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
    cd "$work"
    if fetch "${compose_packages[@]}" && unpack_compose; then
        echo "tools: docker-compose $("$tools/usr/bin/docker-compose-v1" version --short 2>&1 | tail -n 1)"
    fi
fi

# What is there and is no Compose of its generation would make the tests fail instead of being left out.
if [ -z "${COMPOSE_V1:-}" ] && ! compose_is 1 "$tools/usr/bin/docker-compose-v1"; then
    rm -f "$tools/usr/bin/docker-compose-v1"
    left_out "no Compose 1.29 is here. Install it, or set COMPOSE_V1. The tests that need it are left out."
fi
if [ -z "${COMPOSE_V2:-}" ] && ! compose_is 2 "$tools/usr/bin/docker-compose-v2"; then
    rm -f "$tools/usr/bin/docker-compose-v2"
    left_out "no Compose 2 is here, and none could be built. Install it (https://docs.docker.com/compose/install/)," \
        "set COMPOSE_V2, or install go. The tests that need it are left out."
fi
if missing alertmanager ALERTMANAGER; then
    left_out "no alertmanager is here, and none could be built. Install it (https://prometheus.io/download/), put it" \
        "on the path or set ALERTMANAGER, or install go. The tests that need it are left out."
fi
