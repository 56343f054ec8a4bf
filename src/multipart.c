/*
 * multipart.c - the framing of a $batch: multipart/mixed around HTTP messages
 *
 * Parts carry no length, so they are told apart by delimiter lines alone
 * (RFC 2046, section 5.1). Lines end in CRLF; a bare LF is taken too. JSON
 * cannot contain a delimiter by chance: line ends in its strings are escaped.
 */
#include <string.h>

#include "multipart.h"
#include "wiretext.h"

/* A line without its end, and where the next begins. */
typedef struct Line
{
	const char *text;
	size_t		len;
	const char *next;
	bool		whole;			/* it had an end */
} Line;

static Line
read_line(const char *pos, const char *end)
{
	Line		line = {.text = pos};
	const char *lf = pos < end ? memchr(pos, '\n', (size_t) (end - pos)) : NULL;

	line.whole = lf != NULL;
	line.next = lf != NULL ? lf + 1 : end;
	line.len = (size_t) ((lf != NULL ? lf : end) - pos);
	if (line.whole && line.len > 0 && pos[line.len - 1] == '\r')
		line.len--;
	return line;
}

static bool
is_blank(const char *text, size_t len)
{
	dv_wiretext_trim(&text, &len);
	return len == 0;
}

/* Is "name" the token before the first ';', white space aside? */
static bool
media_type_is(const char *content_type, size_t len, const char *name)
{
	const char *semicolon = memchr(content_type, ';', len);

	if (semicolon != NULL)
		len = (size_t) (semicolon - content_type);
	dv_wiretext_trim(&content_type, &len);
	return dv_wiretext_same(content_type, len, name);
}

/* Copy a parameter's value, quoted or not. */
static bool
copy_boundary(const char *value, char boundary[DV_BOUNDARY_LEN])
{
	bool		quoted = *value == '"';
	size_t		n = 0;

	if (quoted)
		value++;
	while (*value != '\0' && (quoted ? *value != '"' : strchr("; \t\r\n", *value) == NULL))
	{
		if (quoted && *value == '\\' && value[1] != '\0')
			value++;
		if (n + 1 >= DV_BOUNDARY_LEN || *value < 0x20 || *value > 0x7E)
			return false;
		boundary[n++] = *value++;
	}
	boundary[n] = '\0';
	/* A boundary does not end in a blank, and an open quote is no value. */
	return n > 0 && boundary[n - 1] != ' ' && (!quoted || *value == '"');
}

/* Step to the ';' that begins the next parameter, past quoted values. */
static const char *
next_parameter(const char *pos)
{
	bool		quoted = false;

	for (; *pos != '\0' && (quoted || *pos != ';'); pos++)
	{
		if (quoted && *pos == '\\' && pos[1] != '\0')
			pos++;
		else if (*pos == '"')
			quoted = !quoted;
	}
	return pos;
}

bool
dv_multipart_boundary(const char *content_type, char boundary[DV_BOUNDARY_LEN])
{
	static const char name[] = "boundary=";
	const char *pos;

	boundary[0] = '\0';
	if (content_type == NULL || !media_type_is(content_type, strlen(content_type), "multipart/mixed"))
		return false;
	for (pos = next_parameter(content_type); *pos != '\0'; pos = next_parameter(pos))
	{
		pos++;
		while (*pos == ' ' || *pos == '\t')
			pos++;
		if (strlen(pos) >= sizeof(name) - 1 && dv_wiretext_same(pos, sizeof(name) - 1, name))
			return copy_boundary(pos + sizeof(name) - 1, boundary);
	}
	return false;
}

void
dv_multipart_open(DvMultipart *reader, const char *body, size_t len, const char *boundary)
{
	size_t		n = strlen(boundary);

	memset(reader, 0, sizeof(DvMultipart));
	if (len == 0)
		body = "";
	reader->pos = body;
	reader->end = body + len;
	if (n >= DV_BOUNDARY_LEN)
		n = DV_BOUNDARY_LEN - 1;
	memcpy(reader->delimiter, "--", 2);
	memcpy(reader->delimiter + 2, boundary, n);
	reader->delimiter_len = n + 2;
}

/*
 * Is the line a delimiter, complete to its end? One that the body's end cut
 * short is none: "--b" may have been the beginning of "--b2".
 */
static bool
is_delimiter(const DvMultipart *reader, const Line *line, bool *closing)
{
	size_t		n = reader->delimiter_len;

	if (line->len < n || memcmp(line->text, reader->delimiter, n) != 0)
		return false;
	*closing = line->len >= n + 2 && memcmp(line->text + n, "--", 2) == 0;
	if (*closing)
		return is_blank(line->text + n + 2, line->len - n - 2);
	return line->whole && is_blank(line->text + n, line->len - n);
}

/* The line end before a delimiter belongs to the delimiter. */
static const char *
without_line_end(const char *start, const char *end)
{
	if (end > start && end[-1] == '\n')
		end--;
	if (end > start && end[-1] == '\r')
		end--;
	return end;
}

bool
dv_multipart_next(DvMultipart *reader, const char **part, size_t *len)
{
	const char *start = reader->pos;
	bool		closing;

	while (!reader->closed && reader->pos < reader->end)
	{
		Line		line = read_line(reader->pos, reader->end);
		const char *at = reader->pos;
		bool		first = !reader->started;

		reader->pos = line.next;
		if (!is_delimiter(reader, &line, &closing))
			continue;
		reader->started = true;
		reader->closed = closing;
		if (first)
		{
			/* What came before was a preamble. */
			start = reader->pos;
			continue;
		}
		*part = start;
		*len = (size_t) (without_line_end(start, at) - start);
		return true;
	}
	return false;
}

/* "HTTP/1.1 204 No Content": its status, or 0. */
static int
status_of(const Line *line)
{
	const char *p = line->text;
	size_t		i;
	int			status = 0;

	if (line->len < 12 || !dv_wiretext_same(p, 7, "HTTP/1.") || p[7] < '0' || p[7] > '9' || p[8] != ' ')
		return 0;
	for (i = 9; i < 12; i++)
	{
		if (p[i] < '0' || p[i] > '9')
			return 0;
		status = status * 10 + (p[i] - '0');
	}
	if (line->len > 12 && p[12] != ' ')
		return 0;
	return status >= 100 && status <= 599 ? status : 0;
}

bool
dv_multipart_record_id(const char *url, size_t len, char id[37])
{
	/* "(" + 36 characters + ")" at the end; a key's value is not all of it. */
	dv_wiretext_trim(&url, &len);
	id[0] = '\0';
	if (len < 39 || url[len - 1] != ')' || url[len - 38] != '(')
		return false;
	return dv_wiretext_uuid(url + len - 37, 36, id);
}

static void
take_record_url(DvHttpPart *out, const char *value, size_t len)
{
	char		id[37];

	if (!dv_multipart_record_id(value, len, id))
		return;
	if (out->id[0] != '\0' && strcmp(out->id, id) != 0)
		out->id_conflict = true;
	memcpy(out->id, id, sizeof(id));
}

/* A Content-Length that says more than is there: -1 where it is no number. */
static bool
length_fits(const char *value, size_t len, size_t available)
{
	size_t		n = 0;
	size_t		i;

	for (i = 0; i < len; i++)
	{
		if (value[i] < '0' || value[i] > '9' || n > available)
			return false;
		n = n * 10 + (size_t) (value[i] - '0');
	}
	return len > 0 && n <= available;
}

typedef struct Headers
{
	const char *content_length;
	size_t		content_length_len;
	bool		is_http;
	bool		encoded;		/* transfer coding other than 8bit or binary */
} Headers;

static void
take_header(Headers *h, DvHttpPart *out, long long now, const char *name, size_t name_len,
			const char *value, size_t len)
{
	if (dv_wiretext_same(name, name_len, "Content-Type"))
	{
		dv_wiretext_copy(out->content_type, sizeof(out->content_type), value, len);
		h->is_http = media_type_is(value, len, "application/http");
		out->nested = len >= 10 && dv_wiretext_same(value, 10, "multipart/");
	}
	else if (dv_wiretext_same(name, name_len, "Content-Length"))
	{
		h->content_length = value;
		h->content_length_len = len;
	}
	else if (dv_wiretext_same(name, name_len, "Content-Transfer-Encoding"))
		h->encoded = !dv_wiretext_same(value, len, "binary") && !dv_wiretext_same(value, len, "8bit") &&
			!dv_wiretext_same(value, len, "7bit");
	else if (dv_wiretext_same(name, name_len, "OData-EntityId") || dv_wiretext_same(name, name_len, "Location"))
		take_record_url(out, value, len);
	else if (dv_wiretext_same(name, name_len, "REQ_ID"))
		dv_wiretext_ascii(out->request_id, sizeof(out->request_id), value, len);
	else if (dv_wiretext_same(name, name_len, "x-ms-service-request-id") && out->request_id[0] == '\0')
		dv_wiretext_ascii(out->request_id, sizeof(out->request_id), value, len);
	else if (dv_wiretext_same(name, name_len, "Retry-After"))
		out->retry_after_ms = dv_verdict_retry_after(value, len, now);
}

/*
 * Read header lines up to the empty one, or up to the end: where an answer has
 * no body, some servers leave out the empty line. Returns where the body
 * begins, or NULL for lines that are no headers.
 */
static const char *
read_headers(const char *pos, const char *end, long long now, Headers *h, DvHttpPart *out)
{
	memset(h, 0, sizeof(Headers));
	while (pos < end)
	{
		Line		line = read_line(pos, end);
		const char *colon = memchr(line.text, ':', line.len);
		const char *value;
		size_t		len;

		pos = line.next;
		if (line.len == 0)
			return pos;
		if (colon == NULL || colon == line.text)
			return NULL;
		value = colon + 1;
		len = line.len - (size_t) (value - line.text);
		dv_wiretext_trim(&value, &len);
		take_header(h, out, now, line.text, (size_t) (colon - line.text), value, len);
	}
	return end;
}

static void
part_reset(DvHttpPart *out)
{
	memset(out, 0, sizeof(DvHttpPart));
	out->retry_after_ms = -1;
	out->body = "";
}

bool
dv_multipart_http(const char *part, size_t len, long long now, DvHttpPart *out)
{
	const char *end = part + len;
	const char *pos;
	Headers		headers;
	Line		line;
	int			status;

	part_reset(out);
	pos = read_headers(part, end, now, &headers, out);
	if (pos == NULL || out->nested || !headers.is_http || headers.encoded)
		return false;
	line = read_line(pos, end);
	status = status_of(&line);
	part_reset(out);
	if (status == 0)
		return false;
	pos = read_headers(line.next, end, now, &headers, out);
	if (pos == NULL || out->nested)
		return false;
	if (headers.content_length != NULL &&
		!length_fits(headers.content_length, headers.content_length_len, (size_t) (end - pos)))
		return false;
	out->body = pos;
	out->len = (size_t) (end - pos);
	dv_wiretext_trim(&out->body, &out->len);
	out->status = status;
	return true;
}
