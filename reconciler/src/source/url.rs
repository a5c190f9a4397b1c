//! Git URLs and the credentials in them.

use std::fmt;

/// Schemes that the `git` program fetches. `ext::` and other remote helpers, which run commands, are not allowed.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// A Git URL. Shown and logged without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Parses a Git URL: `SCHEME://…`, or `USER@HOST:PATH` for ssh.
    pub fn parse(text: &str) -> Option<Self> {
        let is_url = match text.split_once("://") {
            Some((scheme, rest)) => SCHEMES.contains(&scheme) && !rest.is_empty(),
            None => text.split_once(':').is_some_and(|(host, path)| {
                let name = host.rsplit('@').next().unwrap_or(host);
                host.contains('@') && !name.is_empty() && !host.contains('/') && !path.is_empty()
            }),
        };
        let plain =
            !text.starts_with('-') && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        (is_url && plain).then(|| Self(text.to_owned()))
    }

    /// The URL with its credentials, only for the mirror's configuration.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The URL without user, password, query and fragment. A user name alone, as in `git@host:path`, is not a secret and stays,
    /// but in `https://TOKEN@host` it is one.
    pub fn redacted(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return self.0.clone();
        };
        let rest = rest.split(['?', '#']).next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        match user.split(':').next() {
            Some(user) if scheme == "ssh" && !user.is_empty() => {
                format!("{scheme}://{user}@{host}{path}")
            }
            _ => format!("{scheme}://{host}{path}"),
        }
    }

    /// Removes the credentials from `text`, in which the `git` program may have repeated the URL.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut text = text.replace(&self.0, &self.redacted());
        if let Some((_, rest)) = self.0.split_once("://")
            && let Some((secret, _)) = rest
                .split('/')
                .next()
                .and_then(|authority| authority.rsplit_once('@'))
        {
            for part in std::iter::once(secret).chain(secret.split(':').rev()) {
                // a user name as short as `git` is not a secret, and would match within other words
                if part.len() > 3 {
                    text = text.replace(part, "***");
                }
            }
        }
        text
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
