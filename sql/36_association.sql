-- Many-to-many links from a staging table of pairs.
--
-- A pair is a row of a staging table like any other, with flags and outcomes,
-- but no record in Dataverse stands for it. Its two ends are kept as column
-- maps, @left and @right, and resolve as lookups do.

CREATE TABLE dvmig.metadata_relationship (
	server          name NOT NULL,
	relationship    text NOT NULL,
	table1          text NOT NULL,
	navigation1     text NOT NULL,   -- of table1, a collection of table2
	table2          text NOT NULL,
	navigation2     text NOT NULL,
	intersect_table text,
	PRIMARY KEY (server, relationship)
);
COMMENT ON TABLE dvmig.metadata_relationship IS 'many-to-many relationships of the Dataverse tables that were read, with the navigation property of either side';

-- _store_relationships: replace the many-to-many relationships of a table.
CREATE FUNCTION dvmig._store_relationships(server name, table_name text, definition jsonb) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	DELETE FROM dvmig.metadata_relationship r WHERE r.server = $1 AND $2 IN (r.table1, r.table2);
	INSERT INTO dvmig.metadata_relationship (server, relationship, table1, navigation1, table2, navigation2, intersect_table)
	SELECT $1, r->>'SchemaName', r->>'Entity1LogicalName', r->>'Entity1NavigationPropertyName', r->>'Entity2LogicalName',
		r->>'Entity2NavigationPropertyName', r->>'IntersectEntityName'
	FROM dvmig._elements($3->'ManyToManyRelationships') r
	WHERE r->>'SchemaName' IS NOT NULL AND r->>'Entity1LogicalName' IS NOT NULL AND r->>'Entity2LogicalName' IS NOT NULL
	  AND r->>'Entity1NavigationPropertyName' IS NOT NULL AND r->>'Entity2NavigationPropertyName' IS NOT NULL
	ON CONFLICT ON CONSTRAINT metadata_relationship_pkey DO NOTHING
$$;
COMMENT ON FUNCTION dvmig._store_relationships(name, text, jsonb) IS 'store what was read of a table''s many-to-many relationships';

-- _relationship: the relationship of that name between two tables; navigation
-- is the collection of the left one.
CREATE FUNCTION dvmig._relationship(caller oid, server name, written text, left_table text, right_table text,
	OUT relationship text, OUT navigation text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	r dvmig.metadata_relationship;
	name text := lower(btrim(written));
	between text[];
BEGIN
	IF coalesce(name, '') = '' THEN
		RAISE EXCEPTION 'the relationship is missing' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR attempt IN 1 .. 2 LOOP
		SELECT m.* INTO r FROM dvmig.metadata_relationship m WHERE m.server = _relationship.server AND lower(m.relationship) = name;
		EXIT WHEN FOUND OR attempt = 2;
		-- made since its tables were read
		PERFORM dvmig._refresh_metadata(caller, server::text, ARRAY[left_table, right_table]);
	END LOOP;
	IF r.relationship IS NULL OR (left_table, right_table) NOT IN ((r.table1, r.table2), (r.table2, r.table1)) THEN
		between := ARRAY(SELECT m.relationship FROM dvmig.metadata_relationship m WHERE m.server = _relationship.server
			AND (left_table, right_table) IN ((m.table1, m.table2), (m.table2, m.table1)) ORDER BY 1);
		RAISE EXCEPTION 'there is no many-to-many relationship "%" between Dataverse tables "%" and "%"', btrim(written), left_table, right_table
			USING ERRCODE = 'undefined_object',
			HINT = coalesce('Did you mean ' || dvmig._near(name, between) || '?',
				'Relationships between them: ' || nullif(array_to_string(between, ', '), '') || '.', 'There is none between them; give its schema name.');
	ELSIF r.intersect_table = 'listmember' OR r.relationship ~* '^list.*_association$' AND 'list' IN (r.table1, r.table2) THEN
		RAISE EXCEPTION 'members of marketing lists are not added as links'
			USING ERRCODE = 'feature_not_supported',
			HINT = 'Dataverse adds them by messages of their own (AddListMembersList), which dvmig does not send. Import them with Dataverse''s wizard, or build the list by a query.';
	ELSIF r.intersect_table = 'teammembership' OR lower(r.relationship) = 'teammembership_association' THEN
		RAISE EXCEPTION 'members of teams are not added as links'
			USING ERRCODE = 'feature_not_supported',
			HINT = 'Dataverse adds them by a message of its own (AddMembersTeam), which dvmig does not send. Add them in the admin center, or use teams of an Entra group.';
	END IF;
	relationship := r.relationship;
	navigation := CASE WHEN left_table = r.table1 THEN r.navigation1 ELSE r.navigation2 END;
END
$$;
COMMENT ON FUNCTION dvmig._relationship(oid, name, text, text, text) IS 'many-to-many relationship between two tables, or an error that names those there are';

-- _link_end: one end of a pair as a column map.
CREATE FUNCTION dvmig._link_end(caller oid, m dvmig.migration, staging regclass, side text, expression text, target text, match_on text)
RETURNS dvmig.column_map
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cm dvmig.column_map;
	p dvmig.migration_table;
	wanted text := lower(btrim(target));
	e record;
	cols text[];
BEGIN
	IF coalesce(btrim(expression), '') = '' OR coalesce(wanted, '') = '' THEN
		RAISE EXCEPTION 'the % end of the links is missing', side
			USING ERRCODE = 'invalid_parameter_value',
			HINT = format('%1$s_key => an expression, %1$s_target => the staging table it is a key of, or the Dataverse table with %1$s_match_on => its key column.', side);
	END IF;
	cm.staging := staging;
	cm.target_column := '@' || side;
	cm.variant := '';
	cm.expression := btrim(expression);
	cm.result_type := 'uuid';
	cm.send := 'both';
	cm.automatic := false;
	IF match_on IS NULL THEN
		cm.parent := dvmig._lookup_parent(caller, m.migration_id, target);
	END IF;
	IF cm.parent IS NOT NULL THEN
		SELECT t.* INTO p FROM dvmig.migration_table t WHERE t.staging = cm.parent;
		e := dvmig._lookup_expressions(m.owner, staging, expression, p.source_key,
			ARRAY(SELECT a.atttypid::regtype FROM unnest(p.source_key) WITH ORDINALITY u(name, i)
				JOIN pg_attribute a ON a.attrelid = p.staging AND a.attname = u.name ORDER BY u.i));
		cm.kind := 'parent';
		cm.referenced_table := p.target;
		cm.expression_sql := e.expression_sql;
	ELSIF match_on IS NOT NULL THEN
		PERFORM dvmig._target_table(caller, m.server, wanted);
		cols := dvmig._match_columns(m.server, wanted, match_on);
		e := dvmig._lookup_expressions(m.owner, staging, expression, cols, array_fill('text'::regtype, ARRAY[cardinality(cols)]));
		cm.kind := 'reference';
		cm.match_on := cols;
		cm.referenced_table := wanted;
		cm.expression_sql := e.expression_sql;
	ELSIF wanted ~ '[."]' THEN
		RAISE EXCEPTION '% is not a staging table of migration "%"', target, m.name
			USING ERRCODE = 'undefined_object', HINT = 'Register it with dvmig.add_table() before the links to it.';
	ELSE
		PERFORM dvmig._target_table(caller, m.server, wanted);
		e := dvmig._compile_expression(m.owner, staging, expression);
		IF dvmig._base_type(e.result_type) <> 'uuid'::regtype THEN
			RAISE EXCEPTION 'an expression of type % is not the id of a record', e.result_type
				USING ERRCODE = 'datatype_mismatch',
				HINT = format('Name the staging table that the expression is a key of, or %s_match_on => a key column of "%s", or write an expression of type uuid.', side, wanted);
		END IF;
		cm.kind := 'id';
		cm.referenced_table := wanted;
		cm.expression_sql := ARRAY[e.expression_sql];
	END IF;
	RETURN cm;
END
$$;
COMMENT ON FUNCTION dvmig._link_end(oid, dvmig.migration, regclass, text, text, text, text) IS 'one end of the links of a staging table of pairs, as a column map';

CREATE FUNCTION dvmig._add_association(caller oid, migration text, staging regclass, relationship text, left_key text, left_target text,
	right_key text, right_target text, left_match_on text, right_match_on text, source_key text, filter text, filter_reason text,
	success_table text, error_table text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	m dvmig.migration := dvmig._migration(caller, migration, 'owner');
	t dvmig.migration_table;
	l dvmig.column_map;
	r dvmig.column_map;
	n record;
BEGIN
	IF staging IS NULL THEN
		RAISE EXCEPTION 'the staging table is missing' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM dvmig._forget_dropped(caller, m);
	PERFORM dvmig._check_relation(caller, m.owner, staging);
	PERFORM dvmig._check_table_options(staging, 'derived', NULL, 'update', filter, filter_reason);
	l := dvmig._link_end(caller, m, staging, 'left', left_key, left_target, left_match_on);
	r := dvmig._link_end(caller, m, staging, 'right', right_key, right_target, right_match_on);
	n := dvmig._relationship(caller, m.server, relationship, l.referenced_table, r.referenced_table);
	PERFORM dvmig._add_table(caller, migration, staging, l.referenced_table, source_key, filter, filter_reason, NULL, 'derived', NULL, NULL,
		'update', success_table, error_table, false, true, NULL, NULL);
	UPDATE dvmig.migration_table mt SET relationship = n.relationship WHERE mt.staging = _add_association.staging RETURNING mt.* INTO t;
	l.navigation_property := n.navigation;
	r.navigation_property := n.navigation;
	PERFORM dvmig._put_map(l), dvmig._put_map(r);
	PERFORM dvmig._log(caller, m.name, 'add_association', staging::text, jsonb_build_object('relationship', n.relationship,
		'left', l.expression, 'left_target', left_target, 'right', r.expression, 'right_target', right_target));
	RETURN concat_ws(chr(10),
		format('%s: links of %s, %s(%s) to %s(%s), source key %s', staging, n.relationship, l.referenced_table, l.expression,
			r.referenced_table, r.expression, array_to_string(t.source_key, ', ')),
		'outcomes in ' || t.success_table || ' and ' || t.error_table);
END
$$;
COMMENT ON FUNCTION dvmig._add_association(oid, text, regclass, text, text, text, text, text, text, text, text, text, text, text, text) IS 'internal part of dvmig.add_association()';

CREATE FUNCTION dvmig.add_association(migration text, staging regclass, relationship text, left_key text, left_target text,
	right_key text, right_target text, left_match_on text DEFAULT NULL, right_match_on text DEFAULT NULL, source_key text DEFAULT NULL,
	filter text DEFAULT NULL, filter_reason text DEFAULT NULL, success_table text DEFAULT NULL, error_table text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.add_association(text, regclass, text, text, text, text, text, text, text, text, text, text, text, text) IS
	'register a staging table of pairs: each row is a link of a many-to-many relationship, its ends given like lookups';
