#!/usr/bin/env bash
# Terraform's own checks of terraform/: formatting, validity, and its tests, which mock the provider. Terraform or
# OpenTofu is taken from TERRAFORM or from the path. Validity and tests need the provider, from its registry or from a
# mirror of yours (TF_CLI_CONFIG_FILE). What is not at hand is left out, and said; with CI=true as well, since neither a
# registry nor Terraform comes with this project, and tests/stack reads the same files without them.
set -euo pipefail
cd "$(dirname "$0")/.."
folders=(terraform deploy/provision)

terraform=${TERRAFORM:-$(command -v terraform || command -v tofu || true)}
if [ -z "$terraform" ] || ! command -v "$terraform" >/dev/null; then
    echo "terraform: no ${terraform:-terraform or tofu} (install one, or set TERRAFORM); terraform/ is left unchecked" >&2
    exit 0
fi
# A relative path is one from here.
terraform=$(realpath "$(command -v "$terraform")")

for folder in "${folders[@]}"; do
    if ! "$terraform" fmt -check -recursive -diff "$folder"; then
        echo "terraform: $folder is not formatted: run \`terraform fmt -recursive $folder\`" >&2
        exit 1
    fi
done
echo "terraform: ${folders[*]} are formatted"

# In a copy, which takes what `init` writes, and without your variables, backend and state.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/terraform" "$work/grafonnet"
cp -R grafonnet/rendered "$work/grafonnet"
cp -R terraform/*.tf terraform/tests "$work/terraform"
rm -f "$work/terraform/backend.tf"
[ ! -e terraform/.terraform.lock.hcl ] || cp terraform/.terraform.lock.hcl "$work/terraform"
unset "${!TF_CLI_ARGS@}" "${!TF_VAR_@}" TF_WORKSPACE
export TF_DATA_DIR=$work/data TF_IN_AUTOMATION=1 TF_INPUT=0 CHECKPOINT_DISABLE=1
cd "$work/terraform"

# The provider has some 30 MB. Without a limit, a network that swallows everything would hold this up for minutes.
limit=(timeout -k 5 "${TERRAFORM_INIT_TIMEOUT_SECONDS:-90}")
command -v timeout >/dev/null || limit=(env)
status=0
"${limit[@]}" "$terraform" init -backend=false -no-color >"$work/log" 2>&1 </dev/null || status=$?
if [ $status -ne 0 ]; then
    cat "$work/log" >&2
    # Terraform breaks its lines anywhere.
    said=$(tr -s '\n ' ' ' <"$work/log")
    # 124 and 137: the limit. Otherwise Terraform's words for a registry or mirror that does not have it for us. They
    # stand also where it has no such provider or version, or another than the locked one: then the files here are
    # wrong.
    if [ $status -ne 124 ] && [ $status -ne 137 ] && {
        ! grep -qE 'Failed to (query available provider packages|install provider|resolve provider packages)' <<<"$said" ||
            grep -qE 'does not have a provider named|no available releases match|match any of the checksums' <<<"$said"
    }; then
        exit 1
    fi
    echo "terraform: the Grafana provider cannot be had, as said above; terraform/ is neither validated nor tested" >&2
    exit 0
fi
"$terraform" validate -no-color
"$terraform" test -no-color
