#!/usr/bin/env bash
# Holds deploy/alertmanager/alertmanager.yml against amtool: that it is valid, and whom alerts reach.
set -euo pipefail
cd "$(dirname "$0")/.."
config=deploy/alertmanager/alertmanager.yml

amtool=${AMTOOL:-$(command -v amtool || true)}
amtool=${amtool:-target/tools/usr/bin/amtool}
if [ ! -x "$amtool" ]; then
    echo "alertmanager: no amtool (run \`make tools\`, or set AMTOOL); $config is left unchecked" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! "$amtool" check-config "$config" >"$work/log" 2>&1; then
    # `url_file` came with 0.26. The message is the sign: a binary that was built with `go install` has no version.
    if ! grep -q 'field url_file not found' "$work/log"; then
        cat "$work/log" >&2
        exit 1
    fi
    sed -E 's|^([ -]*)url_file: .*|\1url: http://127.0.0.1:9/|' "$config" >"$work/alertmanager.yml"
    echo "alertmanager: amtool is older than 0.26; a copy of $config with url in place of url_file is checked"
    config=$work/alertmanager.yml
    "$amtool" check-config "$config" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
fi
cat "$work/log"

# reaches RECEIVER LABEL=VALUE…: fails unless an alert with these labels reaches that receiver, and no other.
reaches() {
    if ! "$amtool" config routes test --config.file="$config" --verify.receivers="$1" "${@:2}" >"$work/log" 2>&1; then
        echo "alertmanager: an alert with ${*:2} does not reach $1 alone: $(cat "$work/log")" >&2
        exit 1
    fi
    echo "alertmanager: ${*:2} reaches $1"
}
reaches page alertname=ApiDown job=api severity=critical
reaches page alertname=ApiErrorBudgetBurn job=api slo=latency severity=critical
reaches ticket alertname=ApiErrorBudgetBurn job=api slo=latency severity=warning
reaches ticket alertname=BatchJobFailed job=import severity=warning
reaches ticket alertname=SomebodyElses
