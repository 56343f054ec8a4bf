# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is used by those who source it
#
# sanitize.sh - the private server under the sanitizers or valgrind
#
# Sourced by test/check. DV_SANITIZE chooses: "address" builds extension and
# simulator with the address and undefined behaviour sanitizers, "valgrind"
# runs every process of the server under memcheck. Either way "postgres" in the
# private installation becomes a script, so that whoever starts a server, the
# TAP tests included, starts it so. "assert" says that the server checks its
# assertions by itself.

# dv_sanitize_options: sets MAKE_OPTIONS, for make.
dv_sanitize_options()
{
	MAKE_OPTIONS=()
	if [ "${DV_SANITIZE:-}" = address ]; then
		MAKE_OPTIONS=("COPT=-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g")
	fi
}

# dv_sanitize_server: put the script in the place of postgres. Reports of
# memcheck go to $WORK/findings, one file a process.
dv_sanitize_server()
{
	local command

	[ -n "${DV_SANITIZE:-}" ] && [ "$DV_SANITIZE" != assert ] || return 0
	mkdir -p "$WORK/findings"
	chmod 1777 "$WORK/findings"
	mv "$BINDIR/postgres" "$BINDIR/postgres.real"
	case $DV_SANITIZE in
		address)
			# With libasan loaded first, glibc's bindtextdomain() waits for ever for
			# a lock of its own: the server's messages stay untranslated instead.
			echo 'char *bindtextdomain(const char *d, const char *dir) { return d ? (char *) dir : 0; }
				char *textdomain(const char *d) { return (char *) d; }' >"$WORK/nls.c"
			gcc -shared -fPIC -o "$WORK/nls.so" "$WORK/nls.c"
			# The server itself is not instrumented: leaks at its exit are its own way.
			command="export LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so):$WORK/nls.so
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1
export UBSAN_OPTIONS=print_stacktrace=1
exec -a \"\$0\" $BINDIR/postgres.real \"\$@\""
			;;
		valgrind)
			command="exec valgrind --quiet --leak-check=no --error-limit=no --time-stamp=no --log-file=$WORK/findings/valgrind.%p $BINDIR/postgres.real \"\$@\""
			;;
		*) die "DV_SANITIZE must be address or valgrind, not $DV_SANITIZE" ;;
	esac
	printf '#!/bin/bash\n# help and version are asked of the server itself\ncase "${1:-}" in --version | -V | --help) exec -a "$0" %s "$@" ;; esac\n%s\n' \
		"$BINDIR/postgres.real" "$command" >"$BINDIR/postgres"
	chmod 755 "$BINDIR/postgres"
}

# findings_of file: the reports in it that name a source of the extension in
# their stack. The server has no line numbers and its own habits (padding
# bytes written to WAL), which are not ours to judge.
findings_of()
{
	local names

	names=$(cd "$TREE/src" && printf '%s\n' *.c | sed 's/\./\\./' | paste -sd '|')
	perl -e '
		my $ours = qr{\b(?:$ARGV[0]):\d+|dvmig\.so\+};
		local $/;
		open(my $in, "<", $ARGV[1]) or die;
		for my $report (split /\n(?:==\d+== *)?\n/, <$in>)
		{
			my ($stack) = split /\n[^\n]*(?:Address 0x|was created by|allocated by)/, $report;
			print "$report\n\n" if $stack =~ $ours;
		}' "$names" "$1"
}

# suite_findings: every report in frames of ours is a failure, and every assertion.
suite_findings()
{
	local file files found n=0

	if [ "$DV_SANITIZE" = assert ]; then
		n=$(grep -rhsE '^TRAP: ' "$WORK"/*.log "$WORK/tap" --include='*.log' | tee "$WORK/traps.txt" | wc -l)
		head -n 60 "$WORK/traps.txt"
		echo "$((n == 0)) passed, $n failed" >"$WORK/findings.log"
		finish findings "$WORK/findings.log" 0
		return
	fi
	# memcheck writes files of its own; the sanitizers write where the server does
	mapfile -t files < <(find "$WORK/findings" -type f -size +0
		grep -rlsE 'Sanitizer:|runtime error:' "$WORK"/*.log "$WORK/tap" "$TREE/results" --include='*.log')
	for file in "${files[@]}"; do
		found=$(findings_of "$file")
		if [ -n "$found" ]; then
			n=$((n + 1))
			echo "-- $(basename "$file"):"
			head -n 60 <<<"$found"
		fi
	done
	echo "$((n == 0)) passed, $n failed" >"$WORK/findings.log"
	finish findings "$WORK/findings.log" 0
}
