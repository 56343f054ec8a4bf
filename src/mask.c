/*
 * mask.c - values that look like the real ones and are not
 *
 * For environments that are not production. A mask is a function of the value
 * and a secret key: the same value gets the same mask in every row and run, so
 * that what belonged together still does, and nobody without the key can try a
 * list of names to find out who is meant. Format and length in characters are
 * kept.
 *
 * GLOSSARY
 *
 *   stream   bytes that key, kind of mask and value determine: the inner
 *            SHA-256 of all three, then outer ones of it with a counter
 *   folded   ASCII letters in lower case, so that SMITH and Smith get masks that
 *            differ in case alone
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "compat.h"
#include "sha256.h"

PG_FUNCTION_INFO_V1(dv_use_mask_key);
PG_FUNCTION_INFO_V1(dv_mask_name);
PG_FUNCTION_INFO_V1(dv_mask_mail);
PG_FUNCTION_INFO_V1(dv_mask_phone);
PG_FUNCTION_INFO_V1(dv_mask_text);
PG_FUNCTION_INFO_V1(dv_mask_number);

typedef struct Stream
{
	unsigned char seed[DV_SHA256_DIGEST];
	unsigned char block[DV_SHA256_DIGEST];
	int			used;			/* bytes of the block */
	uint32		counter;
} Stream;

/*
 * Key of the migration whose rows this session or worker transforms, and its
 * owner, as whom expressions run: for nobody else.
 */
static char *current_key = NULL;
static Oid	current_owner = InvalidOid;

/* dv_use_mask_key(secret text, owner oid): what masks without a key of their own use from now on. */
Datum
dv_use_mask_key(PG_FUNCTION_ARGS)
{
	char	   *key = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (current_key != NULL)
	{
		explicit_bzero(current_key, strlen(current_key));
		pfree(current_key);
	}
	current_key = NULL;
	if (key != NULL)
		current_key = MemoryContextStrdup(TopMemoryContext, key);
	current_owner = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	PG_RETURN_VOID();
}

static const char *
key_of(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(1))
		return text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (current_key == NULL || current_owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no mask key is in effect"),
				 errhint("In the mask of a column map the key of its migration is used; elsewhere give one with mask_key.")));
	return current_key;
}

static void
stream_begin(Stream *s, const char *key, const char *kind, const char *value, size_t len)
{
	DvSha256	hash;

	dv_sha256_init(&hash);
	dv_sha256_update(&hash, key, strlen(key) + 1);
	dv_sha256_update(&hash, kind, strlen(kind) + 1);
	for (size_t i = 0; i < len; i++)
	{
		char		c = value[i] >= 'A' && value[i] <= 'Z' ? value[i] - 'A' + 'a' : value[i];

		dv_sha256_update(&hash, &c, 1);
	}
	dv_sha256_final(&hash, s->seed);
	/* the key again, so that nothing of the stream tells of longer values */
	dv_sha256_init(&hash);
	dv_sha256_update(&hash, key, strlen(key) + 1);
	dv_sha256_update(&hash, s->seed, sizeof(s->seed));
	dv_sha256_final(&hash, s->seed);
	s->used = DV_SHA256_DIGEST;
	s->counter = 0;
}

/* A number below n, which is at most 256; two bytes make the bias too small to see. */
static int
stream_below(Stream *s, int n)
{
	int			value;

	if (s->used + 2 > DV_SHA256_DIGEST)
	{
		DvSha256	hash;

		dv_sha256_init(&hash);
		dv_sha256_update(&hash, s->seed, sizeof(s->seed));
		dv_sha256_update(&hash, &s->counter, sizeof(s->counter));
		dv_sha256_final(&hash, s->block);
		s->counter++;
		s->used = 0;
	}
	value = s->block[s->used] << 8 | s->block[s->used + 1];
	s->used += 2;
	return value % n;
}

static char
pick(Stream *s, const char *from)
{
	return from[stream_below(s, (int) strlen(from))];
}

/* A letter in place of one: a vowel for a vowel, capital for capital. */
static char
mask_letter(Stream *s, char c)
{
	char		lower = c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
	char		masked = strchr("aeiouy", lower) != NULL ? pick(s, "aeiou") : pick(s, "bcdfghjklmnprstvw");

	return lower == c ? masked : masked - 'a' + 'A';
}

/*
 * Append a mask of text: letters for letters, digits for digits where "digits",
 * a letter for every character beyond ASCII, all else as it is.
 */
static char *
mask_characters(Stream *s, char *out, const char *p, const char *end)
{
	while (p < end)
	{
		int			len = pg_mblen(p);

		if (len > 1 || (unsigned char) *p >= 0x80)
			*out++ = pick(s, "abcdefghijklmnoprstuvw");
		else if (isalpha((unsigned char) *p))
			*out++ = mask_letter(s, *p);
		else if (isdigit((unsigned char) *p))
			*out++ = '0' + stream_below(s, 10);
		else
			*out++ = *p;
		p += len;
	}
	return out;
}

static Datum
mask_as(FunctionCallInfo fcinfo, const char *kind)
{
	text	   *source;
	const char *value;
	size_t		len;
	char	   *masked;
	Stream		s;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	source = PG_GETARG_TEXT_PP(0);
	value = VARDATA_ANY(source);
	len = VARSIZE_ANY_EXHDR(source);
	masked = palloc(len + 1);
	stream_begin(&s, key_of(fcinfo), kind, value, len);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(masked, (int) (mask_characters(&s, masked, value, value + len) - masked)));
}

/* dv_mask_name(source text, mask_key text): pronounceable letters for letters. */
Datum
dv_mask_name(PG_FUNCTION_ARGS)
{
	return mask_as(fcinfo, "name");
}

/* dv_mask_text(source text, mask_key text): the same of any text, line breaks and all. */
Datum
dv_mask_text(PG_FUNCTION_ARGS)
{
	return mask_as(fcinfo, "text");
}

/* dv_mask_phone(source text, mask_key text): digits for digits; zeros at the start stay. */
Datum
dv_mask_phone(PG_FUNCTION_ARGS)
{
	text	   *source;
	char	   *masked;
	bool		started = false;
	Stream		s;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	source = PG_GETARG_TEXT_PP(0);
	masked = text_to_cstring(source);
	stream_begin(&s, key_of(fcinfo), "phone", masked, strlen(masked));
	for (char *p = masked; *p != '\0'; p++)
	{
		if (!isdigit((unsigned char) *p) || (!started && *p == '0'))
			continue;
		*p = started ? '0' + stream_below(&s, 10) : '1' + stream_below(&s, 9);
		started = true;
	}
	PG_RETURN_TEXT_P(cstring_to_text(masked));
}

/*
 * Domains that exist nowhere (RFC 2606), so that no mail ever leaves: as many
 * characters as the domain had, where it had as many.
 */
static char *
mask_domain(Stream *s, char *out, const char *domain, const char *end)
{
	int			len = pg_mbstrlen_with_len(domain, (int) (end - domain));
	const char *suffix = len > 8 ? ".invalid" : ".test";
	int			label = Max(1, len - (int) strlen(suffix));

	for (int i = 0; i < label; i++)
		*out++ = i % 2 ? pick(s, "aeiou") : pick(s, "bcdfghjklmnprstvw");
	memcpy(out, suffix, strlen(suffix));
	return out + strlen(suffix);
}

/*
 * dv_mask_mail(source text, mask_key text): letters and digits of the mailbox,
 * and a domain that cannot exist. Addresses of one domain stay together.
 */
Datum
dv_mask_mail(PG_FUNCTION_ARGS)
{
	text	   *source;
	const char *value;
	const char *at;
	const char *end;
	const char *key;
	char	   *masked;
	char	   *out;
	Stream		s;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	source = PG_GETARG_TEXT_PP(0);
	value = VARDATA_ANY(source);
	end = value + VARSIZE_ANY_EXHDR(source);
	for (at = end; at > value && at[-1] != '@';)
		at--;
	if (at == value)
		return mask_as(fcinfo, "mail");
	key = key_of(fcinfo);
	out = masked = palloc(end - value + 16);
	stream_begin(&s, key, "mail", value, end - value);
	out = mask_characters(&s, out, value, at - 1);
	*out++ = '@';
	stream_begin(&s, key, "domain", at, end - at);
	out = mask_domain(&s, out, at, end);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(masked, (int) (out - masked)));
}

/* Highest first digit such that numbers of so many digits stay within int4, int8 and money. */
static int
first_digits(int whole)
{
	return whole == 10 ? 1 : whole == 15 || whole == 19 ? 8 : 9;
}

/*
 * dv_mask_number(source numeric, mask_key text): as many digits before and
 * after the point, the same sign; zero stays zero.
 */
Datum
dv_mask_number(PG_FUNCTION_ARGS)
{
	char	   *digits;
	bool		started = false;
	Stream		s;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	digits = DatumGetCString(DirectFunctionCall1(numeric_out, PG_GETARG_DATUM(0)));
	stream_begin(&s, key_of(fcinfo), "number", digits, strlen(digits));
	for (char *p = digits; *p != '\0'; p++)
	{
		if (!isdigit((unsigned char) *p) || (!started && *p == '0'))
			continue;
		*p = started ? '0' + stream_below(&s, 10) : '1' + stream_below(&s, first_digits((int) strcspn(p, ".")));
		started = true;
	}
	PG_RETURN_DATUM(DirectFunctionCall3(numeric_in, CStringGetDatum(digits), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}
