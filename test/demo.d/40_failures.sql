-- 8. What failed, and why. Each failure is a row beside the staging table.
--    Rows that point at a failed row were not sent: they are parked.

SELECT staging, error_class, error_column, failed_rows, left(message, 70) AS message FROM dvmig.top_errors ORDER BY failed_rows DESC;

SELECT e.company_id, left(s.company_name, 24) AS company_name, s.branch, s.owner_mail, e.error_class, e.error_column
FROM staging.companies_error e JOIN staging.companies s USING (company_id)
ORDER BY 1 LIMIT 8;
