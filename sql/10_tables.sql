-- Configuration, cached metadata, run history and events.
--
-- Only functions write here (they run as the owner of the extension and know
-- who called them); the one exception is choice_map, which a DBA edits freely
-- within row security. Staging tables are kept as regclass, never as raw oids,
-- so that a dump carries their names.

CREATE TABLE dvmig.organisation (
	server          name PRIMARY KEY,
	organisation_id uuid NOT NULL,
	unique_name     text,
	pinned_at       timestamptz NOT NULL DEFAULT now(),
	pinned_by       name NOT NULL
);
COMMENT ON TABLE dvmig.organisation IS
	'the Dataverse organisation each server was first used with; another one behind the same address stops a run until dvmig.repin()';

-- ---------------------------------------------------------------- metadata

CREATE TABLE dvmig.metadata_table (
	server             name NOT NULL,
	table_name         text NOT NULL,
	entity_set         text NOT NULL,
	primary_id         text NOT NULL,
	primary_name       text,
	ownership          text,
	table_type         text NOT NULL DEFAULT 'Standard',
	is_activity        bool NOT NULL DEFAULT false,
	create_multiple    bool NOT NULL DEFAULT false,
	update_multiple    bool NOT NULL DEFAULT false,
	refreshed_at       timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (server, table_name)
);
COMMENT ON TABLE dvmig.metadata_table IS 'Dataverse tables as last read by dvmig.refresh_metadata()';

CREATE TABLE dvmig.metadata_column (
	server            name NOT NULL,
	table_name        text NOT NULL,
	column_name       text NOT NULL,
	column_type       text NOT NULL,  -- Dataverse's AttributeType: String, Memo, Integer, BigInt, Decimal, Double, Money, Boolean, Picklist, MultiSelectPicklist, State, Status, DateTime, Lookup, Customer, Owner, Uniqueidentifier, PartyList, Image, File, Virtual ...
	required_level    text NOT NULL DEFAULT 'None',
	valid_for_create  bool NOT NULL DEFAULT true,
	valid_for_update  bool NOT NULL DEFAULT true,
	max_length        int,            -- UTF-16 units
	min_value         numeric,
	max_value         numeric,
	precision_digits  int,
	date_behavior     text,           -- UserLocal, DateOnly, TimeZoneIndependent
	max_size_kb       int,            -- file and image columns
	auto_number       text,           -- format of the numbers that Dataverse gives where none is sent
	calculation       text,           -- calculated, rollup, formula; null: an ordinary column
	full_image        bool,           -- an image is kept as it is sent, and not its thumbnail alone; null: not an image, or not known
	PRIMARY KEY (server, table_name, column_name),
	FOREIGN KEY (server, table_name) REFERENCES dvmig.metadata_table ON DELETE CASCADE
);
COMMENT ON TABLE dvmig.metadata_column IS 'columns of Dataverse tables as last read';

CREATE TABLE dvmig.metadata_choice (
	server       name NOT NULL,
	table_name   text NOT NULL,
	column_name  text NOT NULL,
	choice_value int NOT NULL,
	label        text,
	state_value  int,                 -- for status columns: the state a status belongs to
	PRIMARY KEY (server, table_name, column_name, choice_value),
	FOREIGN KEY (server, table_name, column_name) REFERENCES dvmig.metadata_column ON DELETE CASCADE
);
COMMENT ON TABLE dvmig.metadata_choice IS 'values and labels of choice, choices, yes/no, state and status columns';

CREATE TABLE dvmig.metadata_lookup (
	server              name NOT NULL,
	table_name          text NOT NULL,
	column_name         text NOT NULL,
	referenced_table    text NOT NULL,
	navigation_property text NOT NULL,
	PRIMARY KEY (server, table_name, column_name, referenced_table, navigation_property),
	FOREIGN KEY (server, table_name) REFERENCES dvmig.metadata_table ON DELETE CASCADE
);
COMMENT ON TABLE dvmig.metadata_lookup IS 'targets of lookup columns with the exact navigation property of each';

CREATE TABLE dvmig.metadata_key (
	server       name NOT NULL,
	table_name   text NOT NULL,
	key_name     text NOT NULL,
	key_columns  text[] NOT NULL,
	index_status text NOT NULL,       -- Active, Pending, InProgress, Failed
	PRIMARY KEY (server, table_name, key_name),
	FOREIGN KEY (server, table_name) REFERENCES dvmig.metadata_table ON DELETE CASCADE
);
COMMENT ON TABLE dvmig.metadata_key IS 'alternate keys of Dataverse tables and the state of their index';

CREATE TABLE dvmig.metadata_child (
	server            name NOT NULL,
	table_name        text NOT NULL,
	relationship_name text NOT NULL,  -- schema name
	child_table       text NOT NULL,  -- whose records point at those of table_name
	child_column      text,           -- by this lookup
	cascade_delete    text,           -- Cascade, RemoveLink, Restrict, NoCascade; null: not known
	PRIMARY KEY (server, table_name, relationship_name),
	FOREIGN KEY (server, table_name) REFERENCES dvmig.metadata_table ON DELETE CASCADE
);
COMMENT ON TABLE dvmig.metadata_child IS 'lookups of other tables that point at a Dataverse table, and what becomes of their records when one of its is deleted';

CREATE TABLE dvmig.metadata_privilege (
	server         name NOT NULL,
	privilege_name text NOT NULL,      -- such as prvCreateAccount
	depth          text,               -- Basic, Local, Deep, Global
	refreshed_at   timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (server, privilege_name)
);
COMMENT ON TABLE dvmig.metadata_privilege IS 'privileges of the application user of whoever last called dvmig.refresh_metadata(); empty where Dataverse did not tell';

CREATE TABLE dvmig.reference (
	server      name NOT NULL,
	table_name  text NOT NULL,
	match_on    text NOT NULL,        -- the key column, or several joined by commas
	match_key   text NOT NULL,        -- lower-cased value; several joined by chr(31)
	record_id   uuid,                 -- null where the key is ambiguous
	matches     int NOT NULL DEFAULT 1,
	refreshed_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (server, table_name, match_on, match_key)
);
COMMENT ON TABLE dvmig.reference IS
	'keys and ids of Dataverse records that dvmig did not load (users, currencies, units ...), read once before a run and joined in SQL';

-- ---------------------------------------------------------------- definition

CREATE TABLE dvmig.migration (
	migration_id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	name         text NOT NULL UNIQUE,
	server       name NOT NULL,
	owner        regrole NOT NULL,
	gate         numeric DEFAULT 5,
	bypass_custom_logic text,
	bypass_flows bool,
	duplicate_detection bool,
	created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dvmig.migration IS 'a named set of staging tables going to one server';
COMMENT ON COLUMN dvmig.migration.gate IS 'per cent of failed rows in a table above which the tables that depend on it are held; null: never';

CREATE TABLE dvmig.migration_table (
	staging       regclass PRIMARY KEY,
	migration_id  int NOT NULL REFERENCES dvmig.migration ON DELETE CASCADE,
	target        text NOT NULL,
	source_key    text[] NOT NULL,
	target_key    text,
	namespace     uuid NOT NULL,
	ids           text NOT NULL DEFAULT 'derived' CHECK (ids IN ('derived', 'column', 'platform')),
	id_column     text,
	filter        text,
	filter_sql    text,
	filter_reason text,
	on_exists     text NOT NULL DEFAULT 'update' CHECK (on_exists IN ('update', 'keep', 'error')),
	success_table regclass NOT NULL,
	error_table   regclass NOT NULL,
	auto_map      bool NOT NULL DEFAULT true,
	position      int GENERATED BY DEFAULT AS IDENTITY,
	relationship  text,
	caller_id     text,
	caller_object_id text,
	caller_sql    text,
	bypass_custom_logic text,
	bypass_flows  bool,
	duplicate_detection bool,
	on_closed     text CHECK (on_closed IN ('error', 'reopen')),
	clean_end     bool NOT NULL DEFAULT true,
	unclean_from  bigint,
	forgotten_since timestamptz,
	place         text,
	max_errors    bigint,
	max_error_rate numeric,
	keep_before_image bool NOT NULL DEFAULT false,
	before_table  regclass,
	created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dvmig.migration_table IS 'staging tables of a migration: where their rows go, what identifies them, where outcomes are kept';
COMMENT ON COLUMN dvmig.migration_table.namespace IS 'namespace of the ids derived from source keys; never changes, so that ids survive dump and restore';
COMMENT ON COLUMN dvmig.migration_table.keep_before_image IS 'what the mapped columns of a record hold is kept before a run updates it first, for dvmig.undo()';
COMMENT ON COLUMN dvmig.migration_table.before_table IS 'table of what records held before updates; null: none was ever kept';
COMMENT ON COLUMN dvmig.migration_table.relationship IS 'many-to-many relationship that the rows are links of; null: the rows are records';
COMMENT ON COLUMN dvmig.migration_table.clean_end IS 'false while a run works on the table: a run that finds false asks Dataverse which of its rows exist before it creates them';
COMMENT ON COLUMN dvmig.migration_table.unclean_from IS 'while clean_end is false: the first run that may have left rows in doubt';
COMMENT ON COLUMN dvmig.migration_table.forgotten_since IS 'while clean_end is false: since when runs may have worked that this database does not remember, because it was restored or promoted';
COMMENT ON COLUMN dvmig.migration_table.place IS 'cluster, database and timeline in which a run last worked on the table: another one means that the database was restored, copied or promoted';
COMMENT ON COLUMN dvmig.migration_table.max_errors IS 'rows of this table that may fail in a run before it is stopped; null: no limit';
COMMENT ON COLUMN dvmig.migration_table.max_error_rate IS 'per cent of the answered rows of this table that may fail in a run before it is stopped; null: no limit';

CREATE TABLE dvmig.column_map (
	staging         regclass NOT NULL REFERENCES dvmig.migration_table ON DELETE CASCADE,
	target_column   text NOT NULL,
	variant         text NOT NULL DEFAULT '',  -- target table of a multi-table lookup that is mapped more than once
	kind            text NOT NULL CHECK (kind IN ('value', 'choice', 'parent', 'reference', 'id', 'file', 'party')),
	expression      text NOT NULL,             -- as written; several of a composite key joined by chr(10)
	expression_sql  text[] NOT NULL,           -- deparsed, every name qualified; one per key column
	result_type     regtype NOT NULL,
	send            text NOT NULL DEFAULT 'both' CHECK (send IN ('both', 'insert', 'update')),
	parent          regclass,                  -- kind parent: staging table the lookup resolves to
	referenced_table text,                     -- lookups: Dataverse table pointed at
	match_on        text[],                    -- kind reference: key columns of that table
	navigation_property text,                  -- lookups: exact name
	position        int GENERATED BY DEFAULT AS IDENTITY,
	automatic       bool NOT NULL DEFAULT false,
	fallback        bool NOT NULL DEFAULT false,
	on_too_long     text NOT NULL DEFAULT 'error' CHECK (on_too_long IN ('error', 'trim')),
	on_unknown      text NOT NULL DEFAULT 'error' CHECK (on_unknown IN ('error', 'default', 'null')),
	on_missing      text NOT NULL DEFAULT 'error' CHECK (on_missing IN ('error', 'default', 'null', 'park')),
	default_value   text,
	sensitive       bool NOT NULL DEFAULT false,
	mask            text,
	mask_sql        text,                      -- deparsed, every name qualified
	file_name       text,                      -- kind file: expression of the name in Dataverse, as written
	by_level        bool,                      -- lookup to its own staging table: parents first, not in the deferred pass
	pass            text NOT NULL GENERATED ALWAYS AS (CASE WHEN target_column IN ('statecode', 'statuscode') OR target_column LIKE '@close:%' THEN 'states'
		WHEN target_column IN ('@left', '@right') THEN 'links' WHEN kind = 'file' THEN 'files' WHEN kind = 'party' THEN 'parties' ELSE 'write' END) STORED,
	PRIMARY KEY (staging, target_column, variant)
);
COMMENT ON TABLE dvmig.column_map IS 'target column from SQL expression, one row per column map';
COMMENT ON COLUMN dvmig.column_map.variant IS 'tells several lookups of one column apart: the table pointed at where the column can point at several, with a number for those tried later';
COMMENT ON COLUMN dvmig.column_map.fallback IS 'lookups: tried only where the maps of the column before it find no record';
COMMENT ON COLUMN dvmig.column_map.on_too_long IS 'texts longer than the column: error, or trim them';
COMMENT ON COLUMN dvmig.column_map.on_unknown IS 'source texts that stand for no choice: error, default (default_value instead) or null';
COMMENT ON COLUMN dvmig.column_map.on_missing IS 'keys that no record or parent row has: error, default (default_value instead), null, or park the row until there is one';
COMMENT ON COLUMN dvmig.column_map.default_value IS 'label or value of a choice, or id or key of a record, that on_unknown or on_missing puts in';
COMMENT ON COLUMN dvmig.column_map.sensitive IS 'the value goes to a server whose environment is production only; others get the mask';
COMMENT ON COLUMN dvmig.column_map.mask IS 'expression whose value goes to servers that are not production, as written';

CREATE TABLE dvmig.choice_map (
	migration_id  int NOT NULL REFERENCES dvmig.migration ON DELETE CASCADE,
	source_table  text NOT NULL DEFAULT '',    -- '' or the staging table's name: '' serves every staging table
	target_table  text NOT NULL,
	target_column text NOT NULL,
	source_text   text NOT NULL,
	target_text   text,
	target_value  int,
	PRIMARY KEY (migration_id, target_table, target_column, source_table, source_text)
);
COMMENT ON TABLE dvmig.choice_map IS 'source text to choice value; the owner of the migration edits it directly';

-- Settings that can be changed after the definition. Each is a column of that
-- name in migration, migration_table or column_map; whoever adds one adds its
-- line here from the file it belongs to, and nothing else.
CREATE TABLE dvmig.setting (
	applies_to text NOT NULL CHECK (applies_to IN ('migration', 'table', 'column')),
	name       text NOT NULL,
	allowed    text[],                -- words that are allowed; null: any value of the column's type
	lowest     numeric,
	highest    numeric,
	access     text NOT NULL DEFAULT 'owner' CHECK (access IN ('owner', 'operator')),
	during_run bool NOT NULL DEFAULT false,
	adjust     text,                  -- internal function called after a change, as (caller oid, migration_id int, staging regclass, before text)
	about      text NOT NULL,
	PRIMARY KEY (applies_to, name)
);
COMMENT ON TABLE dvmig.setting IS 'what dvmig.set_migration(), dvmig.set_table() and dvmig.set_column() can change';

-- ---------------------------------------------------------------- runs

CREATE TABLE dvmig.run_history (
	run            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	kind           text NOT NULL DEFAULT 'run' CHECK (kind IN ('run', 'verify', 'undo', 'resend', 'rebuild')),
	migration_id   int,
	migration      text NOT NULL,
	server         name NOT NULL,
	organisation_id uuid,
	state          text NOT NULL DEFAULT 'starting'
		CHECK (state IN ('starting', 'running', 'stopping', 'completed', 'held', 'stopped', 'failed', 'interrupted')),
	message        text,
	started_by     name NOT NULL,
	options        jsonb NOT NULL DEFAULT '{}',
	started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
	ended_at       timestamptz,
	pid            int,
	place          text,
	location       text,
	stop_requested bool NOT NULL DEFAULT false,
	rows_read      bigint NOT NULL DEFAULT 0,
	rows_sent      bigint NOT NULL DEFAULT 0,
	succeeded      bigint NOT NULL DEFAULT 0,
	failed         bigint NOT NULL DEFAULT 0,
	unchanged      bigint NOT NULL DEFAULT 0,
	parked         bigint NOT NULL DEFAULT 0,
	requests       bigint NOT NULL DEFAULT 0,
	bytes_sent     bigint NOT NULL DEFAULT 0,
	throttled      bigint NOT NULL DEFAULT 0,
	throttled_ms   bigint NOT NULL DEFAULT 0,
	in_flight      int NOT NULL DEFAULT 0,
	updated_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE dvmig.run_history IS 'one row per run, kept for comparison';
COMMENT ON COLUMN dvmig.run_history.kind IS 'what was run: run (a migration), verify, undo, resend or rebuild (of outcomes)';
COMMENT ON COLUMN dvmig.run_history.place IS 'cluster, database and timeline in which the run worked: see dvmig.auto_resume';
COMMENT ON COLUMN dvmig.run_history.location IS 'hash of the host and data directory where the run worked: see dvmig.auto_resume';

CREATE TABLE dvmig.run_table (
	run         bigint NOT NULL REFERENCES dvmig.run_history ON DELETE CASCADE,
	staging     text NOT NULL,
	pass        text NOT NULL CHECK (pass IN ('write', 'deferred', 'links', 'files', 'states', 'delete', 'verify', 'undo', 'resend', 'rebuild')),
	step        int NOT NULL,
	wave        int NOT NULL,
	state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'held', 'failed')),
	message     text,
	rows_total  bigint,
	rows_read   bigint NOT NULL DEFAULT 0,
	succeeded   bigint NOT NULL DEFAULT 0,
	failed      bigint NOT NULL DEFAULT 0,
	unchanged   bigint NOT NULL DEFAULT 0,
	parked      bigint NOT NULL DEFAULT 0,
	requests    bigint NOT NULL DEFAULT 0,
	started_at  timestamptz,
	ended_at    timestamptz,
	PRIMARY KEY (run, staging, pass)
);
COMMENT ON TABLE dvmig.run_table IS 'one row per run, staging table and pass';

CREATE TABLE dvmig.event (
	event_id     bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	happened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
	role         name NOT NULL,
	migration    text,
	kind         text NOT NULL,
	object       text,
	detail       jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE dvmig.event IS 'who changed or started what, and when';
