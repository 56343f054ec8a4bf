/*
 * wire.h - rows to requests, and replies to verdicts
 *
 * Knows the shapes of Dataverse's Web API: bulk messages, $batch, and reading
 * ids back. Knows neither PostgreSQL nor libcurl.
 */
#ifndef DV_WIRE_H
#define DV_WIRE_H

#include "buf.h"
#include "verdict.h"

/* Header line of a read: lookups tell the table that they point at by an annotation. */
#define DV_WIRE_PREFER_LOOKUP_TABLES	"Prefer: odata.include-annotations=\"Microsoft.Dynamics.CRM.lookuplogicalname\""

typedef struct DvWireTable
{
	const char *logical_name;	/* account */
	const char *entity_set;		/* accounts */
	const char *primary_id;		/* accountid */
	const char *api_path;		/* /api/data/v9.2 (no trailing slash) */
	const char *api_url;		/* https://host/api/data/v9.2 */
	const char *caller_header;	/* names the user that a row is written as; or NULL */
	const char *also;			/* more members that reading ids back brings, between commas; or NULL */
	bool		with_state;		/* reading ids back brings the state too */
	bool		with_creator;	/* and who created the record, and when */
	const char *part_headers;	/* extra header lines of every $batch part, each
								 * ended by CRLF, or ""; what a bulk request
								 * needs of them, its sender adds */
} DvWireTable;

typedef struct DvWireRow
{
	char		op;				/* 'I' create, 'U' update, 'D' delete */
	char		id[37];			/* lower-case uuid; "" where Dataverse makes it */
	const char *key;			/* ids => platform: alternate key as a filter,
								 * percent-encoded, e.g. new_code%20eq%20%27A%27;
								 * else NULL. An id, once known, goes before it. */
	const char *content;		/* JSON members without braces: "name":"A","x":1;
								 * without the primary id */
	size_t		content_len;
	char		caller[37];		/* the user it is written as, or "" */
	const char *method;			/* an operation of another kind than those of
								 * "op": its method, its path below api_path, and
								 * "content" as its whole body; else NULL. Never
								 * in a bulk message */
	const char *path;
	const char *reopen;			/* JSON that opens a closed record: then the row
								 * is a change set of three, which opens it,
								 * updates it, and closes it again by: */
	const char *close_method;
	const char *close_path;
	const char *close_content;
	const char *etag;			/* 'U' or 'D' in a $batch: this version only; NULL: whatever is there */
} DvWireRow;

/* The answer, as the transport hands it over. */
typedef struct DvWireReply
{
	int			status;			/* HTTP status */
	const char *content_type;	/* or NULL */
	const char *request_id;		/* or NULL */
	long		retry_after_ms;	/* -1 where absent */
	const char *body;			/* may be NULL if len is 0; need not end in NUL */
	size_t		len;
} DvWireReply;

/* How a read-back found one row. */
typedef struct DvWireFound
{
	bool		found;
	char		modified_by[37];	/* "" where not read */
	char		modified_on[40];	/* as sent */
	char		created_by[37];
	char		created_on[40];
	char		id[37];
	int			state;			/* statecode and statuscode; -1 where not read */
	int			status;
} DvWireFound;

/*
 * Build a bulk request: CreateMultiple where rows are 'I', UpdateMultiple
 * where they are 'U' (all rows of one request have the same op). Appends the
 * path below api_path to "path" and the JSON body to "body". Where the
 * content of each row is in it goes to content_at[0..n-1], unless that is NULL.
 * False only when memory ran out.
 */
extern bool dv_wire_bulk(DvBuf *path, DvBuf *body, const DvWireTable *table,
						 const DvWireRow *const *rows, int n, size_t *content_at);

/*
 * Verdicts of a bulk reply into v[0..n-1]. A success whose ids are not
 * exactly ours in our order settles every row; a refusal gives every row the
 * same verdict (the protocol does not say which row was bad). Where a row has
 * no id of its own, ids_out[i] (37 bytes each) receives the one Dataverse made,
 * else "". ids_out may be NULL.
 */
extern void dv_wire_bulk_reply(const DvWireReply *reply, const DvWireRow *const *rows,
							   int n, DvVerdict *v, char (*ids_out)[37]);

/*
 * Build a $batch of single operations: POST, PATCH with If-Match, DELETE, or
 * what a row says itself. Only the three that reopen a record are a change set.
 * The boundary must not occur in the rows: the caller gives a random one. The
 * request needs "Prefer: odata.continue-on-error" and the content type
 * multipart/mixed with that boundary.
 */
extern bool dv_wire_batch(DvBuf *body, const DvWireTable *table, const char *boundary,
						  const DvWireRow *const *rows, int n);

/*
 * Verdicts of a $batch reply. Parts come in the order of the operations; a
 * missing, cut or unreadable part settles its row; without the closing
 * delimiter nothing after the last complete part is believed. If a complete
 * answer has not as many parts as operations, the order proves nothing and
 * only successes that name our own ids count.
 *
 * A $batch that was refused as a whole gives all rows one verdict. Where any of
 * its operations may be to blame and there are several, that is DV_SHRINK, so
 * that innocent rows are not recorded as failed.
 *
 * ids_out as above; it stays "" too where the answer names a record without an
 * id of its own by its key (the record is there, its id is to be read by key).
 */
extern void dv_wire_batch_reply(const DvWireReply *reply, const DvWireRow *const *rows,
								int n, DvVerdict *v, char (*ids_out)[37]);

/*
 * Build the read-back of n ids: a GET path with Microsoft.Dynamics.CRM.In,
 * selecting the primary id, who wrote it when, and what the table asks for. At most
 * DV_WIRE_FIND_MAX rows, so that the URL stays under 32,768 characters (each
 * takes 43) and the answer far below a page of 5,000; false with more. Rows
 * without an id cannot be asked for, so of those absence is no proof.
 */
#define DV_WIRE_FIND_MAX	400
extern bool dv_wire_find(DvBuf *path, const DvWireTable *table,
						 const DvWireRow *const *rows, int n);

/*
 * Read its reply: found[i] for every row. Returns DV_DONE when the whole
 * answer was understood (and then absence is proof), else what to do with the
 * read itself (DV_WAIT, DV_RETRY, DV_SHRINK: ask for fewer, DV_FAIL_RUN), with
 * "v" telling why; every found[i] then says "not found" and means nothing.
 */
extern DvVerdictKind dv_wire_find_reply(const DvWireReply *reply, const DvWireRow *const *rows,
										int n, DvWireFound *found, DvVerdict *v);

/*
 * The same for rows of which some have no id yet: a $batch of queries, one per
 * row, by its key. Its answers are taken by their place.
 */
extern bool dv_wire_find_each(DvBuf *body, const DvWireTable *table, const char *boundary,
							  const DvWireRow *const *rows, int n);
extern DvVerdictKind dv_wire_find_each_reply(const DvWireReply *reply, int n,
											 DvWireFound *found, DvVerdict *v);

/* Inside wire_*.c: the columns that both ways of reading back ask for, each behind a comma. */
extern void dv_wire_put_found_columns(DvBuf *out, const DvWireTable *table);

/*
 * Error object of any reply (JSON error, bare Message, title of a page, plain
 * text) into *v, classified. Never a success: a reply below 400 settles.
 */
extern void dv_wire_error(const DvWireReply *reply, char op, bool single, DvVerdict *v);

#endif							/* DV_WIRE_H */
