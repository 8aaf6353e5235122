#!/usr/bin/env bash
# Holds prometheus/ against promtool: the configuration, the rules and their unit tests.
set -euo pipefail
cd "$(dirname "$0")/.."
shopt -s nullglob

configs=(prometheus/*.yml)
rules=(prometheus/rules/*.yml)
tests=(prometheus/tests/*.test.yml)
if [ ${#configs[@]} -eq 0 ] || [ ${#rules[@]} -eq 0 ] || [ ${#tests[@]} -eq 0 ]; then
    echo "rules: configuration, rules or tests are missing under prometheus/" >&2
    exit 1
fi

promtool=${PROMTOOL:-$(command -v promtool || true)}
promtool=${promtool:-target/tools/usr/bin/promtool}
if [ ! -x "$promtool" ]; then
    echo "rules: no promtool (run \`make tools\`, or set PROMTOOL); prometheus/ is left unchecked" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
for config in "${configs[@]}"; do
    "$promtool" check config --lint-fatal "$config"
done
"$promtool" check rules --lint-fatal "${rules[@]}"
"$promtool" test rules "${tests[@]}"
