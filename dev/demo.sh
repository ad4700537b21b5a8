# shellcheck shell=bash
# Runs the demo's SQL and judges what it printed. To be sourced, by the demo and by the tests.

# run_demo DATABASE: prints demo.sql and its results; on standard error, how they differ from
# demo.expected. After a change that was wanted: dev/demo 2>difference; patch -p1 <difference
run_demo()
{
	local seen=$workplace/log/demo_seen
	# From standard input, errors look as they do at a prompt.
	psql -X -q -d "$1" <dev/demo.sql 2>&1 | readable | tee "$seen.full" | coloured || exit
	without_speed <"$seen.full" >"$seen"
	diff -u --label a/dev/demo.expected --label b/dev/demo.expected dev/demo.expected "$seen" >&2
}

# An empty line between steps. The pid of whoever sent a notification means nothing to the reader,
# and changes each time.
readable()
{
	awk '
		/^Asynchronous notification / {
			sub(/^Asynchronous notification "/, "NOTIFY ")
			sub(/" with payload "/, ": ")
			sub(/" received from server process with PID [0-9]+\.$/, "")
		}
		{
			sub(/ +$/, "")
			message = /^(ERROR|WARNING|NOTICE|DETAIL|HINT|CONTEXT|NOTIFY)/
			caption = /^(==|--) /
			if (!empty && ((caption && !after_caption) || (after_message && !message)))
				print ""
			if (!/^$/)
				print
			else if (!empty && !after_message)
				print
			fflush()
			empty = /^$/
			after_message = message
			after_caption = caption
		}'
}

# How fast a batch was is for the eye, and changes each time.
without_speed()
{
	sed -E '/^NOTICE/s/[0-9]+ (per second|s left)/… \1/g'
}

# Only for the eye: colour by the kind of line, where a terminal shows it.
coloured()
{
	if [ ! -t 1 ]; then
		cat
		return
	fi
	awk '
		function paint(colour) { printf "\033[%sm%s\033[0m\n", colour, $0; fflush() }
		sql { paint("36"); sql = !/;$/; next }
		/^== / { paint("1"); next }
		/^-- / { paint("2"); next }
		/^NOTIFY / { paint("33"); next }
		/^(ERROR|WARNING|NOTICE|DETAIL|HINT|CONTEXT)/ { paint("31"); next }
		/^[A-Z]+ / { paint("36"); sql = !/;$/; next }
		{ print; fflush() }'
}
