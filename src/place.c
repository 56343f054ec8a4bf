/*
 * place.c - where a run works: cluster, database, timeline, extension, data directory
 *
 * Whoever finds a run in a database asks whether it was this database's. A
 * restored or copied database bears the same rows, and must neither send by
 * itself nor believe that it remembers all that was sent.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "commands/extension.h"
#include "common/md5.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dv_place);
PG_FUNCTION_INFO_V1(dv_location);

/*
 * dv_place() is "system identifier/database oid/timeline/extension oid". Nothing
 * of it survives a dump, also where that is restored in the same database, with
 * the extension made anew; a backup that is restored, and a standby that is
 * promoted, go on in a new timeline.
 */
Datum
dv_place(PG_FUNCTION_ARGS)
{
	TimeLineID	timeline = 0;

	(void) fcinfo;
	if (!RecoveryInProgress())
		timeline = GetWALInsertionTimeLine();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(UINT64_FORMAT "/%u/%u/%u", GetSystemIdentifier(), MyDatabaseId, timeline,
											  get_extension_oid("dvmig", true))));
}

/*
 * dv_location() is a hash of host, path and inode of the data directory: all
 * that tells a copy of it from the original, since a copy of the files alone
 * goes on in the same timeline. A copied directory has another inode, one that
 * is mounted elsewhere another host or path. Hashed, because the path is not
 * for everybody.
 */
Datum
dv_location(PG_FUNCTION_ARGS)
{
	char		host[256] = "";
	char		hash[33];
	const char *errstr = NULL;
	struct stat st;
	char	   *text;

	(void) fcinfo;
	(void) gethostname(host, sizeof(host) - 1);
	if (stat(DataDir, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat directory \"%s\": %m", DataDir)));
	text = psprintf("%s\n%s\n" UINT64_FORMAT, host, DataDir, (uint64) st.st_ino);
	if (!pg_md5_hash(text, strlen(text), hash, &errstr))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute %s hash: %s", "MD5", errstr)));
	PG_RETURN_TEXT_P(cstring_to_text(hash));
}
