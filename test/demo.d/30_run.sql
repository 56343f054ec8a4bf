-- 7. Run it. Workers send the rows and record a verdict for each; this session
--    only watches.

CALL dvmig.run('go_live');

SELECT staging, staged, unprocessed, parked, succeeded, failed FROM dvmig.status;
