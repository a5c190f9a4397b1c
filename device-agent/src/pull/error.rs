//! Why the server did not give what was asked for.

use std::error::Error;
use std::time::Duration;

use flotta_bundle::code::{self, Code, Problem};
use http::StatusCode;
use rustls::AlertDescription;

use super::proxy::Blocked;
use super::verifier::OutOfTime;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why the server did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The join file's URL or authority.
    #[error("{0}")]
    Settings(String),
    /// What the environment says about the proxy.
    #[error("{0}")]
    Proxy(String),
    /// No connection.
    #[error("no connection to {0}")]
    Connect(String, #[source] Box<dyn Error + Send + Sync>),
    /// It was there, and broke.
    #[error("the connection to {0} broke")]
    Broken(String, #[source] Box<dyn Error + Send + Sync>),
    /// No answer.
    #[error("{0} did not answer in {1:?}")]
    Silent(String, Duration),
    /// Something else answers: a portal, a proxy, another server.
    #[error("what answers at {0} is not a Flotta server: {1}")]
    NotFlotta(String, String),
    /// More than was asked for.
    #[error("{0} sent more than {1} bytes")]
    TooLong(String, u64),
    /// It goes on, and would take for ever.
    #[error("{0} is too slow: less than {1} bytes, and not all, in {2:?}")]
    Slow(String, u64, Duration),
    /// The server says no.
    #[error("{}", .problem.text())]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Why.
        problem: Box<Problem>,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
}

impl PullError {
    /// The error with its code, its causes and what to do.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused { problem, .. } => Problem::clone(problem),
            Self::Settings(_) => Problem::new(code::JOIN_FILE, self.to_string()),
            Self::Proxy(_) => Problem::new(code::PROXY, self.to_string()),
            _ => {
                let refused = self.refusal().unwrap_or(code::UNREACHABLE);
                Problem::new(refused, chain(self))
            }
        }
    }

    /// The code, when something answered and was refused; none when nothing did, or the server itself says no.
    fn refusal(&self) -> Option<Code> {
        match self {
            Self::Connect(_, error) if error.is::<Blocked>() => Some(code::PROXY),
            Self::Connect(_, error) => match of_tls(error.as_ref())? {
                rustls::Error::InvalidCertificate(_) => Some(code::UNTRUSTED_SERVER),
                // a portal that speaks HTTP to whoever connects; TLS of another protocol
                rustls::Error::InvalidMessage(_)
                | rustls::Error::NoApplicationProtocol
                | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                    Some(code::NOT_FLOTTA)
                }
                _ => None,
            },
            Self::NotFlotta(..) | Self::TooLong(..) => Some(code::NOT_FLOTTA),
            // h2 keeps no more than this text of what it found wrong in what the other side sent
            Self::Broken(..) if chain(self).contains(" error detected: ") => Some(code::NOT_FLOTTA),
            Self::Slow(..) => Some(code::TOO_SLOW),
            _ => None,
        }
    }

    /// Whether something answered that people should hear of.
    pub fn is_refusal(&self) -> bool {
        self.refusal().is_some()
    }

    /// Whether the connection is of no more use.
    pub fn is_lost(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::TooLong(..))
    }

    /// Whether asking again the same way will not help: a person has to do something.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Settings(_) | Self::Proxy(_) => true,
            Self::Refused { status, .. } => {
                status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the server refuses with this code.
    pub(super) fn is_of(&self, code: Code) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.is(code))
    }

    /// Whether the server does not serve whoever has this identity: nothing else is to be had of it either.
    pub(super) fn is_of_identity(&self) -> bool {
        self.is_of(code::REVOKED) || self.is_of(code::UNKNOWN_DEVICE)
    }

    /// Whether the server's TLS turned the device's certificate away. HTTP/2 keeps no more of such an error than its text.
    pub(super) fn is_certificate_refused(&self) -> bool {
        let text = chain(self);
        let alert = text.split("received fatal alert: ").nth(1);
        let kinds = ["Certificate", "UnknownCA", "AccessDenied", "DecryptError"];
        alert.is_some_and(|alert| kinds.iter().any(|kind| alert.contains(kind)))
    }
}

/// What TLS found wrong with the other side.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let io = error.downcast_ref::<std::io::Error>()?;
    io.get_ref()?.downcast_ref()
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = words(error);
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// An error's own words, but for those that name the second at which it was made: they would be other ones at each try.
fn words(error: &(dyn Error + 'static)) -> String {
    let out = match of_tls(error) {
        Some(rustls::Error::InvalidCertificate(error)) => OutOfTime::of(error),
        _ => None,
    };
    out.map_or_else(
        || error.to_string(),
        |out| format!("a certificate of its chain {out}"),
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
    use rustls_pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_out_of_its_time_is_named_alike_at_every_try() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for (said, error) in [
            (
                "a certificate of its chain ended at 2001-09-09T01:46:40Z",
                (|now| ExpiredContext {
                    time: now,
                    not_after: UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000)),
                }) as fn(UnixTime) -> _,
            ),
            (
                "a certificate of its chain begins at 2065-01-24T05:20:00Z",
                |now| NotValidYetContext {
                    time: now,
                    not_before: UnixTime::since_unix_epoch(Duration::from_secs(3_000_000_000)),
                },
            ),
        ] {
            for now in [1_500_000_000, 1_500_000_001] {
                let tls = rustls::Error::InvalidCertificate(error(at(now)));
                let io = io::Error::new(io::ErrorKind::InvalidData, tls);
                let error = PullError::Connect("edge.example:443".to_owned(), Box::new(io));
                let problem = error.problem();
                assert_eq!(problem.code, code::UNTRUSTED_SERVER.id);
                assert_eq!(
                    problem.message,
                    format!("no connection to edge.example:443: {said}")
                );
            }
        }
    }
}
