/*
 * json.h - a pull parser that reads JSON where it lies, and a writer's helpers
 *
 * Bulk bodies are the simulator's hot path: no tree is built. Strings are
 * unescaped in place, so the body is changed by reading it. The byte behind
 * the body must exist and be NUL.
 */
#ifndef SIM_JSON_H
#define SIM_JSON_H

#include "util.h"

typedef enum SimJsonKind
{
	SIM_JSON_BAD,
	SIM_JSON_NULL,
	SIM_JSON_TRUE,
	SIM_JSON_FALSE,
	SIM_JSON_NUMBER,
	SIM_JSON_STRING,
	SIM_JSON_OBJECT,
	SIM_JSON_ARRAY
} SimJsonKind;

typedef struct SimJson
{
	char	   *p;				/* next byte */
	char	   *end;
	char	   *start;
	const char *error;			/* first syntax error, or NULL */
} SimJson;

/* A scalar as read: text of a string (unescaped) or of a number. */
typedef struct SimScalar
{
	SimJsonKind kind;
	SimStr		text;
	uint32_t	units;			/* length of a string in UTF-16 units */
	bool		ascii;
	bool		integral;		/* a number without point and exponent */
} SimScalar;

/* Begin to read n bytes at p; p[n] must be NUL. A byte order mark is skipped. */
extern void sim_json_begin(SimJson *j, char *p, size_t n);

/* Kind of the next value, without reading it. */
extern SimJsonKind sim_json_peek(SimJson *j);

/* Read null, true, false, a number or a string; false on anything else. */
extern bool sim_json_scalar(SimJson *j, SimScalar *out);

/* Read a string only. */
extern bool sim_json_string(SimJson *j, SimScalar *out);

/* Read past one value of any kind. */
extern bool sim_json_skip(SimJson *j);

/*
 * Walk an object: enter, then next_member until it returns false. At the end
 * "error" tells the closing brace from broken input. "first" must be true
 * before the first call and is kept by the parser afterwards.
 */
extern bool sim_json_enter(SimJson *j, char bracket);
extern bool sim_json_next_member(SimJson *j, bool *first, SimScalar *name);
extern bool sim_json_next_element(SimJson *j, bool *first);

/* True when nothing but blanks is left. */
extern bool sim_json_at_end(SimJson *j);

/* Append text as a JSON string with its quotes. */
extern void sim_json_put_text(SimBuf *b, const char *s, size_t len);
extern void sim_json_put(SimBuf *b, const char *s);

#endif							/* SIM_JSON_H */
