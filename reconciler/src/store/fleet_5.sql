-- those who were revoked are few, and rows are long
CREATE INDEX devices_revoked ON devices (device) WHERE revoked_at IS NOT NULL;
