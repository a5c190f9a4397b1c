//! Conversions between columns and their types.

use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// A time as whole milliseconds since 1970.
pub(super) fn millis(time: Timestamp) -> i64 {
    // The very last millisecond is incomplete and could not be read back; some of these times are chosen by devices.
    let last = Timestamp::MAX.as_second() * 1000;
    time.as_millisecond().min(last)
}

pub(super) fn time(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|error| StoreError::Malformed(error.to_string()))
}

pub(super) fn maybe_time(millis: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
    millis.map(time).transpose()
}

pub(super) fn name(text: &str) -> Result<DeviceName, StoreError> {
    text.parse()
        .map_err(|error| StoreError::Malformed(format!("{error}")))
}

pub(super) fn digest(bytes: [u8; 32]) -> Digest {
    Digest::from_bytes(bytes)
}

pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("maps here have string keys")
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Malformed(error.to_string()))
}
