# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is used by those who source it
#
# common.sh - what test/check and test/demo share: packages, a private copy of
# the tree, a private PostgreSQL installation and cluster, and a simulator.
#
# Sourced, not run. Nothing here touches the PostgreSQL that the machine has:
# the extension is installed into a mirror of it below a temporary directory.
# PostgreSQL finds its share and lib directories relative to its own binary, so
# a mirror of the same shape is a whole installation (core's own "make check"
# rests on the same fact). Only installing packages needs root.
#
# Settings from the environment:
#   PG_CONFIG   pg_config of the PostgreSQL to use (default: the newest that
#               has server headers, else PG_MAJOR's packages are installed)
#   PG_MAJOR    major version to install where there is none (default 15)

die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

# dv_find_pg_config: set PG_CONFIG if it is not; fails where there is none.
dv_find_pg_config()
{
	local candidate

	if [ -n "${PG_CONFIG:-}" ]; then
		command -v "$PG_CONFIG" >/dev/null || die "PG_CONFIG=$PG_CONFIG is not a program"
		return 0
	fi
	for candidate in "/usr/lib/postgresql/${PG_MAJOR:-none}/bin/pg_config" \
		$(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -rV) pg_config; do
		if command -v "$candidate" >/dev/null &&
			[ -e "$("$candidate" --pgxs)" ] &&
			[ -e "$("$candidate" --includedir-server)/postgres.h" ]; then
			PG_CONFIG=$candidate
			return 0
		fi
	done
	return 1
}

# dv_install_packages: bring in what building and testing needs. As root on a
# Debian system it installs, otherwise it names what is missing and stops.
dv_install_packages()
{
	local wanted missing=() package major=${PG_MAJOR:-15}

	wanted="gcc make pkg-config libcurl4-openssl-dev libjson-c-dev libssl-dev
		libmicrohttpd-dev libipc-run-perl perl openssl curl ca-certificates"
	dv_find_pg_config ||
		wanted="$wanted postgresql-$major postgresql-server-dev-$major"
	if ! command -v dpkg-query >/dev/null; then
		dv_find_pg_config || die "set PG_CONFIG to the pg_config of a PostgreSQL with server headers"
		return 0
	fi
	for package in $wanted; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
			grep -q 'ok installed' || missing+=("$package")
	done
	if [ ${#missing[@]} -gt 0 ]; then
		[ "$(id -u)" = 0 ] || die "please install: ${missing[*]}"
		echo "installing ${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive
		if ! apt-get update -qq >"$WORK/apt.log" 2>&1 ||
			! apt-get install -y -qq --no-install-recommends "${missing[@]}" \
				>>"$WORK/apt.log" 2>&1; then
			tail -n 40 "$WORK/apt.log" >&2
			die "the packages could not be installed"
		fi
	fi
	dv_find_pg_config || die "no pg_config found"
}

# dv_install_optional package ...: what some tests can use, and are left out
# where it is not to be had.
dv_install_optional()
{
	local package

	command -v dpkg-query >/dev/null && [ "$(id -u)" = 0 ] || return 0
	export DEBIAN_FRONTEND=noninteractive
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' && continue
		# no lists of packages yet, where nothing had to be installed before
		[ -n "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit)" ] || apt-get update -qq >>"$WORK/apt.log" 2>&1 || true
		apt-get install -y -qq --no-install-recommends "$package" >>"$WORK/apt.log" 2>&1 ||
			echo "left out: $package cannot be installed"
	done
}

# dv_begin: temporary directory, clean-up, unprivileged user.
#
# Sets WORK (the directory) and RUN_USER (empty: we are unprivileged already).
# PostgreSQL refuses to run as root, so everything that serves runs as the user
# "postgres", or "nobody" where that does not exist.
dv_begin()
{
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/dvmig.XXXXXX")
	chmod 755 "$WORK"
	PIDS=()
	RUN_USER=
	AS_USER=(env)
	# a caller's cluster is not ours to stop
	unset PGDATA_DIR
	trap dv_end EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

# dv_pick_user: call after dv_install_packages, which may bring the user.
dv_pick_user()
{
	if [ "$(id -u)" = 0 ]; then
		RUN_USER=nobody
		if getent passwd postgres >/dev/null; then
			RUN_USER=postgres
		fi
		chown "$RUN_USER:" "$WORK"
		# Each of these becomes the next, so that a background job's pid is the
		# pid of the program itself (a function would leave a shell in between).
		AS_USER=(setpriv --reuid "$RUN_USER" --regid "$(id -gn "$RUN_USER")" --init-groups
			env HOME="$WORK" USER="$RUN_USER")
	fi
	# Where we were called the unprivileged user may not be allowed to look.
	cd "$WORK" || exit 1
}

# dv_end: end what was started, newest first, and remove the directory. KEEP
# spares the directory, KEEP_RUNNING everything. Runs on every way out.
dv_end()
{
	local status=$? i

	trap - EXIT INT TERM
	cd /
	if [ -z "${KEEP_RUNNING:-}" ]; then
		if [ -n "${PGDATA_DIR:-}" ] && [ -e "$PGDATA_DIR/postmaster.pid" ]; then
			dv_as_user "$BINDIR/pg_ctl" -D "$PGDATA_DIR" -m immediate stop >/dev/null 2>&1
		fi
		for ((i = ${#PIDS[@]} - 1; i >= 0; i--)); do
			kill "${PIDS[i]}" 2>/dev/null
			wait "${PIDS[i]}" 2>/dev/null
		done
		[ -n "${KEEP:-}" ] || rm -rf "$WORK"
	fi
	exit "$status"
}

# dv_as_user command ...: run as the unprivileged user.
dv_as_user()
{
	"${AS_USER[@]}" "$@"
}

# dv_mirror dir ...: rebuild a directory below the mirror as real directories
# of symbolic links, so that new files can be added beside the system's.
dv_mirror()
{
	local source

	for source in "$@"; do
		[ -d "$source" ] || continue
		mkdir -p "$MIRROR${source#"$PG_PREFIX"}"
		cp -rsn "$source/." "$MIRROR${source#"$PG_PREFIX"}/"
	done
}

# dv_private_postgres: a PostgreSQL installation of our own below $WORK.
# Sets MIRROR, BINDIR, PGXS_DIR, PG_VERSION_NUM and points PG_CONFIG at it.
dv_private_postgres()
{
	local bin pkglib share include

	bin=$(dirname "$(readlink -f "$(command -v "$("$PG_CONFIG" --bindir)/postgres")")")
	pkglib=$("$PG_CONFIG" --pkglibdir)
	share=$("$PG_CONFIG" --sharedir)
	include=$("$PG_CONFIG" --includedir-server)

	# The directory that binaries, libraries and shared files have in common:
	# below it the mirror must have the same shape.
	PG_PREFIX=$bin
	while [ "${pkglib#"$PG_PREFIX/"}" = "$pkglib" ] ||
		[ "${share#"$PG_PREFIX/"}" = "$share" ] ||
		[ "${include#"$PG_PREFIX/"}" = "$include" ]; do
		PG_PREFIX=$(dirname "$PG_PREFIX")
	done
	MIRROR=$WORK/pg
	BINDIR=$MIRROR${bin#"$PG_PREFIX"}
	mkdir -p "$BINDIR"
	cp "$bin"/* "$BINDIR/"			# real files: symlinks would be resolved
	dv_mirror "$pkglib" "$share" "$include"
	rm -f "$MIRROR${share#"$PG_PREFIX"}"/extension/dvmig* \
		"$MIRROR${pkglib#"$PG_PREFIX"}"/dvmig*
	PG_CONFIG=$BINDIR/pg_config
	# --libdir is compiled in too and may be outside of what was mirrored.
	local libdir
	libdir=$("$PG_CONFIG" --libdir)
	if [ ! -e "$libdir" ]; then
		mkdir -p "$(dirname "$libdir")"
		ln -s "$PG_PREFIX${libdir#"$MIRROR"}" "$libdir"
	fi
	PGXS_DIR=$(dirname "$(dirname "$(dirname "$("$PG_CONFIG" --pgxs)")")")
	PG_VERSION_NUM=$(sed -n 's/^#define PG_VERSION_NUM \([0-9]*\).*/\1/p' \
		"$("$PG_CONFIG" --includedir-server)/pg_config.h" \
		"$("$PG_CONFIG" --includedir-server)"/pg_config-*.h 2>/dev/null | head -n 1)
	export PG_CONFIG
}

# dv_copy_tree: a copy of the sources below $WORK that the unprivileged user
# may read and write, whatever the original's permissions. Sets TREE.
dv_copy_tree()
{
	TREE=$WORK/tree
	mkdir -p "$TREE"
	tar -C "$REPO" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=./tmp_check --exclude=./results --exclude=./output_iso \
		-cf - . | tar -C "$TREE" --no-same-owner -xf -
}

# dv_build: build extension and simulator in the copy and install the extension
# into the private PostgreSQL. MAKE_OPTIONS are for the extension. Sets DVSIM.
MAKE_OPTIONS=()
dv_build()
{
	local jobs

	jobs=$(nproc 2>/dev/null || echo 2)
	{
		make -C "$TREE" -s -j"$jobs" PG_CONFIG="$PG_CONFIG" with_llvm=no "${MAKE_OPTIONS[@]}" all &&
			make -C "$TREE" -s PG_CONFIG="$PG_CONFIG" with_llvm=no "${MAKE_OPTIONS[@]}" install &&
			make -C "$TREE/test/dataverse" -s -j"$jobs" dvsim
	} >"$WORK/build.log" 2>&1 || {
		tail -n 60 "$WORK/build.log" >&2
		return 1
	}
	DVSIM=$TREE/test/dataverse/dvsim
	[ -x "$DVSIM" ] || die "the build left no test/dataverse/dvsim"
	if [ -n "$RUN_USER" ]; then
		chown -R "$RUN_USER:" "$TREE"
	fi
}

# dv_start_cluster [line ...]: a private cluster that listens on a Unix socket
# only; the arguments are lines for postgresql.conf. Sets PGDATA_DIR and exports
# PGHOST, PGPORT, PGUSER, PGDATABASE.
dv_start_cluster()
{
	PGDATA_DIR=$WORK/data
	export PGHOST=$WORK/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	unset PGSERVICE PGSERVICEFILE PGPASSFILE PGOPTIONS PGSSLMODE

	mkdir -p "$PGHOST"
	if [ -n "$RUN_USER" ]; then
		chown "$RUN_USER:" "$PGHOST"
	fi
	dv_as_user "$BINDIR/initdb" -D "$PGDATA_DIR" -U postgres -A trust -E UTF8 \
		--locale=C.UTF-8 --no-sync --no-instructions >"$WORK/initdb.log" 2>&1 || {
		tail -n 20 "$WORK/initdb.log" >&2
		die "initdb failed"
	}
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$PGHOST'"
		echo "port = $PGPORT"
		echo "fsync = off"
		echo "max_worker_processes = 16"
		echo "log_line_prefix = '%m [%p] %q%a '"
		printf '%s\n' "$@"
	} >>"$PGDATA_DIR/postgresql.conf"
	dv_as_user "$BINDIR/pg_ctl" -D "$PGDATA_DIR" -l "$WORK/postgresql.log" -w start \
		>/dev/null || {
		tail -n 20 "$WORK/postgresql.log" >&2
		die "the private cluster did not start"
	}
}

# dv_make_ca dir: a certificate authority of our own and a certificate for
# 127.0.0.1 and localhost: ca.crt, server.crt, server.key.
dv_make_ca()
{
	local dir=$1

	mkdir -p "$dir"
	{
		openssl req -x509 -newkey rsa:2048 -nodes -days 7 -sha256 \
			-subj '/CN=dvmig test CA' -keyout "$dir/ca.key" -out "$dir/ca.crt" &&
			openssl req -newkey rsa:2048 -nodes -sha256 -subj '/CN=localhost' \
				-keyout "$dir/server.key" -out "$dir/server.csr" &&
			printf '%s\n' 'subjectAltName = DNS:localhost, IP:127.0.0.1' \
				'basicConstraints = CA:FALSE' >"$dir/server.ext" &&
			openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
				-CAcreateserial -days 7 -sha256 -extfile "$dir/server.ext" -out "$dir/server.crt"
	} >"$dir/openssl.log" 2>&1 || {
		cat "$dir/openssl.log" >&2
		die "openssl could not make certificates"
	}
	if [ -n "$RUN_USER" ]; then
		chown -R "$RUN_USER:" "$dir"
	fi
	chmod 600 "$dir"/*.key
}

# dv_start_sim option ...: start dvsim on a port of its own choice. Sets
# SIM_PORT; its output goes to $WORK/dvsim.log.
dv_start_sim()
{
	local port_file=$WORK/dvsim.port i

	rm -f "$port_file"
	"${AS_USER[@]}" "$DVSIM" --metadata "$TREE/test/dataverse/metadata" --port 0 \
		--port-file "$port_file" "$@" >"$WORK/dvsim.log" 2>&1 &
	PIDS+=($!)
	for ((i = 0; i < 1200; i++)); do
		if [ -s "$port_file" ]; then
			SIM_PORT=$(cat "$port_file")
			return 0
		fi
		kill -0 "${PIDS[-1]}" 2>/dev/null || break
		sleep 0.05
	done
	tail -n 20 "$WORK/dvsim.log" >&2
	die "the simulator did not start"
}
