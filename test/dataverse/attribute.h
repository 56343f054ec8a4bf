/*
 * attribute.h - selections over metadata properties, and columns as metadata
 */
#ifndef SIM_ATTRIBUTE_H
#define SIM_ATTRIBUTE_H

#include "request.h"

/* A $select and $expand while an object is written. */
typedef struct SimPick
{
	SimArena   *arena;
	const char *select;			/* NULL: everything */
	const char *expand;
	int			wanted;			/* names in the selection */
	int			offered;		/* of them, how many were written */
	SimErr	   *e;
} SimPick;

extern SimPick sim_pick_begin(SimArena *a, const char *select, const char *expand, SimErr *e);

/* Begin a member when it is selected: comma, name, colon. */
extern bool sim_pick(SimBuf *b, SimPick *p, const char *name);
extern void sim_pick_text(SimBuf *b, SimPick *p, const char *name, const char *value);
extern void sim_pick_raw(SimBuf *b, SimPick *p, const char *name, const char *json);
extern void sim_pick_bool(SimBuf *b, SimPick *p, const char *name, bool value);

/* A text member that is written whatever is selected. */
extern void sim_pick_always(SimBuf *b, SimPick *p, const char *name, const char *value);

/* False with an error when the selection names what "type" does not have. */
extern bool sim_pick_check(SimPick *p, const char *type);

/* Length of the first item of an $expand list; an option inside its parentheses. */
extern size_t sim_pick_item(const char *list);
extern const char *sim_pick_option(SimArena *a, const char *item, size_t name_len, size_t len, const char *option);

/* A Label structure with one language. */
extern void sim_put_label(SimBuf *b, const char *text);

/* A fixed id made of names. */
extern SimGuid sim_metadata_id(const char *table, const char *name);

/* Is this segment Microsoft.Dynamics.CRM.<Type>AttributeMetadata? */
extern bool sim_attribute_cast(SimStr segment);

/* The columns of a table as metadata, narrowed by a cast and a $filter. */
extern void sim_put_attributes(SimBuf *b, SimPick *p, const SimTable *t, const SimSegment *cast, const char *filter);

/* One column: Attributes(LogicalName='x')[/cast]. */
extern bool sim_put_one_attribute(SimBuf *b, SimReq *r, SimPick *p, const SimTable *t, SimStr key, const SimSegment *cast, SimErr *e);

#endif							/* SIM_ATTRIBUTE_H */
