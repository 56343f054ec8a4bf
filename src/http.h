/*
 * http.h - many requests in flight on one libcurl multi handle
 *
 * Only http*.c sees libcurl. Everything here is called without a transaction,
 * snapshot or lock held, except from short calls (whoami, metadata).
 */
#ifndef DV_HTTP_H
#define DV_HTTP_H

#include "buf.h"

/*
 * Most bytes of an answer, after decompression. The longest that are wanted:
 * a page of 5,000 records with a few columns (about 1 MB), the choices of a
 * large table in all its languages (about 4 MB), a $batch of 1,000 refusals
 * with a plug-in's trace of several kB each. More is a broken or hostile
 * server, and must not take the memory of a database server.
 */
#define DV_REPLY_LIMIT	((size_t) 16 * 1024 * 1024)

typedef enum DvTransport
{
	DV_HTTP_ANSWERED,			/* a complete HTTP answer */
	DV_HTTP_NOT_SENT,			/* nothing of it can have reached the service */
	DV_HTTP_UNKNOWN				/* sent at least in part; no complete answer */
} DvTransport;

typedef struct DvHttpReply
{
	DvTransport transport;
	bool		tls_error;		/* certificate or host name refused */
	long		status;
	DvBuf		body;
	char		content_type[128];
	char		request_id[48];	/* REQ_ID, else x-ms-service-request-id */
	char		date[64];		/* Date header */
	char		location[2048];	/* Location header; empty where absent or longer */
	long		retry_after_ms; /* -1 where absent */
	int			dop_hint;		/* x-ms-dop-hint; 0 where absent */
	double		seconds;		/* from send to last byte */
	char		error[256];		/* libcurl's text where not answered */
	bool		no_token;		/* made by session.c: no token was to be had */
} DvHttpReply;

typedef struct DvHttpRequest
{
	const char *method;			/* GET, POST, PATCH, DELETE, PUT */
	const char *url;			/* copied */
	const char *body;			/* must live until the reply; NULL for none */
	size_t		body_len;
	const char *const *headers; /* "Name: value", NULL-terminated; copied */
	const char *ca_file;		/* or NULL for the system's */
	long		timeout_ms;
	bool		plain_http_ok;	/* loopback only; checked by the caller */
	void	   *owner;			/* handed back with the reply */
} DvHttpRequest;

typedef struct DvHttp DvHttp;

/* Open a multi handle; closed with the memory context it is opened in. */
extern DvHttp *dv_http_open(void);

/* Put a request on its way. Throws only when memory runs out. */
extern void dv_http_send(DvHttp *http, const DvHttpRequest *request);

/*
 * Wait at most timeout_ms for a reply, with CHECK_FOR_INTERRUPTS at least
 * every 100 ms, and returns early when the process latch is set. Returns NULL
 * at time-out. The reply is the caller's: dv_http_reply_free().
 */
extern DvHttpReply *dv_http_poll(DvHttp *http, long timeout_ms, void **owner);
extern void dv_http_reply_free(DvHttpReply *reply);

/*
 * An empty reply for a request that was never handed to dv_http_send(); the
 * caller fills it in. Replies that nobody freed go with the multi handle.
 */
extern DvHttpReply *dv_http_make_reply(DvHttp *http);

/* Drop every request on its way (their outcome is unknown). */
extern void dv_http_abandon(DvHttp *http);

#endif							/* DV_HTTP_H */
