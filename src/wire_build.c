/*
 * wire_build.c - rows to requests: bulk messages, $batch, reading ids back
 *
 * Content comes as finished JSON members and is copied once. Names of tables
 * and columns are Dataverse's logical names: letters, digits and underscores,
 * so they need no escaping.
 */
#include <string.h>

#include "wire.h"

/*
 * Never looked for, never found: stands in where no row has an id of its own,
 * because an empty list is no valid filter.
 */
#define NO_ID	"00000000-0000-0000-0000-000000000000"

#define PART_HEADERS	"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"

/* The members of a row, with those that come first: its id, its type. */
static void
put_object(DvBuf *body, const char *type, const DvWireTable *table, const DvWireRow *row, bool with_id)
{
	const char *comma = "";

	dv_buf_puts(body, "{");
	if (type != NULL)
	{
		dv_buf_puts(body, "\"@odata.type\":\"Microsoft.Dynamics.CRM.");
		dv_buf_puts(body, type);
		dv_buf_puts(body, "\"");
		comma = ",";
	}
	if (with_id && row->id[0] != '\0')
	{
		dv_buf_puts(body, comma);
		dv_buf_puts(body, "\"");
		dv_buf_puts(body, table->primary_id);
		dv_buf_puts(body, "\":\"");
		dv_buf_puts(body, row->id);
		dv_buf_puts(body, "\"");
		comma = ",";
	}
	if (row->content_len > 0)
	{
		dv_buf_puts(body, comma);
		dv_buf_append(body, row->content, row->content_len);
	}
	dv_buf_puts(body, "}");
}

bool
dv_wire_bulk(DvBuf *path, DvBuf *body, const DvWireTable *table, const DvWireRow *const *rows, int n, size_t *content_at)
{
	const char *message = n > 0 && rows[0]->op == 'U' ? "UpdateMultiple" : "CreateMultiple";
	int			i;

	dv_buf_puts(path, "/");
	dv_buf_puts(path, table->entity_set);
	dv_buf_puts(path, "/Microsoft.Dynamics.CRM.");
	dv_buf_puts(path, message);

	dv_buf_puts(body, "{\"Targets\":[");
	for (i = 0; i < n; i++)
	{
		if (i > 0)
			dv_buf_puts(body, ",");
		put_object(body, table->logical_name, table, rows[i], true);
		if (content_at != NULL)
			content_at[i] = body->len - 1 - rows[i]->content_len;
	}
	dv_buf_puts(body, "]}");
	return !path->failed && !body->failed;
}

/* Request line of one operation. */
static void
put_request_line(DvBuf *body, const DvWireTable *table, const DvWireRow *row, const char *method, bool record)
{
	dv_buf_puts(body, method);
	dv_buf_puts(body, " ");
	dv_buf_puts(body, table->api_path);
	dv_buf_puts(body, "/");
	dv_buf_puts(body, table->entity_set);
	if (record)
	{
		dv_buf_puts(body, "(");
		dv_buf_puts(body, row->id);
		dv_buf_puts(body, ")");
	}
	dv_buf_puts(body, " HTTP/1.1\r\n");
}

/* Header lines of an operation behind its request line, and the empty one. */
static void
put_headers(DvBuf *body, const DvWireTable *table, const DvWireRow *row, bool has_body, bool if_match)
{
	if (has_body)
		dv_buf_puts(body, "Content-Type: application/json\r\n");
	if (if_match)
	{
		dv_buf_puts(body, "If-Match: ");
		dv_buf_puts(body, row->etag != NULL ? row->etag : "*");
		dv_buf_puts(body, "\r\n");
	}
	if (table->part_headers != NULL)
		dv_buf_puts(body, table->part_headers);
	if (row->caller[0] != '\0')
	{
		dv_buf_puts(body, table->caller_header);
		dv_buf_puts(body, ": ");
		dv_buf_puts(body, row->caller);
		dv_buf_puts(body, "\r\n");
	}
	dv_buf_puts(body, "\r\n");
}

/* An operation that is no create, update or delete of the row. */
static void
put_other(DvBuf *body, const DvWireTable *table, const DvWireRow *row, const char *method, const char *path,
		  const char *content, size_t len)
{
	dv_buf_puts(body, method);
	dv_buf_puts(body, " ");
	dv_buf_puts(body, table->api_path);
	dv_buf_puts(body, path);
	dv_buf_puts(body, " HTTP/1.1\r\n");
	put_headers(body, table, row, len > 0, strcmp(method, "PATCH") == 0);
	dv_buf_append(body, content, len);
	dv_buf_puts(body, "\r\n");
}

/* Create, update or delete. */
static void
put_plain(DvBuf *body, const DvWireTable *table, const DvWireRow *row)
{
	if (row->op == 'D')
		put_request_line(body, table, row, "DELETE", true);
	else if (row->op == 'U')
		put_request_line(body, table, row, "PATCH", true);
	else
		put_request_line(body, table, row, "POST", false);
	put_headers(body, table, row, row->op != 'D', row->op == 'U' || (row->op == 'D' && row->etag != NULL));
	if (row->op != 'D')
		put_object(body, NULL, table, row, row->op == 'I');
	dv_buf_puts(body, "\r\n");
}

/* Begin a part of a change set. The id of the row tells its boundary from others. */
static void
put_set_part(DvBuf *body, const DvWireRow *row, const char *content_id)
{
	dv_buf_puts(body, "--changeset_");
	dv_buf_puts(body, row->id);
	dv_buf_puts(body, "\r\n" PART_HEADERS "Content-ID: ");
	dv_buf_puts(body, content_id);
	dv_buf_puts(body, "\r\n\r\n");
}

/* Open, update and close a record, all of it or nothing. */
static void
put_reopening(DvBuf *body, const DvWireTable *table, const DvWireRow *row)
{
	dv_buf_puts(body, "Content-Type: multipart/mixed; boundary=\"changeset_");
	dv_buf_puts(body, row->id);
	dv_buf_puts(body, "\"\r\n\r\n");
	put_set_part(body, row, "1");
	put_request_line(body, table, row, "PATCH", true);
	put_headers(body, table, row, true, true);
	dv_buf_puts(body, row->reopen);
	dv_buf_puts(body, "\r\n");
	put_set_part(body, row, "2");
	put_plain(body, table, row);
	put_set_part(body, row, "3");
	put_other(body, table, row, row->close_method, row->close_path, row->close_content, strlen(row->close_content));
	dv_buf_puts(body, "--changeset_");
	dv_buf_puts(body, row->id);
	dv_buf_puts(body, "--\r\n");
}

static void
put_operation(DvBuf *body, const DvWireTable *table, const DvWireRow *row)
{
	if (row->reopen != NULL)
	{
		put_reopening(body, table, row);
		return;
	}
	dv_buf_puts(body, PART_HEADERS "\r\n");
	if (row->method != NULL)
		put_other(body, table, row, row->method, row->path, row->content, row->content_len);
	else
		put_plain(body, table, row);
}

bool
dv_wire_batch(DvBuf *body, const DvWireTable *table, const char *boundary,
			  const DvWireRow *const *rows, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		dv_buf_puts(body, "--");
		dv_buf_puts(body, boundary);
		dv_buf_puts(body, "\r\n");
		put_operation(body, table, rows[i]);
	}
	dv_buf_puts(body, "--");
	dv_buf_puts(body, boundary);
	dv_buf_puts(body, "--\r\n");
	return !body->failed;
}

/* What is read of a record besides its id. */
void
dv_wire_put_found_columns(DvBuf *out, const DvWireTable *table)
{
	dv_buf_puts(out, ",modifiedon,_modifiedby_value");
	if (table->with_creator)
		dv_buf_puts(out, ",createdon,_createdby_value");
	if (table->with_state)
		dv_buf_puts(out, ",statecode,statuscode");
}

bool
dv_wire_find(DvBuf *path, const DvWireTable *table, const DvWireRow *const *rows, int n)
{
	int			count = 0;
	int			i;

	/* A row that was not asked for would look absent. */
	if (n > DV_WIRE_FIND_MAX)
		return false;
	/* %22 is a double quote, %5B and %5D are brackets. */
	dv_buf_puts(path, "/");
	dv_buf_puts(path, table->entity_set);
	dv_buf_puts(path, "?$select=");
	dv_buf_puts(path, table->primary_id);
	dv_wire_put_found_columns(path, table);
	if (table->also != NULL)
	{
		dv_buf_puts(path, ",");
		dv_buf_puts(path, table->also);
	}
	dv_buf_puts(path, "&$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p2)&@p1='");
	dv_buf_puts(path, table->primary_id);
	dv_buf_puts(path, "'&@p2=%5B");
	for (i = 0; i < n; i++)
	{
		if (rows[i]->id[0] == '\0')
			continue;
		dv_buf_puts(path, count++ > 0 ? ",%22" : "%22");
		dv_buf_puts(path, rows[i]->id);
		dv_buf_puts(path, "%22");
	}
	if (count == 0)
		dv_buf_puts(path, "%22" NO_ID "%22");
	dv_buf_puts(path, "%5D");
	return !path->failed;
}
