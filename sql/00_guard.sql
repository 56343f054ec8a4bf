\echo Use "CREATE EXTENSION dvmig" to load this file. \quit

-- Refuse where dvmig could not keep its promises, before anything is made.
DO $guard$
BEGIN
	IF (SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_catalog.pg_database
		WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN
		RAISE EXCEPTION 'extension "dvmig" cannot be used in a database of encoding SQL_ASCII'
			USING ERRCODE = 'feature_not_supported',
			HINT = 'Dataverse takes UTF-8, and SQL_ASCII does not say what bytes mean. Create the staging database with ENCODING ''UTF8''.';
	END IF;

	-- Whoever owns the schema could put functions of his own beside ours.
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace
		WHERE nspname OPERATOR(pg_catalog.=) 'dvmig'
		  AND nspowner OPERATOR(pg_catalog.=) (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)) THEN
		RAISE EXCEPTION 'schema "dvmig" exists already and belongs to another role'
			USING ERRCODE = 'insufficient_privilege',
			HINT = 'Drop the schema; CREATE EXTENSION dvmig makes its own.';
	END IF;
END
$guard$;
