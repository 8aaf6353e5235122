# shellcheck shell=bash
# Debian's packages, for scripts that unpack them below target. To be sourced.

# fetch PACKAGE…: downloads packages into this folder. The machine's own package lists may be absent or old; fresh ones
# are fetched into this folder too, not into the system's, so that no root is needed.
fetch() {
    local fresh=(-o "Dir::State=$PWD/state" -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$PWD/cache"
        -o APT::Sandbox::User=)
    if ! apt-get download -q "$@" >download.log 2>&1 && ! {
        mkdir -p state/lists/partial cache/archives/partial &&
            apt-get "${fresh[@]}" update -qq && apt-get "${fresh[@]}" download -q "$@"
    } >>download.log 2>&1; then
        cat download.log >&2
        return 1
    fi
}
