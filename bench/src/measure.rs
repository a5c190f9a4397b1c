//! What joins, polls, connections, reports and held connections cost the server; what a render costs.
