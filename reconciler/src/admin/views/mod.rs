//! Objects of the admin API from what the store and the index hold.

mod device;
mod event;
mod release;
mod request;
pub(super) mod token;
mod workload;

use std::collections::BTreeMap;

use flotta_bundle::DeviceName;
use jiff::Timestamp;

use super::resource::Metadata;

pub(super) use device::count;

/// Releases whose commits are told with what devices run: one that is behind by more shows the number alone.
pub(super) const COMMITS: u32 = 200;

/// The metadata of what has a device's name.
fn named(device: &DeviceName, created: Option<Timestamp>) -> Metadata {
    Metadata {
        name: device.name().to_owned(),
        namespace: Some(device.namespace().to_owned()),
        uid: None,
        labels: BTreeMap::new(),
        creation_timestamp: created,
    }
}
