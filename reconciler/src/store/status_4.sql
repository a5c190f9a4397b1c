-- events are asked for by their time, over all devices
CREATE INDEX events_by_time ON events (time);
