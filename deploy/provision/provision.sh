#!/bin/sh
# Applies terraform/ to a Grafana once that answers: the `provision` service of docker-compose.yml.
#
#   provision apply [--stay]   apply; with --stay, do not end afterwards (healthy once the file provisioned is in
#                              TMPDIR, or else in /tmp)
#   provision plan             what apply would change; exits 0 when that is nothing, 2 when there is something
#   provision destroy          remove from Grafana all that was applied
#
# GRAFANA_ADMIN_USER (admin) and GRAFANA_ADMIN_PASSWORD, or the file GRAFANA_ADMIN_PASSWORD_FILE, or GRAFANA_TOKEN, say
# who applies; PROVISION_TIMEOUT_SECONDS (180) is how long is waited for Grafana and tried again. All else are
# Terraform's variables, as TF_VAR_….
#
# Exits 1 when it fails, and says why in its last line. Runs in any POSIX shell; needs wget, timeout, base64 and
# terraform.
set -u

say() { echo "provision: $*"; }
fail() {
    echo "provision: failed: $*" >&2
    exit 1
}

grafana=${TF_VAR_grafana_url:-http://localhost:3000}
grafana=${grafana%/}
timeout=${PROVISION_TIMEOUT_SECONDS:-180}
case $timeout in
'' | *[!0-9]*) fail "PROVISION_TIMEOUT_SECONDS is \"$timeout\", expected a number of seconds" ;;
esac
deadline=$(($(date +%s) + timeout))
scratch=${TMPDIR:-/tmp}
ready=$scratch/provisioned
rm -f "$ready"

# Who applies, as Terraform wants it.
if [ -n "${GRAFANA_TOKEN:-}" ]; then
    TF_VAR_grafana_auth=$GRAFANA_TOKEN
    header="Authorization: Bearer $GRAFANA_TOKEN"
    who="the token of GRAFANA_TOKEN"
else
    password=${GRAFANA_ADMIN_PASSWORD:-}
    if [ -n "${GRAFANA_ADMIN_PASSWORD_FILE:-}" ]; then
        [ -z "$password" ] || fail "both GRAFANA_ADMIN_PASSWORD and GRAFANA_ADMIN_PASSWORD_FILE are set; one of them says who applies"
        password=$(cat "$GRAFANA_ADMIN_PASSWORD_FILE") ||
            fail "GRAFANA_ADMIN_PASSWORD_FILE, $GRAFANA_ADMIN_PASSWORD_FILE, cannot be read by user $(id -u)"
    fi
    [ -n "$password" ] || fail "no password: set GRAFANA_ADMIN_PASSWORD or GRAFANA_ADMIN_PASSWORD_FILE, or GRAFANA_TOKEN"
    TF_VAR_grafana_auth=${GRAFANA_ADMIN_USER:-admin}:$password
    header="Authorization: Basic $(printf %s "$TF_VAR_grafana_auth" | base64 | tr -d '\n')"
    who="the password of ${GRAFANA_ADMIN_USER:-admin}"
fi
export TF_VAR_grafana_auth

# get PATH [HEADER]: succeeds when Grafana answers 200; else $answer has what wget says. One try, with the password
# unless there is another header. `timeout`, not `-T`, with which some builds of busybox's wget crash.
get() { answer=$(timeout 5 wget -O /dev/null -t 1 --header "${2:-$header}" "$grafana$1" 2>&1); }

# Terraform may run for a while, and the shell waits for it; so it is told to end as well. With TERM, which it takes as
# it takes INT: what a shell runs in the background ignores INT.
child=
sleeper=
# A signal may come while the output goes to a file.
exec 3>&2
end() {
    trap '' TERM INT
    # Not waited for: it may have begun in this very moment, and not have heard.
    [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null
    if [ -n "$child" ]; then
        kill -TERM "$child" 2>/dev/null
        wait "$child"
    fi
    [ -e "$ready" ] || say "ended before it was done" >&3
    if [ -e "$ready" ]; then exit 0; else exit 1; fi
}
trap end TERM INT
run() {
    "$@" &
    child=$!
    wait "$child"
    code=$?
    child=
    return "$code"
}
rest() {
    sleep "$1" &
    sleeper=$!
    wait "$sleeper"
    sleeper=
}

wait_for_grafana() {
    until get /api/health "Accept: application/json"; do
        [ "$(date +%s)" -lt "$deadline" ] ||
            fail "Grafana at $grafana does not answer within $timeout s: $(echo "$answer" | tail -n 1)"
        say "waiting for Grafana at $grafana"
        rest 2
    done
    # Once, and before Terraform asks with the same password many times: Grafana locks a user out after five mistakes.
    until get /api/org; do
        case $answer in
        *" 401 "*) fail "Grafana at $grafana refuses $who (401). A password is taken from the settings at Grafana's first start only; see README.md, \"Provisioning failed\"" ;;
        *" 403 "*) fail "Grafana at $grafana does not let $who read its organisation (403); an administrator is needed" ;;
        esac
        [ "$(date +%s)" -lt "$deadline" ] || fail "Grafana at $grafana does not answer: $(echo "$answer" | tail -n 1)"
        rest 2
    done
}

# What was made before and is not in the state, since that was lost, is taken over. The dashboards need none of this:
# applying one overwrites it.
adopt() {
    known=$(terraform state list 2>/dev/null)
    while read -r address path uid; do
        case $known in *"$address"*) continue ;; esac
        get "$path$uid" || continue
        say "$address is in Grafana already, and is taken over"
        run terraform import -input=false -no-color "$address" "$uid" >"$scratch/import.log" 2>&1 || {
            cat "$scratch/import.log" >&2
            return 1
        }
    done <<EOF
grafana_folder.this /api/folders/ ${TF_VAR_folder_uid:-api-monitoring-folder}
grafana_data_source.prometheus /api/datasources/uid/ ${TF_VAR_prometheus_uid:-prometheus}
grafana_data_source.alertmanager["this"] /api/datasources/uid/ ${TF_VAR_alertmanager_uid:-alertmanager}
EOF
}

apply() {
    pause=2
    until adopt && run terraform apply -input=false -auto-approve -no-color; do
        [ $(($(date +%s) + pause)) -lt "$deadline" ] || fail "Terraform could not apply; its error stands above"
        say "trying again in $pause s"
        rest "$pause"
        pause=$((pause * 2))
    done
}

case ${1:-apply} in
apply)
    wait_for_grafana
    apply
    public=${TF_VAR_grafana_public_url:-$grafana}
    say "done: data sources, folder and dashboards are in Grafana, ${public%/}/d/api-monitoring"
    if [ "${2:-}" = --stay ]; then
        touch "$ready"
        while :; do rest 86400; done
    fi
    ;;
plan)
    wait_for_grafana
    run terraform plan -input=false -no-color -detailed-exitcode
    exit
    ;;
destroy)
    wait_for_grafana
    run terraform destroy -input=false -auto-approve -no-color || fail "Terraform could not destroy; its error stands above"
    say "done: nothing of it is left in Grafana"
    ;;
*)
    fail "\"$1\" is no command; expected apply, plan or destroy"
    ;;
esac
