/*
 * verify_store.c - what a verification found, into dvmig's tables
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "http.h"
#include "keys.h"
#include "servertext.h"
#include "spi.h"
#include "verify.h"
#include "wiretext.h"

/* Differences kept for each staging table: the counts are of all. */
#define LISTED_MAX		1000000

/* Longest value kept of a difference, in bytes; the rest is cut off. */
#define VALUE_MAX		2000

/* ---------------------------------------------------------------- differences */

/* A JSON value for people, in the server's encoding; NULL for null. */
static char *
value_text(DvSlice value)
{
	char	   *raw;
	char	   *clean;
	size_t		size = Min(value.len, VALUE_MAX) + 1;

	if (dv_page_is_null(value))
		return NULL;
	raw = palloc(size);
	clean = palloc(size);
	(void) dv_page_text(value, raw, size);
	dv_wiretext_clean(clean, size, raw, strlen(raw));	/* blanks at the ends may be all that differs */
	return dv_server_text(clean, strlen(clean), "?");
}

/* Of a lookup only the id, as it is read back. */
static char *
expected_text(DvSlice value)
{
	DvSlice		id = value.len > 40 && value.p[value.len - 1] == '"' && value.p[value.len - 2] == ')'
		? dv_compare_lookup_id(value) : (DvSlice) {NULL, 0};

	return value_text(id.len == 36 ? id : value);
}

void
dv_verify_note(DvVerify *v, const DvVerifyRow *row, const char *column, DvSlice expected, DvSlice found, const char *kind)
{
	MemoryContext old;
	DvDifference *d;

	if (v->listed++ >= LISTED_MAX)
		return;
	if (v->ndifferences == v->max_differences)
	{
		v->max_differences = v->max_differences ? v->max_differences * 2 : 256;
		v->differences = v->differences ? repalloc(v->differences, sizeof(DvDifference) * v->max_differences)
			: MemoryContextAlloc(v->context, sizeof(DvDifference) * v->max_differences);
	}
	d = &v->differences[v->ndifferences++];
	old = MemoryContextSwitchTo(v->difference_context);
	d->key = pstrdup(row->key);
	d->id = row->id;
	d->has_id = row->has_id;
	d->column = column;
	d->expected = expected_text(expected);
	d->found = value_text(found);
	d->kind = kind;
	MemoryContextSwitchTo(old);
}

/* A text of each difference. */
static void
add_texts(DvArrays *a, const DvVerify *v, size_t offset)
{
	Datum	   *values = palloc(sizeof(Datum) * a->n);
	bool	   *nulls = palloc(sizeof(bool) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
	{
		const char *text = *(const char *const *) ((const char *) &v->differences[i] + offset);

		nulls[i] = text == NULL;
		values[i] = text ? CStringGetTextDatum(text) : (Datum) 0;
	}
	dv_keys_add(a, values, nulls, TEXTOID);
}

static void
add_ids(DvArrays *a, const DvVerify *v)
{
	Datum	   *values = palloc(sizeof(Datum) * a->n);
	bool	   *nulls = palloc(sizeof(bool) * a->n);
	int			i;

	for (i = 0; i < a->n; i++)
	{
		nulls[i] = !v->differences[i].has_id;
		values[i] = UUIDPGetDatum(&v->differences[i].id);
	}
	dv_keys_add(a, values, nulls, UUIDOID);
}

char *
dv_verify_hex(const unsigned char *bytes, int n)
{
	char	   *text = palloc(2 * n + 1);

	hex_encode((const char *) bytes, n, text);
	text[2 * n] = '\0';
	return text;
}

void
dv_verify_flush(DvVerify *v)
{
	DvArrays	a = {.n = v->ndifferences,.count = 2,.types = {INT8OID, OIDOID}};
	DvSwitch	before;

	if (v->ndifferences == 0)
		return;
	before = dv_runstate_begin("dvmig: recording differences");
	a.values[0] = Int64GetDatum(v->rc->run);
	a.values[1] = ObjectIdGetDatum(v->plan.staging);
	add_texts(&a, v, offsetof(DvDifference, key));
	add_ids(&a, v);
	add_texts(&a, v, offsetof(DvDifference, column));
	add_texts(&a, v, offsetof(DvDifference, expected));
	add_texts(&a, v, offsetof(DvDifference, found));
	add_texts(&a, v, offsetof(DvDifference, kind));
	dv_spi_run("SELECT dvmig._add_differences($1, $2::regclass, $3, $4, $5, $6, $7, $8)", a.count, a.types, a.values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, true);
	v->ndifferences = 0;
	MemoryContextReset(v->difference_context);
}

/* ---------------------------------------------------------------- sums */

static Numeric
numeric_of(const char *text)
{
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static void
add_rest(DvVerify *v, DvSum *sum, const char *text)
{
	MemoryContext old = MemoryContextSwitchTo(v->context);
	Numeric		added = numeric_of(text);
	Numeric		before = sum->rest;

	if (before != NULL)
	{
		sum->rest = DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(before), NumericGetDatum(added)));
		pfree(before);
		pfree(added);
	}
	else
		sum->rest = added;
	MemoryContextSwitchTo(old);
}

/* A plain decimal of up to 18 digits as a whole number and its digits after the point. */
static bool
plain_decimal(const char *p, int64 *whole, int *scale)
{
	bool		negative = *p == '-';
	bool		point = false;
	int			digits = 0;

	*whole = 0;
	*scale = 0;
	for (p += negative; *p != '\0'; p++)
	{
		if (*p == '.' && !point)
			point = true;
		else if (*p >= '0' && *p <= '9' && ++digits <= 18)
		{
			*whole = *whole * 10 + *p - '0';
			*scale += point;
		}
		else
			return false;
	}
	if (negative)
		*whole = -*whole;
	return digits > 0 && *scale < DV_SUM_SCALES;
}

/* As many digits as there are from *p on, one at least and "max" at most. */
static bool
skip_digits(const char **p, size_t max)
{
	size_t		n = strspn(*p, "0123456789");

	*p += n;
	return n > 0 && n <= max;
}

/* Is it a number as JSON has them, of a size that floats have? What is not must not reach numeric_in(). */
static bool
is_number(const char *p)
{
	p += *p == '-';
	if (!skip_digits(&p, SIZE_MAX) || (*p == '.' && (p++, !skip_digits(&p, SIZE_MAX))))
		return false;
	if (*p == 'e' || *p == 'E')
	{
		p++;
		p += *p == '+' || *p == '-';
		if (!skip_digits(&p, 3))
			return false;
	}
	return *p == '\0';
}

void
dv_verify_sum(DvVerify *v, DvSum *sum, DvSlice value)
{
	char		text[64];
	int64		whole;
	int64		total;
	int			scale;

	if (dv_page_is_null(value) || dv_page_text(value, text, sizeof(text)) >= sizeof(text))
		return;
	sum->count++;
	if (plain_decimal(text, &whole, &scale) && !pg_add_s64_overflow(sum->parts[scale], whole, &total))
		sum->parts[scale] = total;
	else if (is_number(text))
		add_rest(v, sum, text);
}

/* The sum as text. */
static char *
sum_text(DvVerify *v, DvSum *sum)
{
	int			i;

	for (i = 0; i < DV_SUM_SCALES; i++)
		if (sum->parts[i] != 0)
		{
			uint64		size = sum->parts[i] < 0 ? 0 - (uint64) sum->parts[i] : (uint64) sum->parts[i];
			char	   *digits = psprintf("%0*llu", i + 1, (unsigned long long) size);
			int			before = (int) strlen(digits) - i;

			add_rest(v, sum, psprintf("%s%.*s%s%s", sum->parts[i] < 0 ? "-" : "", before, digits, i > 0 ? "." : "", digits + before));
			sum->parts[i] = 0;
		}
	return sum->rest ? DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(sum->rest))) : pstrdup("0");
}

/* ---------------------------------------------------------------- a table's end */

static void
append_sums(DvVerify *v, StringInfo out)
{
	const char *comma = "";
	int			i;

	appendStringInfoChar(out, '[');
	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];

		if (!c->summed || c->read_name == NULL)
			continue;
		appendStringInfo(out, "%s{\"column_name\":", comma);
		escape_json(out, c->name);
		appendStringInfo(out, ",\"source_count\":" INT64_FORMAT ",\"target_count\":" INT64_FORMAT ",\"source_sum\":%s,\"target_sum\":%s}",
						 c->source.count, c->target.count, sum_text(v, &c->source), sum_text(v, &c->target));
		comma = ",";
	}
	appendStringInfoChar(out, ']');
}

static void
append_figures(DvVerify *v, StringInfo out)
{
	const char *comma = "";
	int			i;

	appendStringInfo(out, "{\"of_all\":%s,\"compared\":" INT64_FORMAT ",\"equal\":" INT64_FORMAT ",\"missing\":" INT64_FORMAT ",\"different\":" INT64_FORMAT
					 ",\"extra\":" INT64_FORMAT ",\"changed_since\":" INT64_FORMAT ",\"owners_changed\":" INT64_FORMAT ",\"not_compared\":[",
					 v->sample_sql ? "false" : "true", v->compared, v->equal, v->missing, v->different, v->extra, v->changed, v->owners_changed);
	if (v->too_long > 0)
	{
		escape_json(out, psprintf(INT64_FORMAT " %s longer than %d MB", v->too_long, v->too_long == 1 ? "record: its answer is" : "records: their answers are",
								  (int) (DV_REPLY_LIMIT / (1024 * 1024))));
		comma = ",";
	}
	if (v->links_refused)
	{
		appendStringInfoString(out, comma);
		escape_json(out, "links: the service tells them neither with the records nor of each");
		comma = ",";
	}
	for (i = 0; i < v->ncolumns; i++)
	{
		DvVerifyColumn *c = &v->columns[i];
		const char *why = c->full_image != DV_IMAGE_NONE ? dv_verify_images_not_compared(c) :
			c->read_name == NULL ? "cannot be read back" :
			c->default_varies ? "not where nothing was sent: the service fills it in" : NULL;

		if (why == NULL)
			continue;
		appendStringInfoString(out, comma);
		escape_json(out, psprintf("%s: %s", c->name, why));
		comma = ",";
	}
	appendStringInfoChar(out, ']');
}

/* What the table took. */
static void
append_usage(DvVerify *v, StringInfo out)
{
	DvUsage		usage;

	dv_phase_usage(&usage);
	appendStringInfo(out, ",\"uncompared\":" INT64_FORMAT ",\"requests\":" INT64_FORMAT ",\"cpu_ms\":" INT64_FORMAT ",\"memory_kb\":" INT64_FORMAT "}",
					 v->uncompared, v->rc->total.requests - v->requests_before, (usage.cpu_us - v->usage_before.cpu_us) / 1000, usage.anonymous_kb);
}

static void
call_with_table(DvVerify *v, const char *sql, const char *figures, const char *sums)
{
	Oid			types[4] = {INT8OID, OIDOID, TEXTOID, TEXTOID};
	Datum		values[4] = {Int64GetDatum(v->rc->run), ObjectIdGetDatum(v->plan.staging)};
	DvSwitch	before;

	before = dv_runstate_begin("dvmig: recording a verification");
	if (figures != NULL)
	{
		values[2] = CStringGetTextDatum(figures);
		values[3] = CStringGetTextDatum(sums);
	}
	dv_spi_run(sql, figures ? 4 : 2, types, values, NULL, SPI_OK_SELECT);
	dv_runstate_commit(before, false);
}

void
dv_verify_begin_table(DvVerify *v)
{
	v->requests_before = v->rc->total.requests;
	dv_phase_usage(&v->usage_before);
	call_with_table(v, strcmp(v->rc->kind, "resend") == 0 ? "SELECT dvmig._begin_resend($1, $2::regclass)"
					: strcmp(v->rc->kind, "rebuild") == 0 ? "SELECT dvmig._begin_job_table($1, $2::regclass)"
					: "SELECT dvmig._begin_verification($1, $2::regclass)", NULL, NULL);
}

void
dv_verify_end_table(DvVerify *v)
{
	StringInfoData figures;
	StringInfoData sums;

	initStringInfo(&figures);
	initStringInfo(&sums);
	append_figures(v, &figures);
	append_usage(v, &figures);
	append_sums(v, &sums);
	call_with_table(v, "SELECT dvmig._end_verification($1, $2::regclass, $3::jsonb, $4::jsonb)", figures.data, sums.data);
	v->rc->total.succeeded += v->equal;
	v->rc->total.failed += v->compared - v->equal + v->extra;
}
