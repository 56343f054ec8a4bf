/*
 * planted.c - faults that the sanitizers and valgrind must find
 *
 * No part of the product: test/lib/sanitize.sh adds this file to the library of
 * the private copy that runs with an instrument, and calls each function once,
 * in a server that the tests use. A report of it proves that the extension was
 * built with the instrument, that the server runs with it, and that reports are
 * looked for where they are written. It is compiled and linked as the product's
 * sources are, so that what finds it would find theirs.
 */
#include "postgres.h"

#include "fmgr.h"

PG_FUNCTION_INFO_V1(planted_overflow);
PG_FUNCTION_INFO_V1(planted_misaligned);
PG_FUNCTION_INFO_V1(planted_uninitialised);
PG_FUNCTION_INFO_V1(planted_assertion);

/* What the compiler must not know, lest it removes the fault as one that cannot be. */
static volatile int planted_zero;

/*
 * malloc() behind a pointer: where the compiler knows how long a piece of memory
 * is, it warns of what is meant here, or its own check comes before ASan's.
 */
static void *(*volatile planted_malloc) (size_t) = malloc;

/*
 * One byte behind the heap's: the address sanitizer ends the process, valgrind
 * reports an invalid read. From malloc(): of palloc() neither knows.
 */
Datum
planted_overflow(PG_FUNCTION_ARGS)
{
	volatile char *bytes = planted_malloc(16);
	int			result;

	if (bytes == NULL)
		PG_RETURN_NULL();
	bytes[0] = 1;
	result = bytes[16 + planted_zero];
	free((void *) bytes);
	PG_RETURN_INT32(result);
}

/* A misaligned read: the undefined behaviour sanitizer ends the process. */
Datum
planted_misaligned(PG_FUNCTION_ARGS)
{
	static int32 words[2];
	volatile int32 *word = (volatile int32 *) ((char *) words + 1 + planted_zero);

	PG_RETURN_INT32(*word);
}

/* A branch on a byte that nobody wrote: valgrind reports it. */
Datum
planted_uninitialised(PG_FUNCTION_ARGS)
{
	volatile char *bytes = planted_malloc(16);

	if (bytes == NULL)
		PG_RETURN_NULL();
	/* writing to what is volatile, so that it is a branch and not a value computed */
	if (bytes[8 + planted_zero] == 42)
		planted_zero = 0;
	free((void *) bytes);
	PG_RETURN_INT32(planted_zero);
}

/* An assertion that does not hold: a server built with assertions ends the process. */
Datum
planted_assertion(PG_FUNCTION_ARGS)
{
	Assert(planted_zero == 1);
	PG_RETURN_INT32(planted_zero);
}
