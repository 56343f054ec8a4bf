/*
 * reply_json.c - the few JSON answers that are read outside the hot path
 */
#include "reply_json.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wiretext.h"

/*
 * Deepest nesting accepted. A record with an expanded lookup is 4 levels deep;
 * json-c recurses when it frees, so that depth costs stack.
 */
#define MAX_DEPTH	16

/* Parse the whole of "body" as one JSON object; NULL for anything else. */
static json_object *
parse_object(const char *body, size_t len)
{
	json_tokener *tokener;
	json_object *object;

	if (body == NULL || len == 0 || len > 0x7ffffff0)
		return NULL;
	tokener = json_tokener_new_ex(MAX_DEPTH);
	if (tokener == NULL)
		return NULL;
	object = json_tokener_parse_ex(tokener, body, (int) len);
	if (object != NULL &&
		(json_tokener_get_error(tokener) != json_tokener_success ||
		 !json_object_is_type(object, json_type_object)))
	{
		json_object_put(object);
		object = NULL;
	}
	/* Only blanks may follow: a cut or doubled answer is not to be believed. */
	for (size_t i = object ? json_tokener_get_parse_end(tokener) : len; i < len; i++)
		if (object != NULL && strchr(" \t\r\n", body[i]) == NULL)
		{
			json_object_put(object);
			object = NULL;
		}
	json_tokener_free(tokener);
	return object;
}

/* A text member, or NULL where it is absent, of another type, or has a NUL inside. */
static const char *
text_member(json_object *object, const char *name)
{
	json_object *member;
	const char *text;

	if (!json_object_object_get_ex(object, name, &member) ||
		!json_object_is_type(member, json_type_string))
		return NULL;
	text = json_object_get_string(member);
	return strlen(text) == (size_t) json_object_get_string_len(member) ? text : NULL;
}

/* A whole number, which some services send as text; 0 where it is neither. */
static long
number_of(json_object *member)
{
	if (json_object_is_type(member, json_type_int))
		return (long) json_object_get_int64(member);
	if (json_object_is_type(member, json_type_string))
		return strtol(json_object_get_string(member), NULL, 10);
	return 0;
}

/* First line of a text, printable characters only, cut at a UTF-8 boundary. */
static void
first_line(char *to, size_t size, const char *from)
{
	size_t		n = 0;

	while (from && n + 1 < size && (unsigned char) from[n] >= 0x20)
	{
		to[n] = from[n];
		n++;
	}
	if (from && ((unsigned char) from[n] & 0xC0) == 0x80)
	{
		while (n > 0 && ((unsigned char) to[n - 1] & 0xC0) == 0x80)
			n--;
		if (n > 0)
			n--;
	}
	to[n] = '\0';
}

/* ---------------------------------------------------------------- token */

/* The AADSTS number: first of error_codes, else from the text. */
static long
token_error_code(json_object *object, const char *description)
{
	json_object *codes;
	const char *p;

	if (json_object_object_get_ex(object, "error_codes", &codes) &&
		json_object_is_type(codes, json_type_array) && json_object_array_length(codes) > 0)
		return number_of(json_object_array_get_idx(codes, 0));
	p = description ? strstr(description, "AADSTS") : NULL;
	return p ? strtol(p + strlen("AADSTS"), NULL, 10) : 0;
}

/* Overwrite a text that json-c is about to free. */
static void
wipe(const char *text)
{
	volatile char *p = (volatile char *) (uintptr_t) text;

	while (p && *p)
		*p++ = '\0';
}

bool
dv_json_token(const char *body, size_t len, DvTokenReply *token)
{
	json_object *object = parse_object(body, len);
	json_object *member;
	const char *text;

	memset(token, 0, sizeof(*token));
	if (object == NULL)
		return false;
	text = text_member(object, "access_token");
	if (text && *text)
	{
		token->access_token = strdup(text);
		wipe(text);
		if (json_object_object_get_ex(object, "expires_in", &member))
			token->expires_in = number_of(member);
	}
	else
	{
		text = text_member(object, "error_description");
		first_line(token->error, sizeof(token->error), text_member(object, "error"));
		first_line(token->description, sizeof(token->description), text);
		token->code = token_error_code(object, text);
	}
	json_object_put(object);
	return true;
}

void
dv_json_token_free(DvTokenReply *token)
{
	wipe(token->access_token);
	free(token->access_token);
	token->access_token = NULL;
}

/* ---------------------------------------------------------------- records */

/* A member that is a GUID, lower-case. */
static bool
guid_member(json_object *object, const char *name, char out[37])
{
	const char *text = text_member(object, name);

	return text != NULL && dv_wiretext_uuid(text, strlen(text), out);
}

bool
dv_json_whoami(const char *body, size_t len, char organisation[37], char user[37],
			   char business_unit[37])
{
	json_object *object = parse_object(body, len);
	bool		ok;

	if (object == NULL)
		return false;
	ok = guid_member(object, "OrganizationId", organisation) &&
		guid_member(object, "UserId", user) &&
		guid_member(object, "BusinessUnitId", business_unit);
	json_object_put(object);
	return ok;
}

/* A column's value as text: texts as they are, numbers and booleans as sent. */
static const char *
value_text(json_object *record, const char *column)
{
	json_object *member;

	if (!json_object_object_get_ex(record, column, &member) || member == NULL)
		return NULL;
	if (json_object_is_type(member, json_type_string))
		return text_member(record, column);
	if (json_object_is_type(member, json_type_object) ||
		json_object_is_type(member, json_type_array))
		return NULL;
	return json_object_to_json_string_ext(member, JSON_C_TO_STRING_PLAIN);
}

/* The array "value" of a page, or NULL. */
static json_object *
page_value(json_object *page)
{
	json_object *value;

	if (page == NULL || !json_object_object_get_ex(page, "value", &value) ||
		!json_object_is_type(value, json_type_array))
		return NULL;
	return value;
}

static bool
page_records(json_object *value, const char *id_column, const char *const *columns,
			 int ncolumns, DvJsonRecord record, void *arg)
{
	const char *values[16];		/* Dataverse allows 16 columns in a key */
	size_t		n = json_object_array_length(value);

	if (ncolumns > (int) (sizeof(values) / sizeof(values[0])))
		return false;
	for (size_t i = 0; i < n; i++)
	{
		json_object *item = json_object_array_get_idx(value, i);
		char		id[37];

		if (!json_object_is_type(item, json_type_object) ||
			!guid_member(item, id_column, id))
			return false;
		for (int c = 0; c < ncolumns; c++)
			values[c] = value_text(item, columns[c]);
		if (!record(arg, id, values))
			return false;
	}
	return true;
}

bool
dv_json_page(const char *body, size_t len, const char *id_column,
			 const char *const *columns, int ncolumns,
			 DvJsonRecord record, void *arg, char **next_link)
{
	json_object *page = parse_object(body, len);
	json_object *value = page_value(page);
	const char *link;
	bool		ok;

	*next_link = NULL;
	ok = value != NULL && page_records(value, id_column, columns, ncolumns, record, arg);
	link = ok ? text_member(page, "@odata.nextLink") : NULL;
	if (link)
	{
		*next_link = strdup(link);
		ok = *next_link != NULL;
	}
	if (page)
		json_object_put(page);
	return ok;
}

bool
dv_json_has_list(const char *body, size_t len, const char *member)
{
	json_object *object = parse_object(body, len);
	json_object *item = object;
	json_object *list;
	bool		has;

	if (object == NULL)
		return false;
	/* a definition by its name comes alone, or as the only member of a list */
	if (member != NULL && !json_object_object_get_ex(object, member, &list) && page_value(object) != NULL &&
		json_object_array_length(page_value(object)) == 1)
		item = json_object_array_get_idx(page_value(object), 0);
	has = member == NULL ||
		(json_object_object_get_ex(item, member, &list) && json_object_is_type(list, json_type_array));
	json_object_put(object);
	return has;
}
