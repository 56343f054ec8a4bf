-- Servers and user mappings: what the validator takes and refuses, who may
-- use what. Nothing here reaches the network.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dvmig;
RESET client_min_messages;
CREATE ROLE regress_dv_owner;
CREATE ROLE regress_dv_user;
\set VERBOSITY default

-- an unknown option: the hint lists the valid ones
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com', tenant 't', environment 'e', colour 'red');
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com', tenant 't', environment 'e', client_secret 'x');
ALTER FOREIGN DATA WRAPPER dataverse OPTIONS (ADD url 'https://contoso.crm4.dynamics.com');

-- what is required
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse;
\set VERBOSITY terse
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com');
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com', tenant 't');
\set VERBOSITY default

-- https, but for a loopback address; no user names, paths, queries
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse OPTIONS (url 'http://contoso.crm4.dynamics.com', tenant 't', environment 'e');
CREATE SERVER regress_s FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com/api/data/v9.2', tenant 't', environment 'e');
\set VERBOSITY terse
CREATE FUNCTION pg_temp.accepts(option text, value text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE SERVER regress_try FOREIGN DATA WRAPPER dataverse OPTIONS (%s)',
		(SELECT string_agg(format('%I %L', o, CASE o WHEN option THEN value ELSE d END), ', ')
		 FROM (VALUES ('url', 'https://a.example'), ('tenant', 't'), ('environment', 'e')) v (o, d))
		|| CASE WHEN option IN ('url', 'tenant', 'environment') THEN '' ELSE format(', %I %L', option, value) END);
	DROP SERVER regress_try;
	RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END
$$;
SELECT a AS address, pg_temp.accepts('url', a) AS url, pg_temp.accepts('authority', a) = pg_temp.accepts('url', a)
	OR pg_temp.accepts('authority', a) LIKE '%authority%' AS authority_alike
FROM unnest(ARRAY['https://contoso.crm4.dynamics.com', 'https://contoso.crm4.dynamics.com/', 'HTTPS://Contoso.crm4.dynamics.com:443',
	'http://localhost:8080', 'http://127.0.0.1', 'http://127.8.9.10:1', 'http://[::1]:8080', 'http://[::1]',
	'http://127.0.0.1.example', 'http://127.1', 'http://localhost.example', 'http://[::2]', 'http://128.0.0.1', 'http://0.0.0.0',
	'https://a@b.example', 'https://user:pass@b.example', 'https://b.example/path', 'https://b.example?q', 'https://b.example#f',
	'https://b.example:0', 'https://b.example:65536', 'https://b.example:80x', 'https://b.example:', 'https://', 'b.example',
	'ftp://b.example', 'https://b exa', E'https://b.example\r\nX: y', 'https://[::1', 'file:///etc/passwd', '']) a;
SELECT v AS value, pg_temp.accepts('api_version', v) AS api_version
FROM unnest(ARRAY['v9.2', 'v9.0', 'v10.12', '9.2', 'v9', 'v9.', 'v.2', 'v9.2/', 'v9.2x', 'v123.1', '']) v;
SELECT v AS value, pg_temp.accepts('tenant', v) AS tenant
FROM unnest(ARRAY['6f2c0000-0000-4000-8000-000000000001', 'contoso.onmicrosoft.com', 'a/b', '../x', 'a?b', '']) v;
SELECT v AS value, pg_temp.accepts('environment', v) AS environment FROM unnest(ARRAY['production', 'sandbox', '']) v;
SELECT v AS value, pg_temp.accepts('ca_file', v) AS ca_file FROM unnest(ARRAY['/etc/ssl/ca.pem', 'ca.pem']) v;

-- ALTER SERVER is checked with what remains
CREATE SERVER regress_dv FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://contoso.crm4.dynamics.com/', tenant 't', environment 'production');
ALTER SERVER regress_dv OPTIONS (DROP environment);
ALTER SERVER regress_dv OPTIONS (SET environment 'sandbox');
ALTER SERVER regress_dv OPTIONS (SET url 'http://contoso.crm4.dynamics.com');
ALTER SERVER regress_dv OPTIONS (ADD ca_file '/etc/ssl/ca.pem');
ALTER SERVER regress_dv OPTIONS (DROP ca_file);

-- user mappings
\set VERBOSITY default
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', tenant 't');
\set VERBOSITY terse
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv;
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_secret 's');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret '');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_secret_file '/x');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret_file 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_id2 'c');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_id3 'c', client_secret3 's');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_id17 'c', client_secret17 's');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_id1 'c');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_id02 'c');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (client_id 'c', client_secret 's', client_id2 'c', client_secret_file2 '/x');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret);
-- one way to sign in each, and the whole of it
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (ADD client_key_file '/k');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (ADD client_certificate_file2 '/c', ADD client_key_file2 '/k');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret, ADD client_certificate_file '/c');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret_file2, ADD client_key_file2 '/k');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret, ADD client_certificate_file 'c', ADD client_key_file '/k');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret, ADD client_certificate_file '/c', ADD client_key_file '');
\set VERBOSITY default
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (ADD client_certificate_file '/c', ADD client_key_file '/k');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret, ADD client_key_file '/k');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret);
\set VERBOSITY terse
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_secret, ADD client_certificate_file '/c', ADD client_key_file '/k',
	DROP client_secret_file2, ADD client_certificate_file2 '/c', ADD client_key_file2 '/c');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (ADD client_secret 's');
ALTER USER MAPPING FOR CURRENT_USER SERVER regress_dv OPTIONS (DROP client_id2);
DROP USER MAPPING FOR CURRENT_USER SERVER regress_dv;

-- files are for superusers to name
GRANT USAGE ON FOREIGN DATA WRAPPER dataverse TO regress_dv_owner;
GRANT USAGE ON SCHEMA dvmig TO regress_dv_owner, regress_dv_user;
GRANT EXECUTE ON FUNCTION dvmig.whoami(text), dvmig.repin(text), dvmig.refresh_metadata(text, text[])
	TO regress_dv_owner, regress_dv_user;
SET ROLE regress_dv_owner;
CREATE SERVER regress_own FOREIGN DATA WRAPPER dataverse OPTIONS (url 'https://127.0.0.1:1', authority 'https://127.0.0.1:1', tenant 't', environment 'e');
ALTER SERVER regress_own OPTIONS (ADD ca_file '/etc/ssl/ca.pem');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_own OPTIONS (client_id 'c', client_secret_file '/etc/passwd');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_own OPTIONS (client_id 'c', client_certificate_file '/c', client_key_file '/k');
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_own OPTIONS (client_id 'c', client_secret 's');
RESET ROLE;

-- a server is used by who has USAGE and a mapping
\set VERBOSITY default
SELECT * FROM dvmig.whoami('regress_none');
SET ROLE regress_dv_user;
SELECT * FROM dvmig.whoami('regress_own');
SELECT * FROM dvmig.refresh_metadata('regress_own', '{account}');
SELECT dvmig.repin('regress_own');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_own TO regress_dv_user;
SET ROLE regress_dv_user;
SELECT * FROM dvmig.whoami('regress_own');
SELECT dvmig.repin('regress_own');
RESET ROLE;

-- a secret from a file goes only where a superuser's server sends it
CREATE USER MAPPING FOR regress_dv_user SERVER regress_own OPTIONS (client_id 'c', client_secret_file '/etc/dvmig/contoso.secret');
SET ROLE regress_dv_user;
SELECT * FROM dvmig.whoami('regress_own');
RESET ROLE;

ALTER USER MAPPING FOR regress_dv_user SERVER regress_own OPTIONS (DROP client_secret_file, ADD client_certificate_file '/c', ADD client_key_file '/k');
SET ROLE regress_dv_user;
SELECT * FROM dvmig.whoami('regress_own');
RESET ROLE;

-- another wrapper's server
CREATE FOREIGN DATA WRAPPER regress_other;
CREATE SERVER regress_other FOREIGN DATA WRAPPER regress_other;
SELECT * FROM dvmig.whoami('regress_other');

-- dvmig.allowed_hosts is for the administrator to set
SET dvmig.allowed_hosts = 'x';
SELECT name, context FROM pg_settings WHERE name = 'dvmig.allowed_hosts';

-- names of tables are checked before anything is sent
SELECT * FROM dvmig.refresh_metadata('regress_own', '{Account}');
SELECT * FROM dvmig.refresh_metadata('regress_own', ARRAY['account'')?$top=1']);
SELECT * FROM dvmig.refresh_metadata('regress_own', ARRAY[NULL]);

-- internal functions are nobody's to call
SET ROLE regress_dv_user;
\set VERBOSITY terse
SELECT dvmig._whoami(10, 'regress_own');
SELECT dvmig._fetch_records(10, 'regress_own', 'account', '{name}', '{}');
SELECT dvmig._pin('regress_own', gen_random_uuid(), 10);
INSERT INTO dvmig.organisation VALUES ('regress_own', gen_random_uuid(), NULL, now(), 'me');
RESET ROLE;

-- what is read of a table, and what changed
\set VERBOSITY default
SELECT dvmig._store_metadata('regress_dv', 'new_thing', $${"table": {
	"LogicalName": "new_thing", "EntitySetName": "new_things", "PrimaryIdAttribute": "new_thingid", "PrimaryNameAttribute": "new_name",
	"OwnershipType": "UserOwned", "TableType": "Standard", "IsActivity": false,
	"Attributes": [
		{"LogicalName": "new_thingid", "AttributeType": "Uniqueidentifier", "AttributeTypeName": {"Value": "UniqueidentifierType"}, "IsValidForCreate": true, "IsValidForUpdate": false, "RequiredLevel": {"Value": "SystemRequired"}},
		{"LogicalName": "new_name", "AttributeType": "String", "AttributeTypeName": {"Value": "StringType"}, "IsValidForCreate": true, "IsValidForUpdate": true, "RequiredLevel": {"Value": "ApplicationRequired"}},
		{"LogicalName": "new_kinds", "AttributeType": "Virtual", "AttributeTypeName": {"Value": "MultiSelectPicklistType"}, "IsValidForCreate": true, "IsValidForUpdate": true, "RequiredLevel": {"Value": "None"}},
		{"LogicalName": "new_ok", "AttributeType": "Boolean", "AttributeTypeName": {"Value": "BooleanType"}},
		{"LogicalName": "new_day", "AttributeType": "DateTime", "AttributeTypeName": {"Value": "DateTimeType"}},
		{"LogicalName": "statuscode", "AttributeType": "Status", "AttributeTypeName": {"Value": "StatusType"}},
		{"LogicalName": "new_who", "AttributeType": "Customer", "AttributeTypeName": {"Value": "CustomerType"}},
		{"LogicalName": "ownerid", "AttributeType": "Owner", "AttributeTypeName": {"Value": "OwnerType"}}],
	"Keys": [{"LogicalName": "new_key", "KeyAttributes": ["new_name", "new_day"], "EntityKeyIndexStatus": "In Progress"}],
	"ManyToOneRelationships": [
		{"ReferencingAttribute": "new_who", "ReferencedEntity": "account", "ReferencingEntityNavigationPropertyName": "new_Who_account"},
		{"ReferencingAttribute": "new_who", "ReferencedEntity": "contact", "ReferencingEntityNavigationPropertyName": "new_Who_contact"},
		{"ReferencingAttribute": "new_gone", "ReferencedEntity": "contact", "ReferencingEntityNavigationPropertyName": null},
		{"ReferencingAttribute": "ownerid", "ReferencedEntity": "owner", "ReferencingEntityNavigationPropertyName": "ownerid"}]},
	"String": {"value": [{"LogicalName": "new_name", "MaxLength": 100}]},
	"DateTime": {"value": [{"LogicalName": "new_day", "DateTimeBehavior": {"Value": "DateOnly"}}]},
	"MultiSelectPicklist": {"value": [{"LogicalName": "new_kinds", "OptionSet": null, "GlobalOptionSet": {"Options": [
		{"Value": 1, "Label": {"UserLocalizedLabel": {"Label": "One"}, "LocalizedLabels": []}},
		{"Value": 2, "Label": {"UserLocalizedLabel": null, "LocalizedLabels": [{"Label": "Zwei"}]}}]}}]},
	"Boolean": {"value": [{"LogicalName": "new_ok", "OptionSet": {"TrueOption": {"Value": 1, "Label": {"UserLocalizedLabel": {"Label": "Yes"}}}, "FalseOption": {"Value": 0, "Label": {"UserLocalizedLabel": {"Label": "No"}}}}}]},
	"Status": {"value": [{"LogicalName": "statuscode", "OptionSet": {"Options": [{"Value": 1, "State": 0, "Label": {"UserLocalizedLabel": {"Label": "Active"}}}]}}]},
	"CreateMultiple": {"value": [{"sdkmessagefilterid": "x"}]}, "UpdateMultiple": {"value": []}}$$) AS differences;
SELECT key AS item, value AS description FROM jsonb_each_text(dvmig._metadata_items('regress_dv', 'new_thing')) ORDER BY key COLLATE "C";
SELECT dvmig._store_metadata('regress_dv', 'new_thing', $${"table": {"value": [{
	"LogicalName": "new_thing", "EntitySetName": "new_things", "PrimaryIdAttribute": "new_thingid", "TableType": "Elastic",
	"Attributes": [
		{"LogicalName": "new_thingid", "AttributeType": "Uniqueidentifier", "AttributeTypeName": {"Value": "UniqueidentifierType"}, "IsValidForCreate": true, "IsValidForUpdate": false, "RequiredLevel": {"Value": "SystemRequired"}},
		{"LogicalName": "new_name", "AttributeType": "String", "AttributeTypeName": {"Value": "StringType"}, "RequiredLevel": {"Value": "ApplicationRequired"}},
		{"LogicalName": "new_more", "AttributeType": "Memo"}]}]},
	"String": {"value": [{"LogicalName": "new_name", "MaxLength": 160}]}}$$) AS differences;
SELECT table_type, create_multiple, primary_name FROM dvmig.metadata_table WHERE server = 'regress_dv';
SELECT dvmig._metadata_differences('{}', (SELECT jsonb_object_agg('c' || n, 'x') FROM generate_series(10, 40) n)) AS differences;
SELECT dvmig._store_metadata('regress_dv', 'new_thing', '{"table": {"LogicalName": "account"}}');

-- records that keys mean: none, one, several that differ in case only
SELECT dvmig._store_reference('regress_dv', 'systemuser', 'mail', '{ann@x,bob@x,cy@x,ann@x,NULL}',
	'{Ann@X,BOB@x,bob@X,Dan@x,"Cy@x "}', ARRAY[md5('1'), md5('2'), md5('3'), md5('4'), md5('5')]::uuid[]) AS exactly_one;
SELECT match_key, record_id, matches FROM dvmig.reference WHERE server = 'regress_dv' ORDER BY match_key;
SELECT dvmig._store_reference('regress_dv', 'systemuser', 'mail', '{bob@x,eve@x}', '{Bob@X}', ARRAY[md5('2')]::uuid[]) AS exactly_one;
SELECT dvmig._store_reference('regress_dv', 'systemuser', 'all', NULL, '{Ann@X,BOB@x,bob@X}', ARRAY[md5('1'), md5('2'), md5('3')]::uuid[]) AS exactly_one;
SELECT match_on, match_key, record_id, matches FROM dvmig.reference WHERE server = 'regress_dv' ORDER BY match_on, match_key;

-- the pin
SELECT dvmig._pin('regress_dv', md5('1')::uuid, 'regress_dv_user'::regrole);
SELECT dvmig._pin('regress_dv', md5('1')::uuid, 'regress_dv_owner'::regrole);
SELECT dvmig._pin('regress_dv', md5('2')::uuid, 'regress_dv_owner'::regrole);
SELECT server, organisation_id, pinned_by FROM dvmig.organisation WHERE server = 'regress_dv';

-- nothing here is without a comment
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'dvmig'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;

SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER regress_other CASCADE;
DROP SERVER regress_dv, regress_own CASCADE;
DELETE FROM dvmig.metadata_table WHERE server = 'regress_dv';
DELETE FROM dvmig.reference WHERE server = 'regress_dv';
DELETE FROM dvmig.organisation WHERE server = 'regress_dv';
DROP OWNED BY regress_dv_owner, regress_dv_user CASCADE;
DROP ROLE regress_dv_owner, regress_dv_user;
