-- Activity parties: sender, recipients, attendees of an activity, which go into
-- its create as one collection.

-- _party_mask: participation type of a role, by the name of its column in
-- Dataverse. 1 to 4 are of mails, calls and letters, 5 to 7 of appointments.
CREATE FUNCTION dvmig._party_mask(role text) RETURNS int
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE $1 WHEN 'from' THEN 1 WHEN 'to' THEN 2 WHEN 'cc' THEN 3 WHEN 'bcc' THEN 4 WHEN 'requiredattendees' THEN 5
		WHEN 'optionalattendees' THEN 6 WHEN 'organizer' THEN 7 WHEN 'regarding' THEN 8 WHEN 'owner' THEN 9 WHEN 'resources' THEN 10
		WHEN 'customers' THEN 11 WHEN 'customer' THEN 11 END
$$;
COMMENT ON FUNCTION dvmig._party_mask(text) IS 'participation type of an activity party by its role';

-- _party_keys: SQL of the keys or addresses that a map of parties has of a row (s), one a row, as e(v).
CREATE FUNCTION dvmig._party_keys(cm dvmig.column_map) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('unnest(%s) e(v)', CASE WHEN cm.result_type::text LIKE '%[]' THEN q.shown ELSE format('ARRAY[%s]', q.shown) END) FROM dvmig._shown_sql(cm) q(shown)
$$;
COMMENT ON FUNCTION dvmig._party_keys(dvmig.column_map) IS 'SQL of the keys or addresses that a map of parties has of a row';

-- _party_sql: the maps of one row's parties as SQL: value (a JSON array),
-- fault and parking, and whether keys were never looked up; null where none is mapped.
CREATE FUNCTION dvmig._party_sql(staging regclass, OUT value_sql text, OUT fault_sql text, OUT parked_sql text, OUT filled_sql text, OUT unread_sql text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cm dvmig.column_map;
	par dvmig.migration_table;
	srv name;
	role text;
	entity_set text;
	each_sql text;
	found_id text;
	from_sql text;
	lost text;
	items text[];
	faults text[];
	waits text[];
	filled text[];
	unread text[];
BEGIN
	SELECT m.server INTO srv FROM dvmig.migration_table t JOIN dvmig.migration m USING (migration_id) WHERE t.staging = $1;
	FOR cm IN SELECT c.* FROM dvmig.column_map c WHERE c.staging = $1 AND c.kind = 'party' ORDER BY c.position LOOP
		role := substr(cm.target_column, 8);
		each_sql := dvmig._party_keys(cm);
		filled := filled || format('(%s) IS NOT NULL', cm.expression_sql[1]);
		SELECT mt.entity_set INTO entity_set FROM dvmig.metadata_table mt WHERE mt.server = srv AND mt.table_name = cm.referenced_table;
		IF cm.referenced_table IS NULL THEN
			items := items || format('(SELECT string_agg(''{"addressused":'' || to_json(e.v::text)::text || '',"participationtypemask":%s}'', '','') FROM %s WHERE e.v IS NOT NULL)',
				dvmig._party_mask(role), each_sql);
			CONTINUE;
		ELSIF cm.parent IS NOT NULL THEN
			SELECT t.* INTO par FROM dvmig.migration_table t WHERE t.staging = cm.parent;
			from_sql := format('%s LEFT JOIN %s p ON p.%I = %s', each_sql, cm.parent, par.source_key[1], dvmig._as_key(cm.parent, par.source_key[1], 'e.v'));
			found_id := format('coalesce(p.dataverse_id, %s)', dvmig._id_expression(cm.parent, 'p'));
			lost := format('p.%I IS NULL', par.source_key[1]);
			waits := waits || format('CASE WHEN EXISTS (SELECT FROM %s WHERE p.%I IS NOT NULL AND (p.processing_flag NOT IN (''S'', ''P'') OR p.action_flag = ''D'')) THEN %L END',
				from_sql, par.source_key[1], 'parked|' || role);
			faults := faults || format('CASE WHEN EXISTS (SELECT FROM %s WHERE e.v IS NOT NULL AND %s) THEN %L END', from_sql, lost, 'orphan|' || role);
		ELSIF cm.match_on IS NOT NULL THEN
			from_sql := format('%s LEFT JOIN dvmig.reference p ON p.server = %L AND p.table_name = %L AND p.match_on = %L AND p.match_key = lower(e.v::text COLLATE "default")',
				each_sql, srv, cm.referenced_table, array_to_string(cm.match_on, ','));
			found_id := 'p.record_id';
			faults := faults || format('CASE WHEN EXISTS (SELECT FROM %s WHERE e.v IS NOT NULL AND p.record_id IS NULL) THEN %L END', from_sql, 'reference|' || role);
			unread := unread || format('EXISTS (SELECT FROM %s WHERE e.v IS NOT NULL AND p.match_key IS NULL)', from_sql);
		ELSE
			from_sql := each_sql;
			found_id := 'e.v';
		END IF;
		items := items || format('(SELECT string_agg(''{"%s@odata.bind":"%s('' || %s || '')","participationtypemask":%s}'', '','') FROM %s WHERE e.v IS NOT NULL)',
			cm.navigation_property, entity_set, found_id, dvmig._party_mask(role), from_sql);
	END LOOP;
	IF items IS NULL THEN
		RETURN;
	END IF;
	value_sql := format('(''['' || nullif(concat_ws('','', %s), '''') || '']'')', array_to_string(items, ', '));
	fault_sql := nullif(array_to_string(faults, ', '), '');
	parked_sql := nullif(array_to_string(waits, ', '), '');
	filled_sql := array_to_string(filled, ' OR ');
	unread_sql := coalesce(array_to_string(unread, ' OR '), 'false');
END
$$;
COMMENT ON FUNCTION dvmig._party_sql(regclass) IS 'SQL of the activity parties of a row, of parties that are not found, of those that wait, and of those that were never looked up';

CREATE FUNCTION dvmig._map_party(caller oid, staging regclass, role text, expression text, target text, match_on text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t dvmig.migration_table := dvmig._table(caller, staging, 'owner');
	g dvmig.migration;
	par dvmig.migration_table;
	tt dvmig.metadata_table;
	m dvmig.column_map;
	e record;
	wanted text := lower(btrim(target));
	r text := lower(btrim(role));
	element regtype;
	key_type regtype;
BEGIN
	SELECT q.* INTO g FROM dvmig.migration q WHERE q.migration_id = t.migration_id;
	tt := dvmig._target_table(caller, g.server, t.target);
	IF NOT tt.is_activity THEN
		RAISE EXCEPTION 'Dataverse table "%" is no activity and has no parties', t.target USING ERRCODE = 'wrong_object_type';
	ELSIF dvmig._party_mask(r) IS NULL THEN
		RAISE EXCEPTION 'there is no role "%" of an activity party', role
			USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Roles are: from, to, cc, bcc, requiredattendees, optionalattendees, organizer, resources, customers.';
	ELSIF coalesce(btrim(expression), '') = '' THEN
		RAISE EXCEPTION 'the expression for role "%" is missing', r USING ERRCODE = 'invalid_parameter_value';
	END IF;
	e := dvmig._compile_expression(g.owner, staging, expression);
	element := coalesce((SELECT p.typelem::regtype FROM pg_type p WHERE p.oid = e.result_type AND p.typcategory = 'A'), e.result_type);
	m.staging := staging;
	m.target_column := '@party:' || r;
	m.kind := 'party';
	m.expression := btrim(expression);
	m.expression_sql := ARRAY[e.expression_sql];
	m.result_type := e.result_type;
	m.send := 'insert';
	m.automatic := false;
	IF match_on IS NULL AND target IS NOT NULL THEN
		m.parent := dvmig._lookup_parent(caller, t.migration_id, target);
	END IF;
	IF m.parent IS NOT NULL THEN
		SELECT q.* INTO par FROM dvmig.migration_table q WHERE q.staging = m.parent;
		SELECT a.atttypid::regtype INTO key_type FROM pg_attribute a WHERE a.attrelid = m.parent AND a.attname = par.source_key[1];
		IF cardinality(par.source_key) > 1 OR dvmig._base_type(element) <> dvmig._base_type(key_type) THEN
			RAISE EXCEPTION 'parties of type % cannot be found by the key of %', element, m.parent
				USING ERRCODE = 'datatype_mismatch', HINT = format('Write a cast to %s, or to %1$s[] for several; the key must be one column.', key_type);
		END IF;
		wanted := par.target;
	ELSIF match_on IS NOT NULL THEN
		PERFORM dvmig._target_table(caller, g.server, wanted);
		m.match_on := dvmig._match_columns(g.server, wanted, match_on);
		IF cardinality(m.match_on) > 1 THEN
			RAISE EXCEPTION 'activity parties cannot be matched on several columns'
				USING ERRCODE = 'feature_not_supported', HINT = 'Name one column that holds the key of a party.';
		END IF;
	ELSIF wanted IS NOT NULL AND dvmig._base_type(element) <> 'uuid'::regtype THEN
		RAISE EXCEPTION 'a party of type % is not the id of a record', element
			USING ERRCODE = 'datatype_mismatch', HINT = 'Name the staging table whose key it is, or match_on, or leave the target out for an address.';
	END IF;
	m.referenced_table := wanted;
	m.variant := coalesce(wanted, 'address');
	IF wanted IS NOT NULL THEN
		PERFORM dvmig._target_table(caller, g.server, wanted), dvmig._target_table(caller, g.server, 'activityparty');
		SELECT l.navigation_property INTO m.navigation_property FROM dvmig.metadata_lookup l
		WHERE l.server = g.server AND l.table_name = 'activityparty' AND l.column_name = 'partyid' AND l.referenced_table = wanted;
		IF m.navigation_property IS NULL THEN
			RAISE EXCEPTION 'a record of Dataverse table "%" cannot be an activity party', wanted
				USING ERRCODE = 'invalid_parameter_value', HINT = 'Accounts, contacts, leads, users, queues and the like can.';
		END IF;
	END IF;
	PERFORM dvmig._put_map(m);
	RETURN dvmig._log_map(caller, g.name, 'map_party', m, e.is_volatile);
END
$$;
COMMENT ON FUNCTION dvmig._map_party(oid, regclass, text, text, text, text) IS 'internal part of dvmig.map_party()';

CREATE FUNCTION dvmig.map_party(staging regclass, role text, expression text, target text DEFAULT NULL, match_on text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'dv_call';
COMMENT ON FUNCTION dvmig.map_party(regclass, text, text, text, text) IS
	'add parties to an activity, in a role such as from or to: keys of a staging table, keys of existing records by match_on, ids, or without a target addresses; an array gives several';
