/*
 * payload_text.c - text, names, enums, JSON, bytes and ids as JSON strings
 *
 * PostgreSQL has validated text on its way into the table, so that it is only
 * searched for what JSON wants escaped. Where the database has another
 * encoding than UTF-8 it is converted without throwing: a byte that means
 * nothing is a fault of the row.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#include "compat.h"
#include "payload_write.h"
#include "wiretext.h"

const char dv_payload_is_null[] = "null";
const char dv_payload_trimmed[] = "trimmed";
const char dv_payload_too_long[] = "the value is longer than 32 MB";

static const char not_convertible[] = "the text has characters that cannot be converted to UTF-8";
static const char not_utf8[] = "the text is not valid UTF-8";
static const char no_such_label[] = "the enum value does not exist any more";

static const char hex_digits[] = "0123456789abcdef";

#define EVERY_BYTE(x)	(UINT64CONST(0x0101010101010101) * (x))

/*
 * The high bits of those of eight bytes that are a control character, a quote
 * or a backslash, and maybe of the byte above one, which is harmless: it only
 * leads to a closer look. Bytes from 0x80 on never match by themselves. With
 * its second bit turned over a quote (0x22) is what comes next to the control
 * characters, which stay among themselves: one comparison finds both.
 */
static inline uint64
escapes(const char *data)
{
	uint64		word;
	uint64		low;
	uint64		backslash;

	memcpy(&word, data, sizeof(word));
	low = word ^ EVERY_BYTE(0x02);
	backslash = word ^ EVERY_BYTE('\\');
	return (((low - EVERY_BYTE(0x21)) & ~low) | ((backslash - EVERY_BYTE(0x01)) & ~backslash)) & EVERY_BYTE(0x80);
}

/* Length of the part in front of the first byte that must be escaped. */
static inline size_t
clean_span(const char *data, size_t len)
{
	size_t		i = 0;

	while (i + 16 <= len && (escapes(data + i) | escapes(data + i + 8)) == 0)
		i += 16;
	if (i + 8 <= len && escapes(data + i) == 0)
		i += 8;
	while (i < len && (unsigned char) data[i] >= 0x20 && data[i] != '"' && data[i] != '\\')
		i++;
	return i;
}

/* Bytes that an escape takes at most. */
#define ESCAPE_MAX	6

/* One escaped byte, where there is room for ESCAPE_MAX; returns how many it took. */
static int
escape_byte(char *to, unsigned char c)
{
	/* the letters of those control characters that have one */
	static const char letters[] = "\0\0\0\0\0\0\0\0btn\0fr";
	char		letter = c >= 0x20 ? (char) c : c < sizeof(letters) ? letters[c] : '\0';

	to[0] = '\\';
	to[1] = letter;
	if (letter != '\0')
		return 2;
	memcpy(to + 1, "u00", 3);
	to[4] = hex_digits[c >> 4];
	to[5] = hex_digits[c & 15];
	return ESCAPE_MAX;
}

/* Append UTF-8 as the inside of a JSON string. */
void
dv_payload_escape(StringInfo out, const char *data, size_t len)
{
	for (;;)
	{
		size_t		span = clean_span(data, len);

		/* most texts have room with this, whatever is escaped in them */
		enlargeStringInfo(out, (int) len + ESCAPE_MAX);
		memcpy(out->data + out->len, data, span);
		out->len += (int) span;
		if (span == len)
			break;
		out->len += escape_byte(out->data + out->len, (unsigned char) data[span]);
		data += span + 1;
		len -= span + 1;
	}
	out->data[out->len] = '\0';
}

/* Conversion procedure for write_string(); invalid where none is needed. */
Oid
dv_payload_text_conversion(void)
{
	int			encoding = GetDatabaseEncoding();
	Oid			conversion;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return InvalidOid;
	conversion = FindDefaultConversionProc(encoding, PG_UTF8);
	if (!OidIsValid(conversion))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("there is no conversion from encoding \"%s\" to UTF8", GetDatabaseEncodingName())));
	return conversion;
}

/*
 * Bytes of UTF-8 text that make at most "units" UTF-16 code units. A character
 * beyond the basic plane (a lead byte from 0xF0 on) makes two, and is taken
 * whole or not at all. No text has more units than bytes, so that nearly all
 * are told by their length alone.
 */
static size_t
bytes_of_units(const char *data, size_t len, int units)
{
	size_t		i;

	if (len <= (size_t) units)
		return len;
	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) data[i];

		if ((c & 0xc0) == 0x80)
			continue;			/* within a character */
		units -= c >= 0xf0 ? 2 : 1;
		if (units < 0)
			break;
	}
	return i;
}

/* UTF-8 as the inside of a JSON string, cut where the column takes no more. */
static const char *
write_utf8(StringInfo out, const char *data, size_t len, const DvPayloadPlan *plan)
{
	size_t		taken = plan->max_units > 0 ? bytes_of_units(data, len, plan->max_units) : len;

	dv_payload_escape(out, data, taken);
	return taken < len ? dv_payload_trimmed : NULL;
}

/* Bytes of a database that is not UTF-8. */
static const char *
write_converted(StringInfo out, const char *data, size_t len, const DvPayloadPlan *plan)
{
	Oid			conversion = plan->conversion;
	size_t		room = len * MAX_CONVERSION_GROWTH + 1;
	const char *fault;
	char	   *utf8;
	int			done;

	if (!OidIsValid(conversion))
	{
		/* SQL_ASCII: the server has not checked anything */
		if (!pg_verify_mbstr(PG_UTF8, data, (int) len, true))
			return not_utf8;
		return write_utf8(out, data, len, plan);
	}
	utf8 = palloc(room);
	done = pg_do_encoding_conversion_buf(conversion, GetDatabaseEncoding(), PG_UTF8,
										 (unsigned char *) unconstify(char *, data), (int) len,
										 (unsigned char *) utf8, (int) room, true);
	fault = done == (int) len ? write_utf8(out, utf8, strlen(utf8), plan) : not_convertible;
	pfree(utf8);
	return fault;
}

/* A JSON string of text in the server encoding. */
static const char *
write_string(StringInfo out, const char *data, size_t len, const DvPayloadPlan *plan)
{
	const char *fault = NULL;

	appendStringInfoCharMacro(out, '"');
	if (GetDatabaseEncoding() == PG_UTF8)
		fault = write_utf8(out, data, len, plan);
	else
		fault = write_converted(out, data, len, plan);
	appendStringInfoCharMacro(out, '"');
	return fault;
}

/* Detoasted value, or NULL where it is too long; *copy is what to free. */
static struct varlena *
detoast(Datum value, struct varlena **copy)
{
	struct varlena *v = (struct varlena *) DatumGetPointer(value);

	*copy = NULL;
	/* a pointer to a TOAST table looks short too */
	if (VARATT_IS_SHORT(v) && !VARATT_IS_EXTERNAL(v))
		return v;
	if (toast_raw_datum_size(value) > DV_PAYLOAD_MAX_VALUE)
		return NULL;
	if (VARATT_IS_EXTENDED(v))
		v = *copy = pg_detoast_datum_packed(v);
	return v;
}

static inline void
free_copy(struct varlena *copy)
{
	if (copy != NULL)
		pfree(copy);
}

/* text, varchar, and json, which is text too */
const char *
dv_payload_write_text(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	struct varlena *copy;
	struct varlena *v = detoast(value, &copy);
	const char *fault;

	if (v == NULL)
		return dv_payload_too_long;
	fault = write_string(out, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v), plan);
	free_copy(copy);
	return fault;
}

/* char(n) is padded with blanks that are no part of the value */
const char *
dv_payload_write_char(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	struct varlena *copy;
	struct varlena *v = detoast(value, &copy);
	const char *fault;
	size_t		len;

	if (v == NULL)
		return dv_payload_too_long;
	len = VARSIZE_ANY_EXHDR(v);
	while (len > 0 && VARDATA_ANY(v)[len - 1] == ' ')
		len--;
	fault = write_string(out, VARDATA_ANY(v), len, plan);
	free_copy(copy);
	return fault;
}

const char *
dv_payload_write_name(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	const char *name = NameStr(*DatumGetName(value));

	return write_string(out, name, strlen(name), plan);
}

const char *
dv_payload_write_enum(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, value);
	const char *label;
	const char *fault;

	if (!HeapTupleIsValid(tuple))
		return no_such_label;
	label = NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel);
	fault = write_string(out, label, strlen(label), plan);
	ReleaseSysCache(tuple);
	return fault;
}

const char *
dv_payload_write_jsonb(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	Jsonb	   *json;
	char	   *text;
	const char *fault;
	size_t		len;

	if (toast_raw_datum_size(value) > DV_PAYLOAD_MAX_VALUE)
		return dv_payload_too_long;
	json = DatumGetJsonbP(value);
	text = JsonbToCString(NULL, &json->root, VARSIZE(json));
	len = strlen(text);
	fault = len > DV_PAYLOAD_MAX_VALUE ? dv_payload_too_long : write_string(out, text, len, plan);
	pfree(text);
	if ((Pointer) json != DatumGetPointer(value))
		pfree(json);
	return fault;
}

/* JSON that dvmig itself made, as it is. */
const char *
dv_payload_write_raw(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	char	   *json = TextDatumGetCString(value);

	(void) plan;
	appendStringInfoString(out, pg_server_to_any(json, (int) strlen(json), PG_UTF8));
	pfree(json);
	return NULL;
}

/* Base64 of RFC 4648 with padding, without line breaks. */
static void
append_base64(StringInfo out, const unsigned char *data, size_t len)
{
	static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char	   *p;

	enlargeStringInfo(out, (int) ((len + 2) / 3 * 4));
	p = out->data + out->len;
	for (; len > 0; data += 3)
	{
		uint32		bits = (uint32) data[0] << 16;

		if (len > 1)
			bits |= (uint32) data[1] << 8;
		if (len > 2)
			bits |= data[2];
		*p++ = alphabet[bits >> 18];
		*p++ = alphabet[bits >> 12 & 63];
		*p++ = len > 1 ? alphabet[bits >> 6 & 63] : '=';
		*p++ = len > 2 ? alphabet[bits & 63] : '=';
		len -= Min(len, 3);
	}
	*p = '\0';
	out->len = (int) (p - out->data);
}

const char *
dv_payload_write_bytes(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	struct varlena *copy;
	struct varlena *v = detoast(value, &copy);

	(void) plan;
	if (v == NULL)
		return dv_payload_too_long;
	appendStringInfoChar(out, '"');
	append_base64(out, (const unsigned char *) VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	appendStringInfoChar(out, '"');
	free_copy(copy);
	return NULL;
}

static void
append_uuid(StringInfo out, const pg_uuid_t *id)
{
	char		text[37];

	dv_wiretext_format_uuid(id->data, text);
	appendBinaryStringInfo(out, text, sizeof(text) - 1);
}

const char *
dv_payload_write_uuid(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	(void) plan;
	appendStringInfoChar(out, '"');
	append_uuid(out, DatumGetUUIDP(value));
	appendStringInfoChar(out, '"');
	return NULL;
}

/* "accounts(00000000-...)" */
const char *
dv_payload_write_lookup(StringInfo out, Datum value, const DvPayloadPlan *plan)
{
	appendBinaryStringInfo(out, plan->open, plan->open_len);
	append_uuid(out, DatumGetUUIDP(value));
	appendBinaryStringInfo(out, ")\"", 2);
	return NULL;
}
