/*
 * near.c - how far apart two names are, for hints
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(dv_name_distance);

/* Longest text PostgreSQL's Levenshtein function takes, in characters. */
#define MAX_LEVENSHTEIN 255

/*
 * dv_name_distance(a text, b text) returns the number of letters to insert,
 * delete or change to make one name the other; null for overlong names.
 */
Datum
dv_name_distance(PG_FUNCTION_ARGS)
{
	text	   *a = PG_GETARG_TEXT_PP(0);
	text	   *b = PG_GETARG_TEXT_PP(1);
	int			a_len = VARSIZE_ANY_EXHDR(a);
	int			b_len = VARSIZE_ANY_EXHDR(b);

	if (pg_mbstrlen_with_len(VARDATA_ANY(a), a_len) > MAX_LEVENSHTEIN ||
		pg_mbstrlen_with_len(VARDATA_ANY(b), b_len) > MAX_LEVENSHTEIN)
		PG_RETURN_NULL();
	PG_RETURN_INT32(varstr_levenshtein(VARDATA_ANY(a), a_len, VARDATA_ANY(b), b_len,
									   1, 1, 1, false));
}
