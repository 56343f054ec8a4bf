-- 1. The extension, the environment to go to, and who we are there.
--    The secret is in a file that only the server can read.

CREATE EXTENSION dvmig;

CREATE SERVER contoso FOREIGN DATA WRAPPER dataverse
  OPTIONS (url '@URL@', authority '@URL@', tenant '@TENANT@',
           environment 'demonstration', ca_file '@CA_FILE@');
CREATE USER MAPPING FOR CURRENT_USER SERVER contoso
  OPTIONS (client_id '@CLIENT_ID@', client_secret_file '@SECRET_FILE@');

\x on
SELECT * FROM dvmig.whoami('contoso');
\x off
SELECT * FROM dvmig.refresh_metadata('contoso', '{account,contact,opportunity,incident,annotation,systemuser,transactioncurrency}');

-- 2. The migration: which staging table goes to which Dataverse table.
--    target_key names the column that keeps the old system's number.

SELECT dvmig.create_migration('go_live', 'contoso');
SELECT dvmig.add_table('go_live', 'staging.companies', 'account', source_key => 'company_id', target_key => 'new_legacyid');
SELECT dvmig.add_table('go_live', 'staging.people', 'contact', source_key => 'person_id', target_key => 'new_legacyid');
SELECT dvmig.add_table('go_live', 'staging.deals', 'opportunity', source_key => 'deal_no', target_key => 'new_legacyid');
SELECT dvmig.add_table('go_live', 'staging.cases', 'incident', source_key => 'case_no', target_key => 'new_legacyid');
SELECT dvmig.add_table('go_live', 'staging.notes', 'annotation', source_key => 'about, about_key, note_no');

-- 3. Companies. A column map is a target column and any SQL expression.

SELECT dvmig.map_column('staging.companies', 'name', 'company_name');
SELECT dvmig.map_column('staging.companies', 'revenue', 'round(turnover_eur, 2)');
SELECT dvmig.map_column('staging.companies', 'numberofemployees', 'staff');
SELECT dvmig.map_column('staging.companies', 'address1_line1', 'street');
SELECT dvmig.map_column('staging.companies', 'address1_city', $$nullif(city, '')$$);
SELECT dvmig.map_column('staging.companies', 'address1_postalcode', 'postcode');
SELECT dvmig.map_column('staging.companies', 'address1_country', 'country');
SELECT dvmig.map_column('staging.companies', 'telephone1', 'phone');
SELECT dvmig.map_column('staging.companies', 'websiteurl', 'website');
SELECT dvmig.map_column('staging.companies', 'creditonhold', $$coalesce(credit_stop = 'J', false)$$);
SELECT dvmig.map_column('staging.companies', 'description', $$nullif(remarks, '')$$);
SELECT dvmig.map_column('staging.companies', 'overriddencreatedon', $$created AT TIME ZONE 'Europe/Berlin'$$);
SELECT dvmig.map_choice('staging.companies', 'industrycode', 'branch');
SELECT dvmig.map_lookup('staging.companies', 'parentaccountid', 'parent_id', 'staging.companies');
SELECT dvmig.map_lookup('staging.companies', 'ownerid', 'owner_mail', 'systemuser', match_on => 'internalemailaddress');

-- 4. People belong to a company or to another person: a lookup to two tables.

SELECT dvmig.map_column('staging.people', 'firstname', 'given_name');
SELECT dvmig.map_column('staging.people', 'lastname', 'family_name');
SELECT dvmig.map_column('staging.people', 'emailaddress1', 'mail');
SELECT dvmig.map_column('staging.people', 'jobtitle', $$nullif(job, '')$$);
SELECT dvmig.map_column('staging.people', 'mobilephone', 'mobile');
SELECT dvmig.map_column('staging.people', 'birthdate', 'born');
SELECT dvmig.map_column('staging.people', 'donotbulkemail', 'no_mailings');
SELECT dvmig.map_column('staging.people', 'description', 'remarks');
SELECT dvmig.map_choice('staging.people', 'familystatuscode', 'marital');
SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'company_id', 'staging.companies');
SELECT dvmig.map_lookup('staging.people', 'parentcustomerid', 'household_of', 'staging.people');
SELECT dvmig.map_lookup('staging.people', 'new_managerid', 'boss_id', 'staging.people');

-- 5. Deals, cases and notes.

SELECT dvmig.map_column('staging.deals', 'name', 'title');
SELECT dvmig.map_column('staging.deals', 'estimatedvalue', 'round(amount::numeric, 2)');
SELECT dvmig.map_column('staging.deals', 'closeprobability', $$replace(chance, ' %', '')::int$$);
SELECT dvmig.map_column('staging.deals', 'estimatedclosedate', $$to_date(expected_on, 'DD.MM.YYYY')$$);
SELECT dvmig.map_column('staging.deals', 'description', 'remarks');
SELECT dvmig.map_choice('staging.deals', 'opportunityratingcode', 'rating');
SELECT dvmig.map_lookup('staging.deals', 'customerid', 'company_id', 'staging.companies');
SELECT dvmig.map_lookup('staging.deals', 'customerid', 'person_id', 'staging.people');
SELECT dvmig.map_lookup('staging.deals', 'transactioncurrencyid', $$'EUR'$$, 'transactioncurrency', match_on => 'isocurrencycode');

SELECT dvmig.map_column('staging.cases', 'title', 'subject');
SELECT dvmig.map_column('staging.cases', 'description', 'history');
SELECT dvmig.map_choice('staging.cases', 'prioritycode', 'urgency');
SELECT dvmig.map_choice('staging.cases', 'caseorigincode', 'channel');
SELECT dvmig.map_lookup('staging.cases', 'customerid', $$CASE WHEN customer_kind = 'C' THEN customer_no END$$, 'staging.companies');
SELECT dvmig.map_lookup('staging.cases', 'customerid', $$CASE WHEN customer_kind = 'P' THEN customer_no END$$, 'staging.people');

SELECT dvmig.map_column('staging.notes', 'subject', 'headline');
SELECT dvmig.map_column('staging.notes', 'notetext', 'body');
SELECT dvmig.map_lookup('staging.notes', 'objectid', $$CASE WHEN about = 'company' THEN about_key::int END$$, 'staging.companies');
SELECT dvmig.map_lookup('staging.notes', 'objectid', $$CASE WHEN about = 'person' THEN about_key::int END$$, 'staging.people');
SELECT dvmig.map_lookup('staging.notes', 'objectid', $$CASE WHEN about = 'deal' THEN about_key END$$, 'staging.deals');

-- 6. Choices resolve by label, without regard to case. What the old system
--    called otherwise is translated here.

INSERT INTO dvmig.choice_map (migration_id, target_table, target_column, source_text, target_text)
SELECT migration_id, t.* FROM dvmig.migration, (VALUES
  ('account', 'industrycode', 'Großhandel', 'Wholesale'),
  ('contact', 'familystatuscode', 'verh.', 'Married')) t
WHERE name = 'go_live';

SELECT staging, staged, unprocessed, succeeded, failed, next_step FROM dvmig.status;
