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

# The pg_config of the server to copy: $PG_CONFIG, else Debian's for 15, else what PATH finds.
find_pg_config()
{
	local debian=/usr/lib/postgresql/15
	if [ -n "${PG_CONFIG-}" ]; then
		command -v "$PG_CONFIG"
	elif [ -d $debian ]; then
		command -v $debian/bin/pg_config
	else
		command -v pg_config
	fi
}

is_met()
{
	local pg bin=/usr/lib/postgresql/15/bin
	case $1 in
		util-linux) [ "$(id -u)" != 0 ] || setpriv --version ;; # only root has a user to change to
		libc6-dev) echo '#include <stdio.h>' | gcc -E - ;;
		binutils) nm --version ;;
		postgresql-15)
			pg=$(find_pg_config) && bin=$("$pg" --bindir)
			[[ $("$bin/postgres" --version) == *' 15.'* ]]
			;;
		postgresql-server-dev-15)
			pg=$(find_pg_config) && [ -e "$("$pg" --pgxs)" ] &&
				[ -e "$("$pg" --includedir-server)/postgres.h" ]
			;;
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

# need_packages demo|bench|test: installs what is not there; ends the program when it cannot.
need_packages()
{
	local needs missing sudo=()
	needs=(util-linux gcc make libc6-dev postgresql-15 postgresql-server-dev-15)
	[ "$1" = demo ] || needs+=(python3-psycopg python3-psycopg-pool gnuplot-nox nodejs npm)
	[ "$1" = demo ] || [ "$1" = bench ] ||
		needs+=(binutils perl libipc-run-perl clang-format cppcheck shellcheck pgbouncer)
	[ "$1" != coverage ] || needs+=(gcovr)
	[ "$1" != deep ] || needs+=(clang-tidy valgrind dpkg-dev bzip2 patch xz-utils bison flex)

	# Root's own additions to PATH are closed to the user that the rest runs as.
	[ "$(id -u)" != 0 ] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

	find_missing
	[ ${#missing[@]} != 0 ] || return 0

	command -v apt-get >/dev/null || give_up "This is not a Debian system."
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || give_up "Installing them takes root or sudo."
		# Nobody answers a question for the password where there is no terminal.
		sudo -n true 2>/dev/null || [ -t 0 ] || give_up "Installing them takes root or sudo."
		sudo=(sudo)
	fi
	echo "installing from the distribution (once, some minutes): ${missing[*]}"
	install_as_root "${sudo[@]}" || give_up "They could not be installed."

	hash -r
	find_missing
	[ ${#missing[@]} = 0 ] || give_up "They have been installed, but do not work."
}

give_up()
{
	die "$1 These are missing:" \
		"    ${missing[*]}" \
		"On Debian 12, root installs them with:" \
		"    apt-get install --no-install-recommends ${missing[*]}" \
		"On another system install what these packages hold. The server must be PostgreSQL 15;" \
		"its pg_config is looked for in \$PG_CONFIG and in PATH. Then run this command again."
}

# install_as_root [sudo]: installs the packages in "missing".
install_as_root()
{
	"$@" bash -s -- "${missing[@]}" <<'AS_ROOT'
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
	*' postgresql-15 '*)
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
	apt-get -q -y -o DPkg::Lock::Timeout=600 install \
		--no-install-recommends --no-upgrade --no-remove "$@"
} </dev/null >"$log" 2>&1 9>&- || { tail -n 40 "$log" >&2; exit 1; }
AS_ROOT
}
