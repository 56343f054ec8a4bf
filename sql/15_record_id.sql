-- Ids of records, derived from source keys.

CREATE FUNCTION dvmig.record_id(namespace uuid, VARIADIC key "any")
RETURNS uuid
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10
AS 'MODULE_PATHNAME', 'dvmig_record_id';
COMMENT ON FUNCTION dvmig.record_id(uuid, "any") IS
	'the Dataverse id of a source row, derived from the namespace of its staging table and its source key; null if any part of the key is null';

CREATE FUNCTION dvmig._record_id_accepts(key_type regtype, OUT accepted bool, OUT cast_hint text)
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dvmig_record_id_accepts';
COMMENT ON FUNCTION dvmig._record_id_accepts(regtype) IS
	'internal: whether values of a type can be part of a source key, and if not the cast to write';

REVOKE ALL ON FUNCTION dvmig.record_id(uuid, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION dvmig._record_id_accepts(regtype) FROM PUBLIC;
