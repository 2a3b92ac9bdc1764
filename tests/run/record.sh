#!/usr/bin/env bash
# Writes what the program prints on a terminal into README.md, between the two marks there: three servers, a file that
# somebody changed on one of them, and one server that is gone.
#
#   --check            compares the shape with what is in README.md instead: all but numbers, ids and line breaks
#   LOCKSTEP_BIN=path  the program; by default the one that was built last
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly BEGIN='<!-- recorded by tests/run/record.sh -->' END='<!-- end of the recording -->'

fail() {
    printf 'record.sh: %s\n' "$*" >&2
    exit 1
}

program=${LOCKSTEP_BIN:-target/debug/lockstep}
[[ -x $program ]] || fail "$program is not there"
folder=$(cd "$(dirname "$program")" && pwd)
work=$(mktemp -d)
up_pid=
finish() {
    local code=$?
    trap - EXIT
    if [[ -n $up_pid ]]; then
        kill -TERM "$up_pid" 2>/dev/null || true
        wait "$up_pid" || true
    fi
    [[ $code == 0 ]] || tail -n 20 "$work/up.log" >&2 || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

export PATH="$folder:$PATH" LOCKSTEP_DATA="$work/data" NO_COLOR=1 TERM=xterm
lockstep up --servers 3 --data "$work/data" --gateway-port 0 >"$work/up.out" 2>"$work/up.log" &
up_pid=$!
for _ in $(seq 600); do
    [[ ! -e $work/data/run/ready ]] || break
    kill -0 "$up_pid" 2>/dev/null || fail "the installation ended before it was ready"
    sleep 0.1
done
[[ -e $work/data/run/ready ]] || fail "the installation was not ready within 60 s"

until_says() { # words command…
    local words=$1
    shift
    for _ in $(seq 300); do
        if { "$@" 2>/dev/null || true; } | grep "$words" >/dev/null; then return 0; fi
        sleep 0.1
    done
    fail "$* never said $words"
}
shown() { # a command, on a terminal of 96 columns
    printf '$ %s\n' "$1"
    script -qec "stty cols 96 rows 50; $1" /dev/null </dev/null 2>&1 | tr -d '\r' | sed 's/ *$//'
}

cd "$work"
head -c 3000000 /dev/zero >base.img
echo notes >notes.txt
{
    echo '$ lockstep file register base.img os/base.img --server s1 --wait'
    lockstep file register base.img os/base.img --server s1 --wait 2>/dev/null
    echo
    lockstep file register notes.txt docs/notes.txt --server s2 --wait >/dev/null 2>&1
    for server in s1 s2 s3; do until_says "$server .*TRUSTED" lockstep status; done
    shown "lockstep status"
    echo changed >"$work/data/servers/s2/root/ums_filetransfer/docs/notes.txt"
    lockstep file check --server s2 >/dev/null
    touch "$work/data/run/s3.filesync.hold"
    kill -KILL "$(cat "$work/data/run/s3.filesync.pid")"
    until_says 's3 .*UNREACHABLE' lockstep status
    until_says 'DRIFTED' lockstep status
    until_says 'compared' lockstep file why docs/notes.txt --server s1
    echo
    echo '# Somebody changes docs/notes.txt on s2, and s3 loses its power.'
    shown "lockstep status || echo \"exit code \$?\"" | sed '1s/ ||.*//'
    echo
    shown "lockstep file why docs/notes.txt"
    echo
    shown "lockstep sync docs/"
} >"$work/recording"
cd "$OLDPWD"
sed -i "s|localhost:[0-9]*|localhost:7443|g" "$work/recording"

shape() {
    sed -E 's/[0-9a-f]{8}-[0-9a-f-]{27}/ID/g; s/[0-9a-f]{64}/DIGEST/g; s/[0-9]+(\.[0-9]+)?/N/g
        s/N (min|h|d) N (s|min|h)/N s/g; s/\[[#-]*\]/BAR/g' | tr -s ' \n' '  ' |
        # How the connection broke depends on the moment.
        sed -E 's/(UNREACHABLE: |the request: |server sN: |not heard: )[^;(]*/\1CAUSE /g'
}
if [[ ${1:-} == --check ]]; then
    recorded=$(sed -n "\|^$BEGIN\$|,\|^$END\$|p" README.md | sed '1d;2d;$d' | sed '$d' | shape)
    now=$(shape <"$work/recording")
    [[ $recorded == "$now" ]] && exit 0
    diff <(tr ' ' '\n' <<<"$recorded") <(tr ' ' '\n' <<<"$now") >&2 || true
    fail "README.md shows something else; tests/run/record.sh writes it anew"
fi
{
    sed "\|^$BEGIN\$|q" README.md
    echo '```text'
    cat "$work/recording"
    echo '```'
    sed -n "\|^$END\$|,\$p" README.md
} >"$work/README.md"
cp "$work/README.md" README.md
echo "README.md has the recording of today"
