/*
 * files.c - file columns: upload at once or in chunks, download, delete
 *
 * The row keeps the file's id and name, this file keeps the bytes. An image
 * that is uploaded becomes base64 in its column; it is told as its thumbnail,
 * and as it came where the column keeps that and it is asked for.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "apply.h"
#include "crud.h"
#include "route.h"
#include "stats.h"

/* What the service proposes for one chunk. */
#define CHUNK_SIZE 4194304

typedef struct File
{
	char		id[SIM_GUID_LEN + 1];	/* of the file, or of the upload session */
	char		name[256];
	SimBuf		bytes;
	struct File *next;
} File;

static File *files;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static File *
find_file(const char *id, size_t len)
{
	for (File *f = files; f != NULL; f = f->next)
		if (strlen(f->id) == len && memcmp(f->id, id, len) == 0)
			return f;
	return NULL;
}

static File *
new_file(const char *name)
{
	File	   *f = sim_zalloc(sizeof *f);

	sim_guid_format(sim_guid_random(), f->id);
	snprintf(f->name, sizeof f->name, "%s", name);
	f->next = files;
	files = f;
	return f;
}

static const char *
file_name(SimReq *r)
{
	const char *name = sim_req_header(r, "x-ms-file-name");

	if (name == NULL)
		name = sim_path_option(&r->path, "x-ms-file-name");
	return name != NULL ? name : "file";
}

static char *
base64(SimReq *r, const char *s, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char	   *out = sim_arena_alloc(r->arena, n / 3 * 4 + 8),
			   *o = out;

	for (size_t i = 0; i < n; i += 3)
	{
		unsigned	v = (unsigned) (unsigned char) s[i] << 16;

		v |= i + 1 < n ? (unsigned) (unsigned char) s[i + 1] << 8 : 0;
		v |= i + 2 < n ? (unsigned) (unsigned char) s[i + 2] : 0;
		*o++ = digits[v >> 18];
		*o++ = digits[v >> 12 & 63];
		*o++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*o++ = i + 2 < n ? digits[v & 63] : '=';
	}
	*o = '\0';
	return out;
}

/* Write what the row keeps of a file; NULL id: nothing. */
static bool
set_row(SimReq *r, SimRef *ref, const SimColumn *c, const char *id, const char *name, SimErr *e)
{
	SimColumn  *beside;
	char		column[160];
	SimVal		v[2] = {{.column = c->index, .null = id == NULL}};
	int			n = 1;
	SimTxn		own,
			   *x;
	uint32_t	slot;
	bool		ok;

	if (id != NULL)
	{
		v[0].v.s = id;
		v[0].len = (uint32_t) strlen(id);
	}
	snprintf(column, sizeof column, "%s_name", c->name);
	beside = c->type == SIM_T_FILE ? sim_table_column(ref->table, column, strlen(column)) : NULL;
	if (beside != NULL)
		v[n++] = (SimVal) {.column = beside->index, .null = id == NULL, .len = (uint32_t) strlen(name), .v.s = name};
	x = sim_crud_begin(r, &own, true);
	slot = sim_ref_find(ref);
	ok = slot != SIM_NO_SLOT ? sim_apply_set(x, ref->table, slot, v, n, r->user, e) : sim_ref_missing(ref, 404, e);
	sim_crud_end(r, &own, ok);
	return ok;
}

static bool
store(SimReq *r, SimRef *ref, const SimColumn *c, const char *bytes, size_t len, SimErr *e)
{
	File	   *f;

	if (len > (size_t) c->max_length * 1024)
		return sim_fail(e, 400, "0x80044a02", "Attachment file size is too big.");
	if (c->type == SIM_T_IMAGE)
		return set_row(r, ref, c, base64(r, bytes, len), "", e);
	pthread_mutex_lock(&lock);
	f = new_file(file_name(r));
	sim_buf_add(&f->bytes, bytes, len);
	pthread_mutex_unlock(&lock);
	return set_row(r, ref, c, f->id, f->name, e);
}

/* First request of an upload in chunks: hand out a session. */
static bool
begin_upload(SimReq *r, SimResp *resp)
{
	File	   *f;

	pthread_mutex_lock(&lock);
	f = new_file(file_name(r));
	pthread_mutex_unlock(&lock);
	resp->status = 200;
	sim_resp_header(resp, "Location", "%s%s%csessiontoken=%s", strncmp(r->uri, "http", 4) == 0 ? "" : r->origin, r->uri,
					strchr(r->uri, '?') != NULL ? '&' : '?', f->id);
	sim_resp_header(resp, "x-ms-chunk-size", "%d", CHUNK_SIZE);
	sim_resp_header(resp, "Accept-Ranges", "bytes");
	return true;
}

/* One chunk: "Content-Range: bytes a-b/total". */
static bool
next_chunk(SimReq *r, SimRef *ref, const SimColumn *c, const char *token, SimResp *resp)
{
	const char *range = sim_req_header(r, "Content-Range");
	unsigned long long from,
				to,
				total;
	File	   *f;
	bool		fits;

	if (range == NULL || sscanf(range, "bytes %llu-%llu/%llu", &from, &to, &total) != 3 || to + 1 - from != r->len)
		return sim_fail(&resp->err, 400, SIM_E_ARGUMENT, "The Content-Range header is missing or does not fit the body.");
	pthread_mutex_lock(&lock);
	f = find_file(token, strlen(token));
	fits = f != NULL && f->bytes.len == from;
	if (fits)
		sim_buf_add(&f->bytes, r->body, r->len);
	pthread_mutex_unlock(&lock);
	if (!fits)
		return sim_fail(&resp->err, 400, SIM_E_ARGUMENT, "The chunk does not follow the ones before, or its session is unknown.");
	resp->status = to + 1 < total ? 206 : 204;
	return to + 1 < total || store(r, ref, c, f->bytes.data, f->bytes.len, &resp->err);
}

/* Bytes "a-b" of the whole, where a Range header asks for some. */
static bool
put_range(SimReq *r, const SimBuf *bytes, SimResp *resp)
{
	const char *range = sim_req_header(r, "Range");
	size_t		from = 0,
				to = bytes->len ? bytes->len - 1 : 0;

	if (range == NULL || sscanf(range, "bytes=%zu-%zu", &from, &to) < 1)
	{
		sim_buf_add(&resp->body, bytes->data, bytes->len);
		return true;
	}
	if (from >= bytes->len)
		return sim_fail(&resp->err, 416, SIM_E_ARGUMENT, "The range is not satisfiable.");
	if (to >= bytes->len)
		to = bytes->len - 1;
	sim_buf_add(&resp->body, bytes->data + from, to + 1 - from);
	sim_resp_header(resp, "Content-Range", "bytes %zu-%zu/%zu", from, to, bytes->len);
	resp->status = 206;
	return true;
}

static bool
download(SimReq *r, SimRef *ref, const SimColumn *c, SimResp *resp)
{
	SimTxn		own;
	uint32_t	slot;
	SimVal		v;
	File	   *f = NULL;
	bool		ok = true;

	resp->status = 200;
	sim_crud_begin(r, &own, false);
	slot = sim_ref_find(ref);
	pthread_mutex_lock(&lock);
	if (slot != SIM_NO_SLOT && sim_row_cell(ref->table, sim_store_slot(ref->table, slot)->row, c->index, &v))
		f = find_file(v.v.s, v.len);
	if (f != NULL)
	{
		ok = put_range(r, &f->bytes, resp);
		sim_resp_header(resp, "x-ms-file-name", "%s", f->name);
		sim_resp_header(resp, "x-ms-file-size", "%zu", f->bytes.len);
	}
	pthread_mutex_unlock(&lock);
	sim_crud_end(r, &own, true);
	resp->content_type = "application/octet-stream";
	if (f == NULL)
		return sim_fail(&resp->err, 404, SIM_E_NOT_FOUND, "No file attachment found for attribute: %s.", c->name);
	return ok;
}

/* What stands for every image's thumbnail: nothing here can scale. */
static const char thumbnail[] = "\x89PNG\r\n\x1a\n" "a thumbnail";

/* Base64 that was accepted as such, without its line ends, into bytes. */
static void
put_decoded(SimBuf *out, SimStr text)
{
	unsigned	bits = 0;
	int			have = 0;

	for (size_t i = 0; i < text.len; i++)
	{
		int			v = sim_base64_value(text.s[i]);

		if (v < 0)
			continue;
		bits = bits << 6 | (unsigned) v;
		if ((have += 6) >= 8)
			sim_buf_char(out, (char) (bits >> (have -= 8) & 255));
	}
}

static bool
download_image(SimReq *r, SimRef *ref, const SimColumn *c, SimResp *resp)
{
	const char *size = sim_path_option(&r->path, "size");
	bool		full = size != NULL && strcmp(size, "full") == 0;
	SimTxn		own;
	uint32_t	slot;
	SimVal		v;
	SimBuf		bytes = {0};
	bool		found = false;
	bool		ok = true;

	sim_crud_begin(r, &own, false);
	slot = sim_ref_find(ref);
	if (slot != SIM_NO_SLOT)
		found = sim_row_cell(ref->table, sim_store_slot(ref->table, slot)->row, c->index, &v);
	if (found && full)
		put_decoded(&bytes, (SimStr) {v.v.s, v.len});
	sim_crud_end(r, &own, true);
	resp->status = found ? 200 : 204;
	if (slot == SIM_NO_SLOT)
		return sim_ref_missing(ref, 404, &resp->err);
	if (found && full && !c->full_image)
		ok = sim_fail(&resp->err, 404, SIM_E_NOT_FOUND, "No FileAttachment records found for image attribute: %s.", c->name);
	else if (found && full)
		ok = put_range(r, &bytes, resp);
	else if (found)
		sim_buf_add(&resp->body, thumbnail, sizeof thumbnail - 1);
	if (ok && found)
		resp->content_type = "application/octet-stream";
	sim_buf_free(&bytes);
	return ok;
}

bool
sim_file_run(SimReq *r, SimRef *ref, const SimColumn *c, SimResp *resp)
{
	const char *token = sim_path_option(&r->path, "sessiontoken");
	const char *mode = sim_req_header(r, "x-ms-transfer-mode");
	const char *type = sim_req_header(r, "Content-Type");

	sim_stats_request(strcmp(r->method, "GET") == 0 ? SIM_K_GET : SIM_K_UPDATE, r->in_batch);
	if (strcmp(r->method, "GET") == 0)
		return c->type == SIM_T_IMAGE ? download_image(r, ref, c, resp) : download(r, ref, c, resp);
	resp->status = 204;
	if (strcmp(r->method, "DELETE") == 0)
		return set_row(r, ref, c, NULL, "", &resp->err);
	if (strcmp(r->method, "PATCH") != 0)
		return sim_fail(&resp->err, 405, SIM_E_NOT_SUPPORTED, "The method is not supported for a file column.");
	if (token != NULL)
		return next_chunk(r, ref, c, token, resp);
	if (mode != NULL && strcmp(mode, "chunked") == 0)
		return begin_upload(r, resp);
	if (type == NULL || strncasecmp(type, "application/octet-stream", 24) != 0)
		return sim_fail(&resp->err, 415, SIM_E_PAYLOAD, "A file is uploaded as application/octet-stream.");
	return store(r, ref, c, r->body, r->len, &resp->err);
}
