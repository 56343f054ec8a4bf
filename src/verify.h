/*
 * verify.h - what the rooms of a verification share
 *
 * verify_load.c reads the definition, verify.c walks a staging table and asks
 * for the records of its rows, verify_read.c reads rows and what they map to,
 * verify_judge.c compares them with the records, verify_expand.c what hangs on
 * records, verify_links.c links, verify_files.c the bytes of files, verify_keys.c
 * looks for records by their source keys, verify_store.c keeps what was found.
 */
#ifndef DV_VERIFY_H
#define DV_VERIFY_H

#include "utils/numeric.h"

#include "asker.h"
#include "batch.h"
#include "compare.h"
#include "phase.h"
#include "projection.h"
#include "runstate.h"

/* Digits after the point of numbers that are summed as whole numbers. */
#define DV_SUM_SCALES	11

typedef struct DvSum
{
	int64		count;
	int64		parts[DV_SUM_SCALES];	/* by digits after the point */
	Numeric		rest;			/* what did not fit there; NULL = 0 */
} DvSum;

/* Tables that a lookup can be mapped to. */
#define DV_VERIFY_PARTS	32

/* Does the service keep an image as it was sent? */
typedef enum DvFullImage
{
	DV_IMAGE_NONE,				/* no image */
	DV_IMAGE_NOT_KEPT,
	DV_IMAGE_UNKNOWN,
	DV_IMAGE_KEPT
} DvFullImage;

/* A column of the target table and how it is compared. */
typedef struct DvVerifyColumn
{
	const char *name;			/* target column */
	const char *read_name;		/* member of the answer; NULL: not compared */
	DvCompareKind kind;
	int			precision;
	int			send;			/* DV_SEND_* */
	bool		deferred;
	bool		late;			/* goes with updates only, and a create owes it */
	bool		optional;		/* a state: null means that nothing is wanted */
	bool		never_cleared;	/* a state or an owner: null leaves what is there */
	bool		summed;
	int			nparts;			/* a lookup to several tables has several maps */
	const char *referenced[DV_VERIFY_PARTS];	/* table pointed at, by map */
	int			maps[DV_VERIFY_PARTS];	/* index in the projection's columns, by map */
	int			told;			/* its member of an answer, and that of the table a lookup points at */
	int			told_table;
	DvSum		source;
	DvSum		target;

	/* what the service puts where nothing was sent, learnt from the first rows */
	bool		default_known;
	int			left_out;		/* rows seen before it was known */
	struct DvHeld *held;		/* those of them that hold something */
	bool		default_varies; /* such as automatic numbers */
	char		default_value[64];	/* as written; "" is null */

	/* images: */
	DvFullImage full_image;
	int64		images_not_told;
	struct DvHeld *held_images; /* differ, while it is not known whether they are kept as they were sent */
	int			nheld_images;
} DvVerifyColumn;

/* A file or image of a row. */
typedef struct DvVerifyFile
{
	bool		there;
	bool		wanted;			/* images: it is to be asked for */
	int64		size;
	unsigned char digest[32];	/* SHA-256 */
} DvVerifyFile;

/* A value where nothing was sent, until it is known what the service puts there; an image, until it is known whether it is kept. */
typedef struct DvHeld
{
	struct DvHeld *next;		/* of the column */
	char	   *key;
	pg_uuid_t	id;
	DvSlice		expected;
	DvSlice		found;
	const char *kind;			/* of the row's other differences, or NULL */
	bool		changed_since;
	bool		counted;		/* the row counts as different by now */
} DvHeld;

/* A row and what it maps to. */
typedef struct DvVerifyRow
{
	pg_uuid_t	id;
	bool		has_id;
	char		state;			/* P, S, E, D; G: gone from the staging table */
	bool		created;		/* by a run of ours */
	bool		updated;		/* last by an update, so that nulls were sent */
	bool		has_record;		/* E: its record is known to exist */
	bool		kept;			/* found, and not written by us */
	TimestampTz recorded_at;	/* 0 = not known */
	char	   *key;			/* as text, for people */
	const char *fault;			/* why it maps to nothing, or NULL */
	bool		seen;
	bool		has_right;		/* a link: its right end */
	pg_uuid_t	right;
	bool		linked;			/* it is there */
	bool		untold;			/* that was not told with its left end */
	DvVerifyFile *files;		/* by file column, or NULL */
	DvVerifyFile *images;		/* by image column, or NULL */
	const char *verdict;		/* kind of its differences; NULL: equal so far */
	bool		changed_since;	/* while it has files or images: by another user */
	DvSlice    *expected;		/* by column; p NULL: null */
	signed char *part;			/* by column: which map has a value, or writes a null; -1: none does */
	const DvSlice *told;		/* by member of an answer, while its page is judged */

	DvVersion	version;		/* that was read; of files and a rebuild only */

	/* resend and rebuild: */
	Datum	   *keys;
	unsigned char hash[16];		/* of what it maps to */
	bool		others_equal;	/* columns that are not sent again are as they should be */
	char	   *etag;			/* of the version that was looked at */
	char	   *content;		/* to be sent */
	char	   *image;			/* of a resend: what the chosen columns hold now, as members of a record */
	bool		record;			/* equal: its hash is to be recorded */
	int			looks;			/* times it was looked at again */
} DvVerifyRow;

/* Is there to be a record of it? */
static inline bool
dv_verify_is_loaded(const DvVerifyRow *row)
{
	return row->state == 'P' || row->state == 'S';
}

/* Rows read in one transaction. */
typedef struct DvVerifyChunk
{
	MemoryContext context;
	DvVerifyRow *rows;			/* those with an id first, in its order */
	int			n;
	int			nids;
	int			asks;			/* requests about it that are not answered */
	Size		bytes;			/* what its rows map to */
} DvVerifyChunk;

/* Members that tell who wrote, made and owns a record. */
typedef enum DvVerifyContext
{
	DV_VERIFY_MODIFIED_ON,
	DV_VERIFY_MODIFIED_BY,
	DV_VERIFY_CREATED_BY,
	DV_VERIFY_OWNER,
	DV_VERIFY_CONTEXTS
} DvVerifyContext;

/* A member that a record of an answer may have and that is of use. */
typedef struct DvTold
{
	const char *name;
	size_t		len;
} DvTold;

/* The first of them; those of contexts and columns follow. */
enum
{
	DV_TOLD_NOTHING,			/* no member has it */
	DV_TOLD_ID,
	DV_TOLD_ETAG,
	DV_TOLD_FIRST
};

/* Members of a record, the place of which in it is remembered. */
#define DV_TOLD_PLACES	128

typedef struct DvDifference
{
	char	   *key;
	pg_uuid_t	id;
	bool		has_id;
	const char *column;			/* or NULL */
	char	   *expected;
	char	   *found;
	const char *kind;
} DvDifference;

typedef struct DvVerifyFileAsk DvVerifyFileAsk; /* private to verify_files.c */
typedef struct DvKeyAsk DvKeyAsk;	/* private to verify_keys.c */
typedef struct DvResend DvResend;	/* private to resend.c */
typedef struct DvRebuild DvRebuild; /* private to rebuild.c */

typedef struct DvVerify
{
	DvRunContext *rc;
	DvStepPlan	plan;
	MemoryContext context;
	DvProjection *projection;
	FmgrInfo	key_out[INDEX_MAX_KEYS];	/* output functions of the source key, and the types they are of */
	Oid			key_type[INDEX_MAX_KEYS];
	TupleDesc	desc;			/* the columns below are prepared for it */
	DvPayloadColumn *payload;
	int			ncolumns;
	DvVerifyColumn *columns;
	int		   *part_column;	/* by map: its column, and which of the column's maps it is */
	signed char *part_index;
	DvTold	   *told;			/* what an answer may tell of a record */
	int			ntold;
	int			told_context[DV_VERIFY_CONTEXTS];
	int			told_link;		/* rows are links: the collection of the left end */
	short		told_places[DV_TOLD_PLACES];	/* by place in a record: what the last one had there */
	DvSlice    *told_values;	/* of the records of the page that is judged, by record and member */
	int			told_room;		/* records */
	char	   *select;			/* of a query, percent-encoded where needed */
	char	   *expand;			/* the collection that is read along, or "" */
	bool		expand_refused; /* the service does not tell it */
	char	   *right_id;		/* rows are links: primary key of the right end's table */
	bool		links_refused;	/* nor are they told of one record alone */
	DvVerifyColumn **images;	/* columns whose images are compared */
	int			nimages;
	int			key_column;		/* that carries the source key; -1: none */
	bool		twins_of_all;	/* other records may have it, though the row's is there */
	char	   *twins_sql;		/* which of the ids $1 are those of no row */
	char	   *sample_sql;		/* condition on s, or NULL */
	DvAsker		asker;
	int			rows_per_read;
	DvResend   *resend;			/* columns are sent again where they differ; NULL: only looked at */
	DvRebuild  *rebuild;		/* outcomes are made again of what is found; NULL: not */
	DvStep	   *step;			/* for the hash of a row's content */

	/* where the walk is */
	bool		rows_done;		/* of the staging table */
	bool		gone_done;		/* of outcomes whose row is gone */
	const char *gone_table;		/* outcome table being walked */
	DvWalk		walk;
	SPIPlanPtr	plans[2];		/* of the first read, and of those behind a key */
	int			read_limit;		/* while a row that throws is looked for; 0 = none */
	TimestampTz read_after;

	/* figures */
	int64		requests_before;
	DvUsage		usage_before;
	int64		compared;
	int64		equal;
	int64		missing;
	int64		different;
	int64		extra;
	int64		changed;
	int64		owners_changed;
	int64		uncompared;		/* rows of which nothing was told */
	int64		too_long;		/* records whose answer is longer than any may be */
	int64		listed;			/* differences kept */

	DvDifference *differences;
	int			ndifferences;
	int			max_differences;
	MemoryContext difference_context;
} DvVerify;

/* verify.c: the job, and asking for rows [from, from + n) of a chunk. */
extern void dv_verify_run(DvRunContext *rc);
extern void dv_verify_ask(DvVerify *v, DvVerifyChunk *chunk, int from, int n);
extern void dv_verify_release(DvVerifyChunk *chunk);

/* A GET about the chunk whose answer goes to dv_verify_file_answer(). */
extern DvAsk *dv_verify_new_ask(DvVerify *v, DvVerifyChunk *chunk, DvVerifyFileAsk *file);

/* verify_load.c */
extern void dv_verify_load(DvVerify *v);

/* verify_read.c */

/* The next rows, or NULL where there are none now (see rows_done, gone_done, read_after). */
extern DvVerifyChunk *dv_verify_read(DvVerify *v);
extern void dv_verify_free_plans(DvVerify *v);

/* verify_judge.c: a page of records of rows [from, from + n) of a chunk; false where it was not understood. */
extern bool dv_verify_judge_page(DvVerify *v, DvVerifyChunk *chunk, int from, int n, DvPage *page);

/* Is column i of the row equal, and has another user written the record since we did? */
extern bool dv_verify_is_equal(const DvVerifyColumn *c, const DvVerifyRow *row, int i);
extern bool dv_verify_is_sent(const DvVerifyColumn *c, const DvVerifyRow *row);
extern bool dv_verify_was_sent(const DvVerifyColumn *c, const DvVerifyRow *row);	/* even if it cannot be read back */
extern bool dv_verify_changed_since(const DvVerify *v, const DvVerifyRow *row);

/* What the record holds for a column. */
static inline DvSlice
dv_verify_found(const DvVerifyRow *row, const DvVerifyColumn *c)
{
	return row->told[c->told];
}

/* A difference that was found after the row was judged. */
extern void dv_verify_different_too(DvVerify *v, DvVerifyRow *row, const char *column, DvSlice expected, DvSlice found);

/* Rows whose record no page had. */
extern void dv_verify_judge_unseen(DvVerify *v, DvVerifyChunk *chunk, int from, int n);

/* Rows that cannot be asked for. */
extern void dv_verify_judge_without_id(DvVerify *v, DvVerifyChunk *chunk);

/* verify_default.c: was nothing sent for the column, so that the service could fill it in? Is that what it puts there? */
extern bool dv_verify_was_left_out(const DvVerifyColumn *c, const DvVerifyRow *row, int i);
extern bool dv_verify_is_default(const DvVerifyColumn *c, DvSlice found);

/* Learn that from the records of a page. */
extern void dv_verify_learn(DvVerify *v, DvVerifyRow *const *seen, int n);

/* It is not known yet: hold the value. The kind of the row's other differences, or NULL, once it has been judged. */
extern void dv_verify_hold(DvVerify *v, DvVerifyColumn *c, const DvVerifyRow *row);
extern void dv_verify_held_of(DvVerify *v, const DvVerifyRow *row, const char *kind);

/* What was held is a difference. */
extern void dv_verify_note_held(DvVerify *v, const DvVerifyColumn *c, DvHeld *held);

/* No more rows come: what is held is judged by what there is. */
extern void dv_verify_settle_defaults(DvVerify *v);

/* verify_expand.c: are the parties of these roles ("2,3") the same? Has the collection that link? */
extern bool dv_verify_same_parties(const char *masks, DvSlice expected, DvSlice found);
extern void dv_verify_without_expand(DvVerify *v);

/* Has the record the collections that were asked for with it? Where one has not, none is compared. */
extern bool dv_verify_is_expanded(const DvVerify *v, DvSlice record);

/* The records of a collection as written; false where it is none. */
extern bool dv_verify_open_collection(DvPage *page, DvSlice list);

/* verify_links.c: how links are read, in the transaction that loads the definition. */
extern void dv_verify_load_link(DvVerify *v);

/* The record of the left end is told: is the link with it? */
extern void dv_verify_judge_left(DvVerify *v, DvVerifyRow *row);

/* Of which row, from "from" to "end", links are still to be asked for, and of how many with the same left end; -1: of none. */
extern int	dv_verify_next_untold(const DvVerify *v, const DvVerifyChunk *chunk, int from, int end, int *n);

/* The path of what a left end is linked to; a page of that, false where it is none; and once all of it has come, or none. */
extern void dv_verify_links_path(const DvVerify *v, const DvVerifyRow *row, DvBuf *path);
extern bool dv_verify_links_page(const DvVerify *v, DvVerifyRow *rows, int n, DvPage *page);
extern void dv_verify_judge_links(DvVerify *v, DvVerifyRow *rows, int n);

/* The service does not tell of them: they are not compared. */
extern void dv_verify_refuse_links(DvVerify *v, DvVerifyRow *rows, int n);

/* verify_files.c: files of a chunk's rows, in its transaction; ask for those of the records that were seen. */
extern void dv_verify_read_files(DvVerify *v, DvVerifyChunk *chunk);
extern void dv_verify_ask_files(DvVerify *v, DvVerifyChunk *chunk, int from, int n);

/* The same for images. */
extern void dv_verify_ask_images(DvVerify *v, DvVerifyChunk *chunk, int from, int n);

/* What a file is, in words for people. */
extern char *dv_verify_file_text(const DvVerifyFile *f);

/* False where more of the file is on its way. */
extern bool dv_verify_file_answer(DvVerify *v, DvVerifyFileAsk *file, DvAsk *ask, const DvHttpReply *reply);

/* verify_images.c: of the images among a row's members {"member":value,...} only size and hash are kept. */
extern void dv_verify_digest_images(DvVerify *v, DvVerifyRow *row, StringInfo members, MemoryContext context);

/* The row has been judged: which of its images are to be asked for? */
extern void dv_verify_want_images(DvVerify *v, DvVerifyRow *row);

typedef enum DvImageAnswer
{
	DV_IMAGE_NOT_TOLD,
	DV_IMAGE_EQUAL,
	DV_IMAGE_DIFFERS
} DvImageAnswer;

extern void dv_verify_image_answer(DvVerify *v, DvVerifyColumn *c, DvVerifyRow *row, DvImageAnswer answer, DvSlice expected, DvSlice found);

/* All have been answered: what is held is judged. */
extern void dv_verify_settle_images(DvVerify *v);

/* What of a column of images was not compared, or NULL. */
extern char *dv_verify_images_not_compared(const DvVerifyColumn *c);

/* verify_keys.c: which column carries the source key, in the transaction that loads the definition. */
extern void dv_verify_load_key(DvVerify *v);
extern bool dv_verify_has_key(const DvVerify *v, const DvVerifyRow *row);

/* Ask for the records that carry the keys of these rows, in queries that fit a URL. */
extern void dv_verify_ask_keys(DvVerify *v, DvVerifyChunk *chunk, const int *rows, int n);

/* Called for each record and row with the same key. */
typedef void (*DvKeyFound) (DvKeyAsk *part, int row, const pg_uuid_t *id);

/* False where the answer was no page, or more pages follow. */
extern bool dv_verify_key_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply, DvKeyFound found);
extern DvVerifyChunk *dv_verify_key_rows(const DvKeyAsk *part, const int **rows, int *n);

/* Other records with the key of a row. */
extern void dv_verify_ask_twins(DvVerify *v, DvVerifyChunk *chunk, int from, int n);
extern void dv_verify_twins_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply);

/* resend.c */
extern void dv_resend_begin(DvVerify *v);
extern void dv_resend_judge(DvVerify *v, DvVerifyRow *row, DvSlice etag);
extern void dv_resend_missing(DvVerify *v, DvVerifyRow *row);
extern void dv_resend_send(DvVerify *v, DvVerifyChunk *chunk, int from, int n);
extern void dv_resend_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply);
extern void dv_resend_end(DvVerify *v);

/* rebuild.c */
extern void dv_rebuild_begin(DvVerify *v);
extern void dv_rebuild_load(DvVerify *v);
extern void dv_rebuild_range(DvVerify *v, DvVerifyChunk *chunk, int from, int n);
extern void dv_rebuild_answer(DvVerify *v, DvAsk *ask, const DvHttpReply *reply);
extern void dv_rebuild_end(DvVerify *v);

/* verify_store.c */
extern void dv_verify_note(DvVerify *v, const DvVerifyRow *row, const char *column,
						   DvSlice expected, DvSlice found, const char *kind);
extern void dv_verify_sum(DvVerify *v, DvSum *sum, DvSlice value);

/* The first bytes in hexadecimal digits. */
extern char *dv_verify_hex(const unsigned char *bytes, int n);

/* Store what has been noted, in a short transaction. */
extern void dv_verify_flush(DvVerify *v);
extern void dv_verify_begin_table(DvVerify *v);
extern void dv_verify_end_table(DvVerify *v);

#endif							/* DV_VERIFY_H */
