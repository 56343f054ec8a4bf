/*
 * metadata.h - tables, columns, navigation properties and keys, from table files
 *
 * Loaded once at the start and never changed afterwards, except for the index
 * status of alternate keys and for columns that tests change as a solution
 * update would.
 */
#ifndef SIM_METADATA_H
#define SIM_METADATA_H

#include "util.h"

typedef enum SimType
{
	SIM_T_STRING, SIM_T_MEMO, SIM_T_INTEGER, SIM_T_BIGINT, SIM_T_DECIMAL, SIM_T_DOUBLE, SIM_T_MONEY,
	SIM_T_BOOLEAN, SIM_T_CHOICE, SIM_T_CHOICES, SIM_T_STATE, SIM_T_STATUS, SIM_T_DATE, SIM_T_GUID,
	SIM_T_IMAGE, SIM_T_FILE, SIM_T_LOOKUP, SIM_T_CUSTOMER, SIM_T_OWNER, SIM_T_PARTY
} SimType;

/* How a value is kept in a row. */
typedef enum SimStorage
{
	SIM_ST_TEXT, SIM_ST_INT, SIM_ST_DOUBLE, SIM_ST_GUID
} SimStorage;

typedef enum SimDateKind
{
	SIM_DATE_ONLY, SIM_DATE_USER_LOCAL, SIM_DATE_INDEPENDENT
} SimDateKind;

/* Columns whose value is not in the row's cells but follows from the record. */
typedef enum SimImplied
{
	SIM_I_NONE, SIM_I_ID, SIM_I_CREATEDON, SIM_I_MODIFIEDON, SIM_I_CREATEDBY, SIM_I_MODIFIEDBY,
	SIM_I_CREATEDBEHALF, SIM_I_OVERRIDDEN, SIM_I_VERSION, SIM_I_OWNER, SIM_I_OWNINGUSER, SIM_I_OWNINGTEAM,
	SIM_I_OWNINGUNIT, SIM_I_EXCHANGERATE, SIM_I_BASE, SIM_I_IMAGEID
} SimImplied;

typedef enum SimOwnership
{
	SIM_OWN_USER, SIM_OWN_BUSINESS, SIM_OWN_ORGANIZATION, SIM_OWN_NONE
} SimOwnership;

typedef struct SimTable SimTable;

typedef struct SimOption
{
	int			value;
	int			state;			/* statecode of a status value */
	char	   *label;
} SimOption;

typedef struct SimTarget
{
	char	   *table_name;
	char	   *nav;			/* single-valued navigation property */
	char	   *collection;		/* collection-valued one of the target, or NULL */
	SimTable   *table;			/* NULL while the target has no table file */
} SimTarget;

typedef struct SimColumn
{
	char	   *name;
	SimType		type;
	SimStorage	storage;
	SimImplied	implied;
	uint16_t	index;			/* position in the table */
	uint16_t	base_of;		/* for SIM_I_BASE: the money column; for SIM_I_IMAGEID: the image */
	bool		required;		/* application required */
	bool		system_required;
	bool		no_create;
	bool		no_update;
	bool		ascii;
	bool		autonumber;
	bool		full_image;		/* an image is kept as it came, beside its thumbnail */
	int			source;			/* SourceType: 0 simple, 1 calculated, 2 rollup */
	bool		gone;			/* taken out at run time */
	bool		listed;			/* in the table file, not implied */
	long		max_length;		/* UTF-16 units, or KB of a file */
	double		min;
	double		max;
	int			precision;
	SimDateKind date_kind;
	SimOption  *options;
	int			n_options;
	SimTarget  *targets;
	int			n_targets;
} SimColumn;

typedef struct SimKey
{
	char	   *name;
	char	   *status;			/* Active, InProgress, Pending, Failed */
	uint16_t   *columns;
	int			n_columns;
	struct SimKeyIndex *index;
} SimKey;

typedef struct SimManyToMany
{
	char	   *name;
	char	   *intersect;
	char	   *side_name[2];	/* logical names */
	char	   *nav[2];
	SimTable   *side[2];
	struct SimLinks *links;
} SimManyToMany;

/* What a name in a payload or URL means for a table. */
typedef enum SimPropKind
{
	SIM_P_COLUMN,				/* column */
	SIM_P_NAV,					/* single-valued navigation: column, target */
	SIM_P_VALUE,				/* _x_value: column */
	SIM_P_COLLECTION,			/* one-to-many: the other table's column, target */
	SIM_P_LINK					/* many-to-many: relation, side */
} SimPropKind;

typedef struct SimProp
{
	char	   *name;
	size_t		len;
	SimPropKind kind;
	SimColumn  *column;			/* of this table, or of "other" for a collection */
	int			target;			/* -1: the owner's principal */
	SimTable   *other;
	SimManyToMany *relation;
	int			side;
} SimProp;

/* Names to properties, open addressing. */
typedef struct SimNames
{
	SimProp    *items;
	size_t		n;
	size_t		cap;
	uint32_t   *slots;
	size_t		mask;
} SimNames;

struct SimTable
{
	char	   *name;			/* logical */
	char	   *schema;
	char	   *set;
	char	   *id_name;
	char	   *primary_name;	/* or NULL */
	uint16_t	number;			/* position among the tables */
	SimOwnership ownership;
	bool		elastic;
	bool		virtual_table;
	bool		activity;
	bool		custom;
	bool		no_create_state;
	bool		bulk_create;
	bool		bulk_update;
	SimColumn  *columns;
	int			n_columns;
	int			cap_columns;
	SimKey	   *keys;
	int			n_keys;
	SimNames	names;
	SimColumn  *id_column;
	SimColumn  *state_column;	/* or NULL */
	SimColumn  *status_column;
	SimColumn  *currency_column;
	SimColumn  *owner_column;
	SimColumn  *full_name;		/* made of first and last name, or NULL */
	SimColumn  *first_name;
	SimColumn  *last_name;
	int			n_system_required;	/* columns that a create must give */
	int			bulk_state;		/* bulk procedures: 0 none, 1 being made, 2 there */
	struct SimStore *store;
};

typedef struct SimModel
{
	SimTable  **tables;
	int			n_tables;
	SimManyToMany **relations;
	int			n_relations;

	/* Tables that the simulator itself uses; always there. */
	SimTable   *users;
	SimTable   *teams;
	SimTable   *units;
	SimTable   *currencies;
	SimTable   *organizations;
} SimModel;

extern SimModel sim_model;

/*
 * Read every *.table file of "dir", add built-in system tables that no file
 * declares, and connect lookups. Leaves with a message naming file and line
 * when something is wrong.
 */
extern void sim_metadata_load(const char *dir);

/* Find a table by logical name or by entity set name; NULL when unknown. */
extern SimTable *sim_table_by_name(const char *name, size_t len);
extern SimTable *sim_table_by_set(const char *name, size_t len);

/* Find a name of a table's payloads and URLs; NULL when unknown. */
extern const SimProp *sim_table_prop(const SimTable *t, const char *name, size_t len);

/* A column by logical name; NULL when unknown. */
extern SimColumn *sim_table_column(const SimTable *t, const char *name, size_t len);

/* Used by the loader's files: see tablefile.c and model.c. */
extern SimTable *sim_tablefile_read(const char *text, const char *origin);
extern const char *const sim_builtin_tables[];
extern SimColumn *sim_table_add_column(SimTable *t, const char *name, SimType type);
extern void sim_model_add_table(SimTable *t);
extern void sim_model_add_relation(SimManyToMany *r);

/* Default values of a state column: the first state and its first status. */
extern int	sim_table_default_state(const SimTable *t);
extern int	sim_table_default_status(const SimTable *t, int state);

/* Which state a status value belongs to; false when it is no status at all. */
extern bool sim_table_status_state(const SimTable *t, int status, int *state);

extern const SimOption *sim_column_option(const SimColumn *c, int64_t value);

#endif							/* SIM_METADATA_H */
