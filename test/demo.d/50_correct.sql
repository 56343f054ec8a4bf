-- 9. Corrections are SQL: a translation for the unknown branches, the archive
--    user for owners who left, shorter names, and no invented birthdays.

INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_text)
SELECT migration_id, 'account', 'industrycode', b, 'Wholesale'
FROM dvmig.migration, unnest('{Kräuterhandel,n/a}'::text[]) b WHERE name = 'go_live';

UPDATE staging.companies SET owner_mail = 'archive@contoso.example' WHERE owner_mail LIKE 'gone.%';
UPDATE staging.companies SET company_name = left(company_name, 160) WHERE length(company_name) > 160;

UPDATE staging.people SET
  family_name = left(family_name, 50),
  born = CASE WHEN born >= '1753-01-01' THEN born END,
  company_id = CASE WHEN company_id < 9000 THEN company_id END
WHERE person_id IN (SELECT person_id FROM staging.people_error);

-- 10. Retry what failed there, and run again. Parked rows go by themselves;
--     what succeeded before is not sent again.

SELECT dvmig.retry('staging.companies');
SELECT dvmig.retry('staging.people', filter => $$e.error_class IN ('transform', 'length', 'lookup')$$);

CALL dvmig.run('go_live');

SELECT staging, error_class, error_column, failed_rows, left(message, 70) AS message FROM dvmig.top_errors ORDER BY failed_rows DESC;
SELECT staging, staged, unprocessed, parked, succeeded, failed, left_out, invariant_holds, next_step FROM dvmig.status;
