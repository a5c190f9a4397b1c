-- what a release takes away, all errors of a refused commit: JSON
ALTER TABLE releases ADD COLUMN details TEXT NOT NULL DEFAULT '{}';

-- commits that may take away what they do; gone once they are in force
CREATE TABLE allowed (
    revision   TEXT PRIMARY KEY,
    allowed_at INTEGER NOT NULL,
    allowed_by TEXT NOT NULL
) WITHOUT ROWID;

-- devices that are to run nothing any more, as long as they have this key and Git does not have them
CREATE TABLE decommissioned (
    device            TEXT PRIMARY KEY,
    key               BLOB NOT NULL,
    decommissioned_at INTEGER NOT NULL,
    decommissioned_by TEXT NOT NULL
) WITHOUT ROWID;
