#!/usr/bin/env bash
# Installs a real Slurm for tests/cluster, where there is none (Debian, Ubuntu).
set -euo pipefail

needed=(slurmctld slurmd munged srun sbatch scontrol)
have() {
    local program
    for program in "${needed[@]}"; do
        PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || return 1
    done
}

fail() {
    echo "error: the cluster tests need Slurm, and $1: install Debian's packages slurm-wlm and munge as root." >&2
    exit 1
}

if [[ $(id -u) != 0 ]]; then fail 'only root can start one here'; fi
if have; then exit 0; fi
command -v apt-get >/dev/null || fail 'there is no apt-get to install it'
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >"$log" 2>&1 || true # an index may be at hand already
apt-get install -y -qq --no-install-recommends slurm-wlm munge >>"$log" 2>&1 \
    || fail "apt-get could not install it (see $log)"
have || fail 'its programs are not all there after the installation'
rm -f "$log"
