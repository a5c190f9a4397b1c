-- A report is longer than a quarter of a page. WITHOUT ROWID it took a page of its own beside its row, written each time.
ALTER TABLE reports RENAME TO reports_1;
CREATE TABLE reports (
    device     TEXT PRIMARY KEY,
    key        BLOB NOT NULL,    -- which key reported: a machine that takes over a name starts anew
    content    BLOB NOT NULL,    -- digest of `report`
    report     TEXT NOT NULL,    -- JSON, without events; its time is that of 1970
    time       INTEGER NOT NULL, -- of the device, when it reported
    seen_at    INTEGER NOT NULL,
    last_event INTEGER NOT NULL
);
-- what the digest was of has changed: each device's next report is written once more
INSERT INTO reports SELECT device, key, content, report, seen_at, seen_at, last_event FROM reports_1;
DROP TABLE reports_1;
