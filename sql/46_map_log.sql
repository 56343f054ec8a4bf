-- Edits of choice_map and user_map, noted in dvmig.event: the two are mappings
-- that their owners edit by plain SQL. Of choices it is noted which they were and are; of
-- users it is not: theirs are mail addresses, and viewers read the events.

CREATE FUNCTION dvmig._log_rows() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_log_rows';
COMMENT ON FUNCTION dvmig._log_rows() IS 'note an edit in dvmig.event; not of a dump that is restored. The arguments are SQL that names what was edited and gives where it leads, of a row c';

CREATE TRIGGER log_insert AFTER INSERT ON dvmig.choice_map REFERENCING NEW TABLE AS changed_to
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('pg_catalog.concat_ws(''.'', c.target_table, c.target_column)', 'coalesce(c.target_value::text, c.target_text)');
CREATE TRIGGER log_update AFTER UPDATE ON dvmig.choice_map REFERENCING OLD TABLE AS changed_from NEW TABLE AS changed_to
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('pg_catalog.concat_ws(''.'', c.target_table, c.target_column)', 'coalesce(c.target_value::text, c.target_text)');
CREATE TRIGGER log_delete AFTER DELETE ON dvmig.choice_map REFERENCING OLD TABLE AS changed_from
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('pg_catalog.concat_ws(''.'', c.target_table, c.target_column)', 'coalesce(c.target_value::text, c.target_text)');
COMMENT ON TRIGGER log_insert ON dvmig.choice_map IS 'notes new choices in dvmig.event';
COMMENT ON TRIGGER log_update ON dvmig.choice_map IS 'notes changed choices in dvmig.event';
COMMENT ON TRIGGER log_delete ON dvmig.choice_map IS 'notes deleted choices in dvmig.event';

CREATE TRIGGER log_insert AFTER INSERT ON dvmig.user_map REFERENCING NEW TABLE AS changed_to
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('c.target_table', 'NULL::text');
CREATE TRIGGER log_update AFTER UPDATE ON dvmig.user_map REFERENCING OLD TABLE AS changed_from NEW TABLE AS changed_to
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('c.target_table', 'NULL::text');
CREATE TRIGGER log_delete AFTER DELETE ON dvmig.user_map REFERENCING OLD TABLE AS changed_from
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('c.target_table', 'NULL::text');
COMMENT ON TRIGGER log_insert ON dvmig.user_map IS 'notes new users in dvmig.event';
COMMENT ON TRIGGER log_update ON dvmig.user_map IS 'notes changed users in dvmig.event';
COMMENT ON TRIGGER log_delete ON dvmig.user_map IS 'notes deleted users in dvmig.event';
