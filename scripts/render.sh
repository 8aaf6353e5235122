#!/usr/bin/env bash
# Renders rules and dashboards from their Jsonnet sources, and the page about the dashboards from these. `--check` renders
# beside them and fails when what is committed differs. Dashboards need grafonnet under vendor/ (`jb install`); where it is
# not there, that is said, and only a digest of their sources is compared.
#
#   scripts/render.sh [--check] sources|rules|dashboards|docs...
#
# `sources` formats the Jsonnet files themselves, with the jsonnetfmt that comes with jsonnet.
set -euo pipefail
cd "$(dirname "$0")/.."

check=false
if [ "${1:-}" = --check ]; then
    check=true
    shift
fi
jsonnet=${JSONNET:-$(command -v jsonnet || true)}
jsonnet=${jsonnet:-target/tools/usr/bin/jsonnet}
if [ ! -x "$jsonnet" ]; then
    echo "render: no jsonnet (run \`make tools\`, or set JSONNET)" >&2
    # Without --check somebody wants a rendering and cannot have it; with it, only CI must not go on.
    if [ $check = false ] || [ "${CI:-}" = true ]; then
        exit 1
    fi
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/rules" "$work/dashboards"

# keep WHAT FOLDER: takes what was rendered into $work/WHAT over, or compares it.
keep() {
    if [ $check = true ]; then
        if ! diff -ru "$2" "$work/$1"; then
            echo "render: $2 differs from its sources: run \`make $1\`" >&2
            exit 1
        fi
        echo "render: $2 is as its sources say"
    else
        mkdir -p "$2"
        rm -f "$2"/*
        cp "$work/$1"/* "$2"
    fi
}

sources() {
    local formatter=${jsonnet}fmt
    local files=(prometheus/*.libsonnet prometheus/*.jsonnet grafonnet/*.libsonnet grafonnet/*.jsonnet
        grafonnet/dashboards/*.jsonnet)
    if [ ! -x "$formatter" ]; then
        echo "render: no $formatter; the Jsonnet files are not formatted" >&2
        [ "${CI:-}" != true ] || exit 1
    elif [ $check = false ]; then
        "$formatter" -i "${files[@]}"
    elif ! "$formatter" --test "${files[@]}"; then
        echo "render: these are not formatted: run \`make rules\`" >&2
        exit 1
    fi
}

rules() {
    "$jsonnet" -S -m "$work/rules" prometheus/rules.jsonnet >/dev/null
    keep rules prometheus/rules
}

# What the dashboards are rendered from. Their digest tells without grafonnet that they were not rendered again.
sources=(prometheus/config.libsonnet grafonnet/*.libsonnet grafonnet/dashboards/*.jsonnet jsonnetfile.lock.json)
digest=grafonnet/rendered.sha256

dashboards() {
    if [ $check = true ] && ! sha256sum "${sources[@]}" | diff -u "$digest" -; then
        echo "render: grafonnet/rendered is older than its sources: run \`make dashboards\`" >&2
        exit 1
    fi
    if [ ! -d vendor/github.com/grafana/grafonnet ]; then
        echo "render: no vendor/ (\`jb install\` brings grafonnet); grafonnet/rendered is not rendered again" >&2
        [ $check = true ] || exit 1
        return
    fi
    local source
    for source in grafonnet/dashboards/*.jsonnet; do
        "$jsonnet" -J vendor -J grafonnet -o "$work/dashboards/$(basename "$source" net)" "$source" >/dev/null
    done
    keep dashboards grafonnet/rendered
    [ $check = true ] || sha256sum "${sources[@]}" >"$digest"
}

docs() {
    "$jsonnet" -S grafonnet/reference.jsonnet >"$work/dashboards.md"
    if [ $check = false ]; then
        cp "$work/dashboards.md" docs/dashboards.md
    elif ! diff -u docs/dashboards.md "$work/dashboards.md"; then
        echo "render: docs/dashboards.md differs from grafonnet/rendered: run \`make docs\`" >&2
        exit 1
    else
        echo "render: docs/dashboards.md is as the dashboards say"
    fi
}

if [ $# -eq 0 ]; then
    echo "render: what? sources, rules, dashboards or docs" >&2
    exit 2
fi
for what in "$@"; do
    case $what in
    sources | rules | dashboards | docs) $what ;;
    *)
        echo "render: $what is none of sources, rules, dashboards, docs" >&2
        exit 2
        ;;
    esac
done
