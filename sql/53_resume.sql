-- Going on after a restart of the server, by itself: see launcher.c.

-- _why_not_resumed: why a run may not go on by itself in this database; null
-- where it may. A copy or a restored backup of a database must never begin to
-- send because somebody started the server.
CREATE FUNCTION dvmig._why_not_resumed(h dvmig.run_history) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here text[] := string_to_array(dvmig._place(), '/');
	there text[] := string_to_array(h.place, '/');
BEGIN
	IF there IS NULL OR there[1] <> here[1] THEN
		RETURN 'it worked in another cluster';
	ELSIF there[2] <> here[2] THEN
		RETURN 'it worked in another database, of which this is a copy';
	ELSIF there[4] <> here[4] THEN
		RETURN 'it worked in this database before a dump was restored here';
	ELSIF there[3] = here[3] THEN
		RETURN CASE WHEN h.location IS DISTINCT FROM dvmig._location()
			THEN 'it worked on another host or in another data directory, of which this is a copy' END;
	ELSIF current_setting('recovery_target') || current_setting('recovery_target_lsn') || current_setting('recovery_target_name')
		|| current_setting('recovery_target_time') || current_setting('recovery_target_xid') <> '' THEN
		RETURN 'this cluster was restored to a point in time';
	ELSIF NOT current_setting('dvmig.resume_after_promotion')::bool THEN
		RETURN 'this server was promoted, or restored from a backup, and dvmig.resume_after_promotion is off';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION dvmig._why_not_resumed(dvmig.run_history) IS 'why a run may not go on by itself in this database; null where it may';

-- _resume_after_restart: go on with the runs that the restart interrupted, not
-- with those that somebody ended before. "since" is when the server began.
CREATE FUNCTION dvmig._resume_after_restart(since timestamptz)
RETURNS TABLE (run bigint, resumed_as bigint, remark text, again bool)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	h dvmig.run_history;
BEGIN
	PERFORM dvmig._settle_dead_runs(interval '0');
	FOR h IN SELECT r.* FROM dvmig.run_history r
		-- who looked before us, at once after the start, has marked it already
		WHERE r.kind = 'run' AND r.state = 'interrupted' AND NOT r.stop_requested AND (r.until_at IS NULL OR r.until_at > clock_timestamp()) AND r.ended_at >= since - interval '10 seconds'
		  AND EXISTS (SELECT FROM dvmig.migration m WHERE m.migration_id = r.migration_id)
		  AND NOT EXISTS (SELECT FROM dvmig.run_history l WHERE l.migration_id = r.migration_id AND l.kind = 'run' AND l.run > r.run)
		ORDER BY r.run LOOP
		run := h.run; resumed_as := NULL; again := false;
		remark := dvmig._why_not_resumed(h);
		IF remark IS NULL THEN
			BEGIN
				resumed_as := dvmig._resume_run((SELECT m.owner::oid FROM dvmig.migration m WHERE m.migration_id = h.migration_id), h.run, false);
			EXCEPTION WHEN configuration_limit_exceeded THEN
				again := true;
				remark := SQLERRM || '; it will be tried again';
			WHEN OTHERS THEN
				remark := SQLERRM;
			END;
		END IF;
		IF NOT again THEN
			UPDATE dvmig.run_history u SET message = coalesce(u.message || '; ', '')
				|| coalesce('it goes on as run ' || resumed_as, 'it does not go on by itself: ' || remark)
			WHERE u.run = h.run;
			INSERT INTO dvmig.event (role, migration, kind, object, detail)
			VALUES (session_user, h.migration, 'resume after restart', h.run::text, jsonb_build_object('run', resumed_as, 'remark', remark));
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION dvmig._resume_after_restart(timestamptz) IS 'go on with the runs of this database that a restart of the server interrupted';
