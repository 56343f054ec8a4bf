-- What would fail, as conditions over the staging rows.
--
-- dvmig.check() reads each staging table once and counts for every rule the
-- rows that break it. Here the rules are made: from the column maps and from
-- what is cached of the target's columns. Conditions are SQL over what
-- dvmig._check_outputs() selects of a row, of map number n:
--
--   v<n>   the value, text columns as text
--   f<n>   choices and lookups: the source has a value
--   m<n>   lookups by match_on: records that the key means; null: never looked up
--   x<n>   lookups to a staging table: the parent row is there
--   w<n>   lookups to a staging table: the parent row will not be loaded
--   u<n>   where the map has a policy: it puts something else in
--   sf     where a state is mapped: what is wrong with it, as the run says it
--   pf, pw where parties are mapped: what is wrong with them; one of them will not be loaded
--   o, nv  operation, I or U; it is an update of a record never loaded
--   id     the record's id, where it is not always derived

CREATE FUNCTION dvmig._utf16_length(source text) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_utf16_length';
COMMENT ON FUNCTION dvmig._utf16_length(text) IS 'UTF-16 code units of a text, in which Dataverse measures the length of text columns';

CREATE FUNCTION dvmig._first_keys_add(state internal, sort_value "any", label text, wanted int) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_first_keys_add';
COMMENT ON FUNCTION dvmig._first_keys_add(internal, "any", text, int) IS 'step of aggregate dvmig._first_keys';

CREATE FUNCTION dvmig._first_keys_end(state internal) RETURNS text[]
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dv_first_keys_end';
COMMENT ON FUNCTION dvmig._first_keys_end(internal) IS 'result of aggregate dvmig._first_keys';

CREATE AGGREGATE dvmig._first_keys(sort_value "any", label text, wanted int) (
	SFUNC = dvmig._first_keys_add, STYPE = internal, FINALFUNC = dvmig._first_keys_end, PARALLEL = SAFE);
COMMENT ON AGGREGATE dvmig._first_keys("any", text, int) IS 'the first keys of any number of rows, in bounded memory';

-- _key_sql: the source key of a row over an alias: to sort by, and as text.
CREATE FUNCTION dvmig._key_sql(names text[], alias text, OUT sort_sql text, OUT label_sql text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN cardinality(names) > 1 THEN format('ROW(%s)', string_agg(q.k, ', ' ORDER BY q.i)) ELSE min(q.k) END,
		CASE WHEN cardinality(names) > 1 THEN format('concat_ws('', '', %s)', string_agg(q.k, ', ' ORDER BY q.i)) ELSE min(q.k) || '::text' END
	FROM (SELECT format('%s.%I', alias, u.k) AS k, u.i FROM unnest(names) WITH ORDINALITY u(k, i)) q
$$;
COMMENT ON FUNCTION dvmig._key_sql(text[], text) IS 'SQL of a row''s source key, to sort by and as text';

-- _check_later_maps: what goes in later passes by itself: files, of which the size
-- is looked at, and columns of the activity that closing a record leaves, which
-- have a value where the record is to be closed.
CREATE FUNCTION dvmig._check_later_maps(staging regclass)
RETURNS TABLE (target_column text, kind text, base_type text, column_type text, max_length int, min_value numeric, max_value numeric, precision_digits int,
	max_size_kb int, choices text, value_sql text, policy text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT f.target_column, 'file', 'bigint', 'File', NULL::int, NULL::numeric, NULL::numeric, NULL::int, (f.max_size / 1024)::int, NULL::text, f.size_sql, 'error'
	FROM dvmig._file_maps($1) f
	UNION ALL
	SELECT c.target_column, 'value', dvmig._base_type(c.result_type)::text, mc.column_type, mc.max_length, mc.min_value, mc.max_value, mc.precision_digits, mc.max_size_kb,
		(SELECT array_agg(o.choice_value ORDER BY o.choice_value)::text FROM dvmig.metadata_choice o
			WHERE o.server = mc.server AND o.table_name = mc.table_name AND o.column_name = mc.column_name),
		format('(CASE WHEN (%s) = ANY (%L::int[]) THEN %s END)', w.state_sql, dvmig._closing_states(t.target), q.shown), c.on_too_long
	FROM dvmig.column_map c
	JOIN dvmig.migration_table t ON t.staging = c.staging
	JOIN dvmig.migration m USING (migration_id)
	LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = dvmig._close_activity(t.target)
		AND mc.column_name = regexp_replace(c.target_column, '^@close:', '')
	CROSS JOIN LATERAL dvmig._shown_sql(c) q(shown)
	CROSS JOIN LATERAL dvmig._state_sql($1) w
	WHERE c.staging = $1 AND c.target_column LIKE '@close:%' AND w.state_sql IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._check_later_maps(regclass) IS 'files, and columns of closing activities, of a staging table';

-- _check_maps: column maps with what their target columns take, and the SQL of
-- what a rule needs of them.
CREATE FUNCTION dvmig._check_maps(staging regclass, deferred text[])
RETURNS TABLE (n int, target_column text, kind text, base_type text, column_type text, is_deferred bool, send text,
	referenced_table text, parent regclass, known bool, valid_for_create bool, valid_for_update bool, max_length int,
	min_value numeric, max_value numeric, precision_digits int, max_size_kb int, choices text, value_sql text,
	filled_sql text, join_sql text, present_sql text, has_source_sql text, policy text, noted_sql text, chained bool, is_last bool,
	before_sql text, default_row text, default_read bool)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH found AS (
		SELECT s.*, c, CASE c.kind WHEN 'parent' THEN 'x' || s.ordinal WHEN 'reference' THEN format('coalesce(m%s = 1, false)', s.ordinal)
				WHEN 'id' THEN format('v%s IS NOT NULL', s.ordinal) END AS found_sql
		FROM dvmig._map_sql($1) s
		JOIN dvmig.column_map c ON c.staging = $1 AND c.target_column = s.target_column AND c.variant = s.variant
	), chains AS (
		SELECT f.*, bool_or((f.c).fallback) OVER w AS chained, f.ordinal = max(f.ordinal) OVER w AS is_last,
			CASE WHEN (f.c).fallback THEN string_agg(f.found_sql, ' OR ') OVER (PARTITION BY f.target_column ORDER BY f.ordinal ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) END AS before_sql
		FROM found f WINDOW w AS (PARTITION BY f.target_column)
	)
	SELECT s.ordinal, c.target_column, c.kind, dvmig._base_type(c.result_type)::text, coalesce(mc.column_type, ''),
		c.target_column = ANY (deferred), c.send, c.referenced_table, c.parent,
		mc.column_name IS NOT NULL OR c.pass = 'links', mc.valid_for_create, mc.valid_for_update, mc.max_length,
		mc.min_value, mc.max_value, mc.precision_digits, mc.max_size_kb,
		(SELECT array_agg(o.choice_value ORDER BY o.choice_value)::text FROM dvmig.metadata_choice o
			WHERE o.server = m.server AND o.table_name = t.target AND o.column_name = c.target_column),
		s.value_sql, s.filled_sql, s.join_sql,
		CASE c.kind WHEN 'parent' THEN format('(x%s%s%s)', s.ordinal, ' AND NOT (' || s.before_sql || ')', CASE WHEN s.noted = 'defaulted' AND s.noted_sql IS NOT NULL THEN ' OR u' || s.ordinal END)
			ELSE format('v%s IS NOT NULL', s.ordinal) END,
		CASE WHEN c.kind IN ('value', 'id') THEN format('v%s IS NOT NULL', s.ordinal) ELSE 'f' || s.ordinal END,
		CASE WHEN c.on_too_long <> 'error' THEN c.on_too_long WHEN c.kind IN ('parent', 'reference', 'id') THEN c.on_missing ELSE c.on_unknown END,
		s.noted_sql, s.chained, s.is_last, s.before_sql, CASE WHEN c.on_missing = 'default' THEN dvmig._default_row(s.c) END,
		c.kind = 'reference' AND EXISTS (SELECT FROM dvmig.reference d WHERE d.server = m.server AND d.table_name = c.referenced_table
			AND d.match_on = dvmig._reference_name(m.migration_id, c.match_on) AND d.match_key = lower(c.default_value))
	FROM chains s, LATERAL (SELECT (s.c).*) c
	JOIN dvmig.migration_table t ON t.staging = c.staging
	JOIN dvmig.migration m USING (migration_id)
	LEFT JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target AND mc.column_name = c.target_column
	UNION ALL
	SELECT k.n + o.i::int, o.target_column, o.kind, o.base_type, coalesce(o.column_type, ''), false, 'both', NULL, NULL, o.column_type IS NOT NULL, NULL, NULL, o.max_length,
		o.min_value, o.max_value, o.precision_digits, o.max_size_kb, o.choices, o.value_sql, NULL, NULL,
		format('v%s IS NOT NULL', k.n + o.i), format('v%1$s IS NOT NULL', k.n + o.i), o.policy, NULL, false, true, NULL, NULL, NULL
	FROM dvmig._check_later_maps($1) WITH ORDINALITY o(target_column, kind, base_type, column_type, max_length, min_value, max_value, precision_digits, max_size_kb, choices, value_sql, policy, i),
		(SELECT coalesce(max(q.ordinal), 0) AS n FROM dvmig._map_sql($1) q) k
$$;
COMMENT ON FUNCTION dvmig._check_maps(regclass, text[]) IS 'column maps of a staging table with what their target columns take';

-- _check_value: what is selected of the value of a map.
CREATE FUNCTION dvmig._check_value(kind text, base_type text, column_type text, value_sql text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN kind <> 'value' THEN value_sql
		WHEN column_type IN ('String', 'Memo') THEN value_sql || '::text'
		-- by way of its shortest decimal, which is what is sent
		WHEN base_type = 'real' THEN value_sql || '::text::float8'
		WHEN column_type <> 'MultiSelectPicklist' THEN value_sql
		WHEN base_type LIKE '%[]' THEN value_sql || '::bigint[]'
		WHEN base_type IN ('smallint', 'integer', 'bigint') THEN format('CASE WHEN %1$s IS NOT NULL THEN ARRAY[%1$s]::bigint[] END', value_sql)
		ELSE value_sql || '::text' END
$$;
COMMENT ON FUNCTION dvmig._check_value(text, text, text, text) IS 'SQL of a mapped value in the type that its rules compare';

-- _check_number_rules: numbers that do not fit.
CREATE FUNCTION dvmig._check_number_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH maps AS (
		SELECT m.*, 'v' || m.n AS v, m.base_type IN ('numeric', 'real', 'double precision') AS special,
			CASE WHEN m.base_type IN ('real', 'double precision') THEN 'float8' ELSE 'numeric' END AS compared,
			greatest(m.min_value, CASE m.column_type WHEN 'Integer' THEN -2147483648 WHEN 'BigInt' THEN -9223372036854775808 END) AS low,
			least(m.max_value, CASE m.column_type WHEN 'Integer' THEN 2147483647 WHEN 'BigInt' THEN 9223372036854775807 END) AS high
		FROM dvmig._check_maps($1, $2) m
		WHERE m.kind = 'value' AND (m.column_type IN ('Integer', 'BigInt', 'Decimal', 'Double', 'Money')
			OR m.column_type IN ('String', 'Memo') AND m.base_type = 'numeric')
	)
	SELECT 'error', m.n, m.target_column, 'not_finite', format('%s IN (''NaN'', ''Infinity'', ''-Infinity'')', m.v),
		'NaN or infinity has no place in Dataverse', 'Map an expression that makes null of it, such as nullif(..., ''NaN'').'
	FROM maps m WHERE m.special
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'fraction', format('%1$s NOT IN (''NaN'', ''Infinity'', ''-Infinity'') AND %1$s <> trunc(%1$s)', m.v),
		'the column takes whole numbers and the value has a fraction', 'Round it: round(...).'
	FROM maps m WHERE m.base_type = 'numeric' AND m.column_type IN ('Integer', 'BigInt')
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'out_of_range',
		concat(CASE WHEN m.special THEN m.v || ' NOT IN (''NaN'', ''Infinity'', ''-Infinity'') AND ' END, '(',
			concat_ws(' OR ', format('%s < %L::%s', m.v, m.low, m.compared), format('%s > %L::%s', m.v, m.high, m.compared)), ')'),
		format('the number is outside %s to %s', m.low, m.high), 'Correct the numbers, or map an expression that brings them into the range.'
	FROM maps m WHERE m.low IS NOT NULL AND m.high IS NOT NULL AND m.column_type NOT IN ('String', 'Memo')
	UNION ALL
	SELECT 'warning', m.n, m.target_column, 'rounded', format('scale(%1$s) > %2$s AND %1$s <> round(%1$s, %2$s)', m.v, m.precision_digits),
		format('Dataverse will round the number to %s decimals', m.precision_digits), format('Round it as you want it: round(..., %s).', m.precision_digits)
	FROM maps m WHERE m.base_type = 'numeric' AND m.column_type IN ('Decimal', 'Double', 'Money') AND m.precision_digits IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._check_number_rules(regclass, text[]) IS 'rules for mapped numbers';

-- _check_value_rules: texts, dates, choices and images that do not fit.
CREATE FUNCTION dvmig._check_value_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH maps AS (
		SELECT m.*, 'v' || m.n AS v, m.column_type = 'MultiSelectPicklist' AS multi,
			m.kind = 'value' AND m.column_type = 'MultiSelectPicklist' AND m.base_type IN ('text', 'character varying', 'character') AS listed
		FROM dvmig._check_maps($1, $2) m WHERE m.kind IN ('value', 'choice')
	)
	SELECT CASE m.policy WHEN 'trim' THEN 'info' ELSE 'error' END, m.n, m.target_column, 'too_long', format('octet_length(%1$s) > %2$s AND dvmig._utf16_length(%1$s) > %2$s', m.v, m.max_length),
		format('the text is longer than %s characters%s', m.max_length, CASE m.policy WHEN 'trim' THEN ' and will be trimmed' END),
		CASE m.policy WHEN 'trim' THEN 'Nothing to do: that is the policy of the column map.' ELSE format('Shorten it, for instance left(..., %s); characters such as emoji count as two; or set the policy on_too_long to trim.', m.max_length) END
	FROM maps m WHERE m.kind = 'value' AND m.column_type IN ('String', 'Memo') AND m.max_length IS NOT NULL
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'date_out_of_range',
		format('NOT (%1$s >= %2$L::%4$s AND %1$s < %3$L::%4$s)', m.v, '1753-01-01 00:00:00+00', '9999-12-31 00:00:00+00', m.base_type),
		'the date is before 1753-01-01, after 9999-12-30 or infinite', 'Correct it, or map an expression that makes null of it.'
	FROM maps m WHERE m.kind = 'value' AND m.column_type = 'DateTime'
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'unknown_choice', format('NOT %s = ANY (%L::%s[])', m.v, m.choices, CASE m.base_type WHEN 'numeric' THEN 'numeric' ELSE 'bigint' END),
		'the number is no value of the choice column', 'Correct it, or map the source text with dvmig.map_choice().'
	FROM maps m WHERE m.kind = 'value' AND m.column_type = 'Picklist' AND m.choices IS NOT NULL AND m.noted_sql IS NULL
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'unknown_choice', format('f%s AND %s IS NULL', m.n, m.v),
		'the source text stands for no value of the choice column', 'dvmig.unmapped_choices() lists the texts: add them to dvmig.choice_map, or correct them to a label of the choice; or set the policy on_unknown.'
	FROM maps m WHERE m.kind = 'choice' AND m.noted_sql IS NULL
	UNION ALL
	SELECT 'info', m.n, m.target_column, 'unknown_choice', 'u' || m.n,
		'the value stands for no choice and will be ' || CASE m.policy WHEN 'default' THEN 'replaced by the default' ELSE 'left empty' END,
		'Nothing to do: that is the policy of the column map.'
	FROM maps m WHERE m.kind IN ('choice', 'value') AND m.noted_sql IS NOT NULL
	UNION ALL
	-- blanks and commas, and at most eleven characters a number, as the run reads them
	SELECT 'error', m.n, m.target_column, 'not_a_list', format('btrim(%1$s, '' '') <> '''' AND %1$s !~ %2$L', m.v,
		'^ *(-[0-9]{1,10}|[0-9]{1,11}) *(, *(-[0-9]{1,10}|[0-9]{1,11}) *)*$'),
		'the text is not a list of whole numbers separated by commas', 'Write the values of the choices, such as 1,9.'
	FROM maps m WHERE m.listed
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'too_many_choices', format('cardinality(%s) > 150',
		CASE WHEN m.listed THEN format('string_to_array(%s, '','')', m.v) ELSE m.v END), 'more than 150 choices are selected', 'Dataverse takes no more.'
	FROM maps m WHERE m.multi
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'unknown_choice',
		CASE WHEN m.listed THEN format('CASE WHEN %1$s ~ %2$L THEN NOT string_to_array(replace(%1$s, '' '', ''''), '','')::bigint[] <@ %3$L::bigint[] END',
			m.v, '^ *(-[0-9]{1,10}|[0-9]{1,11}) *(, *(-[0-9]{1,10}|[0-9]{1,11}) *)*$', m.choices)
		ELSE format('array_position(%1$s, NULL) IS NOT NULL OR NOT %1$s <@ %2$L::bigint[]', m.v, m.choices) END,
		'a number is no value of the choices column, or is null', 'Correct it.'
	FROM maps m WHERE m.multi AND m.kind = 'value' AND m.choices IS NOT NULL
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'too_large', format('octet_length(%s) > %s', m.v, least(m.max_size_kb::bigint * 1024, 33554432)),
		format('the image is larger than %s KB', m.max_size_kb), 'Make it smaller before it is loaded.'
	FROM maps m WHERE m.kind = 'value' AND m.base_type = 'bytea' AND m.max_size_kb IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._check_value_rules(regclass, text[]) IS 'rules for mapped texts, dates, choices and images';

-- _check_file_rules: files that do not fit or are not there; of a file the value is its size.
CREATE FUNCTION dvmig._check_file_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'error', m.n, m.target_column, 'too_large', format('v%s > %s', m.n, m.max_size_kb::bigint * 1024),
		format('the file is larger than %s KB', m.max_size_kb), 'Dataverse takes no larger one in this column: raise its limit there, or leave the file out; the record is loaded without it.'
	FROM dvmig._check_maps($1, $2) m WHERE m.kind = 'file' AND m.max_size_kb IS NOT NULL
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'file_missing', format('v%s < 0', m.n), 'there is no large object of this oid', 'Correct the oid, or make it null.'
	FROM dvmig._check_maps($1, $2) m WHERE m.kind = 'file'
$$;
COMMENT ON FUNCTION dvmig._check_file_rules(regclass, text[]) IS 'rules for files';

-- _check_lookup_rules: lookups that do not resolve, or point at what is not loaded.
CREATE FUNCTION dvmig._check_lookup_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH lookups AS (
		SELECT m.*, m.noted_sql IS NOT NULL AS remedied, CASE m.policy WHEN 'park' THEN 'Rows wait until there is such a record.' END AS waits,
			-- of a key that was not looked up nobody knows whether a policy will act; of several lookups in order, of any key of theirs
			coalesce(CASE WHEN m.chained THEN string_agg(r.not_read, ' OR ') OVER (PARTITION BY m.target_column) ELSE r.not_read END, 'false') AS unread
		FROM dvmig._check_maps($1, $2) m, LATERAL (SELECT CASE m.kind WHEN 'reference' THEN format('f%1$s AND m%1$s IS NULL', m.n) END AS not_read) r
		WHERE m.kind IN ('parent', 'reference', 'id')
	), maps AS (
		SELECT * FROM lookups m WHERE NOT m.chained
	), chains AS (
		-- lookups that are tried in order fail together; where one was never looked up nothing can be said
		SELECT max(m.n) AS n, m.target_column, bool_or(m.remedied) AS remedied, max(m.waits) AS waits,
			format('(%s) AND NOT (%s)', string_agg(CASE m.kind WHEN 'id' THEN format('v%s IS NOT NULL', m.n) ELSE 'f' || m.n END, ' OR '),
				string_agg(CASE m.kind WHEN 'parent' THEN 'x' || m.n WHEN 'id' THEN format('v%s IS NOT NULL', m.n) ELSE format('coalesce(m%s = 1, false)', m.n) END, ' OR ')) AS missing,
			coalesce(string_agg(format('m%s > 1', m.n), ' OR ') FILTER (WHERE m.kind = 'reference'), 'false') AS doubtful,
			max(m.unread) AS unread
		FROM lookups m WHERE m.chained GROUP BY m.target_column
	)
	SELECT 'error', c.n, c.target_column, 'reference_ambiguous', format('%s AND (%s) IS TRUE AND NOT (%s)', c.missing, c.doubtful, c.unread),
		'none of the lookups of the column finds one record, and one finds several', 'Match on a column that is unique there.'
	FROM chains c
	UNION ALL
	SELECT 'error', c.n, c.target_column, 'reference_not_found', format('%s AND (%s) IS NOT TRUE AND NOT (%s)', c.missing, c.doubtful, c.unread),
		'none of the lookups of the column finds a record', coalesce(c.waits, 'Create the records first, or set the policy on_missing.')
	FROM chains c WHERE NOT c.remedied
	UNION ALL
	SELECT 'info', m.n, m.target_column, CASE WHEN m.kind = 'parent' AND NOT m.chained THEN 'orphan' ELSE 'reference_not_found' END, format('u%s AND NOT (%s)', m.n, m.unread),
		'no record has this key, and the lookup will ' || CASE m.policy WHEN 'default' THEN 'get the default' ELSE 'stay empty' END,
		'Nothing to do: that is the policy of the column map.'
	FROM lookups m WHERE m.remedied
	UNION ALL
	SELECT CASE WHEN m.default_read THEN 'error' ELSE 'info' END, m.n, m.target_column, CASE WHEN m.default_read THEN 'reference_not_found' ELSE 'reference_not_read' END,
		format('u%1$s AND v%1$s IS NULL AND NOT (%2$s)', m.n, m.unread),
		CASE WHEN m.default_read THEN 'the default of the lookup is not found either' ELSE 'the default of the lookup has not been looked up yet' END,
		CASE WHEN m.default_read THEN 'Correct default_value.' ELSE 'Call dvmig.refresh_references() and check again; a run looks it up by itself.' END
	FROM lookups m WHERE m.remedied AND m.policy = 'default' AND m.kind = 'reference'
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'orphan', format('u%s AND NOT EXISTS (SELECT FROM %s d WHERE %s)', m.n, m.parent, m.default_row),
		format('the default of the lookup is the key of no row of %s', m.parent), 'Stage that row, or correct default_value.'
	FROM lookups m WHERE m.remedied AND m.default_row IS NOT NULL
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'orphan', format('f%1$s AND NOT x%1$s', m.n),
		format('no row of %s has this key', m.parent), coalesce(m.waits, 'Stage the parent rows, or map an expression that makes null of such keys, or set the policy on_missing.')
	FROM maps m WHERE m.kind = 'parent' AND NOT m.remedied AND NOT (m.is_deferred AND m.policy = 'park')
	UNION ALL
	-- a record is created before its deferred lookups are looked at
	SELECT 'warning', m.n, m.target_column, 'lookup_stays_owed', format('f%1$s AND NOT x%1$s', m.n),
		format('no row of %s has this key, so the record stays without this lookup', m.parent), m.waits
	FROM maps m WHERE m.kind = 'parent' AND m.is_deferred AND m.policy = 'park'
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'parent_not_loaded', format('%s AND w%s', m.present_sql, m.n),
		format('the parent row in %s will not be loaded, so this row is parked', m.parent),
		'Correct the parent rows; rows that wait for them go by themselves in the next run.'
	FROM lookups m WHERE m.kind = 'parent' AND NOT m.is_deferred
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'reference_not_found', format('f%1$s AND m%1$s = 0', m.n),
		format('no record of Dataverse table "%s" matches', m.referenced_table),
		CASE WHEN m.waits IS NOT NULL THEN m.waits WHEN m.column_type = 'Owner' THEN 'Create the users or teams first, or name a fallback owner with the policy on_missing.'
			ELSE 'Create the records first, or map an expression that makes null of such keys, or set the policy on_missing.' END
	FROM maps m WHERE m.kind = 'reference' AND NOT m.remedied
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'reference_ambiguous', format('f%1$s AND m%1$s > 1', m.n),
		format('more than one record of Dataverse table "%s" matches', m.referenced_table), 'Match on a column that is unique there.'
	FROM maps m WHERE m.kind = 'reference'
	UNION ALL
	SELECT 'info', m.n, m.target_column, 'reference_not_read', format('f%1$s AND m%1$s IS NULL', m.n),
		format('these keys of Dataverse table "%s" have not been looked up yet', m.referenced_table),
		'Call dvmig.refresh_references() and check again; a run looks them up by itself.'
	FROM lookups m WHERE m.kind = 'reference'
	UNION ALL
	SELECT 'error', min(m.n), m.target_column, 'several_targets', format('%s > 1', string_agg(format('(%s)::int', m.present_sql), ' + ' ORDER BY m.n)),
		'more than one target of this lookup has a value', 'Map expressions of which at most one is not null.'
	FROM lookups m GROUP BY m.target_column HAVING count(*) FILTER (WHERE m.before_sql IS NULL) > 1
$$;
COMMENT ON FUNCTION dvmig._check_lookup_rules(regclass, text[]) IS 'rules for mapped lookups';

-- _check_owner_rules: owners that cannot own the record.
CREATE FUNCTION dvmig._check_owner_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'error', c.n, c.target_column, 'owner_without_read', concat(CASE c.send WHEN 'insert' THEN 'o = ''I'' AND ' END, format('v%s = ANY (%L::uuid[])', c.n, u.ids)),
		format('no role of the owner has Read privilege on Dataverse table "%s"', t.target),
		format('Give the %s a security role with it, and call dvmig.refresh_references(); users who are disabled need the organisation setting AllowRoleAssignmentOnDisabledUsers for that.',
			CASE c.referenced_table WHEN 'team' THEN 'team' ELSE 'user' END)
	FROM dvmig._check_maps($1, $2) c JOIN dvmig.migration_table t ON t.staging = $1 JOIN dvmig.migration m USING (migration_id),
		LATERAL (SELECT dvmig._unfit_owners(m.server, t.target)) u(ids)
	WHERE c.column_type = 'Owner' AND c.kind IN ('reference', 'id') AND u.ids IS NOT NULL
$$;
COMMENT ON FUNCTION dvmig._check_owner_rules(regclass, text[]) IS 'rules for owners that cannot own the record';

-- _check_required_rules: what Dataverse wants to have. It insists on texts and
-- lookups of level SystemRequired; other types have defaults there, and level
-- ApplicationRequired binds forms only. A deferred lookup comes too late.
CREATE FUNCTION dvmig._check_required_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH wanted AS (
		SELECT mc.column_name, mc.required_level = 'SystemRequired' AS by_system,
			count(c.n) AS maps, count(c.n) FILTER (WHERE c.is_deferred) AS later,
			string_agg(c.present_sql, ' OR ' ORDER BY c.n) FILTER (WHERE c.send <> 'update' AND NOT c.is_deferred) AS present
		FROM dvmig.migration_table t
		JOIN dvmig.migration m USING (migration_id)
		JOIN dvmig.metadata_table mt ON mt.server = m.server AND mt.table_name = t.target
		JOIN dvmig.metadata_column mc ON mc.server = m.server AND mc.table_name = t.target
		LEFT JOIN dvmig._check_maps($1, $2) c ON c.target_column = mc.column_name
		WHERE t.staging = $1 AND t.relationship IS NULL AND mc.valid_for_create AND mc.required_level IN ('SystemRequired', 'ApplicationRequired')
		  AND mc.column_name NOT IN (mt.primary_id, 'transactioncurrencyid')
		  AND (mc.column_type IN ('String', 'Memo', 'Lookup', 'Customer')
			OR mc.required_level = 'ApplicationRequired' AND mc.column_type NOT IN ('State', 'Status', 'Owner', 'Boolean', 'Uniqueidentifier', 'EntityName', 'Virtual', 'ManagedProperty'))
		GROUP BY mc.column_name, mc.required_level
	)
	SELECT CASE WHEN w.by_system THEN 'error' ELSE 'warning' END, NULL::int, w.column_name,
		CASE WHEN w.maps = 0 THEN 'required_not_mapped' WHEN w.present IS NULL AND w.later > 0 THEN 'required_deferred' ELSE 'required_null' END,
		concat('o = ''I''', ' AND NOT (' || w.present || ')'),
		CASE WHEN w.maps = 0 THEN 'nothing is mapped to a column that is required'
			WHEN w.present IS NULL AND w.later > 0 THEN 'a required lookup goes in a circle and would follow only after the record is created'
			ELSE 'the value of a required column is null' END,
		CASE WHEN w.by_system THEN 'Dataverse refuses records without it: map the column, or an expression with a default.'
			ELSE 'Forms of Dataverse ask for it; the load does not need it.' END
	FROM wanted w
$$;
COMMENT ON FUNCTION dvmig._check_required_rules(regclass, text[]) IS 'rules for columns that Dataverse requires';

-- _check_row_rules: rules for rows as a whole, and for maps whose column has changed since.
CREATE FUNCTION dvmig._check_row_rules(staging regclass, deferred text[])
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'error', NULL::int, NULL::text, 'id_missing', 'id IS NULL', 'the row has no id',
		coalesce('Fill column "' || t.id_column || '".', 'Fill dataverse_id.')
	FROM dvmig.migration_table t WHERE t.staging = $1 AND t.ids = 'column'
	UNION ALL
	SELECT 'error', NULL, NULL, 'no_key', 'id IS NULL', 'Dataverse makes the ids, and no active alternate key is mapped to know the rows by',
		'Map all columns of an alternate key, and refresh the metadata once its index is active.'
	FROM dvmig.migration_table t WHERE t.staging = $1 AND t.ids = 'platform' AND dvmig._platform_key($1, $2) IS NULL
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'key_incomplete', format('id IS NULL AND NOT (%s)', m.present_sql),
		'a column of the alternate key is null', 'Fill it: without its key the record could not be found again.'
	FROM dvmig._check_maps($1, $2) m WHERE m.target_column = ANY (dvmig._platform_key($1, $2))
	UNION ALL
	SELECT 'error', NULL, NULL, 'update_of_nothing', 'nv', 'the row is an update (action_flag U) of a record that was never loaded',
		'Set action_flag to I, or fill dataverse_id, or call dvmig.adopt() if the records are in Dataverse already.'
	FROM dvmig.migration_table t WHERE t.staging = $1 AND t.ids = 'derived'
	UNION ALL
	SELECT 'error', NULL, 'activity parties', 'party_not_found', 'pf <> ''unread''', 'an activity party is not found',
		'Correct it, or leave it out of the expression.'
	FROM dvmig._party_sql($1) w WHERE w.fault_sql IS NOT NULL
	UNION ALL
	SELECT 'error', NULL, 'activity parties', 'parent_not_loaded', 'pw', 'an activity party will not be loaded, so this row is parked',
		'Correct the rows of the parties; rows that wait for them go by themselves in the next run.'
	WHERE dvmig._check_party_waits($1, '{}') IS NOT NULL
	UNION ALL
	SELECT 'info', NULL, 'activity parties', 'reference_not_read', 'pf = ''unread''', 'these keys of activity parties have not been looked up yet',
		'Call dvmig.refresh_references() and check again; a run looks them up by itself.'
	FROM dvmig._party_sql($1) w WHERE w.unread_sql <> 'false'
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'no_such_column', m.present_sql, 'the column does not exist in Dataverse any more',
		'Take the map out with dvmig.unmap().'
	FROM dvmig._check_maps($1, $2) m WHERE NOT m.known
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'read_only', format('o = ''I'' AND (%s)', m.present_sql), 'the column cannot be written when a record is created any more',
		'Take the map out with dvmig.unmap() and map it anew.'
	FROM dvmig._check_maps($1, $2) m WHERE m.known AND NOT m.valid_for_create AND m.send <> 'update'
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'read_only', 'o = ''U''', 'the column cannot be written when a record is updated any more',
		'Take the map out with dvmig.unmap() and map it anew.'
	FROM dvmig._check_maps($1, $2) m WHERE m.known AND NOT m.valid_for_update AND m.send <> 'insert'
$$;
COMMENT ON FUNCTION dvmig._check_row_rules(regclass, text[]) IS 'rules for rows as a whole and for maps whose column has changed';

-- _check_state_rules: states that stand for nothing or do not fit, and links that lack an end.
CREATE FUNCTION dvmig._check_state_rules(staging regclass)
RETURNS TABLE (severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'error', NULL::int, split_part(v.fault, '|', 2), v.rule, format('sf = %L', v.fault), v.message, v.hint
	FROM (VALUES ('choice|statecode', 'unknown_choice', 'the source text stands for no state', 'Add it to dvmig.choice_map, or correct it to a label of the state.'),
		('choice|statuscode', 'unknown_choice', 'the source text stands for no status', 'Add it to dvmig.choice_map, or correct it to a label of the status.'),
		('state|statuscode', 'state_pair', 'state and status do not fit each other, or Dataverse has no such state or status',
			'Correct them; where one of the two is left out, the other follows.')) v (fault, rule, message, hint)
	WHERE EXISTS (SELECT FROM dvmig.column_map c WHERE c.staging = $1 AND c.pass = 'states')
	UNION ALL
	SELECT 'error', m.n, m.target_column, 'end_missing', format('NOT (%s)', m.has_source_sql), 'one end of the link is null', 'Fill it, or leave the row out by a filter.'
	FROM dvmig._check_maps($1, '{}') m WHERE m.target_column IN ('@left', '@right')
$$;
COMMENT ON FUNCTION dvmig._check_state_rules(regclass) IS 'rules for states, and for the ends of links';

-- _check_rules: all of them, numbered.
CREATE FUNCTION dvmig._check_rules(staging regclass, deferred text[])
RETURNS TABLE (nth int, severity text, n int, target_column text, rule text, condition text, message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT row_number() OVER (ORDER BY q.n NULLS FIRST, q.rule, q.target_column)::int, q.*
	FROM (SELECT * FROM dvmig._check_number_rules($1, $2)
		UNION ALL SELECT * FROM dvmig._check_value_rules($1, $2)
		UNION ALL SELECT * FROM dvmig._check_file_rules($1, $2)
		UNION ALL SELECT * FROM dvmig._check_lookup_rules($1, $2)
		UNION ALL SELECT * FROM dvmig._check_owner_rules($1, $2)
		UNION ALL SELECT * FROM dvmig._check_required_rules($1, $2)
		UNION ALL SELECT * FROM dvmig._check_state_rules($1)
		UNION ALL SELECT * FROM dvmig._check_row_rules($1, $2)) q
$$;
COMMENT ON FUNCTION dvmig._check_rules(regclass, text[]) IS 'rules of a staging table, as conditions over its rows';
