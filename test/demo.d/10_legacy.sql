-- A legacy CRM of our own making, loaded into staging tables.
--
-- Everything is computed from row numbers, so every machine gets the same data,
-- and with it the mess that such systems have after twenty years: accents,
-- quotes, line breaks, empty strings, names that are too long, branches that
-- nobody knows, owners who left, customers who do not exist, and dates that
-- never were. In real life these tables are filled by COPY, by a foreign table
-- or by an export of the old system.

CREATE SCHEMA staging;

-- pick: the n-th of a list, round and round
CREATE FUNCTION pg_temp.pick(n bigint, list text[]) RETURNS text
LANGUAGE sql IMMUTABLE AS 'SELECT list[1 + n % cardinality(list)]';

-- shuffle: a number that looks like chance, the same every time
CREATE FUNCTION pg_temp.shuffle(n bigint, salt int) RETURNS bigint
LANGUAGE sql IMMUTABLE AS 'SELECT (n * 7919 + salt * 104729 + (n * n) % 6101) % 1000003';

-- ------------------------------------------------------------------ companies

CREATE TABLE staging.companies (
	company_id    int PRIMARY KEY,
	company_name  text,
	parent_id     int,              -- group company; the tree is four deep
	branch        text,
	turnover_eur  numeric(14,4),
	staff         int,
	street        text,
	city          text,
	postcode      text,
	country       text,
	phone         text,
	website       text,
	credit_stop   char(1),          -- 'J' or 'N', as the old system had it
	remarks       text,
	owner_mail    text,
	created       timestamp         -- without time zone: local time of the old server
);

INSERT INTO staging.companies
SELECT n,
	CASE WHEN n IN (77, 277, 477)
		THEN rpad('Gesellschaft für die Zusammenführung historisch gewachsener Datenbestände ' || n, 175, ' und weitere Aufgaben')
		ELSE format(pg_temp.pick(n / 40, ARRAY['%s GmbH', '%s & Söhne', '"%s" AG', '%s d.o.o.', 'Łódzka Spółka %s', '%s S.à r.l.',
				'O''%s Ltd', '%s\Partners', '株式会社%s', 'Çelik %s A.Ş.']),
			pg_temp.pick(pg_temp.shuffle(n, 1), ARRAY['Müller', 'Garçon', 'Brien', 'Ångström', 'Dvořák', 'Núñez', 'Smith', 'Ørsted',
				'Szabó', 'Popović', 'Weiß', 'D''Angelo', 'Żak', 'Fjällräven', 'Smith-Jones', 'Ключ', 'Ελλάς', 'Mac Dhòmhnaill']))
			|| CASE WHEN n % 11 = 0 THEN ' ' || n ELSE '' END
		END,
	CASE WHEN n > 40 AND n % 3 <> 0 THEN 1 + pg_temp.shuffle(n, 2) % (CASE WHEN n > 400 THEN 400 WHEN n > 200 THEN 200 ELSE 40 END) END,
	CASE WHEN n % 97 = 5 THEN pg_temp.pick(n, ARRAY['Kräuterhandel', 'n/a'])
		WHEN n % 9 <> 0 THEN pg_temp.pick(pg_temp.shuffle(n, 3), ARRAY['Accounting', 'CONSULTING', 'financial', 'Insurance', 'Transportation',
			'Großhandel', 'Food and Tobacco Processing', 'Legal Services']) END,
	CASE WHEN n % 7 <> 0 THEN pg_temp.shuffle(n, 4) * 137.4567 END,
	CASE WHEN n % 5 <> 0 THEN pg_temp.shuffle(n, 5) % 5000 END,
	pg_temp.pick(n, ARRAY['Hauptstraße ', 'Rue de l''Église ', 'Via Garibaldi ', 'Nørregade ', 'ul. Długa ']) || n % 200,
	pg_temp.pick(pg_temp.shuffle(n, 6), ARRAY['Köln', 'Łódź', 'Genève', 'København', 'São Paulo', 'Kraków', '', 'Reykjavík']),
	CASE WHEN n % 13 <> 0 THEN lpad((pg_temp.shuffle(n, 7) % 100000)::text, 5, '0') END,
	pg_temp.pick(n, ARRAY['DE', 'PL', 'CH', 'DK', 'BR', NULL]),
	'+49 (0)221 ' || 100000 + n,
	CASE WHEN n % 4 = 0 THEN 'https://www.firma' || n || '.example/?a=1&b=%20' END,
	pg_temp.pick(n, ARRAY['N', 'J', 'N', NULL]),
	CASE n % 6 WHEN 0 THEN E'Called on Monday.\r\nSays: "please, no more e-mails"\r\n\tâ€“ see file C:\\Kunden\\' || n
		WHEN 1 THEN E'Best customer \U0001F600\U0001F3C6 since 1998' WHEN 2 THEN '' WHEN 3 THEN 'a/b\c "d" ''e'' <f> & {g}' END,
	CASE WHEN n % 61 = 17 THEN 'gone.' || pg_temp.pick(n, ARRAY['huber', 'kowalski']) || '@contoso.example'
		ELSE pg_temp.pick(n, ARRAY['anna.berg@contoso.example', 'Jose.Garcia@contoso.example', 'zoe.okafor@contoso.example', 'archive@contoso.example'])
		END,
	timestamp '1998-03-01 08:30' + n * interval '9 days 5 hours'
FROM generate_series(1, 800) n;

-- --------------------------------------------------------------------- people

CREATE TABLE staging.people (
	person_id    int PRIMARY KEY,
	given_name   text,
	family_name  text,
	mail         text,
	job          text,
	mobile       text,
	born         date,
	marital      text,
	no_mailings  boolean,
	company_id   int,
	household_of int,               -- private customers hang below another person
	boss_id      int,               -- two people can be each other's boss: a circle
	remarks      text
);

INSERT INTO staging.people
SELECT n,
	pg_temp.pick(pg_temp.shuffle(n, 11), ARRAY['Jürgen', 'Zoë', 'Łukasz', 'Mary Ann', 'Ólafur', 'Đorđe', 'Renée', 'Nguyễn', 'İlknur', 'Иван', NULL]),
	CASE WHEN n IN (500, 1500) THEN repeat('von und zu Hohenstein-', 3) || n
		ELSE pg_temp.pick(pg_temp.shuffle(n, 12), ARRAY['Müller', 'O''Neil', 'de la Cruz', 'Łęcki', 'Jensen', 'Šimić', 'van ''t Hof', 'Smith', 'Ngô', 'Yılmaz'])
		END,
	CASE WHEN n % 6 <> 0 THEN format('person%s@%s.example', n, pg_temp.pick(n, ARRAY['mail', 'firma', 'post'])) END,
	pg_temp.pick(pg_temp.shuffle(n, 13), ARRAY['Geschäftsführerin', 'Buyer', 'Head of "Things"', NULL, '', 'IT / EDV']),
	CASE WHEN n % 3 = 0 THEN '0170-' || 1000000 + n END,
	CASE WHEN n IN (666, 1666) THEN date '1066-10-14'     -- typed in for fun, and kept for twenty years
		WHEN n % 4 <> 0 THEN date '1940-01-01' + (pg_temp.shuffle(n, 14) % 22000)::int END,
	pg_temp.pick(n, ARRAY['Married', 'single', 'verh.', NULL, 'Divorced']),
	n % 10 = 3,
	CASE WHEN n % 12 = 0 THEN NULL WHEN n IN (321, 654, 987, 1321) THEN 9000 + n   -- no such company
		ELSE 1 + pg_temp.shuffle(n, 15) % 800 END,
	CASE WHEN n % 12 = 0 AND n > 120 THEN 1 + pg_temp.shuffle(n, 16) % 100 END,
	CASE WHEN n IN (10, 30) THEN 40 - n WHEN n % 8 = 0 THEN 1 + pg_temp.shuffle(n, 17) % 2400 END,
	CASE WHEN n % 15 = 0 THEN E'Line one\nline two\n\n\tline "four"' WHEN n % 17 = 0 THEN 'näive café – 100 % “quoted”' END
FROM generate_series(1, 2400) n;

-- ---------------------------------------------------------------------- deals

CREATE TABLE staging.deals (
	deal_no      text PRIMARY KEY,
	title        text,
	company_id   int,
	person_id    int,               -- a deal is with a company or with a person
	amount       double precision,
	chance       text,              -- '20 %'
	expected_on  text,              -- 'DD.MM.YYYY', typed by hand
	rating       text,
	remarks      text
);

INSERT INTO staging.deals
SELECT 'D-' || lpad(n::text, 5, '0'),
	format('%s %s', pg_temp.pick(n, ARRAY['Offre n°', 'Angebot', 'Renewal', 'Förlängning']), n),
	CASE WHEN n % 5 <> 0 THEN 1 + pg_temp.shuffle(n, 21) % 800 END,
	CASE WHEN n % 5 = 0 THEN 1 + pg_temp.shuffle(n, 22) % 2400 END,
	CASE WHEN n = 1000 THEN 'NaN'::float8 WHEN n % 9 <> 0 THEN pg_temp.shuffle(n, 23) / 7.0 END,
	CASE WHEN n % 3 <> 0 THEN n % 11 * 10 || ' %' END,
	CASE WHEN n % 100 = 40 THEN pg_temp.pick(n / 100, ARRAY['31.02.2024', '00.00.0000', 'soon', '29.02.2023', '12.31.2024'])
		WHEN n % 8 <> 0 THEN to_char(date '2023-01-01' + (pg_temp.shuffle(n, 24) % 1500)::int, 'DD.MM.YYYY') END,
	pg_temp.pick(n, ARRAY['Hot', 'warm', 'COLD', NULL]),
	CASE WHEN n % 20 = 0 THEN E'Competitor: "Śruba"\nPrice: 1.000,00 €' END
FROM generate_series(1, 1200) n;

-- ---------------------------------------------------------------------- cases

CREATE TABLE staging.cases (
	case_no       bigint PRIMARY KEY,
	subject       text,
	customer_kind char(1),          -- C: company, P: person
	customer_no   int,
	urgency       text,
	channel       text,
	history       text
);

INSERT INTO staging.cases
SELECT 2000000000 + n * 17::bigint,
	CASE WHEN n = 444 THEN rpad('Reklamation: ', 260, 'nicht lieferbar ') ELSE pg_temp.pick(pg_temp.shuffle(n, 31),
		ARRAY['Rechnung unklar', 'Can''t log in', 'Drucker "brennt"', 'Liefertermin?', 'Übergabe fehlgeschlagen']) || ' #' || n END,
	CASE WHEN n % 3 = 0 THEN 'P' ELSE 'C' END,
	CASE WHEN n % 111 = 50 THEN 99000 + n               -- deleted in the old system, the case stayed
		WHEN n % 3 = 0 THEN 1 + pg_temp.shuffle(n, 32) % 2400
		ELSE 1 + pg_temp.shuffle(n, 33) % 800 END,
	pg_temp.pick(n, ARRAY['High', 'Normal', 'Low']),
	pg_temp.pick(n, ARRAY['Phone', 'Email', 'Web', NULL]),
	E'Opened.\n' || repeat('Customer called again; we wrote back: "Sehr geehrte Damen und Herren…"' || E'\n', 1 + n % 9)
FROM generate_series(1, 1000) n;

-- ---------------------------------------------------------------------- notes

CREATE TABLE staging.notes (
	about      text,                -- company, person or deal
	about_key  text,
	note_no    smallint,
	headline   text,
	body       text,
	PRIMARY KEY (about, about_key, note_no)
);

INSERT INTO staging.notes
SELECT about,
	CASE about WHEN 'company' THEN (1 + n % 800)::text WHEN 'person' THEN (1 + n % 2400)::text
		ELSE 'D-' || lpad((2 + n / 4 * 4 % 1000)::text, 5, '0') END,
	n / 500,
	CASE WHEN n % 10 <> 0 THEN 'Note ' || n || ': ' || pg_temp.pick(n, ARRAY['Besuch', 'appel téléphonique', 'möte', '„wichtig“']) END,
	CASE WHEN n % 21 = 0 THEN NULL
		ELSE repeat(E'1. Gespräch mit "Herrn Š."\r\n2. <b>Notiz</b> & Anhang \\\\server\\pfad\r\n', 1 + n % 5) || E'\U0001F4CE ' || n END
FROM generate_series(1, 1600) n, pg_temp.pick(n, ARRAY['company', 'person', 'deal', 'company']) about;

SELECT (SELECT count(*) FROM staging.companies) AS companies,
	(SELECT count(*) FROM staging.people) AS people,
	(SELECT count(*) FROM staging.deals) AS deals,
	(SELECT count(*) FROM staging.cases) AS cases,
	(SELECT count(*) FROM staging.notes) AS notes;
