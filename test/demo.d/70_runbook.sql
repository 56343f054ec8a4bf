-- What the runbook of doc/operations.md starts from: a source, its staging table,
-- a migration that goes to the sandbox.
SELECT environment, organisation_name FROM dvmig.whoami('production');
CREATE SCHEMA staging;
CREATE SCHEMA source;
CREATE TABLE source.companies (company_id int, company_name text, country text);
INSERT INTO source.companies
SELECT i, CASE i WHEN 77 THEN repeat('x', 200) ELSE 'Company ' || i END, (ARRAY['DE', 'FR'])[1 + i % 2] FROM generate_series(1, 300) i;
CREATE TABLE staging.companies (company_id int PRIMARY KEY, company_name text, country text);
INSERT INTO staging.companies SELECT * FROM source.companies;
SELECT dvmig.create_migration('go_live', 'sandbox');
SELECT dvmig.add_table('go_live', 'staging.companies', 'account', source_key => 'company_id');
SELECT dvmig.map_column('staging.companies', 'name', 'company_name');
