# shellcheck shell=bash
# The steps of dev/deep. To be sourced; see steps.sh for what a step is.

# ---- the code as it stands

step_analyzer()
{
	local flags=(-Isrc -O2 -fno-strict-aliasing -fwrapv -Wall -Werror -isystem
		"$("$PG_CONFIG" --includedir-server)")
	each gcc -fanalyzer "${flags[@]}" -c -o /dev/null -- src/*/*.c
}

# clang-tidy FILE -- FLAG…: "each" adds the file at the end.
tidy()
{
	clang-tidy --quiet --config-file=dev/clang-tidy "$1" -- -std=gnu99 -Isrc \
		-isystem "$("$PG_CONFIG" --includedir-server)"
}

step_tidy()
{
	each tidy -- src/*/*.c
}

# ---- the extension at work

# run_suites SOURCES: regress and isolation, those of DEEP_REGRESS and DEEP_ISOLATION if they are set.
run_suites()
{
	local tests
	# What takes a second elsewhere may take minutes.
	export PGISOLATIONTIMEOUT=3600
	read -ra tests <<<"${DEEP_REGRESS-$(cd "$1/sql" && echo *.sql)}"
	run_some "$1" REGRESS ISOLATION regression.diffs "${tests[@]%.sql}"
	read -ra tests <<<"${DEEP_ISOLATION-$(cd "$1/specs" && echo *.spec)}"
	run_some "$1" ISOLATION REGRESS output_iso/regression.diffs "${tests[@]%.spec}"
}

# run_some SOURCES KIND OTHER DIFFS TEST…
run_some()
{
	local status=0
	[ $# != 4 ] || return 0
	in_group make -s -C "$1" "PG_CONFIG=$PG_CONFIG" installcheck TAP_TESTS='' "$3=" \
		"$2=${*:5}" >"$log.out" 2>&1 || status=$?
	tally_regress $status "$log.out" $(($# - 4))
	[ ! -e "$1/$4" ] || cat "$1/$4" >>"$log"
}

# run_tap SOURCES TEST…: tests of t/.
run_tap()
{
	local status=0
	in_group make -s -C "$1" "PG_CONFIG=$PG_CONFIG" installcheck REGRESS='' ISOLATION='' \
		"PROVE_TESTS=${*:2}" PROVE_FLAGS=-v >"$log.out" 2>&1 || status=$?
	tally_tap $status "$log.out"
}

# found COUNT FILE…: findings that tools have written to files, beside what the tests say.
found()
{
	[ "$1" = 0 ] || { failed=$((failed + $1)); cat "${@:2}" >>"$log"; }
}

# Whatever is undefined ends the backend, so that its test fails, and is named in the server's log.
step_ubsan()
{
	local sources=$workplace/ubsan/src server=$workplace/ubsan/server
	local sanitize=(-fsanitize=undefined -fsanitize=float-cast-overflow -fsanitize=float-divide-by-zero
		-fno-sanitize-recover=all)
	mkdir -p "$sources"
	cp -a . "$sources"
	stage "$installed" "$workplace/ubsan/postgres"
	in_group build "$sources" "${sanitize[@]}" >"$log" 2>&1 || { failed=1; return 0; }
	UBSAN_OPTIONS=print_stacktrace=1 start_server "$server"
	run_suites "$sources"
	found "$(grep -c 'runtime error:' "$server/server.log")" "$server/server.log"
}

# Without what rests on PostgreSQL's insides: the calls lock their jobs first. Where a test asserts the
# plan, or the one statement, its output differs, and only by the lines of dev/lock_first.diff: so the
# tests fail here, but no other lines may differ.
step_lock_first()
{
	local sources=$workplace/lock_first/src differ=$workplace/lock_first/differ
	mkdir -p "$sources"
	cp -a . "$sources"
	stage "$installed" "$workplace/lock_first/postgres"
	in_group build "$sources" "${strict[@]}" -DOM_LOCK_FIRST >"$log" 2>&1 || { failed=1; return 0; }
	start_server "$workplace/lock_first/server"
	run_suites "$sources"
	if { cat "$sources"/{,output_iso/}regression.diffs 2>/dev/null || true; } | grep '^[-+]' |
		grep -vE '^(---|\+\+\+) ' | sort | diff <(grep -v '^#' dev/lock_first.diff | sort) - >"$differ"; then
		figures="$failed of them with the lines of dev/lock_first.diff"
		passed=$((passed + failed))
		failed=0
	else
		printf '\nbeside dev/lock_first.diff (<: missing, >: too many):\n' >>"$log"
		cat "$differ" >>"$log"
	fi
	run_tap "$sources" t/002_lock_order.pl t/003_workers.pl t/007_callables.pl
}

# In some of each session's calls, which discard_caches.c draws, and tells why.
step_discard_caches()
{
	local server=$workplace/discard_caches setting drawn
	need_debug_server "$version" || return 0
	in_group gcc -shared -fPIC -O1 -Wall -Werror -isystem "$("$PG_CONFIG" --includedir-server)" \
		-o "$("$PG_CONFIG" --pkglibdir)/discard_caches.so" dev/discard_caches.c >>"$log" 2>&1 ||
		{ failed=1; return 0; }
	start_server "$server"
	for setting in session_preload_libraries=discard_caches "discard_caches.seed='${SEED-1}'" \
		"discard_caches.every='${DISCARD_EVERY-10}'"; do
		echo "$setting" >>"$server/data/postgresql.conf"
	done
	pg_ctl -D "$server/data" reload >>"$log"
	run_suites .
	drawn=$(grep -c 'discarded caches in a call' "$server/server.log" || true)
	figures="in $drawn calls"
	[ "$drawn" != 0 ] || { failed=$((failed + 1)); echo "no call was drawn" >>"$log"; }
	found "$(grep -c TRAP: "$server/server.log")" "$server/server.log"
}

# A process writes what it finds to a file of its own; --quiet: nothing else.
step_valgrind()
{
	local server=$workplace/valgrind
	need_debug_server "$version" || return 0
	start_server "$server"
	mkdir "$server/found"
	cat >"$server/postgres" <<-SH
		#!/bin/sh
		exec valgrind --quiet --trace-children=yes --leak-check=no --num-callers=30 \\
			--suppressions=$workplace/debug/$version/valgrind.supp \\
			--suppressions=$PWD/dev/valgrind.supp --gen-suppressions=all \\
			--error-markers=VALGRINDERROR-BEGIN,VALGRINDERROR-END \\
			--log-file=$server/found/%p $workplace/debug/$version/bin/postgres "\$@"
	SH
	chmod +x "$server/postgres"
	pg_ctl -D "$server/data" -l "$server/server.log" -p "$server/postgres" -w -t 600 restart \
		>>"$log" 2>&1 </dev/null || { failed=1; return 0; }
	run_suites .
	# What a process finds as it ends counts too.
	stop_servers "$server"
	if compgen -G "$server/found/*" >/dev/null; then
		found "$(cat "$server"/found/* | grep -c VALGRINDERROR-BEGIN)" "$server"/found/*
	else
		failed=$((failed + 1))
		echo "valgrind has written nothing" >>"$log"
	fi
	found "$(grep -c TRAP: "$server/server.log")" "$server/server.log"
}

step_newest()
{
	local server=$workplace/newest newest
	newest=$(newest_version testing) || { failed=1; cat "$log.build" >>"$log"; return 0; }
	need_debug_server "$newest" testing || return 0
	start_server "$server"
	run_suites .
	stop_servers "$server"
	found "$(grep -c TRAP: "$server/server.log")" "$server/server.log"

	need_debug_server "$version" || return 0
	run_tap . t/013_pg_upgrade.pl
	figures=$(grep -o 'from [0-9.]* to [0-9.]*' "$log.out" || true)
	[[ $figures == *" to $newest."* ]] ||
		{ failed=$((failed + 1)); echo "pg_upgrade was not to version $newest" >>"$log"; }
}
