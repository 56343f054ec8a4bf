/*
 * request.h - one operation on its way through the simulator, and its answer
 *
 * An HTTP request and a part of a $batch look the same from here on.
 */
#ifndef SIM_REQUEST_H
#define SIM_REQUEST_H

#include "error.h"
#include "store.h"

#define SIM_API_PATH "/api/data/v9."

typedef struct SimHeader
{
	const char *name;
	const char *value;
} SimHeader;

typedef struct SimSegment
{
	SimStr		name;			/* decoded */
	bool		has_key;
	SimStr		key;			/* decoded text between the parentheses */
} SimSegment;

#define SIM_MAX_SEGMENTS 8
#define SIM_MAX_OPTIONS 24

typedef struct SimOptionPair
{
	const char *name;			/* decoded, NUL terminated */
	const char *value;
} SimOptionPair;

/* A URL below /api/data/v9.x/, taken apart. */
typedef struct SimPath
{
	SimSegment	seg[SIM_MAX_SEGMENTS];
	int			n;
	SimOptionPair options[SIM_MAX_OPTIONS];
	int			n_options;
} SimPath;

/* What Content-ID references stand for, within one change set. */
typedef struct SimContentId
{
	char		id[40];
	SimTable   *table;
	SimGuid		guid;
} SimContentId;

typedef struct SimContentIds
{
	SimContentId *items;
	int			n;
	int			cap;
} SimContentIds;

typedef struct SimReq
{
	const char *method;
	const char *uri;			/* raw, with query */
	SimHeader  *headers;
	int			n_headers;
	char	   *body;			/* body[len] is NUL; reading changes it */
	size_t		len;
	SimArena   *arena;
	const char *origin;			/* http://127.0.0.1:port */
	SimPath		path;
	SimGuid		user;			/* whose rights and name count */
	SimGuid		caller;			/* the application user */
	bool		impersonated;
	SimTxn	   *txn;			/* of the change set, or NULL */
	SimContentIds *content_ids;	/* or NULL */
	SimStr		content_id;		/* of this part */
	bool		in_batch;
	uintptr_t	connection;		/* its number */
	uint64_t	rows;			/* rows of work done, for simulated time */
} SimReq;

typedef struct SimResp
{
	int			status;
	SimBuf		headers;		/* "Name: value\r\n" lines */
	SimBuf		body;
	const char *content_type;	/* NULL: the JSON default where there is a body */
	SimErr		err;
} SimResp;

/* Value of a header without regard to case, or NULL. */
extern const char *sim_req_header(const SimReq *r, const char *name);

/* Whether any Prefer header has this preference. */
extern bool sim_req_prefers(const SimReq *r, const char *what);

/* Number of a preference such as odata.maxpagesize=10, or 0. */
extern long sim_req_prefer_number(const SimReq *r, const char *what);

/* Value of a query option such as $select, or NULL. */
extern const char *sim_path_option(const SimPath *p, const char *name);

/* Take a raw URL apart; false with "e" filled when it is malformed. */
extern bool sim_path_parse(SimArena *a, const char *uri, SimPath *out, SimErr *e);

/* Add a response header line. */
extern void sim_resp_header(SimResp *r, const char *name, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));

/* Write the error object of resp->err as the answer; annotations when asked. */
extern void sim_resp_error(const SimReq *r, SimResp *resp);

extern void sim_resp_free(SimResp *r);

/* Find a Content-ID reference such as $1; NULL when it does not exist. */
extern const SimContentId *sim_content_find(const SimReq *r, SimStr ref);
extern void sim_content_free(SimContentIds *ids);
extern void sim_content_set(SimReq *r, SimTable *t, SimGuid id);

/* Run one operation: the router. Always fills resp. */
extern void sim_dispatch(SimReq *r, SimResp *resp);

#endif							/* SIM_REQUEST_H */
