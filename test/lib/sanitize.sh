# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is used by those who source it
#
# sanitize.sh - the private server under the sanitizers or valgrind
#
# Sourced by test/check. DV_SANITIZE chooses: "address" builds the extension
# with the address and undefined behaviour sanitizers, "valgrind" runs every
# process of the server under memcheck. Either way "postgres" in the private
# installation becomes a script, so that whoever starts a server, the TAP tests
# included, starts it so. "assert" says that the server checks its assertions
# and its memory contexts by itself.
#
# A run in which nothing is looked at finds nothing. So every run calls faults
# that are planted in the copy (planted.c): their reports must be found as any
# other is, and are then set aside. What they miss to report is a failure.

# dv_sanitize_options: sets MAKE_OPTIONS, for make: the planted faults become
# part of the copy's library, and what the sanitizers need of the compiler.
dv_sanitize_options()
{
	MAKE_OPTIONS=()
	[ -n "${DV_SANITIZE:-}" ] || return 0
	MAKE_OPTIONS=("OBJS=$(cd "$TREE" && printf '%s ' src/*.c test/lib/planted.c | sed 's/\.c /.o /g')")
	if [ "$DV_SANITIZE" = address ]; then
		MAKE_OPTIONS+=("COPT=-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g")
	fi
}

# planted_faults: the faults planted for this instrument, and what a report of each says.
planted_faults()
{
	case $DV_SANITIZE in
		address) printf '%s\n' 'planted_overflow heap-buffer-overflow' 'planted_misaligned misaligned address' ;;
		valgrind) printf '%s\n' 'planted_overflow Invalid read' 'planted_uninitialised uninitialised value' ;;
		assert) printf '%s\n' 'planted_assertion planted_zero == 1' ;;
	esac
}

# dv_sanitize_arm: have every planted fault happen in the server of regress and
# isolation. Most end their process, after which the server restarts itself.
dv_sanitize_arm()
{
	local fault _ i

	[ -n "${PGDATA_DIR:-}" ] || start_shared_cluster
	while read -r fault _; do
		"$BINDIR/psql" -Xq -c "CREATE FUNCTION pg_temp.$fault() RETURNS int LANGUAGE c AS 'dvmig', '$fault'" \
			-c "SELECT pg_temp.$fault()" >>"$WORK/armed.log" 2>&1 </dev/null
		for ((i = 0; i < 600; i++)); do
			"$BINDIR/psql" -Xqc 'SELECT 1' >>"$WORK/armed.log" 2>&1 </dev/null && break
			sleep 0.1
		done
	done < <(planted_faults)
}

# set_planted_aside [-00]: of the lines, or with -00 the paragraphs, of what was
# found, those of planted faults go to $WORK/planted, the others on.
set_planted_aside()
{
	perl -n "$@" -e '
		BEGIN { open($aside, ">>", $ENV{PLANTED}) or die; }
		print { m{\bplanted_\w+ |\bplanted_\w+$|\bplanted\.c\b}m ? $aside : *STDOUT } $_;'
}

# dv_sanitize_server: put the script in the place of postgres. Reports go to
# $WORK/findings, one file a process, named for the test that started the server.
dv_sanitize_server()
{
	local command report="$WORK/findings/\$test"

	[ -n "${DV_SANITIZE:-}" ] && [ "$DV_SANITIZE" != assert ] || return 0
	mkdir -p "$WORK/findings"
	chmod 1777 "$WORK/findings"
	mv "$BINDIR/postgres" "$BINDIR/postgres.real"
	# Just-in-time compiling is LLVM's code and not ours, and under memcheck most of the time.
	case $DV_SANITIZE in
		address)
			# With libasan loaded first, glibc's bindtextdomain() waits for ever for
			# a lock of its own: the server's messages stay untranslated instead.
			echo 'char *bindtextdomain(const char *d, const char *dir) { return d ? (char *) dir : 0; }
				char *textdomain(const char *d) { return (char *) d; }' >"$WORK/nls.c"
			gcc -shared -fPIC -o "$WORK/nls.so" "$WORK/nls.c"
			# The server itself is not instrumented: leaks at its exit are its own way.
			command="export LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so):$WORK/nls.so\${LD_PRELOAD:+:\$LD_PRELOAD}
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1:log_path=$report
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$report
exec -a \"\$0\" $BINDIR/postgres.real \"\$@\" -c jit=off"
			;;
		valgrind)
			command="exec valgrind --quiet --leak-check=no --error-limit=no --time-stamp=no --vgdb=no --log-file=$report.%p $BINDIR/postgres.real \"\$@\" -c jit=off"
			;;
		*) die "DV_SANITIZE must be address or valgrind, not $DV_SANITIZE" ;;
	esac
	command=": >>$WORK/findings/\$test.started
$command"
	printf '#!/bin/bash\n# help and version are asked of the server itself, and initdb has none of our code run\ncase "${1:-}" in --version | -V | --help | --boot | --check | --single) exec -a "$0" %s "$@" ;; esac\ntest=${DVMIG_TEST_NAME:-server}\n%s\n' \
		"$BINDIR/postgres.real" "$command" >"$BINDIR/postgres"
	chmod 755 "$BINDIR/postgres"
}

# findings_of file: the reports in it that name a source of the extension in
# their stack. The server has no line numbers and its own habits (padding
# bytes written to WAL), which are not ours to judge.
findings_of()
{
	local names

	names=$(cd "$TREE/src" && printf '%s\n' *.c planted.c | sed 's/\./\\./' | paste -sd '|')
	perl -e '
		my $ours = qr{\b(?:$ARGV[0]):\d+|dvmig\.so\+};
		local $/;
		open(my $in, "<", $ARGV[1]) or die;
		for my $report (split /\n(?:==\d+== *)?\n/, <$in>)
		{
			my ($stack) = split /\n[^\n]*(?:Address 0x|was created by|allocated by)/, $report;
			# what the server writes for whoever commits has bytes of padding in it, and it moves
			# regular expressions within its cache by memcpy, for whoever uses one
			$stack =~ s/\n[^\n]*\(in [^\n]*postgres\.real\).*//s if $stack =~ /Syscall param|overlap in memcpy.*RE_compile_and_cache/s;
			print "$report\n\n" if $stack =~ $ours;
		}' "$names" "$1"
}

# log_findings: what the server itself says of memory and resources it was not
# given back in order, and of assertions, in any of its logs, where the undefined
# behaviour sanitizer writes, too: "test: line".
log_findings()
{
	local name

	# of TAP tests they are in the one folder or the other, by version
	grep -rHsE --include='*.log' '^TRAP: |: runtime error: |WARNING: .*(problem in (alloc|slab|generation|bump|AllocSet|Slab|Generation|Bump)|refcount leak|reference leak|(file|memory|resource) .*(leak|was not closed))' \
		"$WORK"/*.log "$WORK/tap/log" "$WORK/tap/tmp_check/log" "$TREE/results" |
		while IFS= read -r name; do
			echo "$(basename "${name%%.log:*}"): ${name#*.log:}"
		done
}

# test_of file: which of the tests that ran a log or report belongs to: the
# longest name that begins its own.
test_of()
{
	local name best=server _

	while read -r name _; do
		case $1 in "$name"[._]*) [ ${#name} -lt ${#best} ] && [ "$best" != server ] || best=$name ;; esac
	done <"$WORK/results"
	echo "$best"
}

# armed: what shows that this run could find something, a line each. Every planted
# fault was found; and where TAP tests ran, they started servers under the instrument.
armed()
{
	local fault says name p _ tap=0 started=0

	while read -r fault says; do
		if grep -qF "$says" "$PLANTED" 2>/dev/null; then
			echo "armed: ok, $fault was found ($says)"
		else
			echo "armed: NOT OK, $fault was not found ($says), nor would others have been"
		fi
	done < <(planted_faults)
	[ "$DV_SANITIZE" != assert ] || return 0
	while read -r name p _; do
		[ -e "$TREE/test/t/$name.pl" ] && [ "$p" -gt 0 ] || continue
		tap=$((tap + 1))
		[ ! -e "$WORK/findings/$name.started" ] || started=$((started + 1))
	done <"$WORK/results"
	if [ "$started" -gt 0 ]; then
		echo "armed: ok, $started of $tap TAP tests that ran started a server under it"
	elif [ "$tap" -gt 0 ]; then
		echo "armed: NOT OK, no server of $tap TAP tests was started under it"
	fi
}

# suite_findings: every report in frames of ours is a failure, but for the
# planted ones, which must be there, and every assertion; then one line for each
# test file.
suite_findings()
{
	local file found name p f s n=0 ok unarmed
	local -A of=()
	export PLANTED=$WORK/planted

	for file in "$WORK"/findings/*; do
		found=$([ -s "$file" ] && findings_of "$file" | set_planted_aside -00)
		[ -n "$found" ] || continue
		n=$((n + 1))
		name=$(test_of "$(basename "$file")")
		of[$name]=$((${of[$name]:-0} + 1))
		echo "-- $(basename "$file"):"
		head -n 60 <<<"$found"
	done
	while IFS= read -r found; do
		n=$((n + 1))
		name=$(test_of "${found%%: *}.")
		of[$name]=$((${of[$name]:-0} + 1))
		echo "$found"
	done < <(log_findings | set_planted_aside)
	armed | tee "$WORK/armed.findings"
	ok=$(grep -c '^armed: ok' "$WORK/armed.findings")
	unarmed=$(grep -c '^armed: NOT OK' "$WORK/armed.findings")
	printf '%-28s %6s %6s %8s %8s\n' file ok 'not ok' 'left out' findings
	while read -r name p f s; do
		printf '%-28s %6d %6d %8d %8d\n' "$name" "$p" "$f" "$s" "${of[$name]:-0}"
	done < <(sort "$WORK/results")
	# regress and isolation have one server
	[ -z "${of[server]:-}" ] || printf '%-28s %6s %6s %8s %8d\n' 'their common server' '' '' '' "${of[server]}"
	# tests that failed and reports are worth a look afterwards
	[ "$((n + unarmed + FAILED))" -eq 0 ] || KEEP=yes
	echo "$(((n == 0) + ok)) passed, $((n + unarmed)) failed" >"$WORK/findings.log"
	finish findings "$WORK/findings.log" 0
}
