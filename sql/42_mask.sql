-- Masks: values that look like the real ones and are not.

CREATE TABLE dvmig._mask_secret (
	migration_id int PRIMARY KEY REFERENCES dvmig.migration ON DELETE CASCADE,
	secret       text NOT NULL
);
COMMENT ON TABLE dvmig._mask_secret IS 'secret key of the masks of each migration; shown to nobody';
ALTER TABLE dvmig._mask_secret ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION dvmig._use_mask_key(secret text, owner oid) RETURNS void
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'dv_use_mask_key';
COMMENT ON FUNCTION dvmig._use_mask_key(text, oid) IS 'key that masks without one of their own use from now on, in expressions that run as this role';

-- _mask_key: the key of a migration's masks for what is read next in this session.
CREATE FUNCTION dvmig._mask_key(m dvmig.migration) RETURNS void
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT dvmig._use_mask_key((SELECT k.secret FROM dvmig._mask_secret k WHERE k.migration_id = m.migration_id), m.owner::oid)
$$;
COMMENT ON FUNCTION dvmig._mask_key(dvmig.migration) IS 'use the key of a migration''s masks in this session';

-- _draw_mask_key: made once for each migration, from two random ids.
CREATE FUNCTION dvmig._draw_mask_key(migration_id int) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dvmig._mask_secret VALUES ($1, gen_random_uuid()::text || gen_random_uuid()::text)
	ON CONFLICT ON CONSTRAINT _mask_secret_pkey DO NOTHING
$$;
COMMENT ON FUNCTION dvmig._draw_mask_key(int) IS 'draw the key of a migration''s masks, once';

CREATE FUNCTION dvmig.mask_name(source text, mask_key text DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dv_mask_name';
COMMENT ON FUNCTION dvmig.mask_name(text, text) IS 'mask of a name: letters for letters, vowels for vowels, capitals for capitals';

CREATE FUNCTION dvmig.mask_mail(source text, mask_key text DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dv_mask_mail';
COMMENT ON FUNCTION dvmig.mask_mail(text, text) IS 'mask of a mail address, in a domain that cannot exist';

CREATE FUNCTION dvmig.mask_phone(source text, mask_key text DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dv_mask_phone';
COMMENT ON FUNCTION dvmig.mask_phone(text, text) IS 'mask of a telephone number: digits for digits';

CREATE FUNCTION dvmig.mask_text(source text, mask_key text DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dv_mask_text';
COMMENT ON FUNCTION dvmig.mask_text(text, text) IS 'mask of any text: letters for letters, digits for digits, all else as it is';

CREATE FUNCTION dvmig.mask_number(source numeric, mask_key text DEFAULT NULL) RETURNS numeric
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dv_mask_number';
COMMENT ON FUNCTION dvmig.mask_number(numeric, text) IS 'mask of a number: as many digits before and after the point, the same sign';
