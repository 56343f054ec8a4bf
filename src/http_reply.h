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

/*
 * Most bytes of an answer, after decompression. The longest that are wanted:
 * a page of 5,000 records with a few columns (about 1 MB), the choices of a
 * large table in all its languages (about 4 MB), a $batch of 1,000 refusals
 * with a plug-in's trace of several kB each. More is a broken or hostile
 * server, and must not take the memory of a database server.
 */
#define DV_REPLY_LIMIT	((size_t) 16 * 1024 * 1024)

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
