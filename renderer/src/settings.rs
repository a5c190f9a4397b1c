//! The settings of the agent, from the merged settings of a device.

use flotta_api::v1alpha1::DeviceSettings;
use flotta_bundle::manifest::Settings;

/// Returns the part of a device's settings that goes into its manifest.
pub fn settings(merged: DeviceSettings) -> Settings {
    let period = merged.heartbeat.and_then(|beat| beat.period_seconds);
    Settings {
        heartbeat_seconds: period.unwrap_or(Settings::default().heartbeat_seconds),
        servers: merged.servers,
    }
}
