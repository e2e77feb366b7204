#!/bin/sh
# Installs what Borealis needs and is missing: Debian packages (as root), and the project in .venv. Run again, it
# looks and returns at once. It creates no database, starts no service and touches no existing one.
#
#   PYTHON=/path/to/python3   use this Python (3.11 or newer) for the virtual environment
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.setup-stamp

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
found() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

usable_python() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    # Debian's own first: another one on PATH may belong to a project and vanish with it.
    for candidate in ${PYTHON:-} /usr/bin/python3 python3.11 python3.12 python3.13 python3; do
        if found "$candidate" && usable_python "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

has_postgres() {
    set -- /usr/lib/postgresql/*/bin/postgres
    [ -x "$1" ] || [ -n "${BOREALIS_PG_BIN:-}" ]
}
has_mariadb() { found mariadbd || [ -n "${BOREALIS_MARIADB_BIN:-}" ]; }

missing_engines() {
    has_postgres || printf ' postgresql-15'
    has_mariadb || printf ' mariadb-server-core'
    found mariadb || printf ' mariadb-client'
}

missing_packages() {
    found haproxy || printf ' haproxy'
    found "${CC:-gcc}" || printf ' gcc'
    found make || printf ' make'
    [ -e /usr/include/stdio.h ] || printf ' libc6-dev'
    [ -x "$VENV/bin/python" ] || find_python >/dev/null || printf ' python3-venv'
}

# While packages are installed no service may start and no "main" cluster may be made: Borealis only wants the
# programs. Both switches are the administrator's: they are put back as they were, whatever happens.
POLICY=/usr/sbin/policy-rc.d
CREATE=/etc/postgresql-common/createcluster.conf
KEPT=

restore_switches() {
    [ "${POLICY_MADE:-no}" = no ] || rm -f "$POLICY"
    if [ -n "$KEPT" ] && [ -e "$KEPT" ]; then cat "$KEPT" >"$CREATE"; rm -f "$KEPT"; fi
}

set_switches() {
    trap restore_switches EXIT
    trap 'exit 130' INT TERM
    if [ ! -e "$POLICY" ]; then
        POLICY_MADE=yes
        printf '#!/bin/sh\nexit 101\n' >"$POLICY"
        chmod 755 "$POLICY"
    fi
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    say "installing:$1"
    set_switches
    apt-get update -q || say "setup: apt-get update failed: trying with the lists that are here"
    case "$1" in
    *postgresql*)
        apt-get install -y -q --no-install-recommends postgresql-common
        KEPT=$(mktemp)
        cat "$CREATE" >"$KEPT"
        printf 'create_main_cluster = false\n' >>"$CREATE"
        ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -q --no-install-recommends $1
    restore_switches
    trap - EXIT INT TERM
}

PACKAGES=$(missing_packages)
ENGINES=$(missing_engines)
if [ -n "$PACKAGES$ENGINES" ]; then
    if [ "$(id -u)" = 0 ] && found apt-get; then
        install_packages "$PACKAGES$ENGINES"
    elif [ -z "$PACKAGES" ] && { has_postgres || has_mariadb; }; then
        say "setup: going on without$ENGINES: what needs them is not offered"
    else
        PACKAGES=$PACKAGES$ENGINES
        fail "these Debian packages are missing:$PACKAGES
       Install them as root, then run this again:  apt-get install$PACKAGES"
    fi
fi

# Everything that the installed environment is made from; nothing to do while it has not changed.
fingerprint() {
    cat pyproject.toml setup.py constraints.txt scripts/setup.sh native/*.[ch] native/plugin/*.[ch] native/Makefile 2>/dev/null |
        sha256sum | cut -d' ' -f1
    pwd
}
WANTED=$(fingerprint)
if [ -x "$VENV/bin/borealis" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$WANTED" ] &&
    [ -e borealis/_native/libborealis_volume.so ] && [ -e borealis/_native/libborealis_mariadb.so ]; then
    exit 0
fi

if ! "$VENV/bin/python" -c '' >/dev/null 2>&1; then
    PYTHON=$(find_python) || fail "no Python 3.11 or newer with the venv module was found: name one with PYTHON=…"
    say "creating $VENV with $PYTHON"
    "$PYTHON" -m venv --clear "$VENV"
fi
say "installing the project into $VENV (the first time this takes a minute)"
"$VENV/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>"$VENV/pip.log" ||
    { cat "$VENV/pip.log" >&2; fail "pip could not install the project (see above)"; }
printf '%s\n' "$WANTED" >"$STAMP"
say "ready: $VENV/bin/borealis"
