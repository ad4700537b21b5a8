#!/bin/sh
# The verbs of oban_manage from psql: variables, prepared statements, errors, notifications.
#
# Prints TAP. Connects by PGHOST, PGPORT, PGUSER and PGDATABASE, and makes the schema client_psql
# anew, with a jobs table of Oban for Elixir.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
schema=client_psql

psql -XAtq -v ON_ERROR_STOP=1 \
	-c "SET client_min_messages = warning" \
	-c "CREATE EXTENSION IF NOT EXISTS oban_manage" \
	-c "DROP SCHEMA IF EXISTS $schema CASCADE"
psql -XAtq -v ON_ERROR_STOP=1 -v schema=$schema -v version=14 \
	-f "$here/../../../fixtures/elixir.sql"

# What psql says on stderr is the errors that are asked for.
output=$(psql -XAtq -v schema=$schema -f "$here/verbs.sql" 2>/dev/null)
checks=$(printf '%s\n' "$output" | grep -E '^(not )?ok ')
told=$(printf '%s\n' "$output" | grep -Ev '^(not )?ok |^#' | sed 's/ received from .*//')
printf '%s\n' "$output" | grep -E '^(not )?ok |^#'

count=$(($(printf '%s\n' "$checks" | wc -l) + 1))
expected=$(
	cat <<EOF
Asynchronous notification "$schema.oban_signal" with payload "{"action":"pkill","job_id":1}"
Asynchronous notification "$schema.oban_insert" with payload "{"queue":"mail"}"
EOF
)
status=0
if [ "$told" = "$expected" ]; then
	echo "ok $count - psql shows what is told, and only of what was committed"
else
	echo "not ok $count - psql shows what is told, and only of what was committed"
	printf '%s\n' "$told" | sed 's/^/# got: /'
	status=1
fi
echo "1..$count"

# A script that stops half-way must not pass.
printf '%s\n' "$checks" | tail -n 1 | grep -q 'the last check$' || status=1
if printf '%s\n' "$checks" | grep -q '^not ok'; then
	status=1
fi
psql -XAtq -c "SET client_min_messages = warning" -c "DROP SCHEMA $schema CASCADE"
exit $status
