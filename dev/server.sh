# shellcheck shell=bash
# A private copy of the installed PostgreSQL, the extension in it, a server of it. To be sourced.

# stage PG_CONFIG DIR: as the temporary installation of PostgreSQL's own `make check`. The
# programs find everything else by its way from their own place, so that only they are copied,
# the rest may be links; "make install" then writes into the copy and never into the system.
stage()
{
	local from=$1 to=$2 bin kind
	bin=$("$from" --bindir)
	mkdir -p "$to$bin"
	cp -aL "$bin"/{postgres,psql,initdb,pgbench,vacuumdb} "$bin"/pg_* "$bin"/{create,drop}{db,user} "$to$bin"
	for kind in --sharedir --pkglibdir; do
		stage_links "$("$from" $kind)" "$to" cp -as
	done
	for kind in --includedir --includedir-server; do
		stage_links "$("$from" $kind)" "$to" ln -s
	done
	# An oban_manage that the system has already must not be seen.
	rm -f "$to$("$from" --sharedir)"/extension/oban_manage* "$to$("$from" --pkglibdir)"/oban_manage*

	PG_CONFIG=$to$bin/pg_config
	[ "$("$PG_CONFIG" --bindir)" = "$to$bin" ] ||
		die "The copy of PostgreSQL in $to does not work." \
			"Does its file system forbid to run programs? Set TMPDIR to a directory that allows it."
	PATH=$to$bin:$PATH
	hash -r
}

# stage_links FROM TO COMMAND…: FROM, if it is not there yet, as TO/FROM.
stage_links()
{
	[ -e "$2$1" ] || { mkdir -p "$2${1%/*}" && "${@:3}" "$1" "$2$1"; }
}

# build SRC [FLAG…]: compiles with the flags added, and installs into what was staged last.
build()
{
	local make=(make -s -C "$1" "PG_CONFIG=$PG_CONFIG" with_llvm=no)
	# COPT is PostgreSQL's own way to add flags. -isystem: its headers are not ours to mend.
	"${make[@]}" clean &&
		"${make[@]}" "-j$(nproc)" all \
			COPT="${*:2} -isystem $("$PG_CONFIG" --includedir-server)" &&
		"${make[@]}" install
}

# start_server DIR: a server with its data and its socket below DIR; from here on libpq's default.
start_server()
{
	mkdir -p "$1"
	mkdir -m 0700 "$1/socket"
	initdb --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
		-D "$1/data" >"$1/initdb.log" 2>&1 || { cat "$1/initdb.log" >&2; return 1; }
	cat >>"$1/data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$1/socket'
		fsync = off
	CONF
	pg_ctl -D "$1/data" -l "$1/server.log" -w start >/dev/null </dev/null ||
		{ cat "$1/server.log" >&2; return 1; }
	export PGHOST=$1/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}
