//! Builds the objects of the admin API from the store and the index.

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

/// Releases whose commits are shown with what devices run: for an older one only the number is shown.
pub(super) const COMMITS: u32 = 200;

/// The metadata of an object with a device's name.
fn named(device: &DeviceName, created: Option<Timestamp>) -> Metadata {
    Metadata {
        name: device.name().to_owned(),
        namespace: Some(device.namespace().to_owned()),
        uid: None,
        labels: BTreeMap::new(),
        creation_timestamp: created,
    }
}
