//! What a merged spec says of the agent itself.

use flotta_bundle::manifest::Settings;
use serde_json::Value;

use crate::pointer;

/// The agent's settings: every one is read here, or it does not compile.
pub fn settings(spec: &Value) -> Settings {
    let period = pointer::find(spec, "/heartbeat/periodSeconds").and_then(Value::as_u64);
    let period = period
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0);
    let servers = spec.get("servers").and_then(Value::as_array);
    let servers = servers.into_iter().flatten();
    Settings {
        heartbeat_seconds: period.unwrap_or(Settings::default().heartbeat_seconds),
        servers: servers
            .filter_map(|server| server.as_str().map(str::to_owned))
            .collect(),
    }
}
