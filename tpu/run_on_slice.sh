#!/usr/bin/env bash
# Start a jaxinterp verb on every host of a Cloud TPU slice, the same command on each.
#
#   TPU=my-slice ZONE=us-east5-b tpu/run_on_slice.sh train configs/stories260k/clt.yaml --out /mnt/run --multihost
#
# TPU and ZONE name the slice (PROJECT is optional). The checkout is copied to each host and installed with
# the tpu extra into a virtual environment first; SKIP_INSTALL=1 leaves that out on later runs. Hosts find each
# other through the slice's own metadata (--multihost). Needs the gcloud client, logged in.
set -euo pipefail
: "${TPU:?name of the TPU slice}" "${ZONE:?its zone}"
[ "$#" -gt 0 ] || { sed -n '2,9p' "$0"; exit 2; }
where=(--zone "$ZONE")
[ -n "${PROJECT:-}" ] && where+=(--project "$PROJECT")
root=$(cd "$(dirname "$0")/.." && pwd)

on_every_host() { gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --worker=all --command "$1"; }

if [ -z "${SKIP_INSTALL:-}" ]; then
  archive=$(mktemp --suffix=.tar.gz)
  trap 'rm -f "$archive"' EXIT
  git -C "$root" archive --format=tar.gz -o "$archive" HEAD
  gcloud compute tpus tpu-vm scp "$archive" "$TPU:jaxinterp.tar.gz" "${where[@]}" --worker=all
  on_every_host 'rm -rf jaxinterp && mkdir jaxinterp && tar xzf jaxinterp.tar.gz -C jaxinterp &&
    python3 -m venv jaxinterp-venv && jaxinterp-venv/bin/pip install -q -c jaxinterp/constraints/any.txt "./jaxinterp[tpu]"'
fi
printf -v arguments '%q ' "$@"
on_every_host "cd jaxinterp && ../jaxinterp-venv/bin/jaxinterp $arguments"
