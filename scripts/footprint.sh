#!/usr/bin/env bash
# What the service takes at rest: binary size, time from its start until it is ready on an existing database, and
# resident memory once idle. Medians of nine starts.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --locked --release
binary=$PWD/target/release/api-monitoring
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# start: runs the server until it is ready, and gives the milliseconds that took and its resident KiB.
start() {
    : >log
    local begin end memory pid
    begin=$(date +%s%N)
    "$binary" --listen 127.0.0.1:0 2>log &
    pid=$!
    until grep -q ' ready ' log; do
        kill -0 "$pid" || { cat log >&2; exit 1; }
    done
    end=$(date +%s%N)
    memory=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")
    kill "$pid"
    wait "$pid"
    echo "$(((end - begin) / 1000000)) $memory"
}

median() { sort -n | sed -n 5p; }

start >/dev/null # creates the database
for _ in 1 2 3 4 5 6 7 8 9; do start; done >starts
echo "binary:          $(($(stat -c %s "$binary") / 1024)) KiB"
echo "start to ready:  $(cut -d' ' -f1 starts | median) ms (median of 9, existing database)"
echo "resident memory: $(cut -d' ' -f2 starts | median) KiB (median of 9, idle)"
