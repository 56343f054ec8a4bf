# dvmig: build with PGXS against libcurl, json-c and libcrypto.
EXTENSION = dvmig
EXTVERSION = 1.0
MODULE_big = dvmig
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

# SQL by topic, concatenated in the order of the numbers in the file names.
DATA_built = dvmig--$(EXTVERSION).sql
DATA = $(wildcard sql/upgrade/dvmig--*--*.sql)
EXTRA_CLEAN = dvmig--$(EXTVERSION).sql

# The server's own headers are not ours to keep free of warnings: as system
# headers they stay silent under -Wextra.
PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(srcdir)/src -isystem $(shell $(PG_CONFIG) --includedir-server) \
	$(shell pkg-config --cflags libcurl json-c libcrypto)
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror
SHLIB_LINK = $(shell pkg-config --libs libcurl json-c libcrypto)

# On 15 pg_regress finds inputs by --inputdir alone; from 16 the expected
# outputs need their own option because they stay at the top of the tree.
REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
ISOLATION = $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

ifneq ($(filter-out 15,$(MAJORVERSION)),)
REGRESS_OPTS += --expecteddir=.
endif

dvmig--$(EXTVERSION).sql: $(sort $(wildcard sql/*.sql))
	cat $^ > $@

$(OBJS): $(wildcard src/*.h)
