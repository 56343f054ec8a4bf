/*
 * reply_json.h - the few JSON answers that are read outside the hot path
 *
 * Tokens, WhoAmI, and pages of records. A file of its own because json-c and
 * PostgreSQL both have something named json_object; no PostgreSQL types here,
 * so that it can be fuzzed. Every answer is hostile: members may be missing
 * or of another type, texts may be of any length.
 */
#ifndef DV_REPLY_JSON_H
#define DV_REPLY_JSON_H

#include <stdbool.h>
#include <stddef.h>

typedef struct DvTokenReply
{
	char	   *access_token;	/* malloc'ed; NULL where refused */
	long		expires_in;		/* seconds; 0 where not given */
	char		error[64];		/* OAuth error, e.g. invalid_client; "" where none */
	long		code;			/* AADSTS number; 0 where not given */
	char		description[256];	/* first line of the service's explanation */
} DvTokenReply;

/* False where the answer is no JSON object. Free with dv_json_token_free(). */
extern bool dv_json_token(const char *body, size_t len, DvTokenReply *token);
extern void dv_json_token_free(DvTokenReply *token);

/* Ids of a WhoAmI answer, lower-case; false unless all three are GUIDs. */
extern bool dv_json_whoami(const char *body, size_t len, char organisation[37],
						   char user[37], char business_unit[37]);

/*
 * One record of a page: its id, and the key columns as text (NULL for null).
 * The texts live as long as the page.
 */
typedef bool (*DvJsonRecord) (void *arg, const char *id, const char *const *values);

/*
 * Call "record" for every record of {"value":[...]}; it returns false to stop
 * (out of memory). Records without a valid id are an error. On success
 * *next_link is the malloc'ed address of the next page, or NULL. False where
 * the answer is not such a page, or "record" said so.
 */
extern bool dv_json_page(const char *body, size_t len, const char *id_column,
						 const char *const *columns, int ncolumns,
						 DvJsonRecord record, void *arg, char **next_link);

/* True where "body" is one JSON object of bearable depth, and nothing else, with that member (NULL: any), a list; or with "value", a list of one such object. */
extern bool dv_json_has_list(const char *body, size_t len, const char *member);

#endif							/* DV_REPLY_JSON_H */
