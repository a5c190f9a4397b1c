CREATE TABLE reports (
    device     TEXT PRIMARY KEY,
    key        BLOB NOT NULL,    -- which key reported: a machine that takes over a name starts anew
    content    BLOB NOT NULL,    -- digest of the report without time and events
    report     TEXT NOT NULL,    -- JSON, without events
    seen_at    INTEGER NOT NULL,
    last_event INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    time    INTEGER NOT NULL,
    device  TEXT NOT NULL,       -- empty: the server's own
    reason  TEXT NOT NULL,
    message TEXT NOT NULL,
    warning INTEGER NOT NULL
);
CREATE INDEX events_by_device ON events (device, id);
