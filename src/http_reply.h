/*
 * http_reply.h - replies as http.c keeps them
 *
 * A reply is malloc'ed, because libcurl's callbacks fill it, and linked to
 * the multi handle it came from, so that one which an error made its owner
 * forget is freed with that handle.
 */
#ifndef DV_HTTP_REPLY_H
#define DV_HTTP_REPLY_H

#include "http.h"

typedef struct DvReplyBox
{
	DvHttpReply reply;			/* first, so that a reply is its box */
	void	   *owner;
	struct DvReplyBox *next;
	struct DvReplyBox **link;	/* what points here, once handed out */
} DvReplyBox;

/* A new, empty reply; NULL when memory ran out. */
extern DvReplyBox *dv_reply_create(void);

/* Free a reply that was not handed out; NULL is fine. */
extern void dv_reply_destroy(DvReplyBox *box);

/* Link a reply into a list of those that callers hold. */
extern void dv_reply_hand_out(DvReplyBox *box, DvReplyBox **list);

/*
 * What libcurl calls with a piece of the body, or with one header line (not
 * NUL-terminated); arg is the box. They neither throw nor allocate without
 * bound, and return how much they took: less ends the transfer.
 */
extern size_t dv_reply_on_body(char *data, size_t size, size_t n, void *arg);
extern size_t dv_reply_on_header(char *data, size_t size, size_t n, void *arg);

#endif							/* DV_HTTP_REPLY_H */
