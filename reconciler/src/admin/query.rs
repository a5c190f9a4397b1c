//! Queries for objects: `-n`, `-l`, `--state` and the like.

use std::collections::BTreeMap;

use flotta_bundle::DeviceName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::resource::Metadata;

/// A query for objects of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Only in this namespace; in all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only the object of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only with these labels, as [`Selector`] reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Only events about this device; ignored for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// Only events since this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// At most this many events, the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only devices in one of these states, separated by commas; all but revoked devices when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only devices in this set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Only devices and workloads that run this image, given by reference, digest or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Answer with a stream of changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
}

impl Query {
    /// Encodes the query for a URL, with its `?`. Only a selector has characters that need escaping; names, namespaces and
    /// labels have none.
    pub fn encode(&self) -> String {
        let device = self.device.as_ref().map(ToString::to_string);
        let since = self.since.as_ref().map(ToString::to_string);
        let limit = self.limit.as_ref().map(ToString::to_string);
        let mut pairs = Vec::new();
        for (key, value) in [
            ("namespace", self.namespace.as_deref()),
            ("name", self.name.as_deref()),
            ("selector", self.selector.as_deref()),
            ("device", device.as_deref()),
            ("since", since.as_deref()),
            ("limit", limit.as_deref()),
            ("state", self.state.as_deref()),
            ("set", self.set.as_deref()),
            ("image", self.image.as_deref()),
            ("watch", self.watch.then_some("true")),
        ] {
            if let Some(value) = value {
                pairs.push(format!("{key}={}", escape(value)));
            }
        }
        if pairs.is_empty() {
            return String::new();
        }
        format!("?{}", pairs.join("&"))
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes any text");
        }
    }
    escaped
}

/// A label selector as `kubectl -l` has it: `a=b`, `a==b`, `a!=b`, `a`, `!a`, `a in (b,c)`, `a notin (b,c)`, joined by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    /// Reads a selector.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| {
            format!("`{part}` is not a label selector: write a=b, a!=b, a, !a, or a in (b,c)")
        };
        let mut requirements = Vec::new();
        for part in split(text) {
            let part = part.trim();
            let requirement = if let Some((key, rest)) = part.split_once(" in ") {
                Requirement::In(key.trim().to_owned(), set(rest).ok_or_else(|| wrong(part))?)
            } else if let Some((key, rest)) = part.split_once(" notin ") {
                Requirement::NotIn(key.trim().to_owned(), set(rest).ok_or_else(|| wrong(part))?)
            } else if let Some((key, value)) = part.split_once("!=") {
                Requirement::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()])
            } else if let Some((key, value)) = part.split_once('=') {
                let value = value.strip_prefix('=').unwrap_or(value);
                Requirement::In(key.trim().to_owned(), vec![value.trim().to_owned()])
            } else if let Some(key) = part.strip_prefix('!') {
                Requirement::Missing(key.trim().to_owned())
            } else {
                Requirement::Exists(part.to_owned())
            };
            let (Requirement::In(key, _)
            | Requirement::NotIn(key, _)
            | Requirement::Exists(key)
            | Requirement::Missing(key)) = &requirement;
            if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!,".contains(c)) {
                return Err(wrong(part));
            }
            requirements.push(requirement);
        }
        Ok(Self(requirements))
    }

    /// Whether these labels match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn(key, values) => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Missing(key) => !labels.contains_key(key),
        })
    }
}

/// Splits at the commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn set(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(
        inner
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect(),
    )
}

/// A query with a parsed selector.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    query: Query,
    selector: Selector,
}

impl Filter {
    /// Parses the query's selector.
    pub fn new(query: Query) -> Result<Self, String> {
        let selector = query
            .selector
            .as_deref()
            .map_or_else(|| Ok(Selector::default()), Selector::parse)?;
        Ok(Self { query, selector })
    }

    /// The query.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Whether the query selects an object.
    pub fn admits(&self, metadata: &Metadata) -> bool {
        let namespace = self.query.namespace.as_deref();
        // an object without a namespace is in every one
        (namespace.is_none()
            || metadata.namespace.is_none()
            || metadata.namespace.as_deref() == namespace)
            && self
                .query
                .name
                .as_deref()
                .is_none_or(|name| name == metadata.name)
            && self.selector.matches(&metadata.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubectl_reads_them() {
        let labels: BTreeMap<String, String> = [("site", "berlin"), ("app.io/tier", "edge")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for (selector, matches) in [
            ("site=berlin", true),
            ("site==berlin,app.io/tier=edge", true),
            ("site=paris", false),
            ("site!=paris", true),
            ("none!=x", true),
            ("site", true),
            ("!site", false),
            ("!none", true),
            ("site in (paris, berlin)", true),
            ("site notin (paris,berlin), app.io/tier", false),
        ] {
            assert_eq!(
                Selector::parse(selector).unwrap().matches(&labels),
                matches,
                "{selector}"
            );
        }
        for wrong in ["", "=b", "a in b", "a b", "a,,b"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_query_is_escaped() {
        let query = Query {
            namespace: Some("default".to_owned()),
            selector: Some("site in (a,b)&x".to_owned()),
            watch: true,
            ..Query::default()
        };
        assert_eq!(
            query.encode(),
            "?namespace=default&selector=site%20in%20%28a%2Cb%29%26x&watch=true"
        );
        assert_eq!(Query::default().encode(), "");
    }
}
