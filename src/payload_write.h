/*
 * payload_write.h - inside payload_*.c: one writer per kind of value and target
 *
 * A writer appends the JSON value of one datum that is not null. It returns
 * NULL when that went well and otherwise why the value cannot be sent, as a
 * constant text without row content; what it appended by then is taken back by
 * the caller. The constant dv_payload_is_null stands for "counts as null".
 */
#ifndef DV_PAYLOAD_WRITE_H
#define DV_PAYLOAD_WRITE_H

#include "payload.h"

/*
 * Largest value in bytes. Dataverse takes 1,048,576 characters in a memo and
 * 30 MB in an image; the limit keeps six-fold escaped text far below the 1 GB
 * of a StringInfo, so that no value of a row can make the appender throw.
 */
#define DV_PAYLOAD_MAX_VALUE	(32 * 1024 * 1024)

/* What dv_payload_prepare() works out once per column. */
typedef struct DvPayloadPlan DvPayloadPlan;

typedef const char *(*DvPayloadWriter) (StringInfo out, Datum value, const DvPayloadPlan *plan);

struct DvPayloadPlan
{
	DvPayloadWriter write;
	Oid			type;			/* base type */
	Oid			conversion;		/* text: procedure from server encoding to UTF-8, or invalid */
	char	   *open;			/* lookup: "set( in front of the id */
	int			open_len;
	int			group;			/* lookup: number shared by columns of one target column, or -1 */
	int			max_units;		/* text: cut after so many UTF-16 code units; 0 = not */
	bool		trimmed;		/* ... which happened */
};

/* Returned by writers: treat the value as null. */
extern const char dv_payload_is_null[];

/* Returned by writers: the value was cut to what the column takes, and is well otherwise. */
extern const char dv_payload_trimmed[];

/* Returned by writers: the value is over DV_PAYLOAD_MAX_VALUE. */
extern const char dv_payload_too_long[];

/* payload_types.c: the writer for a base type and target, or NULL. */
extern DvPayloadWriter dv_payload_writer(Oid type, DvTargetType target);

/* payload_text.c */
extern Oid	dv_payload_text_conversion(void);
extern void dv_payload_escape(StringInfo out, const char *data, size_t len);
extern const char *dv_payload_write_text(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_raw(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_char(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_name(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_enum(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_jsonb(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_bytes(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_uuid(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_lookup(StringInfo out, Datum value, const DvPayloadPlan *plan);

/* payload_choices.c */
extern const char *dv_payload_write_choices_text(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_choices_array(StringInfo out, Datum value, const DvPayloadPlan *plan);

/* payload_number.c; those with "quoted" write a JSON string */
extern const char *dv_payload_write_bool(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_int2(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_int4(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_int8(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_quoted_int2(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_quoted_int4(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_quoted_int8(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_numeric(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_quoted_numeric(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_whole_numeric(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_float4(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_float8(StringInfo out, Datum value, const DvPayloadPlan *plan);

/* payload_time.c */
extern const char *dv_payload_write_date(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_date_at_midnight(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_timestamp(StringInfo out, Datum value, const DvPayloadPlan *plan);
extern const char *dv_payload_write_timestamp_date(StringInfo out, Datum value, const DvPayloadPlan *plan);

#endif							/* DV_PAYLOAD_WRITE_H */
