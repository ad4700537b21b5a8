# shellcheck shell=bash
# Debian systems, one for each version of PostgreSQL, as directories to chroot into. To be sourced
# after packages.sh. Takes root.
#
#   make_chroot VERSION             makes it, or brings it up to date
#   in_chroot VERSION COMMAND…      runs the command in a copy that is thrown away afterwards
#   in_kept_chroot VERSION COMMAND… the same in the chroot itself: what it installs stays
#   is_free VERSION                 tells whether in_kept_chroot need not wait for others
#   remove_chroot VERSION           makes the next make_chroot begin anew
#
# VERSION is a major of "versions"; make_chroot comes first. The command runs as root, in /, with the
# caller's standard input and environment, but a PATH, HOME and locale of Debian. It finds the tree
# (a copy of it, or the checkout itself: $tree) read-only at /src; further directories that it shall
# read and write are named in the array "binds", as "DIRECTORY:PLACE INSIDE". Whatever it mounts or
# starts ends with it, for it has namespaces of its own: so no mount is ever left, that a removal could
# go through, and no server.
#
# The chroots are kept in $OBAN_MATRIX, else /var/cache/oban_manage/matrix.

versions=(15 17 18 19)
declare -A suite_of=([15]=bookworm [17]=trixie [18]=testing [19]=experimental)
chroots=${OBAN_MATRIX:-/var/cache/oban_manage/matrix}
tree=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
binds=()

# find_archive LABEL: its address, from where the system has its own packages.
find_archive()
{
	# shellcheck disable=SC2016 # apt's own variable
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $1" | head -n 1 | grep .
}

# remove_directory DIR: never through a mount.
remove_directory()
{
	[ -e "$1" ] || return 0
	! grep -qF " $(realpath "$1")/" /proc/self/mountinfo || die "Something is mounted below $1."
	rm -rf --one-file-system "$1"
}

# Waits until nobody works in it.
remove_chroot()
{
	local part
	[ -d "$chroots" ] || return 0
	(
		flock 9
		for part in "$chroots/$1" "$chroots/$1".{new,log} "$chroots/$1".run.*; do
			remove_directory "$part"
		done
	) 9>"$chroots/$1.lock"
}

# list_suites VERSION ROOT: apt's sources there. A mirror may be behind, and its lists out of date by
# what they say: no matter here, and they are signed all the same.
list_suites()
{
	local suite=${suite_of[$1]} archive security options='[check-valid-until=no]'
	archive=$(find_archive Debian) || return
	{
		echo "deb $options $archive ${suite/experimental/testing} main"
		case $suite in
			testing) ;;
			experimental) echo "deb $options $archive experimental main" ;;
			*) ! security=$(find_archive Debian-Security) ||
				echo "deb $options $security $suite-security main" ;;
		esac
	} >"$2/etc/apt/sources.list"
	# Of experimental the server and what is built with it; all else comes from testing.
	[ "$suite" != experimental ] ||
		printf '%s\n' "Package: src:postgresql-$1" 'Pin: release a=experimental' \
			'Pin-Priority: 600' >"$2/etc/apt/preferences.d/matrix"
}

# bootstrap VERSION ROOT
bootstrap()
{
	local suite=${suite_of[$1]} archive
	archive=$(find_archive Debian) || return
	debootstrap --variant=minbase --include=ca-certificates "${suite/experimental/testing}" "$2" \
		"$archive" || return
	list_suites "$1" "$2" || return
	# No service starts in it, and nobody minds if it is lost with the power.
	printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
	chmod 0755 "$2/usr/sbin/policy-rc.d"
	echo force-unsafe-io >"$2/etc/dpkg/dpkg.cfg.d/matrix"
	# The way to the network is the system's.
	{
		echo 'APT::Keep-Downloaded-Packages "false";'
		apt-config dump | grep -E '^Acquire::https?::' || true
	} >"$2/etc/apt/apt.conf.d/90matrix"
	cp -L /usr/local/share/ca-certificates/*.crt "$2/usr/local/share/ca-certificates/" 2>/dev/null || true
	chroot "$2" update-ca-certificates
}

# make_chroot VERSION: one that is there is brought up to date once a day; without a network it stays.
make_chroot()
{
	local root=$chroots/$1 log stale
	[ -n "${suite_of[$1]-}" ] || die "There is no chroot for PostgreSQL $1, but for: ${versions[*]}"
	[ "$(id -u)" = 0 ] || die "To make a chroot takes root."
	mkdir -p "$chroots"
	log=$chroots/$1.log
	(
		flock --nonblock 9 || {
			# While somebody works in it, it stays as it is.
			[ ! -e "$root" ] || exit 0
			flock 9
		}
		for stale in "$root".run.*; do
			remove_directory "$stale"
		done
		if [ ! -e "$root" ]; then
			echo "making a chroot of Debian ${suite_of[$1]} in $root" >&2
			remove_directory "$root.new"
			bootstrap "$1" "$root.new" >"$log" 2>&1 9>&- || { tail -n 40 "$log" >&2; exit 1; }
			# A stamp so old that it is brought up to date now.
			touch -d @0 "$root.new/updated"
			mv "$root.new" "$root"
		fi
		if [ -z "$(find "$root/updated" -mmin -1440)" ]; then
			if enter_chroot "$root" sh -c 'apt-get -q update &&
				apt-get -q -y dist-upgrade' </dev/null >>"$log" 2>&1 9>&-; then
				touch "$root/updated"
			else
				echo "$root could not be brought up to date:" >&2
				tail -n 5 "$log" >&2
			fi
		fi
	) 9>"$chroots/$1.lock"
}

# is_free VERSION: nobody works in it.
is_free()
{
	flock --nonblock "$chroots/$1.lock" true
}

# Waits until nobody works in it.
in_kept_chroot()
{
	(
		flock 9
		enter_chroot "$chroots/$1" "${@:2}" 9>&-
	) 9>"$chroots/$1.lock"
}

# As many at once as there are.
in_chroot()
{
	(
		flock --shared 9
		above=$(mktemp -d "$chroots/$1.run.XXXXXX")
		trap 'remove_directory "$above"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM HUP
		mkdir "$above"/{upper,work,root}
		below=$chroots/$1 enter_chroot "$above/root" "${@:2}" 9>&-
	) 9>"$chroots/$1.lock"
}

# enter_chroot ROOT COMMAND…: with $below, ROOT shows that directory, and keeps to itself what is written.
enter_chroot()
{
	# Process 1 of a namespace takes all the others with it when it ends.
	# shellcheck disable=SC2016 # variables of the script inside
	root=$1 below=${below-} tree=$tree binds="${binds[*]-}" \
		unshare --mount --pid --ipc --fork --kill-child bash -c '
			set -eu
			trap "exit 143" TERM HUP
			trap "exit 130" INT
			[ -z "$below" ] || mount -t overlay overlay -o \
				"lowerdir=$below,upperdir=${root%/*}/upper,workdir=${root%/*}/work" "$root"
			cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
			rm -f "$root"/run/oban_manage-packages.lock
			mkdir -p "$root/src"
			mount -t proc proc "$root/proc"
			mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
			mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
			mount --bind "$tree" "$root/src"
			mount -o remount,ro,bind "$root/src"
			for bind in $binds; do
				mkdir -p "$root${bind#*:}"
				mount --bind "${bind%%:*}" "$root${bind#*:}"
			done
			in="$root"
			unset root below tree binds "${!PG@}" TMPDIR XDG_RUNTIME_DIR
			export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
			export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
			umask 022
			# A group of its own, for otherwise it could not be interrupted.
			set -m
			chroot "$in" "$@" &
			set +m
			wait $!
		' chroot "${@:2}"
}
