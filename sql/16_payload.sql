-- The writer of JSON, for the definition functions and for tests. Internal:
-- granted to nobody.

CREATE FUNCTION dvmig._payload_accepts(result_type regtype, column_type text, date_behavior text,
	OUT accepted bool, OUT cast_hint text)
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dvmig_payload_accepts';
COMMENT ON FUNCTION dvmig._payload_accepts(regtype, text, text) IS
	'internal: whether an expression of a type can be sent to a column of a Dataverse type, and if not the cast to write';

CREATE FUNCTION dvmig._payload_json(source_value "any", column_type text, date_behavior text,
	member text, entity_set text, op text)
RETURNS text
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'dvmig_payload_json';
COMMENT ON FUNCTION dvmig._payload_json("any", text, text, text, text, text) IS
	'internal: the JSON member that a value becomes in an insert or update';

CREATE FUNCTION dvmig._payload_row(source_row record, columns text[], op text, deferred bool)
RETURNS text
LANGUAGE C STABLE STRICT
AS 'MODULE_PATHNAME', 'dvmig_payload_row';
COMMENT ON FUNCTION dvmig._payload_row(record, text[], text, bool) IS
	'internal: the JSON members that a row becomes; each column is described by {column, type, date behavior, member, entity set, insert or update or null for both, not null if deferred}';

CREATE FUNCTION dvmig._payload_hash(content bytea)
RETURNS bytea
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dvmig_payload_hash';
COMMENT ON FUNCTION dvmig._payload_hash(bytea) IS
	'internal: the 128-bit hash by which a row is recognised as unchanged';

REVOKE ALL ON FUNCTION dvmig._payload_accepts(regtype, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dvmig._payload_json("any", text, text, text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dvmig._payload_row(record, text[], text, bool) FROM PUBLIC;
REVOKE ALL ON FUNCTION dvmig._payload_hash(bytea) FROM PUBLIC;
