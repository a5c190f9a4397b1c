-- Events are numbered within a log and a boot: of one device there may be several, and of a clone there are.
ALTER TABLE reports ADD COLUMN voices TEXT NOT NULL DEFAULT '{"heard":[]}'; -- JSON
UPDATE reports SET voices = json_object('heard', json_array(json_object(
    'boot', coalesce(CASE WHEN json_valid(report) THEN json_extract(report, '$.boot') END, ''),
    'log', '', 'last', last_event)));
ALTER TABLE reports DROP COLUMN last_event;
