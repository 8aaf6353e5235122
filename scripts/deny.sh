#!/usr/bin/env bash
# Licences, sources and duplicate versions of the dependencies. cargo-deny is not part of the toolchain, and its
# advisory database needs the network: where either is missing, this says so.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v cargo-deny >/dev/null; then
    echo "deny: no cargo-deny (cargo install --locked cargo-deny); the dependencies are left unchecked"
    exit 0
fi
cargo deny --offline --locked check --hide-inclusion-graph licenses bans sources
