/*
 * switches.h - everything the public documents leave open, as settings
 *
 * A profile (strict, lenient, odd) is a combination; --set and /_sim/set
 * change single switches. Numbers are read without a lock.
 */
#ifndef SIM_SWITCHES_H
#define SIM_SWITCHES_H

#include "util.h"

enum {SIM_REFUSED, SIM_ACCEPTED, SIM_IGNORED, SIM_BY_TABLE};
enum {SIM_KEY_CASE_INSENSITIVE, SIM_KEY_CASE_SENSITIVE};
enum {SIM_SPREAD, SIM_STICKY};
enum {SIM_HERE, SIM_LEFT_OUT, SIM_ELSEWHERE};
enum {SIM_ALONE, SIM_LISTED};
enum {SIM_REPLAY_DUPLICATE, SIM_REPLAY_KEY, SIM_REPLAY_INDEX};

typedef struct SimSwitches
{
	/* what the documents leave open */
	int			replay_code;	/* own id sent again: SIM_REPLAY_* */
	int			missing_target;	/* status for a lookup to nothing: 400 or 404 */
	int			state_at_create;	/* a state other than the default in a create */
	int			noupdate_column;	/* create-only column in an update */
	int			readonly_column;	/* column that can never be written */
	int			same_request_parent;	/* lookup to an earlier row of one CreateMultiple */
	int			batch_headers;	/* outer headers of a $batch reach its parts */
	int			batch_earlier_parts;	/* a stopped $batch shows the parts before */
	int			changeset_continue;	/* continue-on-error goes on after a change set */
	int			key_case;
	int			key_blanks;		/* blanks at the end of text in alternate keys: 0 ignored, 1 significant */
	int			key_special;	/* special characters in key URLs */
	int			key_special_body;	/* the same in @odata.id and @odata.bind of bodies */
	int			update_odata_id;	/* UpdateMultiple takes @odata.id */
	int			connections;	/* one web server per connection, or any */
	int			html_errors;	/* gateway errors have HTML bodies */
	int			ids_shuffled;	/* order of Ids in a CreateMultiple answer */
	int			naive_time;		/* time without Z or offset */
	int			date_only_time;	/* time part in a date-only column */
	int			string_numbers;	/* "5" for a number */
	int			empty_text_null;	/* "" is stored as null */
	int			missing_odata_headers;	/* OData-Version and Content-Type are refused when missing */
	int			range_code;		/* 0: choice code, 1: 0x80044330 */
	int			min_year;		/* 1753 or 1900 */
	int			delete_referenced;	/* delete of a record that others point at */
	int			user_create;	/* users can be created through the API */
	int			bypass_privilege;	/* the bypass headers are allowed */
	int			created_on_privilege;	/* overriddencreatedon is allowed */
	int			bulk_warmup;	/* parallel first bulk requests of a table fail with 3732 */
	int			entityid_on_update;	/* OData-EntityId on a PATCH by id */

	/* service */
	int			token_lifetime;	/* s */
	int			servers;
	int			dop_hint;
	int			page_most;		/* records a page, whatever the client prefers; 0: 5,000 */
	int			limit_requests;	/* per user, server and window; 0: off */
	int			limit_time;		/* ms of execution per window; 0: off */
	int			limit_concurrent;	/* 0: off */
	int			limit_window;	/* s */
	int			retry_after;	/* s, least */
	int			latency;		/* ms added to every request */
	int			row_time;		/* us of work for every row of a write */
	int			slow_factor;
	int			sql_timeout;	/* ms; a bulk request that needs longer is refused; 0: off */
	int			max_body;		/* bytes; more is answered 413 */
	int			cookies;
	int			definition;		/* of one table: the answer, or the only member of a list */
	int			collections;	/* that were asked for with records: in them, left out, or behind a link */

	char		static_token[128];	/* accepted without the token endpoint; "" none */
	char		automation[512];	/* table.column=value: set after every create */
	char		deny_owner[64];	/* user or team that may not own records */
	char		slow_table[64];	/* logical name: its rows take slow_factor times as long */
	char		deny_privilege[96];	/* a privilege that nobody has, such as prvCreateContact */
} SimSwitches;

extern SimSwitches sim_sw;

/* How many rows' work a row of this table is. */
extern int	sim_switch_weight(const char *table);

/* Set all switches as a profile says; false when there is no such profile. */
extern bool sim_switches_profile(const char *name);

/* Set one switch from text; false when name or value is unknown. */
extern bool sim_switch_set(const char *name, size_t name_len, const char *value);

/* All switches with their values as a JSON object. */
extern void sim_switches_json(SimBuf *out);

#endif							/* SIM_SWITCHES_H */
