# shellcheck shell=bash
# The steps of dev/test. To be sourced.
#
# Each sets "passed" and "failed", may set "figures" for the report, and writes to "log" what a
# reader needs when it fails. A test that is skipped, ignored or lost has failed.

built=
served=
declare -A only # the tests of a step, where some are named

report()
{
	all_passed=$((all_passed + passed))
	all_failed=$((all_failed + failed))
	if [ "$failed" = 0 ]; then
		printf '%-12s %5d passed %27s%s\n' "$step" "$passed" "$SECONDS s" "${figures:+   $figures}"
	else
		printf '%-12s %5d passed, %d FAILED %16s\n' "$step" "$passed" "$failed" "$SECONDS s"
		[ ! -e "$log" ] || sed 's/^/    /' "$log"
	fi
}

# each COMMAND… -- FILE…: runs the command on one file after the other.
each()
{
	local command=() file
	while [ "$1" != -- ]; do
		command+=("$1")
		shift
	done
	for file in "${@:2}"; do
		if in_group "${command[@]}" "$file" >>"$log" 2>&1; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
		fi
	done
}

# ---- the code as it stands

# Not these two: a callback has the parameters that its type asks for, and PG_TRY's own variables
# are counted as ours.
strict=(-Wextra -Wno-unused-parameter -Wno-clobbered -Werror)

step_compile()
{
	if in_group build . "${strict[@]}" >"$log" 2>&1; then
		built=yes
		passed=$(printf '%s\n' src/*/*.c | wc -l)
	else
		failed=1
	fi
}

# No file includes, and no object calls, what stands on a higher floor.
step_floors()
{
	need_build || return 0
	if dev/floors >>"$log" 2>&1; then
		passed=1
	else
		failed=1
	fi
}

# No comment names what is not there.
step_signposts()
{
	if dev/signposts >"$log" 2>&1; then
		passed=$(grep -oE '^[0-9]+' "$log" || true)
	else
		failed=1
	fi
}

# is_formatted FILE: by any version of clang-format from 14 on. They differ in one space, that before the
# brace of a compound literal, which is not compared.
is_formatted()
{
	diff -u --label "$1" --label "$1, formatted" <(sed 's/) {/){/g' "$1") \
		<(clang-format "$1" | sed 's/) {/){/g')
}

step_format()
{
	each is_formatted -- src/*/*.[ch]
}

step_cppcheck()
{
	# legacyUninitvar takes ".field = value" in an initializer for a use of the variable. The other is no
	# finding, but tells how far cppcheck 2.11 and later go.
	each cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability \
		-Isrc --include=dev/cppcheck.h --suppress=legacyUninitvar \
		--suppress=normalCheckLevelMaxBranches -- src/*/*.c
}

step_shell()
{
	local file line scripts=() is_shell='^#!.*[/ ](ba|da)?sh( |$)'
	while read -r file; do
		IFS= read -r line <"$file" || true
		[[ ! $line =~ $is_shell ]] || scripts+=("$file")
	done < <(find . -name node_modules -prune -o -type f -print 2>/dev/null)
	# -a: what a script sources is checked with it.
	each shellcheck -x -a -- "${scripts[@]}"
}

# The module shares one name space with the server and every other module.
step_exports()
{
	local symbol
	need_build || return 0
	for symbol in $(nm -D --defined-only oban_manage.so | awk '{ print $NF }'); do
		case $symbol in
			om_* | oban_* | pg_finfo_oban_* | Pg_magic_func | _PG_init)
				passed=$((passed + 1))
				;;
			*)
				failed=$((failed + 1))
				echo "exported: $symbol" >>"$log"
				;;
		esac
	done
}

step_length()
{
	local file lines long
	for file in src/*/*.[ch]; do
		lines=$(wc -l <"$file")
		# A body is between braces at the start of a line. A type ends by "} name;".
		long=$(awk '/^\{$/ { first = FNR + 1 }
			/^\}/ { if ($0 == "}" && FNR - first > 60) print first; first = FNR }' "$file")
		if [ "$lines" -le 400 ] && [ -z "$long" ]; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			echo "$file: $lines lines${long:+; a long function at line $long}" >>"$log"
		fi
	done
}

# ---- the extension at work

need_build()
{
	if [ -z "$built" ]; then
		built=no
		! in_group build . >"$workplace/log/build" 2>&1 || built=yes
	fi
	[ $built = yes ] || {
		failed=1
		cat "$workplace/log/build" >>"$log"
		return 1
	}
}

need_server()
{
	need_build || return
	[ -n "$served" ] || start_server "$workplace/server" >>"$log" 2>&1 || {
		failed=1
		return 1
	}
	served=yes
}

# need_extension DATABASE: the server is there, and a new database with nothing but the extension.
need_extension()
{
	need_server || return
	{ createdb "$1" && psql -X -q -d "$1" -c 'CREATE EXTENSION oban_manage'; } >>"$log" 2>&1 || {
		failed=$((failed + 1))
		return 1
	}
}

# What the tests in JavaScript import; one that cannot do without fails by itself.
need_node_modules()
{
	[ -e clients/node/node_modules ] ||
		in_group npm --prefix clients/node --no-audit --no-fund --no-update-notifier \
			--fetch-retry-maxtimeout=10000 ci \
			>>"$log" 2>&1 || true
}

# tally_regress STATUS OUTPUT EXPECTED: counts what pg_regress says, of so many tests.
tally_regress()
{
	local ok
	# As it is put up to PostgreSQL 15, or from 16 on.
	ok=$(grep -cE '^test .* \.\.\. ok |^ok [0-9]' "$2" || true)
	passed=$((passed + ok))
	if [ "$1" != 0 ] || [ "$ok" != "$3" ]; then
		failed=$((failed + ($3 > ok ? $3 - ok : 1)))
		cat "$2" >>"$log"
	fi
}

# test_file STEP NAME: the file of a single test, if there is one.
test_file()
{
	case $1 in
		regress) ls "sql/$2.sql" ;;
		isolation) ls "specs/$2.spec" ;;
		tap) ls "t/$2.pl" ;;
	esac 2>/dev/null || true
}

# run_installcheck DIR KIND OTHER DIFFS TEST…: those tests of one kind of the sources in DIR.
run_installcheck()
{
	local status=0 names=("${@:5}")
	names=("${names[@]##*/}")
	in_group make -s -C "$1" "PG_CONFIG=$PG_CONFIG" installcheck TAP_TESTS='' "$3=" \
		"$2=${names[*]%.*}" >"$log.out" 2>&1 || status=$?
	tally_regress $status "$log.out" ${#names[@]}
	[ ! -e "$1/$4" ] || cat "$1/$4" >>"$log"
}

# run_regress DIR [NAME…]: sql/ of the sources in DIR, or those tests of it.
run_regress()
{
	local tests=("${@:2}")
	[ ${#tests[@]} != 0 ] || tests=("$1"/sql/*.sql)
	run_installcheck "$1" REGRESS ISOLATION regression.diffs "${tests[@]}"
}

# run_isolation DIR [NAME…]: specs/ of the sources in DIR, or those tests of it.
run_isolation()
{
	local tests=("${@:2}")
	[ ${#tests[@]} != 0 ] || tests=("$1"/specs/*.spec)
	run_installcheck "$1" ISOLATION REGRESS output_iso/regression.diffs "${tests[@]}"
}

# tally_tap STATUS OUTPUT: counts lines of TAP.
tally_tap()
{
	local counts
	counts=$(awk -v status="$1" '
		/^ok [^ ]/ { if (tolower($0) ~ /# *(skip|todo)/) bad++; else good++ }
		/^not ok/ { bad++ }
		/^1\.\.[0-9]/ { planned = substr($1, 4) + 0; plan = 1 }
		END {
			if (good + bad == 0 || (plan && planned != good + bad) || (status != 0 && !bad)) bad++
			print good + 0, bad + 0
		}' "$2")
	passed=$((passed + ${counts% *}))
	failed=$((failed + ${counts#* }))
	[ "${counts#* }" = 0 ] || cat "$2" >>"$log"
}

step_regress()
{
	local names
	need_server || return 0
	read -ra names <<<"${only[regress]-}"
	run_regress . "${names[@]}"
}

step_isolation()
{
	local names
	need_server || return 0
	read -ra names <<<"${only[isolation]-}"
	run_isolation . "${names[@]}"
}

# File by file, for each wipes the servers' logs of the one before.
step_tap()
{
	local test status before tests
	need_build || return 0
	need_node_modules
	read -ra tests <<<"${only[tap]-}"
	tests=("${tests[@]/#/t/}")
	tests=("${tests[@]/%/.pl}")
	[ ${#tests[@]} != 0 ] || tests=(t/*.pl)
	for test in "${tests[@]}"; do
		before=$failed
		status=0
		in_group make -s "PG_CONFIG=$PG_CONFIG" installcheck REGRESS='' ISOLATION='' \
			PROVE_TESTS="$test" PROVE_FLAGS=-v >"$log.out" 2>&1 || status=$?
		tally_tap $status "$log.out"
		[ $failed = "$before" ] || tail -n 50 tmp_check/log/* >>"$log"
	done
}

# Every executable file in clients/CLIENT/test/, each with a database of its own.
step_clients()
{
	local client test tests status
	need_node_modules
	for client in clients/*/; do
		client=$(basename "$client")
		tests=0
		for test in "clients/$client"/test/*; do
			[[ -f $test && -x $test ]] || continue
			tests=$((tests + 1))
			need_extension "client_${client}_$tests" || return 0
			status=0
			PGDATABASE=client_${client}_$tests in_group "$test" >"$log.out" 2>&1 || status=$?
			tally_tap $status "$log.out"
		done
		if [ $tests = 0 ]; then
			failed=$((failed + 1))
			echo "no executable file in clients/$client/test" >>"$log"
		fi
	done
}

step_demo()
{
	need_server || return 0
	createdb demo
	if in_group run_demo demo >/dev/null 2>"$log"; then
		passed=1
	else
		failed=1
	fi
}

# Counts the sections that gave results; whatever was not measured fails, no timing does.
step_bench()
{
	need_extension bench || return 0
	PGDATABASE=bench in_group bench/bench.py --quick >>"$log" 2>&1 || failed=1
	passed=$(grep -cE '^[a-z]+: [1-9][0-9]* measurements' "$log" || true)
}

# Random calls against a model of the contract, on five kinds of tables.
step_differential()
{
	need_server || return 0
	in_group dev/differential/run.py ${DIFFERENTIAL_CALLS:+--calls "$DIFFERENTIAL_CALLS"} \
		${SEED:+--seed "$SEED"} >>"$log" 2>&1 || failed=1
	passed=$(grep -cE '^[a-z0-9_]+: [0-9]+ calls agree$' "$log" || true)
	figures=$(grep -E '^[0-9]+ calls in ' "$log" || true)
}

# A million random and broken inputs.
step_fuzz()
{
	need_server || return 0
	in_group dev/fuzz/run.py ${FUZZ_INPUTS:+--inputs "$FUZZ_INPUTS"} ${SEED:+--seed "$SEED"} \
		>>"$log" 2>&1 || failed=1
	passed=$(grep -cE '^fuzz_[a-z0-9]+: [0-9]+ inputs passed' "$log" || true)
	figures=$(grep -E '^[0-9]+ inputs in ' "$log" || true)
}

# Workers and clients by the minute, while backends and the server die; a round for each kind of table.
step_soak()
{
	need_build || return 0
	in_group dev/soak/run.py ${SOAK_SECONDS:+--seconds "$SOAK_SECONDS"} ${SEED:+--seed "$SEED"} \
		>>"$log" 2>&1 || failed=1
	passed=$(grep -cE '^[a-z_]+: round [0-9]+ passed' "$log" || true)
	figures=$(grep -E '^[0-9]+ s, ' "$log" || true)
}

# The same SQL with the assertions of PostgreSQL's headers and our own switched on, in a second
# copy of everything.
step_asserts()
{
	local sources=$workplace/asserts/src
	mkdir -p "$sources"
	cp -a . "$sources"
	stage "$installed" "$workplace/asserts/postgres"
	if ! in_group build "$sources" -DUSE_ASSERT_CHECKING >"$log" 2>&1; then
		failed=1
		return
	fi
	stop_servers "$workplace"
	start_server "$workplace/asserts/server"
	run_regress "$sources"
	run_isolation "$sources"
	grep TRAP: "$workplace/asserts/server/server.log" >>"$log" || true
}
