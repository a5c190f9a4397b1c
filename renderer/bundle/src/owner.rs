//! The object of the fleet that something on a device belongs to.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, check_subdomain};

static DEVICE: LazyLock<Owner> = LazyLock::new(|| Owner("EdgeDevice".to_owned()));

/// The object that a file, a unit or an image belongs to. As text it is the name of an `EdgeWorkload`, `EdgeConfig/NAME`, or
/// `EdgeDevice` for the device itself: a manifest names no device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

/// The kind of an object that owns something on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKind {
    /// A workload.
    EdgeWorkload,
    /// Configuration of the host: files, units and tasks.
    EdgeConfig,
    /// The device itself.
    EdgeDevice,
}

impl Owner {
    /// The `EdgeWorkload` with this name. The name must be valid; otherwise the manifest is refused when it is parsed.
    pub fn workload(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The device itself.
    pub fn device() -> &'static Self {
        &DEVICE
    }

    /// The kind of the object.
    pub fn kind(&self) -> OwnerKind {
        match self.0.split_once('/') {
            Some(_) => OwnerKind::EdgeConfig,
            None if self == Self::device() => OwnerKind::EdgeDevice,
            None => OwnerKind::EdgeWorkload,
        }
    }

    /// The object's name; empty for the device.
    pub fn name(&self) -> &str {
        match self.kind() {
            OwnerKind::EdgeWorkload => &self.0,
            OwnerKind::EdgeConfig => self.0.split_once('/').map_or("", |(_, name)| name),
            OwnerKind::EdgeDevice => "",
        }
    }

    /// Whether it is an `EdgeWorkload`.
    pub fn is_workload(&self) -> bool {
        self.kind() == OwnerKind::EdgeWorkload
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Owner {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text != DEVICE.0 {
            check_subdomain(text.strip_prefix("EdgeConfig/").unwrap_or(text))?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Owner {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.0
    }
}

impl Borrow<str> for Owner {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_name_are_read_from_the_text() {
        for (text, kind, name) in [
            ("web", OwnerKind::EdgeWorkload, "web"),
            ("a.b", OwnerKind::EdgeWorkload, "a.b"),
            ("EdgeConfig/net", OwnerKind::EdgeConfig, "net"),
            ("EdgeDevice", OwnerKind::EdgeDevice, ""),
        ] {
            let owner: Owner = text.parse().expect(text);
            assert_eq!((owner.kind(), owner.name()), (kind, name));
            assert_eq!(owner.to_string(), text);
        }
        assert_eq!(Owner::workload("web"), "web".parse().expect("a name"));
        for text in [
            "",
            "EdgeConfig",
            "EdgeConfig/",
            "EdgeConfig/A",
            "EdgeConfig/a/b",
            "EdgeDevice/a",
            "EdgeWorkload/web",
            "a/b",
            "Web",
        ] {
            assert!(text.parse::<Owner>().is_err(), "{text:?}");
        }
    }
}
