/*
 * reply.c - the JSON that Dataverse answers with
 *
 * Includes no PostgreSQL header: json-c and the server both declare names that
 * begin with json_object.
 */
#include <limits.h>
#include <string.h>

#include <json-c/json.h>

#include "reply.h"
#include "wiretext.h"

/* Error objects nest three deep, with inner errors some more; records two. */
#define DEPTH_MAX		16

/*
 * json-c needs about thirty times the memory of the text it reads, so the text
 * is bounded first: 1 MB for an error, which may carry a trace; else a fixed
 * part for the context and a share for every row.
 */
#define ERROR_BYTES_MAX	(1024 * 1024)
#define FIXED_BYTES		(64 * 1024)
#define ID_BYTES		128
#define RECORD_BYTES	4096

/* Parse text that is one JSON object; the caller gives it back. */
static json_object *
parse_object(const char *body, size_t len, size_t max)
{
	json_tokener *tokener;
	json_object *root;
	size_t		used;

	/* A byte order mark is no part of JSON, but some proxies write one. */
	if (len >= 3 && memcmp(body, "\xEF\xBB\xBF", 3) == 0)
	{
		body += 3;
		len -= 3;
	}
	dv_wiretext_trim(&body, &len);
	if (len == 0 || len > max || len > INT_MAX || body[0] != '{')
		return NULL;
	tokener = json_tokener_new_ex(DEPTH_MAX);
	if (tokener == NULL)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	root = json_tokener_parse_ex(tokener, body, (int) len);
	used = json_tokener_get_parse_end(tokener);
	if (root != NULL &&
		(json_tokener_get_error(tokener) != json_tokener_success || used != len ||
		 !json_object_is_type(root, json_type_object)))
	{
		json_object_put(root);
		root = NULL;
	}
	json_tokener_free(tokener);
	return root;
}

/* A member that is a string, or NULL; its length in *len. */
static const char *
string_member(json_object *object, const char *name, size_t *len)
{
	json_object *value;

	*len = 0;
	if (!json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, json_type_string))
		return NULL;
	*len = (size_t) json_object_get_string_len(value);
	return json_object_get_string(value);
}

/* A member that is a whole number from 0 on; else -1. */
static int
number_member(json_object *object, const char *name)
{
	json_object *value;

	if (!json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, json_type_int))
		return -1;
	return json_object_get_int(value);
}

static bool
take_message(json_object *object, const char *name, DvVerdict *v)
{
	size_t		len;
	const char *text = string_member(object, name, &len);

	if (text == NULL)
		return false;
	dv_wiretext_copy(v->message, sizeof(v->message), text, len);
	return true;
}

/* The object under "error": code, and a message that may be an object itself. */
static bool
take_error(json_object *error, DvVerdict *v)
{
	json_object *message;
	const char *code;
	size_t		len;

	code = string_member(error, "code", &len);
	if (code != NULL)
		dv_wiretext_ascii(v->code, sizeof(v->code), code, len);
	if (take_message(error, "message", v))
		return true;
	if (json_object_object_get_ex(error, "message", &message) && json_object_is_type(message, json_type_object))
		return take_message(message, "value", v);
	return code != NULL;
}

bool
dv_reply_error(const char *body, size_t len, DvVerdict *v)
{
	json_object *root = parse_object(body, len, ERROR_BYTES_MAX);
	json_object *error;
	bool		found = false;

	v->code[0] = '\0';
	v->message[0] = '\0';
	if (root == NULL)
		return false;
	if (json_object_object_get_ex(root, "error", &error) && json_object_is_type(error, json_type_object))
		found = take_error(error, v);
	if (!found)
		found = take_message(root, "Message", v) || take_message(root, "message", v);
	json_object_put(root);
	return found;
}

bool
dv_reply_ids(const char *body, size_t len, int n, char (*ids)[37])
{
	json_object *root = parse_object(body, len, FIXED_BYTES + (size_t) n * ID_BYTES);
	json_object *list;
	json_object *error;
	bool		ok;
	int			i;

	if (root == NULL)
		return false;
	ok = json_object_object_get_ex(root, "Ids", &list) && json_object_is_type(list, json_type_array) &&
		json_object_array_length(list) == (size_t) n && !json_object_object_get_ex(root, "error", &error);
	for (i = 0; ok && i < n; i++)
	{
		json_object *id = json_object_array_get_idx(list, (size_t) i);

		ok = json_object_is_type(id, json_type_string) &&
			dv_wiretext_uuid(json_object_get_string(id), (size_t) json_object_get_string_len(id), ids[i]);
	}
	json_object_put(root);
	return ok;
}

/*
 * The primary id of a record. Its member is not known by name here, but a
 * query that selects nothing else has one plain member that is a uuid.
 */
static bool
take_id(json_object *record, char id[37])
{
	bool		found = false;

	json_object_object_foreach(record, name, value)
	{
		char		uuid[37];

		if (name[0] == '_' || strchr(name, '@') != NULL || !json_object_is_type(value, json_type_string) ||
			!dv_wiretext_uuid(json_object_get_string(value), (size_t) json_object_get_string_len(value), uuid))
			continue;
		if (found)
			return false;
		memcpy(id, uuid, sizeof(uuid));
		found = true;
	}
	return found;
}

/* Who and when; false where "who" is there and no uuid. */
static bool
take_author(json_object *record, const char *by, char uuid[37], const char *on, char *when, size_t size)
{
	size_t		len;
	const char *text = string_member(record, by, &len);

	if (text != NULL && !dv_wiretext_uuid(text, len, uuid))
		return false;
	text = string_member(record, on, &len);
	if (text != NULL)
		dv_wiretext_ascii(when, size, text, len);
	return true;
}

static bool
take_record(json_object *record, DvWireFound *out)
{
	memset(out, 0, sizeof(DvWireFound));
	if (!json_object_is_type(record, json_type_object) || !take_id(record, out->id) ||
		!take_author(record, "_modifiedby_value", out->modified_by, "modifiedon", out->modified_on, sizeof(out->modified_on)) ||
		!take_author(record, "_createdby_value", out->created_by, "createdon", out->created_on, sizeof(out->created_on)))
		return false;
	out->state = number_member(record, "statecode");
	out->status = number_member(record, "statuscode");
	out->found = true;
	return true;
}

int
dv_reply_records(const char *body, size_t len, int max, DvWireFound *records)
{
	json_object *root = parse_object(body, len, FIXED_BYTES + (size_t) max * RECORD_BYTES);
	json_object *list;
	json_object *other;
	bool		more;
	int			n = -1;

	if (root == NULL)
		return -1;
	more = json_object_object_get_ex(root, "@odata.nextLink", &other);
	if (json_object_object_get_ex(root, "value", &list) && json_object_is_type(list, json_type_array) &&
		json_object_array_length(list) <= (size_t) max &&
		!json_object_object_get_ex(root, "error", &other))
	{
		int			count = (int) json_object_array_length(list);
		int			i;

		for (i = 0; i < count; i++)
			if (!take_record(json_object_array_get_idx(list, (size_t) i), &records[i]))
				break;
		if (i == count)
			n = more ? DV_MORE_PAGES : count;
	}
	json_object_put(root);
	return n;
}
