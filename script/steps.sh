# shellcheck shell=sh
# What the scripts beside this file share; it is sourced and does nothing by itself.
# A script sets `me` (its name in messages) and `dry` ("yes": print commands, run none) first.

# say TEXT...: one line for the reader, on stderr.
say() {
    printf '%s: %s\n' "${me:?}" "$*" >&2
}

die() {
    status=$1
    shift
    say "$@"
    exit "$status"
}

# run CMD...: shows the command as one could paste it, then runs it (unless this is a dry run).
run() {
    shown=+
    for word in "$@"; do
        case $word in
            '' | *[!A-Za-z0-9_./=:,@%+-]*) shown="$shown '$word'" ;;
            *) shown="$shown $word" ;;
        esac
    done
    printf '%s\n' "$shown"
    [ "${dry:?}" = yes ] || "$@"
}
