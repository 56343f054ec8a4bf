# shellcheck shell=bash
#
# assert.sh - a PostgreSQL that checks its own assertions
#
# Sourced by test/sanitize and test/upgrade. Debian's servers have none: this one
# is built from Debian's source of the major version, once, below
# ${DVMIG_ASSERT:-/var/tmp/dvmig-assert}, and kept there. Lists and archives have
# directories of their own; of the system nothing changes, but for flex and bison.

ASSERT_ROOT=${DVMIG_ASSERT:-/var/tmp/dvmig-assert}

# apt_source command ...: apt-get, of the sources of where this system has its packages from.
apt_source()
{
	local own=$ASSERT_ROOT/apt

	"$1" -o Dir::Etc::sourcelist="$own/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$own/lists" -o Dir::Cache="$own/cache" -o APT::Sandbox::User=root "${@:2}"
}

# fetch_source major: the newest source that is to be had, unpacked below $ASSERT_ROOT/source.
fetch_source()
{
	local own=$ASSERT_ROOT/apt keys version first

	rm -rf "$ASSERT_ROOT/source"
	mkdir -p "$own/lists/partial" "$own/cache/archives/partial" "$ASSERT_ROOT/source"
	keys=$(find /usr/share/keyrings -name 'debian-archive-keyring.*' -print -quit)
	apt-get indextargets --format "deb-src [signed-by=$keys] \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages' |
		sort -u >"$own/sources.list"
	apt_source apt-get update -qq || return 1
	if [ -z "$(apt_source apt-cache showsrc "postgresql-$1" 2>/dev/null)" ]; then
		# a version that this release does not have: of the archive itself, not of its updates
		first=$(grep -E ' [a-z]+ main$' "$own/sources.list" | head -n 1)
		echo "${first% * main} sid main" >>"$own/sources.list"
		apt_source apt-get update -qq || return 1
	fi
	cd "$ASSERT_ROOT/source" || return 1
	# a mirror may list a version whose files it does not have
	for version in $(apt_source apt-cache showsrc "postgresql-$1" | sed -n 's/^Version: //p' | sort -rV); do
		rm -rf ./*
		apt_source apt-get source -qq --download-only "postgresql-$1=$version" && break
	done
	tar -xf postgresql-*.orig.tar.* --strip-components=1
}

# build_server major: into $ASSERT_ROOT/major. No translations and no readline: tests need neither.
build_server()
{
	cd "$ASSERT_ROOT/source" || return 1
	# from 17 on sources come without what these make
	[ -e src/backend/parser/gram.c ] || apt-get install -y -qq --no-install-recommends flex bison || return 1
	./configure -q --prefix="$ASSERT_ROOT/$1" --enable-cassert --enable-debug --enable-tap-tests --without-readline \
		--with-openssl "$(pkg-config --exists icu-uc && echo --with-icu || echo --without-icu)" CFLAGS='-O1 -g -fno-omit-frame-pointer' &&
		make -s -j"$(nproc 2>/dev/null || echo 2)" && make -s install && make -s -C contrib install || return 1
	touch "$ASSERT_ROOT/$1/.complete"
}

# assert_server: sets PG_CONFIG to a server with assertions; fails, with a message, where there is none.
assert_server()
{
	local major=${PG_MAJOR:-15}

	if [ -n "${PG_CONFIG:-}" ] && "$PG_CONFIG" --configure | grep -q -- --enable-cassert; then
		return 0
	fi
	[ -z "${PG_CONFIG:-}" ] || major=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	PG_CONFIG=$ASSERT_ROOT/$major/bin/pg_config
	export PG_CONFIG
	[ ! -e "$ASSERT_ROOT/$major/.complete" ] || return 0
	rm -rf "${ASSERT_ROOT:?}/$major"
	mkdir -p "$ASSERT_ROOT"
	echo "building PostgreSQL $major with assertions in $ASSERT_ROOT"
	if ! (fetch_source "$major") >"$ASSERT_ROOT/fetch.log" 2>&1; then
		tail -n 20 "$ASSERT_ROOT/fetch.log" >&2
		echo "the source of PostgreSQL $major cannot be had here: set PG_CONFIG to a server configured with --enable-cassert" >&2
		return 1
	fi
	if ! (build_server "$major") >"$ASSERT_ROOT/build.log" 2>&1; then
		tail -n 20 "$ASSERT_ROOT/build.log" >&2
		return 1
	fi
}
