-- Numbers with their word, for messages.

CREATE FUNCTION dvmig._count_of(n numeric, one text, many text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$ SELECT n || ' ' || CASE n WHEN 1 THEN one ELSE many END $$;
COMMENT ON FUNCTION dvmig._count_of(numeric, text, text) IS 'a number with its word in the singular or plural';
