/*
 * http_transfer.h - one request on its way: a libcurl handle, and what must live as long as it
 *
 * For http.c alone, which owns the multi handle that transfers are added to.
 */
#ifndef DV_HTTP_TRANSFER_H
#define DV_HTTP_TRANSFER_H

#include <curl/curl.h>

#include "http.h"
#include "http_reply.h"

typedef struct DvTransfer
{
	CURL	   *easy;
	struct curl_slist *headers;
	DvReplyBox *box;
	void	   *owner;
	bool		write;			/* anything but GET */
	bool		sent;			/* the request may have left this machine */
	bool		replay_refused; /* libcurl wanted to send it a second time */
	char		error[CURL_ERROR_SIZE];
	struct DvTransfer *next;	/* active or free list */
	struct DvTransfer *prev;	/* active list only */
} DvTransfer;

/* A transfer without a reply to write to; NULL when memory ran out. */
extern DvTransfer *dv_transfer_create(void);

/* Make it carry this request, into the reply in "box". False where libcurl does not accept it. */
extern bool dv_transfer_prepare(DvTransfer *t, const DvHttpRequest *request);

/* Bytes of the body that its connection has taken. */
extern curl_off_t dv_transfer_uploaded(const DvTransfer *t);

/* libcurl is done with it: what came of it goes to its reply. */
extern void dv_transfer_finish(DvTransfer *t, CURLcode code);

/* Make it ready for another request. */
extern void dv_transfer_clear(DvTransfer *t);

/* End it. Not while it is part of a multi handle. */
extern void dv_transfer_destroy(DvTransfer *t);

#endif							/* DV_HTTP_TRANSFER_H */
