# shellcheck shell=bash
# A throwaway directory in which everything happens, as a user without privileges. To be sourced.
#
# The sources are copied there, so that the checkout may be read-only, closed to other users, full
# of build products, or have a space in its path (which make cannot bear).

shopt -s nullglob

# shellcheck source-path=SCRIPTDIR source=packages.sh
. "${BASH_SOURCE[0]%/*}/packages.sh"

# make_workplace [COMMAND…]: a directory in "workplace", with a copy of the sources in src. COMMAND makes a
# process the user that is to write there.
make_workplace()
{
	local checkout base
	checkout=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
	# A socket's path is short, and make knows no spaces.
	base=${TMPDIR:-/tmp}
	[[ $base =~ ^/[A-Za-z0-9/._-]{1,40}$ ]] &&
		"$@" test -w "$base" -a -x "$base" || base=/tmp
	workplace=$(mktemp -d "$base/oban_manage.XXXXXX")
	trap 'rm -rf "$workplace"' EXIT

	mkdir "$workplace"/{src,tmp,home,log}
	tar -C "$checkout" --exclude=./.git --exclude=node_modules --exclude='./tmp_check*' -cf - . |
		tar -C "$workplace/src" --no-same-owner -xf -
	chmod -R u+rwX,go-w "$workplace/src"
}

# settle_in COMMAND ARG…: goes on as dev/COMMAND ARG… of the copy; does not come back.
settle_in()
{
	local user=()
	if [ "$(id -u)" = 0 ]; then
		# PostgreSQL refuses to run as root. setpriv, unlike su and runuser, becomes the command,
		# so that signals go to where they belong.
		id postgres >/dev/null 2>&1 || die "root needs a user named postgres to run the server."
		user=(setpriv --reuid=postgres --regid=postgres --init-groups)
	fi

	make_workplace "${user[@]}"
	[ "$(id -u)" != 0 ] || chown -R postgres: "$workplace"

	cd "$workplace" || exit
	[ "$(id -u)" != 0 ] || export HOME="$workplace/home" USER=postgres LOGNAME=postgres
	exec "${user[@]}" bash "$workplace/src/dev/$1" --inside "$workplace" "$(find_pg_config)" "${@:2}"
}

# enter WORKPLACE: the first thing that is done inside.
enter()
{
	workplace=$1
	group=
	trap leave EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP

	# Nothing of the caller's may send psql to another server, or make to other flags.
	unset "${!PG@}" MAKEFLAGS MFLAGS MAKELEVEL COPT PROFILE CDPATH
	export TMPDIR=$workplace/tmp LC_ALL=C.UTF-8 npm_config_cache=$workplace/npm
	umask 022
	cd "$workplace/src" || exit
}

# Runs a command as a process group of its own, so that a signal to us ends it at once and whole.
in_group()
{
	local status=0
	set -m
	"$@" </dev/null &
	group=$!
	set +m
	wait "$group" || status=$?
	group=
	return $status
}

leave()
{
	local status=$?
	set +e
	trap '' INT TERM HUP
	[ -z "$group" ] || end_group 2>/dev/null
	if [ -z "${keep-}" ] || [ $status != 0 ]; then
		cd /
		stop_servers "$workplace"
		rm -rf "$workplace"
	fi
	exit $status
}

# Lets the running group clean up after itself, but not for ever.
end_group()
{
	local tries=100
	kill -TERM -- "-$group"
	wait "$group"
	while kill -0 -- "-$group" && [ $((tries -= 1)) -gt 0 ]; do
		sleep 0.1
	done
	kill -KILL -- "-$group"
}

# Stops every server that has its data below DIRECTORY, and no other.
stop_servers()
{
	local pidfile data
	find "$1" -name postmaster.pid | while read -r pidfile; do
		data=${pidfile%/*}
		pg_ctl -D "$data" -m fast -t 20 stop || pg_ctl -D "$data" -m immediate stop || true
	done >/dev/null 2>&1
}
