/*
 * util.h - memory, growing buffers, request arenas, text and GUID helpers
 *
 * The simulator ends with a message when memory runs out: it is a test tool
 * and holds nothing that must be saved.
 */
#ifndef SIM_UTIL_H
#define SIM_UTIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A run of bytes that belongs to somebody else; not NUL terminated. */
typedef struct SimStr
{
	const char *s;
	size_t		len;
} SimStr;

/* A growing buffer; data[len] is always NUL once something was added. */
typedef struct SimBuf
{
	char	   *data;
	size_t		len;
	size_t		cap;
} SimBuf;

/* A GUID as two big-endian halves, so that equality is two comparisons. */
typedef struct SimGuid
{
	uint64_t	hi;
	uint64_t	lo;
} SimGuid;

typedef struct SimChunk SimChunk;

/* Memory of one request, freed as a whole. */
typedef struct SimArena
{
	SimChunk   *head;
	char	   *at;
	char	   *end;
} SimArena;

#define SIM_GUID_LEN 36

/* malloc, calloc, realloc and strndup that never return NULL. */
extern void *sim_alloc(size_t n);
extern void *sim_zalloc(size_t n);
extern void *sim_realloc(void *p, size_t n);
extern char *sim_strndup(const char *s, size_t n);
extern char *sim_strdup(const char *s);

/* Append bytes, a C string, one byte, formatted text; drop the content. */
extern void sim_buf_add(SimBuf *b, const void *p, size_t n);
extern void sim_buf_puts(SimBuf *b, const char *s);
extern void sim_buf_char(SimBuf *b, char c);
extern void sim_buf_printf(SimBuf *b, const char *fmt,...) __attribute__((format(printf, 2, 3)));
extern void sim_buf_vprintf(SimBuf *b, const char *fmt, va_list ap);
extern void sim_buf_free(SimBuf *b);

/* Make room for n more bytes, so that the caller may write at data + len. */
extern void sim_buf_room(SimBuf *b, size_t n);

/* Memory that lives until sim_arena_free; aligned to 8 bytes. */
extern void *sim_arena_alloc(SimArena *a, size_t n);
extern char *sim_arena_strndup(SimArena *a, const char *s, size_t n);
extern char *sim_arena_printf(SimArena *a, const char *fmt,...) __attribute__((format(printf, 2, 3)));
extern void sim_arena_free(SimArena *a);

/* Compare a run of bytes with a C string. */
extern bool sim_str_is(SimStr a, const char *b);

/* FNV-like hash of bytes, good enough for names and key values. */
extern uint64_t sim_hash(const void *p, size_t n);

/* Mix a GUID into a table index; ids that count upwards must spread. */
extern uint64_t sim_guid_hash(SimGuid g);

/* Read 8-4-4-4-12 hexadecimal digits of either case; false when malformed. */
extern bool sim_guid_parse(const char *s, size_t len, SimGuid *out);

/* Write 36 lower-case characters and a NUL. */
extern void sim_guid_format(SimGuid g, char *out);
extern void sim_buf_guid(SimBuf *b, SimGuid g);

/* A random version 4 GUID; safe to call from any thread. */
extern SimGuid sim_guid_random(void);

/* A pseudo-random number below n (n > 0); not for secrets. */
extern uint32_t sim_random(uint32_t n);

static inline bool
sim_guid_eq(SimGuid a, SimGuid b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

/*
 * Decode %XX into out (at least n + 1 bytes), and '+' as a blank where "plus"
 * is set (form data and query strings). Returns the length; malformed escapes
 * stay as they are.
 */
extern size_t sim_percent_decode(const char *s, size_t n, char *out, bool plus);

/* What a digit of base64 stands for; -1 where it is none. */
extern int	sim_base64_value(char c);

/* Wall clock in microseconds since 1970, and a clock that never jumps. */
extern int64_t sim_now_us(void);
extern int64_t sim_mono_us(void);

/* Sleep, also for fractions of a second; interrupted sleeps are continued. */
extern void sim_sleep_us(int64_t us);

/* Case-folded UTF-8 without trailing blanks, as SQL Server compares keys. */
extern void sim_fold(SimBuf *out, const char *s, size_t len);

/* Print an error for the person who started the program, and leave. */
extern void sim_die(const char *fmt,...) __attribute__((format(printf, 1, 2), noreturn));

#endif							/* SIM_UTIL_H */
