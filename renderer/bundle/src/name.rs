//! Checked names. They are Kubernetes object names (RFC 1123), so that a device has the same name in Git, in a cluster,
//! in a certificate and on a command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The namespace of a device whose name is given without one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Wrong characters or length.
    #[error(
        "`{0}` is not a {1}: use lower-case letters, digits and `-`{2}, at most {3} characters, starting and ending with a letter or digit"
    )]
    Malformed(String, &'static str, &'static str, usize),
    /// Not `scheme://fleet/namespace/device`.
    #[error("`{0}` is not a device identity: expected flotta://FLEET/NAMESPACE/DEVICE")]
    Identity(String),
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| alnum(b) || *b == b'-')
        && bytes.first().is_some_and(alnum)
        && bytes.last().is_some_and(alnum)
}

/// Checks an RFC 1123 label: at most 63 of `[a-z0-9-]`.
pub fn check_label(text: &str) -> Result<(), NameError> {
    if is_label(text) {
        return Ok(());
    }
    Err(NameError::Malformed(
        text.chars().take(80).collect(),
        "label",
        "",
        63,
    ))
}

/// Checks an RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub fn check_subdomain(text: &str) -> Result<(), NameError> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(NameError::Malformed(
        text.chars().take(80).collect(),
        "name",
        ", `.`",
        253,
    ))
}

/// The name of a fleet: an RFC 1123 label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FleetName(String);

impl FleetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FleetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_label(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for FleetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// `NAMESPACE/NAME` of a device. A bare name means namespace `default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    namespace: String,
    name: String,
}

impl DeviceName {
    /// A checked name: the namespace is a label, the name a subdomain.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        check_label(namespace)?;
        check_subdomain(name)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the identity that a certificate of this device has as its SAN URI: `flotta://FLEET/NAMESPACE/DEVICE`.
    pub fn identity(&self, fleet: &FleetName) -> String {
        format!("flotta://{fleet}/{}/{}", self.namespace, self.name)
    }

    /// Parses an identity.
    pub fn from_identity(uri: &str) -> Result<(FleetName, Self), NameError> {
        let bad = || NameError::Identity(uri.chars().take(80).collect());
        let mut parts = uri.strip_prefix("flotta://").ok_or_else(bad)?.split('/');
        let (Some(fleet), Some(namespace), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok((fleet.parse()?, Self::new(namespace, name)?))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
        Self::new(namespace, name)
    }
}

impl Serialize for DeviceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_default_namespace() {
        let name: DeviceName = "shop-17".parse().expect("a name");
        assert_eq!(name.to_string(), "default/shop-17");
    }

    #[test]
    fn an_identity_reads_back() {
        let fleet: FleetName = "shops".parse().expect("a fleet");
        let name: DeviceName = "north/press-1.local".parse().expect("a name");
        let identity = name.identity(&fleet);
        assert_eq!(identity, "flotta://shops/north/press-1.local");
        assert_eq!(
            DeviceName::from_identity(&identity).expect("an identity"),
            (fleet, name)
        );
    }

    #[test]
    fn names_that_could_escape_are_refused() {
        for text in [
            "",
            "a/",
            "/a",
            "a/b/c",
            "..",
            "a/..",
            "A",
            "a b",
            "-a",
            "a-",
            "a..b",
            "ä",
            &"a".repeat(254),
        ] {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
        }
        for uri in [
            "flotta://f/n",
            "flotta://f/n/d/x",
            "http://f/n/d",
            "flotta://f/n/../d",
            "flotta:///n/d",
        ] {
            assert!(DeviceName::from_identity(uri).is_err(), "{uri}");
        }
    }
}
