#!/usr/bin/env bash
# schemathesis on a running service: requests made of the OpenAPI description, and others that it rules out, must be
# answered as it says. All checks; schemathesis.toml leaves out two operations, and says why.
#
# EXAMPLES is the number of cases at most for each operation; without it a run takes a minute or two. Where there is no
# Python that can install it, this says so and goes on; with CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$PWD/target/schemathesis
requirements=tests/schemathesis/requirements.txt
binary=${API_MONITORING:-target/debug/api-monitoring}

# left_out MESSAGE: what is missing costs a check, which CI does not accept.
left_out() {
    echo "schemathesis: $1; the OpenAPI description is not tried against the service." >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}

# Once for each version: the stamp is written when all of it is there.
if ! cmp -s "$requirements" "$environment/installed"; then
    command -v python3 >/dev/null || left_out "no python3 is here"
    rm -rf "$environment"
    python3 -m venv "$environment" || left_out "python3 cannot make a virtual environment (on Debian: python3-venv)"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" ||
        left_out "pip cannot install what $requirements names"
    cp "$requirements" "$environment/installed"
fi

work=$(mktemp -d)
server=
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap clean_up EXIT

"$binary" serve --listen 127.0.0.1:0 --database-url sqlite::memory: --log-format json 2>"$work/log" &
server=$!
address=
for _ in $(seq 300); do
    address=$(sed -n '/"message":"listening"/s/.*"address":"\([^"]*\)".*/\1/p' "$work/log")
    [ -z "$address" ] || ! grep -q '"message":"ready"' "$work/log" || break
    kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done

# Examples that hypothesis keeps, and reports, belong to target.
status=0
"$environment/bin/schemathesis" run "http://$address/openapi.json" --checks all --max-examples "${EXAMPLES:-50}" \
    --continue-on-failure --no-color --report-dir target/schemathesis-report || status=$?
# A failure of the service that no client saw as such would stand here.
if grep -E '"level":"(WARN|ERROR)"' "$work/log" >&2; then
    echo "schemathesis: the service logged the lines above" >&2
    status=1
fi
exit "$status"
