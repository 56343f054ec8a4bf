-- Edits of choice_map and user_map, noted in dvmig.event: the two are mappings
-- that their owners edit by plain SQL.

CREATE FUNCTION dvmig._log_rows() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_log_rows';
COMMENT ON FUNCTION dvmig._log_rows() IS 'note an edit in dvmig.event; not of a dump that is restored. The argument is SQL that names what was edited, of a row c';

CREATE TRIGGER log_insert AFTER INSERT ON dvmig.choice_map REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('pg_catalog.concat_ws(''.'', c.target_table, c.target_column)');
CREATE TRIGGER log_update AFTER UPDATE ON dvmig.choice_map REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('pg_catalog.concat_ws(''.'', c.target_table, c.target_column)');
CREATE TRIGGER log_delete AFTER DELETE ON dvmig.choice_map REFERENCING OLD TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('pg_catalog.concat_ws(''.'', c.target_table, c.target_column)');
COMMENT ON TRIGGER log_insert ON dvmig.choice_map IS 'notes new choices in dvmig.event';
COMMENT ON TRIGGER log_update ON dvmig.choice_map IS 'notes changed choices in dvmig.event';
COMMENT ON TRIGGER log_delete ON dvmig.choice_map IS 'notes deleted choices in dvmig.event';

CREATE TRIGGER log_insert AFTER INSERT ON dvmig.user_map REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('c.target_table');
CREATE TRIGGER log_update AFTER UPDATE ON dvmig.user_map REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('c.target_table');
CREATE TRIGGER log_delete AFTER DELETE ON dvmig.user_map REFERENCING OLD TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION dvmig._log_rows('c.target_table');
COMMENT ON TRIGGER log_insert ON dvmig.user_map IS 'notes new users in dvmig.event';
COMMENT ON TRIGGER log_update ON dvmig.user_map IS 'notes changed users in dvmig.event';
COMMENT ON TRIGGER log_delete ON dvmig.user_map IS 'notes deleted users in dvmig.event';
