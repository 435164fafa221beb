#!/bin/sh
# Names every system tool that is missing, one line each, with the way to get it; fails if one cannot be done
# without. $1 is a Python of the wanted version, or empty; the rest are the tools that are needed besides.
python=$1
shift
missing=0

say() {
    echo "$1: $2; install it with: brew install $3   or: sudo apt-get install $4" >&2
}

# The feature release that a program's version line names: 20 of "v20.1.0", 17 of 'openjdk version "17.0.2"'.
release() {
    sed -n 's/^[^0-9]*\([0-9][0-9]*\).*/\1/p' | head -n 1
}

if [ -z "$python" ]; then
    say "Python" "3.11 or later is missing" "python@3.12" "python3 python3-venv"
    missing=1
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "Python" "$python cannot make virtual environments" "python@3.12" "python3-venv"
    missing=1
fi

for tool in "$@"; do
    case $tool in
    node)
        found=$(node --version 2>/dev/null | release)
        if [ "${found:-0}" -lt 20 ] || ! command -v npm >/dev/null 2>&1; then
            say "Node" "20 or later, with npm, is missing" "node" "nodejs npm"
            missing=1
        fi
        ;;
    java)
        # Not fatal: without it Kafka runs elsewhere, or as a mock.
        found=$(java -version 2>&1 | grep version | release)
        if [ "${found:-0}" -lt 17 ]; then
            say "Java" "17 or later is missing, so Kafka falls back to Docker or to a mock broker" \
                "openjdk@17" "openjdk-17-jre-headless"
        fi
        if ! command -v mvn >/dev/null 2>&1; then
            say "Maven" "it is missing, so Kafka falls back to Docker or to a mock broker" "maven" "maven"
        fi
        ;;
    esac
done
exit $missing
