#!/usr/bin/env bash
# `make run`: builds Lockstep, starts three servers on this machine, registers real files on them, shows how they get in
# sync, compares the bytes on all three disks, and prints lines to try. Keeps running until Ctrl-C.
#
#   FILE=path     one large file to register; by default the program that was just built
#   ONCE=1        ends by itself; the exit code is 0 only if everything was as it should be
#   DATA=dir      where the servers live; by default .lockstep-run, with ONCE=1 a new directory that is removed again
#   LOCKSTEP_BIN=path  use this program instead of building one
#   NEED_GRPCURL  set: without grpcurl the lines that use it are a failure instead of being left out
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly ROOT=$PWD

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() {
    printf 'make run: %s\n' "$*" >&2
    exit 1
}

once=${ONCE:-}
work=$(mktemp -d)
if [[ -n ${DATA:-} ]]; then
    data=$DATA
elif [[ -n $once ]]; then
    data=$work/data
else
    data=$ROOT/.lockstep-run
    if [[ -e $data/lock ]] && ! flock --nonblock "$data/lock" true; then
        fail "another \`make run\` (process $(cat "$data/lock")) uses $data"
    fi
    rm -rf "$data"
fi
mkdir -p "$data"
data=$(cd "$data" && pwd)
up_pid=

finish() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $up_pid ]] && kill -0 "$up_pid" 2>/dev/null; then
        kill -TERM "$up_pid"
        wait "$up_pid" || { code=$?; echo "make run: the installation ended with code $code" >&2; }
    fi
    if [[ $code != 0 && -e $data/up.log ]]; then
        echo "make run: the end of $data/up.log:" >&2
        tail -n 60 "$data/up.log" >&2
        [[ $data != "$work"/* ]] || echo "make run: kept $work" >&2
    else
        rm -rf "$work"
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [[ -n ${LOCKSTEP_BIN:-} ]]; then
    program=$(realpath "$LOCKSTEP_BIN")
else
    say "Build"
    cargo build --release --locked --package lockstep
    target=$(cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    program=$target/release/lockstep
fi
folder=$(dirname "$program")
[[ $program == "$folder/lockstep" && -x $program ]] || fail "$program is no program named lockstep"
export PATH="$folder:$PATH" LOCKSTEP_DATA="$data"
file=${FILE:-$program}
[[ -f $file ]] || fail "FILE=$file is no file"
name=$(basename "$file")

say "Start three servers, each with its own processes, directory and certificates"
# A run by a machine takes any free port, one by a person the usual one.
if [[ -n $once ]]; then port=${GATEWAY_PORT:-0}; else port=${GATEWAY_PORT:-7443}; fi
lockstep up --servers 3 --data "$data" --gateway-port "$port" >"$data/up.out" 2>"$data/up.log" &
up_pid=$!
for _ in $(seq 600); do
    [[ ! -e $data/run/ready ]] || break
    kill -0 "$up_pid" 2>/dev/null || { wait "$up_pid" || true; fail "the installation ended before it was ready"; }
    sleep 0.1
done
[[ -e $data/run/ready ]] || fail "the installation was not ready within 60 s"
gateway=$(sed 's|https://||' "$data/run/ready")
sed '/^Try/,$d' "$data/up.out"
echo "log: $data/up.log"

say "Register one large file on s1: $file ($(du -h "$file" | cut -f1))"
lockstep file register "$file" "demo/$name" --server s1 --wait --timeout 5m

say "Register this repository's files as a tree on s2"
mkdir "$work/tree"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1 && [[ -n $(git ls-files | head -n 1) ]]; then
    git ls-files -z
else
    find . -type f -not -path './.git/*' -not -path './target/*' -not -path './.lockstep-run/*' -print0
fi | xargs -0 cp --parents --target-directory "$work/tree"
lockstep file register "$work/tree" repository --server s2

say "Until everything is in sync everywhere"
lockstep status --until-in-sync --timeout 5m

say "Compare the bytes on all three disks with their source"
for server in s1 s2 s3; do
    files=$data/servers/$server/root/ums_filetransfer
    cmp "$file" "$files/demo/$name"
    diff --recursive "$work/tree" "$files/repository"
    printf '%s  same bytes: %s files, demo/%s %s\n' "$server" \
        "$(find "$files" -type f | wc -l)" "$name" "$(sha256sum "$files/demo/$name" | cut -c 1-16)"
done

# Lines to try: printed with the address of this installation, and run one by one where the run ends by itself.
codes=() fragments=() commands=()
line() {
    codes+=("$1") fragments+=("$2") commands+=("${3//localhost:7443/$gateway}")
}
# shellcheck source=tests/run/lines.sh
source tests/run/lines.sh
while IFS= read -r command; do
    case $command in
        *RegisterFile) continue ;; # the same request as in lines.sh
        *no/such/file*) line 69 'FILE_NOT_FOUND' "$command" ;;
        *Reconcile) line 0 '"position"' "$command" ;;
        *describe*) line 0 'is a' "$command" ;;
        *) line 0 '{' "$command" ;;
    esac
done < <(sed -n 's|^// \(grpcurl .*\)|\1|p' proto/lockstep/*/v1/*.proto)

pki=$data/pki
preamble="cd $ROOT
export PATH=\"$folder:\$PATH\" LOCKSTEP_DATA=\"$data\"
TLS=\"-cacert $pki/ca.pem -cert $pki/operator.local/cert.pem -key $pki/operator.local/key.pem\""
say "Lines to try in another terminal"
printf '%s\n' "$preamble" "${commands[@]}"

if [[ -n $once ]]; then
    say "Run each of them and compare the answers"
    has_grpcurl=$(command -v grpcurl || true)
    [[ -n $has_grpcurl || -z ${NEED_GRPCURL:-} ]] || fail "grpcurl is not installed"
    wrong=0 left_out=0
    for i in "${!commands[@]}"; do
        if [[ ${commands[i]} == grpcurl* && -z $has_grpcurl ]]; then
            left_out=$((left_out + 1))
            continue
        fi
        code=0
        answer=$(bash -c "$preamble"$'\n'"${commands[i]}" 2>&1) || code=$?
        if [[ $code == "${codes[i]}" && $answer == *"${fragments[i]}"* ]]; then
            printf 'ok    %s\n' "${commands[i]}"
        else
            wrong=$((wrong + 1))
            printf 'WRONG %s\n  exit code %s, expected %s with: %s\n%s\n' \
                "${commands[i]}" "$code" "${codes[i]}" "${fragments[i]}" "$answer"
        fi
    done
    say "Run the lines that lockstep up printed"
    sed -n '/^Try/,/^$/p' "$data/up.out" | sed 1d | if [[ -n $has_grpcurl ]]; then cat; else grep -v grpcurl; fi >"$work/try.sh"
    [[ $(wc -l <"$work/try.sh") -gt 3 ]] || fail "lockstep up printed no lines to try"
    bash -eu "$work/try.sh" || fail "a line that lockstep up printed failed: $(cat "$work/try.sh")"
    say "What README.md shows is among them"
    shown=0
    while IFS= read -r command; do
        shown=$((shown + 1))
        found=
        for known in "${commands[@]}"; do
            [[ $known != "${command//localhost:7443/$gateway}" ]] || found=yes
        done
        [[ -n $found ]] || { wrong=$((wrong + 1)); printf 'WRONG not run by CI: %s\n' "$command"; }
    done < <(sed -n '/^```sh$/,/^```$/p' README.md | grep -E '^(lockstep (file|sync|status|server|settings|firmware|resolve|clock)|grpcurl)( |$)' | sed 's/ *# .*//')
    [[ $shown -gt 0 ]] || fail "README.md shows no command"
    [[ $wrong == 0 ]] || fail "$wrong lines did not do what they should"
    echo "${#commands[@]} lines, $left_out of them left out for want of grpcurl, $shown shown in README.md"
    lockstep status --until-in-sync --timeout 1m >/dev/null
    kill -TERM "$up_pid"
    started=$SECONDS
    wait "$up_pid" || fail "the installation did not end cleanly"
    up_pid=
    [[ $((SECONDS - started)) -le 6 ]] || fail "the installation took longer than 5 s to end"
    say "What README.md shows of a terminal is what a terminal shows"
    LOCKSTEP_BIN=$program tests/run/record.sh --check || fail "see above"
    say "Everything was as it should be"
    exit 0
fi

say "Running until Ctrl-C; lockstep status --watch shows it live"
# From here on a signal is the usual end.
trap 'exit 0' INT TERM
wait "$up_pid"
