-- The account: what the staging tables say against what Dataverse holds.
--
-- Nothing here uses dvmig's functions or views. What should be there is said a
-- second time, in plain SQL over the staging tables; what is there is the
-- simulator's own dump of its records, table by table (@EXPORT_DIR@).
-- Creates the temporary view "verdict"; prints what differs.

SET client_min_messages = warning;
CREATE SCHEMA account;

CREATE TABLE account.held AS
SELECT f.set_name, lower(r.doc ->> f.id_name)::uuid AS id, r.doc
FROM (VALUES ('accounts', 'accountid'), ('contacts', 'contactid'), ('opportunities', 'opportunityid'),
	('incidents', 'incidentid'), ('annotations', 'annotationid'), ('systemusers', 'systemuserid'),
	('transactioncurrencies', 'transactioncurrencyid')) f(set_name, id_name),
	jsonb_array_elements(pg_read_file('@EXPORT_DIR@/' || f.set_name || '.json')::jsonb) r(doc);
CREATE INDEX ON account.held (set_name, id);

-- How many records' create logic ran more than once.
CREATE TABLE account.created AS
SELECT set_name, (pg_read_file('@EXPORT_DIR@/' || set_name || '.counters')::jsonb ->> 'created_twice')::int AS twice
FROM (SELECT DISTINCT set_name FROM account.held) s;

-- expected: one row per staging row, with the record it should have become.
CREATE VIEW account.expected AS
SELECT 'companies' AS staging, 'accounts' AS set_name, s.company_id::text AS key, s.processing_flag AS flag, s.dataverse_id AS id,
	ok.dataverse_id AS ok_id, ok.company_id IS NOT NULL AS succeeded, er.company_id IS NOT NULL AS failed, er.dataverse_id AS failed_id,
	jsonb_build_object('new_legacyid', s.company_id::text, 'name', company_name, 'revenue', round(turnover_eur, 2), 'numberofemployees', staff,
		'address1_line1', street, 'address1_city', city, 'address1_postalcode', postcode, 'address1_country', country,
		'telephone1', phone, 'websiteurl', website, 'creditonhold', credit_stop IS NOT DISTINCT FROM 'J', 'description', remarks,
		'createdon', to_char(created AT TIME ZONE 'Europe/Berlin' AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
		'industrycode', CASE lower(branch) WHEN 'accounting' THEN 1 WHEN 'consulting' THEN 7 WHEN 'financial' THEN 16
			WHEN 'insurance' THEN 20 WHEN 'transportation' THEN 30 WHEN 'großhandel' THEN 33 WHEN 'food and tobacco processing' THEN 17
			WHEN 'legal services' THEN 21 WHEN 'kräuterhandel' THEN 33 WHEN 'n/a' THEN 33 END,
		'_parentaccountid_value', (SELECT p.dataverse_id FROM staging.companies p WHERE p.company_id = s.parent_id),
		'_ownerid_value', (SELECT h.id FROM account.held h WHERE h.set_name = 'systemusers' AND lower(h.doc ->> 'internalemailaddress') = lower(owner_mail))
	) AS doc
FROM staging.companies s LEFT JOIN staging.companies_success ok USING (company_id) LEFT JOIN staging.companies_error er USING (company_id)
UNION ALL
SELECT 'people', 'contacts', s.person_id::text, s.processing_flag, s.dataverse_id,
	ok.dataverse_id, ok.person_id IS NOT NULL, er.person_id IS NOT NULL, er.dataverse_id,
	jsonb_build_object('new_legacyid', s.person_id::text, 'firstname', given_name, 'lastname', family_name, 'emailaddress1', mail, 'jobtitle', job,
		'mobilephone', mobile, 'birthdate', born, 'donotbulkemail', no_mailings, 'description', remarks,
		'familystatuscode', CASE lower(marital) WHEN 'single' THEN 1 WHEN 'married' THEN 2 WHEN 'verh.' THEN 2 WHEN 'divorced' THEN 3 END,
		'_parentcustomerid_value', coalesce((SELECT c.dataverse_id FROM staging.companies c WHERE c.company_id = s.company_id),
			(SELECT p.dataverse_id FROM staging.people p WHERE p.person_id = s.household_of)),
		'_new_managerid_value', (SELECT p.dataverse_id FROM staging.people p WHERE p.person_id = s.boss_id))
FROM staging.people s LEFT JOIN staging.people_success ok USING (person_id) LEFT JOIN staging.people_error er USING (person_id)
UNION ALL
SELECT 'deals', 'opportunities', s.deal_no, s.processing_flag, s.dataverse_id,
	ok.dataverse_id, ok.deal_no IS NOT NULL, er.deal_no IS NOT NULL, er.dataverse_id,
	jsonb_build_object('new_legacyid', s.deal_no, 'name', title, 'description', remarks,
		'estimatedvalue', CASE WHEN amount <> 'NaN' THEN round(amount::numeric, 2) END,
		'closeprobability', rtrim(chance, ' %')::int,
		'estimatedclosedate', substr(expected_on, 7, 4) || '-' || substr(expected_on, 4, 2) || '-' || substr(expected_on, 1, 2),
		'opportunityratingcode', CASE lower(rating) WHEN 'hot' THEN 1 WHEN 'warm' THEN 2 WHEN 'cold' THEN 3 END,
		'_customerid_value', coalesce((SELECT c.dataverse_id FROM staging.companies c WHERE c.company_id = s.company_id),
			(SELECT p.dataverse_id FROM staging.people p WHERE p.person_id = s.person_id)),
		'_transactioncurrencyid_value', (SELECT h.id FROM account.held h WHERE h.set_name = 'transactioncurrencies' AND h.doc ->> 'isocurrencycode' = 'EUR'))
FROM staging.deals s LEFT JOIN staging.deals_success ok USING (deal_no) LEFT JOIN staging.deals_error er USING (deal_no)
UNION ALL
SELECT 'cases', 'incidents', s.case_no::text, s.processing_flag, s.dataverse_id,
	ok.dataverse_id, ok.case_no IS NOT NULL, er.case_no IS NOT NULL, er.dataverse_id,
	jsonb_build_object('new_legacyid', s.case_no::text, 'title', subject, 'description', history,
		'prioritycode', CASE urgency WHEN 'High' THEN 1 WHEN 'Normal' THEN 2 WHEN 'Low' THEN 3 END,
		'caseorigincode', CASE channel WHEN 'Phone' THEN 1 WHEN 'Email' THEN 2 WHEN 'Web' THEN 3 END,
		'_customerid_value', CASE customer_kind
			WHEN 'C' THEN (SELECT c.dataverse_id FROM staging.companies c WHERE c.company_id = s.customer_no)
			ELSE (SELECT p.dataverse_id FROM staging.people p WHERE p.person_id = s.customer_no) END)
FROM staging.cases s LEFT JOIN staging.cases_success ok USING (case_no) LEFT JOIN staging.cases_error er USING (case_no)
UNION ALL
SELECT 'notes', 'annotations', s.about || ' ' || s.about_key || ' ' || s.note_no, s.processing_flag, s.dataverse_id,
	ok.dataverse_id, ok.about IS NOT NULL, er.about IS NOT NULL, er.dataverse_id,
	jsonb_build_object('subject', headline, 'notetext', body,
		'_objectid_value', CASE s.about
			WHEN 'company' THEN (SELECT c.dataverse_id FROM staging.companies c WHERE c.company_id::text = s.about_key)
			WHEN 'person' THEN (SELECT p.dataverse_id FROM staging.people p WHERE p.person_id::text = s.about_key)
			ELSE (SELECT d.dataverse_id FROM staging.deals d WHERE d.deal_no = s.about_key) END)
FROM staging.notes s LEFT JOIN staging.notes_success ok USING (about, about_key, note_no)
LEFT JOIN staging.notes_error er USING (about, about_key, note_no);

CREATE TABLE account.row_state AS SELECT * FROM account.expected;

-- same: is a held value the expected one? An empty text and none are one.
CREATE FUNCTION account.same(want jsonb, have jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN jsonb_typeof(want) = 'number' AND jsonb_typeof(have) = 'number'
		THEN (want #>> '{}')::numeric = (have #>> '{}')::numeric
		ELSE coalesce(nullif(want, '""'), 'null') = coalesce(nullif(have, '""'), 'null') END
$$;

CREATE TABLE account.difference AS
SELECT r.staging, r.key, e.key AS field, e.value AS want, h.doc -> e.key AS have
FROM account.row_state r
JOIN account.held h USING (set_name, id)
CROSS JOIN jsonb_each(r.doc) e
WHERE r.flag IN ('S', 'P') AND NOT account.same(e.value, h.doc -> e.key);

-- What is wrong, one line each: none of these may exist.
CREATE VIEW account.wrong AS
SELECT 'lost' AS kind, staging, key, 'said to have succeeded, not in Dataverse' AS what FROM account.row_state r
WHERE flag IN ('S', 'P') AND NOT EXISTS (SELECT FROM account.held h WHERE h.set_name = r.set_name AND h.id = r.id)
UNION ALL
SELECT 'lost', staging, key, format('%s should be %s and is %s', field, left(want::text, 60), left(have::text, 60)) FROM account.difference
UNION ALL
SELECT 'lost', staging, key, 'in Dataverse, said not to be there' FROM account.row_state r JOIN account.held h
	ON h.set_name = r.set_name AND h.doc ->> 'new_legacyid' = r.key
WHERE NOT succeeded AND failed_id IS NULL
UNION ALL
SELECT 'lost', staging, key, 'flag and outcome tables do not agree' FROM account.row_state
WHERE CASE flag WHEN 'U' THEN false WHEN 'E' THEN succeeded OR NOT failed
	ELSE failed OR NOT succeeded OR ok_id IS DISTINCT FROM id END
UNION ALL
SELECT 'doubled', set_name, n::text, 'a record was created more than once' FROM account.created, generate_series(1, twice) n
UNION ALL
SELECT 'doubled', set_name, doc ->> 'new_legacyid', 'more than one record of one source row' FROM account.held
WHERE doc ? 'new_legacyid' GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
UNION ALL
SELECT 'doubled', h.set_name, h.id::text, 'a record that belongs to no staging row' FROM account.held h
WHERE h.set_name IN (SELECT set_name FROM account.row_state)
	AND NOT EXISTS (SELECT FROM account.row_state r WHERE r.set_name = h.set_name AND h.id IN (r.id, r.failed_id));

SELECT * FROM account.wrong ORDER BY 1, 2, 3 LIMIT 20;

SELECT staging, count(*) AS staged, count(*) FILTER (WHERE flag IN ('S', 'P')) AS succeeded, count(*) FILTER (WHERE flag = 'E') AS failed,
	(SELECT count(*) FROM account.held h WHERE h.set_name = r.set_name) AS in_dataverse,
	sum((SELECT count(*) FROM jsonb_object_keys(doc))) FILTER (WHERE flag IN ('S', 'P')) AS fields_compared
FROM account.row_state r GROUP BY staging, set_name ORDER BY staging;

\pset tuples_only on
\pset format unaligned
SELECT format('demo: staged %s, succeeded %s, failed %s, doubled %s, lost %s',
	count(*), count(*) FILTER (WHERE flag IN ('S', 'P')), count(*) FILTER (WHERE flag = 'E'),
	(SELECT count(*) FROM account.wrong WHERE kind = 'doubled'), (SELECT count(*) FROM account.wrong WHERE kind = 'lost'))
FROM account.row_state;
