/*
 * verify_images.c - the bytes of images
 *
 * A page tells of an image only its id, so that there is one. Where the service
 * keeps images as they were sent (CanStoreFullImage), each is asked for by itself,
 * as files are (verify_files.c); elsewhere it keeps a thumbnail, which it has made
 * itself and which tells nothing.
 *
 * Where the metadata does not say which, the service's answers do: one image that
 * came back as it was sent shows that all of them should. Until then what differs
 * is held; if none comes back, what came were thumbnails.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sha256.h"
#include "verify.h"

/* So many images, none of which is what was sent, show that images are not kept. */
#define NONE_KEPT	50

/* What a digit of base64 stands for; -1 where it is none. */
static int
base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Size and hash of what a JSON string of base64 holds. */
static void
digest(DvSlice text, DvVerifyFile *f)
{
	unsigned char bytes[3072];
	DvSha256	hash;
	uint32		bits = 0;
	int			have = 0;
	int			n = 0;
	size_t		i;

	f->there = true;
	f->size = 0;
	dv_sha256_init(&hash);
	for (i = 0; i < text.len; i++)
	{
		int			value = base64_value(text.p[i]);

		if (value < 0)
			continue;
		bits = bits << 6 | (uint32) value;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		bytes[n++] = (unsigned char) (bits >> have);
		if (n == sizeof(bytes))
		{
			dv_sha256_update(&hash, bytes, n);
			f->size += n;
			n = 0;
		}
	}
	dv_sha256_update(&hash, bytes, n);
	f->size += n;
	dv_sha256_final(&hash, f->digest);
}

/* Which of the image columns is the member of that name? -1: none. */
static int
image_named(const DvVerify *v, DvSlice name)
{
	int			k;

	for (k = 0; k < v->nimages; k++)
		if (strlen(v->images[k]->name) == name.len && memcmp(v->images[k]->name, name.p, name.len) == 0)
			return k;
	return -1;
}

void
dv_verify_digest_images(DvVerify *v, DvVerifyRow *row, StringInfo members, MemoryContext context)
{
	DvSlice		record = {members->data, members->len};
	const char *at = record.p;
	DvSlice		name;
	DvSlice		value;
	StringInfoData out;

	if (v->nimages == 0 || v->resend != NULL || v->rebuild != NULL)
		return;
	initStringInfo(&out);
	while (dv_page_member(record, &at, &name, &value))
	{
		int			k = image_named(v, name);

		appendStringInfo(&out, "%c\"", out.len > 0 ? ',' : '{');
		appendBinaryStringInfo(&out, name.p, (int) name.len);
		appendStringInfoString(&out, "\":");
		if (k < 0 || dv_page_is_null(value))
		{
			appendBinaryStringInfo(&out, value.p, (int) value.len);
			continue;
		}
		if (row->images == NULL)
			row->images = MemoryContextAllocZero(context, sizeof(DvVerifyFile) * v->nimages);
		digest(value, &row->images[k]);
		appendStringInfo(&out, "\"%s\"", dv_verify_file_text(&row->images[k]));
	}
	appendStringInfoString(&out, out.len > 0 ? "}" : "{}");
	pfree(members->data);
	*members = out;
}

void
dv_verify_want_images(DvVerify *v, DvVerifyRow *row)
{
	int			k;

	for (k = 0; row->images != NULL && row->fault == NULL && k < v->nimages; k++)
	{
		const DvVerifyColumn *c = v->images[k];

		row->images[k].wanted = row->images[k].there && dv_verify_was_sent(c, row) &&
			(c->read_name == NULL || !dv_page_is_null(dv_verify_found(row, c)));
	}
}

/* An image was not what was sent, and it is not known whether images are kept so. */
static void
hold(DvVerify *v, DvVerifyColumn *c, const DvVerifyRow *row, DvSlice expected, DvSlice found)
{
	MemoryContext old = MemoryContextSwitchTo(v->context);
	DvHeld	   *held = palloc0(sizeof(DvHeld));

	held->key = pstrdup(row->key);
	held->id = row->id;
	held->expected.p = memcpy(palloc(expected.len), expected.p, expected.len);
	held->expected.len = expected.len;
	if (found.p != NULL)
	{
		held->found.p = memcpy(palloc(found.len), found.p, found.len);
		held->found.len = found.len;
	}
	held->kind = row->verdict;
	held->changed_since = row->changed_since;
	held->next = c->held_images;
	c->held_images = held;
	MemoryContextSwitchTo(old);
	if (++c->nheld_images >= NONE_KEPT)
		c->full_image = DV_IMAGE_NOT_KEPT;
}

void
dv_verify_image_answer(DvVerify *v, DvVerifyColumn *c, DvVerifyRow *row, DvImageAnswer answer, DvSlice expected, DvSlice found)
{
	if (answer == DV_IMAGE_NOT_TOLD)
		c->images_not_told++;
	else if (answer == DV_IMAGE_EQUAL)
		c->full_image = DV_IMAGE_KEPT;
	else if (c->full_image == DV_IMAGE_KEPT)
		dv_verify_different_too(v, row, c->name, expected, found);
	else if (c->full_image == DV_IMAGE_UNKNOWN)
		hold(v, c, row, expected, found);
}

void
dv_verify_settle_images(DvVerify *v)
{
	int			k;

	for (k = 0; k < v->nimages; k++)
	{
		DvVerifyColumn *c = v->images[k];
		DvHeld	   *held;

		for (held = c->held_images; held != NULL && c->full_image == DV_IMAGE_KEPT; held = held->next)
			dv_verify_note_held(v, c, held);
		if (c->full_image == DV_IMAGE_UNKNOWN && c->held_images != NULL)
			c->full_image = DV_IMAGE_NOT_KEPT;
		c->held_images = NULL;
	}
}

char *
dv_verify_images_not_compared(const DvVerifyColumn *c)
{
	if (c->full_image == DV_IMAGE_NOT_KEPT)
		return c->read_name ? "only whether it is there" : "cannot be read back";
	if (c->images_not_told > 0)
		return psprintf("only whether it is there, of " INT64_FORMAT " %s not told as they were sent", c->images_not_told,
						c->images_not_told == 1 ? "row: images are" : "rows: images are");
	return NULL;
}
