/*
 * before.c - what records held before a run updated them
 *
 * Where a table has keep_before_image, each record is read before its first
 * update in a run, and what it holds is on disk before that update leaves: a
 * crash cannot lose it. What the same run created needs no image: undoing the
 * run deletes it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "answer.h"
#include "before.h"
#include "encode.h"
#include "keys.h"
#include "page.h"
#include "spi.h"

/* Records of one answer with their rows. */
typedef struct Images
{
	int			n;
	DvRow	  **rows;
	const char **records;		/* as answered */
} Images;

bool
dv_before_wants(const DvStep *step, const DvRow *row)
{
	return step->projection->before_sql != NULL && row->wire.op == 'U' && !row->imaged &&
		row->wire.id[0] != '\0' && row->created_run != step->rc->run;
}

static DvRow *
row_of(const DvTask *task, const pg_uuid_t *id)
{
	int			i;

	for (i = 0; i < task->n; i++)
		if (memcmp(&task->rows[i]->uuid, id, sizeof(pg_uuid_t)) == 0)
			return task->rows[i];
	return NULL;
}

/* The records of the answer; false where it was not understood. */
static bool
take_records(const DvStep *step, const DvTask *task, const DvHttpReply *reply, Images *images)
{
	DvPage		page;
	DvSlice		record;

	images->n = 0;
	images->rows = palloc(sizeof(DvRow *) * task->n);
	images->records = palloc(sizeof(char *) * task->n);
	if (!dv_page_open(&page, reply->body.data, reply->body.len) || page.next_link.p != NULL)
		return false;
	while (images->n < task->n && dv_page_record(&page, &record))
	{
		pg_uuid_t	id;
		DvRow	   *row;

		if (!dv_page_uuid(dv_page_find(record, step->projection->wire.primary_id), id.data) || (row = row_of(task, &id)) == NULL)
			return false;
		images->rows[images->n] = row;
		images->records[images->n++] = pnstrdup(record.p, record.len);
	}
	return true;
}

void
dv_before_store(const DvProjection *p, int64 run, Datum *const *keys, Datum *ids, const char **records, int n)
{
	DvArrays	a;
	Datum	   *texts = palloc(sizeof(Datum) * n);
	int			i;

	dv_spi_begin("dvmig: keeping what records hold");
	dv_spi_wait_briefly();
	dv_keys_arrays(&a, p, keys, n);
	dv_keys_add(&a, ids, NULL, UUIDOID);
	for (i = 0; i < n; i++)
		texts[i] = CStringGetTextDatum(pg_any_to_server(records[i], (int) strlen(records[i]), PG_UTF8));
	dv_keys_add(&a, texts, NULL, TEXTOID);
	/* the first image of a run stands: later ones hold what the run wrote */
	dv_spi_run(psprintf("INSERT INTO %s (%s, dataverse_id, run, columns, taken_at) SELECT %s, u.\"dvmig id\", " INT64_FORMAT
						", u.\"dvmig record\"::pg_catalog.jsonb - '{@odata.etag,modifiedon,_modifiedby_value,%s}'::pg_catalog.text[], pg_catalog.clock_timestamp()"
						" FROM %s ON CONFLICT DO NOTHING",
						p->before_sql, dv_keys_list(p, ""), dv_keys_list(p, "u."), run, p->wire.primary_id,
						dv_keys_unnest(p, "\"dvmig id\", \"dvmig record\"")),
			   a.count, a.types, a.values, NULL, SPI_OK_INSERT);
	/* on disk before the update leaves, whatever the session's setting */
	set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	dv_spi_commit(false);
}

static void
store(const DvStep *step, const Images *images)
{
	Datum	  **keys = palloc(sizeof(Datum *) * images->n);
	Datum	   *ids = palloc(sizeof(Datum) * images->n);
	int			i;

	for (i = 0; i < images->n; i++)
	{
		keys[i] = images->rows[i]->keys;
		ids[i] = UUIDPGetDatum(&images->rows[i]->uuid);
	}
	dv_before_store(step->projection, step->rc->run, keys, ids, images->records, images->n);
}

/*
 * Is it what the records hold that could not be stored? A character that this
 * database cannot hold, say (class 22), or a constraint that a user has added.
 */
static bool
is_of_records(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return category == ERRCODE_DATA_EXCEPTION || category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;
}

/* Without its image no record is updated: halves tell which ones cannot be kept. */
static void
not_kept(DvStep *step, DvTask *task, const ErrorData *error)
{
	int			i;

	if (dv_spi_is_contention(error))
		dv_engine_queue(step, DV_STAGE_IMAGE, task->rows, task->n, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DV_LOCK_PAUSE_MS), task->attempts);
	else if (is_of_records(error) && task->n > 1)
		dv_engine_queue_halves(step, task, task->attempts);
	else if (is_of_records(error))
		dv_outcome_failure(step, task->rows[0], dv_encode_verdict("image", unpack_sql_state(error->sqlerrcode), "",
																  psprintf("what the record holds could not be kept before its update: %s", dv_spi_told(error))));
	else
	{
		dv_engine_fail_run(step->rc, psprintf("what records hold could not be kept: %s", dv_spi_told(error)));
		for (i = 0; i < task->n; i++)
			dv_answer_leave_row(step, task->rows[i]);
	}
}

/* The images of an answer are stored; NULL, or the error. */
static ErrorData *
keep(DvStep *step, const DvTask *task, const DvHttpReply *reply, bool *understood)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	Images		images;

	PG_TRY();
	{
		*understood = take_records(step, task, reply, &images);
		if (*understood && images.n > 0)
			store(step, &images);
	}
	PG_CATCH();
	{
		error = dv_spi_abort(step->context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

void
dv_before_handle(DvStep *step, DvTask *task, const DvHttpReply *reply)
{
	DvWireReply w = dv_answer_wire_reply(reply);
	DvWireFound *found = palloc0(sizeof(DvWireFound) * task->n);
	bool		understood = true;
	ErrorData  *error;
	DvVerdict	v;
	int			i;

	memset(&v, 0, sizeof(v));
	v.retry_after_ms = -1;
	v.kind = dv_wire_find_reply(&w, dv_answer_wire_rows(task), task->n, found, &v);
	error = v.kind == DV_DONE ? keep(step, task, reply, &understood) : NULL;
	if (v.kind == DV_DONE && !understood)
	{
		v.kind = DV_RETRY;
		strlcpy(v.message, "the answer to reading records before their update was not understood", sizeof(v.message));
	}
	if (v.kind != DV_DONE)
		dv_settle_unread(step, task, reply, &v);
	else if (error == NULL)
	{
		dv_answer_good(step, reply);
		/* a record that is not there has no image: its update says so */
		for (i = 0; i < task->n; i++)
			task->rows[i]->imaged = true;
		dv_engine_queue_new(step, task->rows, task->n);
	}
	else
		not_kept(step, task, error);
}
