-- Rows whose expressions throw: found by halving, only where the one reading
-- of a table threw.

-- _check_fault: SQLSTATE and message of a query that throws because of a row;
-- null where it does not. These are the classes that a run takes for the row's fault.
CREATE FUNCTION dvmig._check_fault(owner oid, query text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dvmig._query_as(owner, query);
	RETURN NULL;
EXCEPTION WHEN cardinality_violation OR data_exception OR integrity_constraint_violation
	OR external_routine_invocation_exception OR sql_routine_exception OR program_limit_exceeded OR plpgsql_error
	OR feature_not_supported THEN	-- NaN as an integer, say
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
COMMENT ON FUNCTION dvmig._check_fault(oid, text) IS 'SQLSTATE and message of a query that throws because of a row, null where it does not';

-- _check_expressions: expressions that can throw: all but bare columns.
CREATE FUNCTION dvmig._check_expressions(staging regclass)
RETURNS TABLE (target_column text, expression text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.target_column, string_agg(format('(%s)', e), ', ' ORDER BY i)
	FROM dvmig.column_map c, unnest(c.expression_sql) WITH ORDINALITY u(e, i)
	WHERE c.staging = $1
	GROUP BY c.target_column, c.variant, c.position
	HAVING NOT bool_and(e ~ '^\(*s\.([[:alnum:]_]+|"[^"]+")\)*(::text)?$')
	ORDER BY c.position
$$;
COMMENT ON FUNCTION dvmig._check_expressions(regclass) IS 'mapped expressions that can throw for a row';

-- _check_halve: the rows among some, given by ctid, for which expressions throw.
CREATE FUNCTION dvmig._check_halve(owner oid, relation regclass, expressions text, tids text[]) RETURNS SETOF text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	half int := cardinality(tids) / 2;
BEGIN
	IF dvmig._check_fault(owner, format('SELECT count(ROW(%s)) FROM ONLY %s s WHERE s.ctid = ANY (%L::tid[])', expressions, relation, tids)) IS NULL THEN
		RETURN;
	ELSIF cardinality(tids) = 1 THEN
		RETURN NEXT tids[1];
	ELSE
		RETURN QUERY SELECT * FROM dvmig._check_halve(owner, relation, expressions, tids[1:half]);
		RETURN QUERY SELECT * FROM dvmig._check_halve(owner, relation, expressions, tids[half + 1:]);
	END IF;
END
$$;
COMMENT ON FUNCTION dvmig._check_halve(oid, regclass, text, text[]) IS 'rows among some for which expressions throw, found by halving';

-- _check_thrown: the rows for which expressions throw, by block ranges that
-- are halved. Ends after "tries" queries: is_complete tells.
CREATE FUNCTION dvmig._check_thrown(owner oid, staging regclass, scope text, expressions text, tries int DEFAULT 200000,
	OUT relations regclass[], OUT tids text[], OUT is_complete bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rel regclass;
	ranges int8range[];
	r int8range;
	middle bigint;
	range_sql text;
	found_tids text[];
BEGIN
	relations := '{}'; tids := '{}'; is_complete := true;
	FOR rel IN SELECT coalesce(p.relid, c.oid) FROM pg_class c LEFT JOIN LATERAL pg_partition_tree(c.oid) p ON c.relkind = 'p'
		WHERE c.oid = _check_thrown.staging AND (c.relkind <> 'p' OR p.isleaf) LOOP
		ranges := ARRAY[int8range(0, pg_relation_size(rel) / current_setting('block_size')::bigint)];
		WHILE cardinality(ranges) > 0 AND tries > 0 LOOP
			r := ranges[cardinality(ranges)];
			ranges := ranges[:cardinality(ranges) - 1];
			CONTINUE WHEN isempty(r);
			range_sql := format('FROM ONLY %s s WHERE s.ctid >= ''(%s,0)'' AND s.ctid < ''(%s,0)'' AND %s', rel, lower(r), upper(r), scope);
			tries := tries - 1;
			CONTINUE WHEN dvmig._check_fault(owner, format('SELECT count(ROW(%s)) %s', expressions, range_sql)) IS NULL;
			IF upper(r) - lower(r) > 1 THEN
				middle := (lower(r) + upper(r)) / 2;
				ranges := ranges || int8range(middle, upper(r)) || int8range(lower(r), middle);
			ELSE
				found_tids := ARRAY(SELECT h FROM dvmig._check_halve(owner, rel, expressions,
					ARRAY(SELECT q FROM dvmig._query_as(owner, format('SELECT s.ctid %s', range_sql)) q)) h);
				relations := relations || array_fill(rel, ARRAY[cardinality(found_tids)]);
				tids := tids || found_tids;
				tries := tries - 20 * cardinality(found_tids);
			END IF;
		END LOOP;
		is_complete := is_complete AND cardinality(ranges) = 0;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_thrown(oid, regclass, text, text, int) IS 'rows for which expressions throw, found by halving the table';

-- _check_these: condition for rows found so.
CREATE FUNCTION dvmig._check_these(relations regclass[], tids text[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '(' || string_agg(q.sql, ' OR ') || ')'
	FROM (SELECT format('s.tableoid = %L::regclass AND s.ctid = ANY (%L::tid[])', u.r, array_agg(u.t)) AS sql
		FROM unnest($1, $2) u(r, t) GROUP BY u.r) q
$$;
COMMENT ON FUNCTION dvmig._check_these(regclass[], text[]) IS 'condition for rows that were found to throw';

-- _check_transform: one finding for every column whose expression throws.
-- "shown" is whether the caller may see keys and messages, which quote values.
CREATE FUNCTION dvmig._check_transform(owner oid, staging regclass, scope text, samples int, shown bool, OUT findings jsonb, OUT thrown text, OUT is_complete bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	f record;
	c record;
	bad text[];
	problem text;
	these text;
	counted jsonb;
	k record;
BEGIN
	SELECT * INTO f FROM dvmig._check_thrown(owner, staging, scope,
		(SELECT string_agg(e.expression, ', ') FROM dvmig._check_expressions(staging) e));
	thrown := dvmig._check_these(f.relations, f.tids);
	is_complete := f.is_complete;
	findings := '[]';
	SELECT q.* INTO k FROM dvmig.migration_table t, LATERAL dvmig._key_sql(t.source_key, 's') q WHERE t.staging = $2;
	FOR c IN SELECT e.target_column, e.expression FROM dvmig._check_expressions(staging) e LOOP
		these := NULL;
		bad := ARRAY(SELECT u.i::text FROM unnest(f.relations, f.tids) WITH ORDINALITY u(rel, tid, i)
			WHERE dvmig._check_fault(owner, format('SELECT count(ROW(%s)) FROM ONLY %s s WHERE s.ctid = %L::tid', c.expression, u.rel, u.tid)) IS NOT NULL);
		CONTINUE WHEN bad = '{}';
		these := dvmig._check_these(ARRAY(SELECT f.relations[i::int] FROM unnest(bad) i), ARRAY(SELECT f.tids[i::int] FROM unnest(bad) i));
		problem := dvmig._check_fault(owner, format('SELECT count(ROW(%s)) FROM %s s WHERE %s', c.expression, staging, these));
		counted := dvmig._query_as(owner, format('SELECT jsonb_build_object(''n'', count(*), ''keys'', to_jsonb(dvmig._first_keys(%s, %s, %s))) FROM %s s WHERE %s AND s.processing_flag = ''U''',
			k.sort_sql, k.label_sql, samples, staging, these));
		CONTINUE WHEN counted ->> 'n' = '0';
		findings := findings || jsonb_build_object('severity', 'error', 'target_column', c.target_column, 'rule', 'transform',
			'affected_rows', counted -> 'n', 'sample_keys', counted -> 'keys',
			'message', 'the expression fails' || CASE WHEN shown AND problem IS NOT NULL THEN ': ' || substr(problem, 7) ELSE coalesce(' with SQLSTATE ' || left(problem, 5), '') END,
			'hint', CASE WHEN f.is_complete THEN 'Correct the values, or make the expression take them.'
				ELSE 'There are more such rows than were searched for. Correct the expression and check again: the other rules have not been applied to this table.' END);
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._check_transform(oid, regclass, text, int, bool) IS 'findings about expressions that throw, and the condition for their rows';
