//! Resolves redirects.

use http::{StatusCode, Uri};

use super::net::Endpoint;

/// Whether an answer with this status is followed to its `Location`.
pub(super) fn is_followed(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Resolves a `Location` (RFC 3986, 5.2) against the request it answers; none when it is not an HTTP URL.
pub(super) fn follow(from: &Endpoint, path: &str, location: &str) -> Option<(Endpoint, String)> {
    let location = location.split('#').next().unwrap_or_default();
    let absolute = match location.strip_prefix("//") {
        Some(rest) => format!("{}://{rest}", if from.tls { "https" } else { "http" }),
        None if location.contains("://") => location.to_owned(),
        None => {
            let before = path.split('?').next().unwrap_or_default();
            let folder = before.rsplit_once('/').map_or("", |(folder, _)| folder);
            let to = match location.chars().next() {
                None => path.to_owned(),
                Some('/') => location.to_owned(),
                Some('?') => format!("{before}{location}"),
                Some(_) => format!("{folder}/{location}"),
            };
            return Some((from.clone(), without_dots(&to)));
        }
    };
    let uri: Uri = absolute.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some((Endpoint { tls, host, port }, path.to_owned()))
}

/// A path without `.` and `..` in it.
fn without_dots(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (path, String::new()),
    };
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/').skip(1) {
        match step {
            "." | ".." => {
                if step == ".." {
                    steps.pop();
                }
            }
            step => steps.push(step),
        }
    }
    format!("/{}{query}", steps.join("/"))
}
