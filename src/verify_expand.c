/*
 * verify_expand.c - what hangs on a record: collections that are read along
 *
 * Activity parties and links are read with the records, as an expanded
 * collection. Of parties those of the mapped roles are compared, as a set:
 * Dataverse adds others itself (an owner, what the activity regards), and has its
 * own order. For links see verify_links.c.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/uuid.h"

#include "encode.h"
#include "verify.h"

/* A party: the id of who it is, or an address, and its role. */
typedef struct Party
{
	char		id[37];
	char		address[400];
	char		mask[12];
	bool		taken;
} Party;

bool
dv_verify_open_collection(DvPage *page, DvSlice list)
{
	char	   *body = palloc(list.len + 16);
	int			len;

	if (list.p == NULL || list.len < 2 || list.p[0] != '[')
		return false;
	len = snprintf(body, list.len + 16, "{\"value\":%.*s}", (int) list.len, list.p);
	return dv_page_open(page, body, len);
}

static void
take_id(DvSlice value, char *id)
{
	pg_uuid_t	uuid;

	id[0] = '\0';
	if (dv_page_uuid(value, uuid.data))
		dv_source_format_id(&uuid, id);
}

/* "contacts(id)" as it was sent. */
static void
take_bound(DvSlice value, char *id)
{
	DvSlice		bare = dv_compare_lookup_id(value);
	char		quoted[40];

	id[0] = '\0';
	if (bare.p == NULL || bare.len != 36)
		return;
	snprintf(quoted, sizeof(quoted), "\"%.36s\"", bare.p);
	take_id((DvSlice) {quoted, 38}, id);
}

static Party *
read_parties(DvSlice list, int *n)
{
	DvPage		page;
	DvSlice		record;
	Party	   *parties = NULL;
	int			room = 0;

	*n = 0;
	if (!dv_verify_open_collection(&page, list))
		return NULL;
	while (dv_page_record(&page, &record))
	{
		const char *at = record.p;
		DvSlice		name;
		DvSlice		value;
		Party	   *party;

		if (*n == room)
		{
			room = room ? room * 2 : 16;
			parties = parties ? repalloc(parties, sizeof(Party) * room) : palloc(sizeof(Party) * room);
		}
		party = memset(&parties[(*n)++], 0, sizeof(Party));
		while (dv_page_member(record, &at, &name, &value))
		{
			if (name.len > 11 && memcmp(name.p + name.len - 11, "@odata.bind", 11) == 0)
				take_bound(value, party->id);
			else if (name.len == 14 && memcmp(name.p, "_partyid_value", 14) == 0)
				take_id(value, party->id);
			else if (name.len == 11 && memcmp(name.p, "addressused", 11) == 0 && !dv_page_is_null(value))
				(void) dv_page_text(value, party->address, sizeof(party->address));
			else if (name.len == 21 && memcmp(name.p, "participationtypemask", 21) == 0)
				(void) dv_page_text(value, party->mask, sizeof(party->mask));
		}
	}
	return parties;
}

/* Is the role among those that are mapped ("2,3")? */
static bool
has_role(const char *masks, const char *mask)
{
	return strstr(psprintf(",%s,", masks), psprintf(",%s,", mask)) != NULL;
}

/* Dataverse may find out whose an address is: then both are there. */
static bool
is_same(const Party *expected, const Party *found)
{
	return strcmp(expected->mask, found->mask) == 0 &&
		(expected->id[0] != '\0' ? strcmp(expected->id, found->id) == 0
		 : expected->address[0] != '\0' && pg_strcasecmp(expected->address, found->address) == 0);
}

bool
dv_verify_same_parties(const char *masks, DvSlice expected, DvSlice found)
{
	int			nexpected;
	int			nfound;
	Party	   *e = read_parties(expected, &nexpected);
	Party	   *f = read_parties(found, &nfound);
	int			left = 0;
	int			i;
	int			k;

	for (k = 0; k < nfound; k++)
		left += has_role(masks, f[k].mask);
	for (i = 0; i < nexpected; i++)
	{
		for (k = 0; k < nfound; k++)
			if (!f[k].taken && is_same(&e[i], &f[k]))
				break;
		if (k == nfound)
			return false;
		f[k].taken = true;
		left--;
	}
	return left == 0;
}

/*
 * Is the collection there, and whole? A service may leave it out, or have an
 * empty one with a link to where it is: that tells nothing of what is in it.
 */
static bool
is_told(DvSlice record, const char *name)
{
	return dv_page_find(record, name).p != NULL && dv_page_find(record, psprintf("%s@odata.nextLink", name)).p == NULL;
}

bool
dv_verify_is_expanded(const DvVerify *v, DvSlice record)
{
	int			i;

	if (v->projection->link != NULL && !is_told(record, v->projection->link))
		return false;
	for (i = 0; i < v->ncolumns; i++)
		if (v->columns[i].kind == DV_COMPARE_PARTIES && v->columns[i].read_name != NULL && !is_told(record, v->columns[i].read_name))
			return false;
	return true;
}

/* Without the collections: they are named among what was not compared. */
void
dv_verify_without_expand(DvVerify *v)
{
	int			i;

	v->expand = "";
	v->expand_refused = true;
	for (i = 0; i < v->ncolumns; i++)
		if (v->columns[i].kind == DV_COMPARE_PARTIES)
			v->columns[i].read_name = NULL;
}
