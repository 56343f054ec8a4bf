/*
 * hold.c - which application users the service told to wait, and until when
 *
 * The file is a table of fixed places, found by hashing. Readers take no lock:
 * a place's user and hold are read one after the other, and the user once more.
 * Writers, which are rare, take turns by a lock on the file, which the system
 * gives back when one is killed; a place whose hold is over may go to another
 * user, its hold first taken away. Nothing in the file is believed beyond its
 * bounds: a hold is no longer than any that is told, and one that was told
 * later than now (the clock was set back) is none.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "hold.h"
#include "hosts.h"
#include "problem.h"
#include "settings.h"
#include "sha256.h"

/* Another layout has another name. */
#define HOLD_FILE		PG_STAT_TMP_DIR "/dvmig.holds"

/* Many more than there are application users of a cluster's servers: 8 kB. */
#define PLACES			512

/* A hold is kept as its end in milliseconds and, in the lowest bits, how long it was when it was told, in seconds. */
#define LENGTH_BITS		20
#define LENGTH_MASK		((UINT64CONST(1) << LENGTH_BITS) - 1)

/* No header makes anybody wait longer, see retryafter.c; and what a clock may be put right by unnoticed. */
#define LONGEST_S		(24 * 60 * 60)
#define CLOCK_SLACK_MS	5000

typedef struct DvHold
{
	pg_atomic_uint64 user;		/* 0: free */
	pg_atomic_uint64 hold;		/* 0: none */
} DvHold;

static DvHold *places = NULL;

/* Where the file cannot be had: a process then knows what it was told itself. */
static DvHold own_places[PLACES];

/* ---------------------------------------------------------------- the file */

static int
open_file(int flags)
{
	return BasicOpenFilePerm(HOLD_FILE, O_RDWR | PG_BINARY | flags, PG_FILE_MODE_OWNER);
}

/* Map the file, which is made where there is none; its bytes are there for good then, and zero at first. */
static DvHold *
map_file(void)
{
	void	   *mapped = MAP_FAILED;
	int			fd = open_file(O_CREAT);
	int			error;

	if (fd < 0)
		return NULL;
	do
		error = posix_fallocate(fd, 0, sizeof(own_places));
	while (error == EINTR);
	errno = error;
	if (error == 0)
		mapped = mmap(NULL, sizeof(own_places), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	error = errno;
	close(fd);
	errno = error;
	return mapped == MAP_FAILED ? NULL : mapped;
}

static void
attach(void)
{
	if (places != NULL)
		return;
	places = map_file();
	if (places != NULL)
		return;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not map file \"%s\": %m", HOLD_FILE),
			 errdetail("What Dataverse tells one process of an application user to wait is not known to others.")));
	places = own_places;
}

/* ---------------------------------------------------------------- a hold in 64 bits */

static uint64
pack(TimestampTz until, TimestampTz now)
{
	int64		end = (until + 999) / 1000;
	int64		length = Min((until - now) / USECS_PER_SEC + 1, LONGEST_S);

	return until <= now ? 0 : ((uint64) end << LENGTH_BITS) | (uint64) length;
}

/* The end of a hold that is one now; 0 otherwise. */
static TimestampTz
unpack(uint64 hold, TimestampTz now)
{
	int64		end = (int64) (hold >> LENGTH_BITS);
	int64		length = (int64) (hold & LENGTH_MASK);
	int64		now_ms = now / 1000;

	if (length > LONGEST_S || end <= now_ms || end - length * 1000 > now_ms + CLOCK_SLACK_MS)
		return 0;
	return end * 1000;
}

/* ---------------------------------------------------------------- places */

static DvHold *
place_of(uint64 user, int i)
{
	return &places[(user + (uint64) i) % PLACES];
}

/* Places are filled from where the hash points to, and never become free again. */
static DvHold *
find(uint64 user)
{
	int			i;

	for (i = 0; i < PLACES; i++)
	{
		uint64		there = pg_atomic_read_u64(&place_of(user, i)->user);

		if (there == user)
			return place_of(user, i);
		if (there == 0)
			break;
	}
	return NULL;
}

/* A place for a user that has none: a free one, or one whose hold is over. With the lock. */
static DvHold *
take(uint64 user, TimestampTz now)
{
	int			i;

	for (i = 0; i < PLACES; i++)
	{
		DvHold	   *place = place_of(user, i);

		if (unpack(pg_atomic_read_u64(&place->hold), now) != 0)
			continue;
		pg_atomic_write_u64(&place->hold, 0);
		pg_memory_barrier();
		pg_atomic_write_u64(&place->user, user);
		pg_memory_barrier();
		return place;
	}
	return NULL;
}

uint64
dv_hold_user(const DvServer *server, const DvCredentials *credentials)
{
	DvHost		host;
	DvSha256	sha;
	unsigned char digest[DV_SHA256_DIGEST];
	uint64		user;
	char	   *text = dv_host_parse(server->url, &host)
		? psprintf("%s:%d %s", host.name, host.port, credentials->client_id) : psprintf("%s %s", server->url, credentials->client_id);
	char	   *c;

	for (c = text; *c != '\0'; c++)
		*c = pg_ascii_tolower((unsigned char) *c);
	dv_sha256_init(&sha);
	dv_sha256_update(&sha, text, strlen(text));
	dv_sha256_final(&sha, digest);
	memcpy(&user, digest, sizeof(user));
	pfree(text);
	return user == 0 ? 1 : user;
}

TimestampTz
dv_hold_until(uint64 user, TimestampTz now)
{
	DvHold	   *place;
	uint64		hold;

	attach();
	place = find(user);
	if (place == NULL)
		return 0;
	pg_read_barrier();
	hold = pg_atomic_read_u64(&place->hold);
	pg_read_barrier();
	return pg_atomic_read_u64(&place->user) == user ? unpack(hold, now) : 0;
}

void
dv_hold_tell(uint64 user, TimestampTz until, TimestampTz now)
{
	TimestampTz most = TimestampTzPlusMilliseconds(now, LONGEST_S * INT64CONST(1000));
	DvHold	   *place;
	int			fd;

	attach();
	/* without the lock two writers may take one place: then one of the holds is lost */
	fd = open_file(0);
	while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
		;
	place = find(user);
	if (place == NULL)
		place = take(user, now);
	if (place != NULL && until > unpack(pg_atomic_read_u64(&place->hold), now))
		pg_atomic_write_u64(&place->hold, pack(Min(until, most), now));
	if (fd >= 0)
		close(fd);
}

/* ---------------------------------------------------------------- telling of it */

static void
explain(DvProblem *problem, int number, TimestampTz until)
{
	char		message[256];

	snprintf(message, sizeof(message), "Dataverse told application user %d to wait until %s", number, timestamptz_to_str(until));
	dv_problem_set(problem, true, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message,
				   "Its service protection limits count all that the application user sends, here and elsewhere.",
				   "Wait until then, or stop what else uses the same application user.");
	problem->throttled = true;
}

void
dv_hold_bear(int number, TimestampTz until)
{
	TimestampTz latest = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), dv_request_timeout_ms);
	DvProblem	problem;

	explain(&problem, number, until);
	if (dv_session_patience != NULL)
	{
		(void) dv_session_patience(&problem);
		return;
	}
	if (get_timeout_active(STATEMENT_TIMEOUT))
		latest = Min(latest, get_timeout_finish_time(STATEMENT_TIMEOUT));
	if (until > latest)
		dv_problem_throw(&problem);
	ereport(NOTICE,
			(errmsg("%s, which is waited for", problem.message)));
}
