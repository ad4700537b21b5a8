# shellcheck shell=bash
# A PostgreSQL with assertions, made for valgrind, from the distribution's source package. To be
# sourced.

# own_apt COMMAND…: apt-get or apt-cache with the sources of the packages, and with lists of its own:
# nothing of the system's changes, and no root is needed.
own_apt()
{
	"$1" -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$workplace/apt/sources" \
		-o Dir::State::Lists="$workplace/apt/lists" -o Dir::Cache="$workplace/apt/cache" "${@:2}"
}

# The source package in $workplace/apt/package, unpacked as "server": the version that is installed, else
# the newest that there is. An update's sources may come later than its programs.
fetch_source()
{
	local file wanted version
	mkdir -p "$workplace"/apt/{sources,package,lists/partial,cache/archives/partial}
	for file in /etc/apt/sources.list.d/*.sources; do
		! grep -qi debian "$file" ||
			sed 's/^Types:.*/Types: deb-src/' "$file" >"$workplace/apt/sources/${file##*/}"
	done
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ ! -e "$file" ] ||
			sed -n 's/^deb \(.*debian.*\)/deb-src \1/p' "$file" >"$workplace/apt/sources/${file##*/}.list"
	done
	own_apt apt-get update || return
	wanted=$(dpkg-query -W -f '${Version}' postgresql-15 || true)
	cd "$workplace/apt/package" || return
	for version in $wanted $(own_apt apt-cache showsrc postgresql-15 |
		sed -n 's/^Version: //p' | sort -Vru); do
		! own_apt apt-get --download-only source "postgresql-15=$version" || break
	done
	# Not Debian's patches: they write to the system's directories, whatever the prefix.
	dpkg-source --skip-patches -x postgresql-15_*.dsc server
}

# Generated files are in the package, so that neither bison nor flex is needed. Of contrib: what the
# tests use.
build_server()
{
	fetch_source || return
	cd "$workplace/apt/package/server" &&
		./configure -q --prefix="$1" --enable-cassert --enable-debug --without-readline \
			--without-zlib CPPFLAGS=-DUSE_VALGRIND CFLAGS='-O1 -fno-omit-frame-pointer' &&
		make -s "-j$(nproc)" &&
		make -s install &&
		make -s -C contrib/postgres_fdw install &&
		make -s -C contrib/auto_explain install &&
		cp src/tools/valgrind.supp "$1"
}

# need_debug_server: from here on PG_CONFIG and PATH are those of that server, with the extension in it.
need_debug_server()
{
	local to=$workplace/debug
	if [ ! -e "$to/valgrind.supp" ] && ! in_group build_server "$to" >"$log.build" 2>&1; then
		failed=1
		tail -n 40 "$log.build" >>"$log"
		return 1
	fi
	PG_CONFIG=$to/bin/pg_config
	PATH=$to/bin:$PATH
	hash -r
	in_group build . >>"$log" 2>&1 || { failed=1; return 1; }
	postgres --version | sed 's/$/, with assertions/'
}
