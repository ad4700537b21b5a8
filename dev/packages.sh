# shellcheck shell=bash
# What demo, tests and benchmark need of the system, and how it gets there. To be sourced.
#
# A need bears the name of its Debian package, and is met when the tool works, wherever it came
# from: nothing that is there is upgraded, and another system will do if it has the tools.

die()
{
	printf '%s\n' "$@" >&2
	exit 1
}

# The versions of PostgreSQL that the extension is made for.
oldest=15
newest=19

# best_version: of those on standard input, the newest that the extension is made for, else the newest.
best_version()
{
	sort -sn | awk -v oldest=$oldest -v newest=$newest '
		$1 >= oldest && (!best || $1 <= newest || best > newest) { best = $1 + 0; line = $0 }
		END { if (!best) exit 1; print line }'
}

# version_of PG_CONFIG: the major of a PostgreSQL that has a server.
version_of()
{
	local bin
	bin=$("$1" --bindir) && "$bin/postgres" --version | sed -nE 's/^[^0-9]* ([0-9]+).*/\1/p' | grep .
} 2>/dev/null

has_headers()
{
	[ -e "$("$1" --pgxs)" ] && [ -e "$("$1" --includedir-server)/postgres.h" ]
}

# The pg_config of the server to copy: $PG_CONFIG, else of the best version that the system has, from
# Debian's places or PATH. One that comes with what to build against goes before the others.
find_pg_config()
{
	local pg version whole='' bare=''
	if [ -n "${PG_CONFIG-}" ]; then
		command -v "$PG_CONFIG"
		return
	fi
	while read -r pg; do
		version=$(version_of "$pg") || continue
		if has_headers "$pg"; then
			whole+="$version $pg"$'\n'
		else
			bare+="$version $pg"$'\n'
		fi
	done < <(type -aP pg_config; ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null)
	{ best_version <<<"$whole" || best_version <<<"$bare"; } | cut -d ' ' -f 2- | grep .
}

# The best version that apt offers. What has a priority below 100 is not to come in by itself.
find_offered_version()
{
	local version
	apt-cache pkgnames postgresql-server-dev- | grep -oE '[0-9]+$' | while read -r version; do
		apt-cache policy "postgresql-$version" "postgresql-server-dev-$version" | awk -v version="$version" '
			$1 == "Candidate:" { candidate = $2 }
			NF > 1 && $(NF - 1) == candidate && $NF >= 100 { offered++; candidate = "" }
			END { if (offered == 2) print version }'
	done | best_version
}

is_met()
{
	local pg
	case $1 in
		util-linux) [ "$(id -u)" != 0 ] || setpriv --version ;; # only root has a user to change to
		libc6-dev) echo '#include <stdio.h>' | gcc -E - ;;
		binutils) nm --version ;;
		postgresql-server-dev-*) pg=$(find_pg_config) && has_headers "$pg" ;;
		postgresql-[0-9]*) pg=$(find_pg_config) && [ "$(version_of "$pg")" = "${1##*-}" ] ;;
		postgresql) false ;;
		perl) prove --version && perl -MTest::More -e 1 ;;
		libipc-run-perl) perl -MIPC::Run -e 1 ;;
		python3-psycopg) /usr/bin/python3 -c 'import psycopg' ;;
		python3-psycopg-pool) /usr/bin/python3 -c 'import psycopg_pool' ;;
		dpkg-dev) dpkg-source --version ;;
		xz-utils) xz --version ;;
		gnuplot-nox) gnuplot --version ;;
		nodejs) node --version ;;
		pgbouncer) PATH=$PATH:/usr/sbin pgbouncer --version ;; # where Debian has it
		npm) command -v npm ;; # which would write to the caller's home
		*) "$1" --version ;;
	esac >/dev/null 2>&1
}

# Puts those of "needs" that are not met into "missing".
find_missing()
{
	local need
	missing=()
	for need in "${needs[@]}"; do
		is_met "$need" || missing+=("$need")
	done
}

# need_server_version: sets "version", of the PostgreSQL that is there; it stays empty where there is none.
need_server_version()
{
	local pg
	version=
	[ -z "${PG_CONFIG-}" ] || version_of "$PG_CONFIG" >/dev/null ||
		die "PG_CONFIG=$PG_CONFIG is not the pg_config of a PostgreSQL with a server."
	pg=$(find_pg_config) || return 0
	version=$(version_of "$pg")
	[ "$version" -ge $oldest ] ||
		die "$pg is of PostgreSQL $version. oban_manage works with PostgreSQL $oldest to $newest."
	[ "$version" -le $newest ] ||
		echo "PostgreSQL $version is newer than all that oban_manage has been tried on ($oldest to $newest)." >&2
}

# needs_of COMMAND-OR-STEP: what a command of dev/, or a step of dev/test, takes beside a server that it
# can build for.
needs_of()
{
	case $1 in
		floors | exports) echo binutils ;;
		signposts) echo python3 ;;
		format) echo clang-format ;;
		cppcheck) echo cppcheck ;;
		shell) echo shellcheck ;;
		tap) echo perl libipc-run-perl python3-psycopg python3-psycopg-pool nodejs npm pgbouncer ;;
		clients) echo python3-psycopg nodejs npm ;;
		bench) echo python3-psycopg python3-psycopg-pool gnuplot-nox nodejs npm ;;
		differential | fuzz | soak) echo python3-psycopg ;;
		coverage) needs_of tap && echo gcovr ;;
		deep) needs_of tap && echo clang-tidy valgrind dpkg-dev bzip2 patch xz-utils bison flex ;;
		matrix) echo debootstrap ;;
	esac
}

# need_packages COMMAND-OR-STEP…: installs what is not there; ends the program when it cannot.
need_packages()
{
	local needs missing version sudo=() kind need

	# Root's own additions to PATH are closed to the user that the rest runs as.
	[ "$(id -u)" != 0 ] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

	needs=(util-linux)
	if [ "$1" != matrix ]; then
		need_server_version
		# Without a version in their names, as long as none is known.
		needs+=(gcc make libc6-dev "postgresql${version:+-$version}"
			"postgresql-server-dev-${version:-all}")
	fi
	for kind in "$@"; do
		for need in $(needs_of "$kind"); do
			[[ " ${needs[*]} " == *" $need "* ]] || needs+=("$need")
		done
	done

	find_missing
	[ ${#missing[@]} != 0 ] || return 0

	command -v apt-get >/dev/null || give_up "This is not a Debian system."
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || give_up "Installing them takes root or sudo."
		# Nobody answers a question for the password where there is no terminal.
		sudo -n true 2>/dev/null || [ -t 0 ] || give_up "Installing them takes root or sudo."
		sudo=(sudo)
	fi
	if [[ " ${needs[*]} " == *' postgresql '* ]]; then
		# A new machine has no lists of packages yet.
		echo "asking the distribution for its version of PostgreSQL"
		install_as_root || true
		version=$(find_offered_version) ||
			give_up "The distribution has no PostgreSQL of the versions $oldest to $newest."
		needs=("${needs[@]/%postgresql/postgresql-$version}")
		needs=("${needs[@]/%server-dev-all/server-dev-$version}")
		find_missing
	fi
	echo "installing from the distribution (once, some minutes): ${missing[*]}"
	install_as_root "${missing[@]}" || give_up "They could not be installed."

	hash -r
	find_missing
	[ ${#missing[@]} = 0 ] || give_up "They have been installed, but do not work."
}

give_up()
{
	die "$1 These are missing:" \
		"    ${missing[*]}" \
		"On Debian or Ubuntu, root installs them with:" \
		"    apt-get install --no-install-recommends ${missing[*]}" \
		"On another system install what these packages hold. The server must be PostgreSQL $oldest to" \
		"$newest, with its headers; its pg_config is looked for in \$PG_CONFIG and in PATH. Then run this" \
		"command again."
}

# install_as_root [PACKAGE…]: by "sudo", if that is not empty. With no package: only reads the lists.
install_as_root()
{
	"${sudo[@]}" bash -s -- "$@" <<'AS_ROOT'
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
log=$(mktemp)
no_main_cluster=
no_services=
trap 'rm -f "$log" $no_main_cluster $no_services' EXIT
trap 'exit 1' INT TERM HUP

# Of two at once the second waits. apt must not keep the lock open in a daemon that it starts.
exec 9>/run/oban_manage-packages.lock
flock 9

# A server package that comes new makes and starts a cluster on port 5432, unless told not to.
case " $* " in
	*' postgresql-'[0-9]*)
		mkdir -p /etc/postgresql-common/createcluster.d
		no_main_cluster=/etc/postgresql-common/createcluster.d/oban_manage-no-main.conf
		echo 'create_main_cluster = false' >$no_main_cluster
		;;
esac

# Nor does any other service start.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	no_services=/usr/sbin/policy-rc.d
	printf '#!/bin/sh\nexit 101\n' >$no_services
	chmod 0755 $no_services
fi

# A source that cannot be reached matters only if a package comes from it.
{
	apt-get -q update || true
	[ $# = 0 ] || apt-get -q -y -o DPkg::Lock::Timeout=600 install \
		--no-install-recommends --no-upgrade --no-remove "$@"
} </dev/null >"$log" 2>&1 9>&- || { tail -n 40 "$log" >&2; exit 1; }
AS_ROOT
}
