/*
 * journal.c - committed changes in a file, so that they outlive the process
 *
 * A commit is one write(2) before its answer is given: kill -9 loses nothing
 * that was answered, as it would not in the service. (A power failure might;
 * nothing is synced.) Rows are written as they lie in memory, so that a file
 * is for the same program with the same table files only. Uploaded files,
 * tokens, faults and statistics are not kept.
 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

typedef enum Kind
{
	KIND_SLOT = 1, KIND_LINK, KIND_PRINCIPAL
} Kind;

typedef struct Entry
{
	uint32_t	kind;
	uint32_t	bytes;			/* of the row that follows; 0: none, or deleted */
	uint32_t	number;			/* of the table, relation or principal */
	uint32_t	added;
	uint32_t	creates;
	uint32_t	updates;
	SimGuid		a,
				b;
} Entry;

static int	file = -1;
static SimBuf pending;
static uint32_t first_principal;	/* the world makes those before it anew */
static uint32_t next_principal;

void
sim_journal_slot(const SimTable *t, uint32_t slot)
{
	const SimSlot *s = sim_store_slot(t, slot);
	Entry		e = {.kind = KIND_SLOT,.number = t->number,.creates = s->creates,.updates = s->updates,.a = s->id};

	if (file < 0)
		return;
	e.bytes = s->row != NULL ? s->row->bytes : 0;
	sim_buf_add(&pending, &e, sizeof e);
	if (s->row != NULL)
		sim_buf_add(&pending, s->row, s->row->bytes);
}

void
sim_journal_link(const SimManyToMany *r, SimGuid a, SimGuid b, bool added)
{
	Entry		e = {.kind = KIND_LINK,.added = added,.a = a,.b = b};

	if (file < 0)
		return;
	while (sim_model.relations[e.number] != r)
		e.number++;
	sim_buf_add(&pending, &e, sizeof e);
}

/* Rows name users and teams by numbers: those must be known when rows are redone. */
static void
write_principals(void)
{
	SimBuf		b = {0};
	SimGuid		id;

	while (id = sim_principal_guid(next_principal), id.hi != 0 || id.lo != 0)
	{
		Entry		e = {.kind = KIND_PRINCIPAL,.number = next_principal++,.a = id};

		sim_buf_add(&b, &e, sizeof e);
	}
	if (b.len > 0 && write(file, b.data, b.len) != (ssize_t) b.len)
		sim_die("cannot write the journal: %s", strerror(errno));
	sim_buf_free(&b);
}

void
sim_journal_commit(void)
{
	if (file < 0 || pending.len == 0)
		return;
	write_principals();
	if (write(file, pending.data, pending.len) != (ssize_t) pending.len)
		sim_die("cannot write the journal: %s", strerror(errno));
	pending.len = 0;
}

void
sim_journal_clear(void)
{
	if (file < 0)
		return;
	if (ftruncate(file, 0) != 0)
		sim_die("cannot empty the journal: %s", strerror(errno));
	pending.len = 0;
	next_principal = first_principal;
}

static void
redo(const Entry *e, SimRow *row)
{
	switch (e->kind)
	{
		case KIND_SLOT:
			sim_store_redo(sim_model.tables[e->number], e->a, row, e->creates, e->updates);
			break;
		case KIND_LINK:
			sim_links_undo(sim_model.relations[e->number], e->a, e->b, !e->added);
			break;
		case KIND_PRINCIPAL:
			if (sim_principal_number(e->a) != e->number)
				sim_die("the journal is of another world");
			break;
	}
}

/* True where all of it could be read: a process that was killed may leave half an entry at the end. */
static bool
read_all(int from, void *to, size_t n)
{
	size_t		have = 0;
	ssize_t		got;

	while (have < n && (got = read(from, (char *) to + have, n - have)) > 0)
		have += (size_t) got;
	return have == n;
}

void
sim_journal_open(const char *path)
{
	int			fd = open(path, O_RDWR | O_CREAT, 0600);
	off_t		end = 0;
	Entry		e;

	if (fd < 0)
		sim_die("cannot open %s: %s", path, strerror(errno));
	first_principal = 1;
	while (sim_principal_guid(first_principal).hi != 0 || sim_principal_guid(first_principal).lo != 0)
		first_principal++;
	while (read_all(fd, &e, sizeof e))
	{
		SimRow	   *row = e.bytes > 0 ? sim_zalloc(e.bytes) : NULL;

		if (e.bytes > 0 && !read_all(fd, row, e.bytes))
		{
			free(row);
			break;
		}
		redo(&e, row);
		end += (off_t) (sizeof e + e.bytes);
	}
	if (ftruncate(fd, end) != 0 || lseek(fd, 0, SEEK_END) < 0 || fcntl(fd, F_SETFL, O_APPEND) != 0)
		sim_die("cannot go on with %s: %s", path, strerror(errno));
	next_principal = 1;
	while (sim_principal_guid(next_principal).hi != 0 || sim_principal_guid(next_principal).lo != 0)
		next_principal++;
	file = fd;
}
