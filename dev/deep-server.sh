# shellcheck shell=bash
# PostgreSQL with assertions, made for valgrind, from Debian's source packages. To be sourced.
#
# What is of the distribution itself is in $workplace/apt/stable, what is of another suite under its name.

# own_apt SUITE COMMAND…: apt-get and the like with the sources of the packages, and with lists of its
# own: nothing of the system's changes, and no root is needed.
own_apt()
{
	local apt=$workplace/apt/$1
	"$2" -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/sources" \
		-o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" "${@:3}"
}

# list_sources SUITE: of the distribution, from where the system has its packages; another suite from
# Debian's own archive, which is found among those.
list_sources()
{
	local apt=$workplace/apt/$1 file archive keys=/usr/share/keyrings/debian-archive-keyring.gpg
	[ ! -e "$apt/listed" ] || return 0
	mkdir -p "$apt"/{sources,package,lists/partial,cache/archives/partial}
	if [ "$1" != stable ]; then
		list_sources stable || return
		# shellcheck disable=SC2016 # apt's own variable
		read -r archive < <(own_apt stable apt-get indextargets --format '$(REPO_URI)' \
			'Created-By: Sources' 'Label: Debian') || return
		echo "deb-src [signed-by=$keys] $archive $1 main" >"$apt/sources/debian.list"
	else
		for file in /etc/apt/sources.list.d/*.sources; do
			! grep -qi debian "$file" ||
				sed 's/^Types:.*/Types: deb-src/' "$file" >"$apt/sources/${file##*/}"
		done
		for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
			[ ! -e "$file" ] ||
				sed -n 's/^deb \(.*debian.*\)/deb-src \1/p' "$file" >"$apt/sources/${file##*/}.list"
		done
	fi
	own_apt "$1" apt-get update && touch "$apt/listed"
}

# newest_version SUITE: of PostgreSQL, that the suite has.
newest_version()
{
	list_sources "$1" >>"$log.build" 2>&1 &&
		own_apt "$1" /usr/lib/apt/apt-helper cat-file "$workplace/apt/$1"/lists/*_Sources* |
		sed -n 's/^Package: postgresql-\([0-9]*\)$/\1/p' | sort -n | tail -n 1 | grep .
}

# fetch_source VERSION SUITE: the source package in $workplace/apt/SUITE/package, unpacked as "server": the
# release that is installed, else the newest that there is. An update's sources may come later than its
# programs.
fetch_source()
{
	local wanted release
	list_sources "$2" || return
	wanted=$(dpkg-query -W -f '${Version}' "postgresql-$1" || true)
	cd "$workplace/apt/$2/package" || return
	for release in $wanted $(own_apt "$2" apt-cache showsrc "postgresql-$1" |
		sed -n 's/^Version: //p' | sort -Vru); do
		! own_apt "$2" apt-get --download-only source "postgresql-$1=$release" || break
	done
	# Not Debian's patches: they write to the system's directories, whatever the prefix.
	dpkg-source --skip-patches -x "postgresql-$1"_*.dsc server
}

# build_server VERSION SUITE PREFIX. Of contrib: what the tests use.
build_server()
{
	fetch_source "$1" "$2" || return
	cd "$workplace/apt/$2/package/server" &&
		./configure -q --prefix="$3" --enable-cassert --enable-debug --enable-tap-tests \
			--without-readline --without-zlib --without-icu \
			CPPFLAGS=-DUSE_VALGRIND CFLAGS='-O1 -fno-omit-frame-pointer' &&
		make -s "-j$(nproc)" &&
		make -s install &&
		make -s -C contrib/postgres_fdw install &&
		make -s -C contrib/auto_explain install &&
		cp src/tools/valgrind.supp "$3"
}

# need_debug_server VERSION [SUITE]: from here on PG_CONFIG and PATH are those of that server, with the
# extension in it.
need_debug_server()
{
	local to=$workplace/debug/$1
	if [ ! -e "$to/valgrind.supp" ] &&
		! in_group build_server "$1" "${2-stable}" "$to" >>"$log.build" 2>&1; then
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
