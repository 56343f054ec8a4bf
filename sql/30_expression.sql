-- SQL expressions, and running SQL as another role: tools of the definition
-- functions. All of it is for the extension's owner alone.

CREATE FUNCTION dvmig._caller_regclass(role oid, name text) RETURNS regclass
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_caller_regclass';
COMMENT ON FUNCTION dvmig._caller_regclass(oid, text) IS 'relation of that name as the caller sees it, or null';

CREATE FUNCTION dvmig._check_filter(filter text) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_check_filter';
COMMENT ON FUNCTION dvmig._check_filter(text) IS 'error unless the text is one expression, which no bracket or semicolon in it ends early';

CREATE FUNCTION dvmig._check_query(query text) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_check_query';
COMMENT ON FUNCTION dvmig._check_query(text) IS 'error unless the text is one query that only reads';

CREATE FUNCTION dvmig._run_as(role oid, command text, restricted bool DEFAULT true, as_in_a_run bool DEFAULT false) RETURNS bigint
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_run_as';
COMMENT ON FUNCTION dvmig._run_as(oid, text, bool, bool) IS 'run a command as a role, in a security-restricted operation unless it is the caller''s own DDL; returns the rows it touched';

-- _query_as: as_in_a_run pins the settings that change what an expression of a
-- migration gives. What the caller wrote is of his session.
CREATE FUNCTION dvmig._query_as(role oid, query text, as_in_a_run bool DEFAULT true) RETURNS SETOF text
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_query_as';
COMMENT ON FUNCTION dvmig._query_as(oid, text, bool) IS 'first column of a query, as text, run as a role in a security-restricted operation';

-- _is_no_rows_fault: whether an error is about something else than a row, so that its
-- text can be told to everybody.
CREATE FUNCTION dvmig._is_no_rows_fault(state text, thrown_by text) RETURNS bool
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	-- RAISE can give any class to any text
	SELECT state ~ '^(0A|25|28|3B|3D|3F|40|42|53|55|57|58)' AND thrown_by !~ ' at RAISE'
$$;
COMMENT ON FUNCTION dvmig._is_no_rows_fault(text, text) IS 'whether an error of this SQLSTATE and context is about something else than a row';

-- _query_quietly: one value of a query that evaluates expressions of a migration,
-- for callers who may not see its rows: an error's text can quote them, and
-- would reach the server log too. Errors that are not the rows' pass as they are.
CREATE FUNCTION dvmig._query_quietly(role oid, query text, staging text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	thrown_by text;
BEGIN
	RETURN dvmig._query_as(role, query);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS thrown_by = PG_EXCEPTION_CONTEXT;
	IF dvmig._is_no_rows_fault(SQLSTATE, thrown_by) THEN
		RAISE;
	END IF;
	RAISE EXCEPTION 'an expression over % threw an error (SQLSTATE %)', staging, SQLSTATE
		USING ERRCODE = SQLSTATE, HINT = 'dvmig.check() and dvmig.preview() tell more to those who may read the rows.';
END
$$;
COMMENT ON FUNCTION dvmig._query_quietly(oid, text, text) IS 'one value of a query; an error that a row caused is told by its SQLSTATE alone';

CREATE FUNCTION dvmig._name_distance(a text, b text) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_name_distance';
COMMENT ON FUNCTION dvmig._name_distance(text, text) IS 'letters to change between two names, for hints';

-- _near: up to three candidates that may have been meant, or null.
CREATE FUNCTION dvmig._near(name text, candidates text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(quote_literal(c), ', ' ORDER BY d, c)
	FROM (
		SELECT c, d, row_number() OVER (ORDER BY d, c) AS nth
		FROM unnest(candidates) c,
			LATERAL (SELECT CASE
				WHEN starts_with(lower(c), lower(name)) OR starts_with(lower(name), lower(c)) THEN 1
				ELSE dvmig._name_distance(lower(name), lower(c)) END AS d) distance
		-- further apart than a third of its letters a name is another name
		WHERE d <= greatest(2, length(name) / 3)
	) ranked
	WHERE nth <= 3
$$;
COMMENT ON FUNCTION dvmig._near(text, text[]) IS 'up to three names that may have been meant, for hints';

CREATE FUNCTION dvmig._compile_expressions(role oid, staging regclass, expression text, expected int,
	OUT expression_sql text[], OUT result_types regtype[], OUT is_volatile bool)
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'dv_compile_expressions';
COMMENT ON FUNCTION dvmig._compile_expressions(oid, regclass, text, int) IS
	'check a comma-separated list of expressions over a staging row and write them down over the alias s, every name qualified';

CREATE FUNCTION dvmig._compile_expression(role oid, staging regclass, expression text,
	OUT expression_sql text, OUT result_type regtype, OUT is_volatile bool)
LANGUAGE sql STRICT
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.expression_sql[1], c.result_types[1], c.is_volatile
	FROM dvmig._compile_expressions($1, $2, $3, 1) c
$$;
COMMENT ON FUNCTION dvmig._compile_expression(oid, regclass, text) IS 'one expression over a staging row, checked and written down with every name qualified';

-- _uses_column: whether a deparsed expression uses a staging column.
CREATE FUNCTION dvmig._uses_column(expression_sql text, column_name text) RETURNS bool
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT $1 ~ ('(^|[^[:alnum:]_".])s\.' || regexp_replace(quote_ident($2), '([^[:alnum:]_])', '\\\1', 'g') || '($|[^[:alnum:]_"])')
$$;
COMMENT ON FUNCTION dvmig._uses_column(text, text) IS 'whether a deparsed expression uses a staging column';

-- _base_type: the type below any domains.
CREATE FUNCTION dvmig._base_type(type regtype) RETURNS regtype
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE b(t) AS (
		SELECT $1::oid
		UNION ALL
		SELECT p.typbasetype FROM b JOIN pg_type p ON p.oid = b.t WHERE p.typtype = 'd'
	)
	SELECT b.t::regtype FROM b JOIN pg_type p ON p.oid = b.t WHERE p.typtype <> 'd'
$$;
COMMENT ON FUNCTION dvmig._base_type(regtype) IS 'the type below any domains';

-- _exact_cast: an expression cast to a key's type so that it either names the
-- same key or fails. Ordinary casts would round numbers and cut text, and a
-- child would be bound to another parent. Null where there is no exact cast.
CREATE FUNCTION dvmig._exact_cast(expression_sql text, source regtype, target regtype) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	s text := dvmig._base_type(source)::text;
	t text := dvmig._base_type(target)::text;
	whole CONSTANT text[] := '{smallint,integer,bigint}';
	texts CONSTANT text[] := '{text,"character varying",character}';
	is_text bool := s = ANY (texts) OR (SELECT typtype = 'e' FROM pg_type WHERE oid = dvmig._base_type(source));
BEGIN
	IF s = 'character' AND t = ANY ('{text,"character varying"}') THEN
		RETURN format('(%s)::text', expression_sql);		-- without its padding
	ELSIF s = t THEN
		RETURN format('(%s)', expression_sql) || CASE t WHEN 'character' THEN '::bpchar' ELSE '' END;
	ELSIF t = ANY (whole) THEN
		IF s = ANY (whole) THEN
			RETURN format('(%s)::%s', expression_sql, t);
		ELSIF s = 'numeric' THEN
			-- 5.00 is the key 5, and 5.5 fails instead of becoming 6
			RETURN format('trim_scale(%s)::text::%s', expression_sql, t);
		ELSIF is_text THEN
			RETURN format('(%s)::text::%s', expression_sql, t);
		END IF;
	ELSIF t = 'numeric' THEN
		IF s = ANY (whole) THEN
			RETURN format('(%s)::numeric', expression_sql);
		ELSIF is_text THEN
			RETURN format('(%s)::text::numeric', expression_sql);
		END IF;
	ELSIF t = ANY (texts) THEN
		IF is_text OR s = ANY (whole) OR s = 'uuid' THEN
			-- a length would cut silently, so none is given
			RETURN format('(%s)::text', expression_sql) || CASE t WHEN 'character' THEN '::bpchar' ELSE '' END;
		END IF;
	ELSIF t IN ('uuid', 'date') THEN
		IF is_text THEN
			RETURN format('(%s)::text::%s', expression_sql, t);
		END IF;
	ELSIF t = 'timestamp without time zone' AND s = 'date' THEN
		RETURN format('(%s)::timestamp', expression_sql);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION dvmig._exact_cast(text, regtype, regtype) IS 'an expression cast to a key''s type such that it never becomes another key; null where there is no such cast';
