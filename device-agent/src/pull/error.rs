//! Errors of requests to the server.

use std::error::Error;
use std::time::Duration;

use flotta_bundle::code::{self, Code, Problem};
use http::StatusCode;
use rustls::AlertDescription;

use super::proxy::Blocked;
use super::verifier::OutOfTime;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request to the server failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The URL or the CA in the join file cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The proxy setting in the environment cannot be used.
    #[error("{0}")]
    Proxy(String),
    /// No connection could be made.
    #[error("no connection to {0}")]
    Connect(String, #[source] Box<dyn Error + Send + Sync>),
    /// The connection broke.
    #[error("the connection to {0} broke")]
    Broken(String, #[source] Box<dyn Error + Send + Sync>),
    /// The server did not answer in time.
    #[error("{0} did not answer in {1:?}")]
    Silent(String, Duration),
    /// Something else answers: a captive portal, a proxy, another server.
    #[error("what answers at {0} is not a Flotta server: {1}")]
    NotFlotta(String, String),
    /// The answer is longer than allowed.
    #[error("{0} sent more than {1} bytes")]
    TooLong(String, u64),
    /// The answer comes too slowly to wait for it.
    #[error("{0} is too slow: it sent less than {1} bytes in {2:?}")]
    Slow(String, u64, Duration),
    /// The server refused the request.
    #[error("{}", .problem.text())]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The reason.
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

    /// The code for an answer that this device rejects; none when there was no answer, or the server itself refused the request.
    fn refusal(&self) -> Option<Code> {
        match self {
            Self::Connect(_, error) if error.is::<Blocked>() => Some(code::PROXY),
            Self::Connect(_, error) => match of_tls(error.as_ref())? {
                rustls::Error::InvalidCertificate(_) => Some(code::UNTRUSTED_SERVER),
                // a captive portal that answers in plain HTTP; TLS of another protocol
                rustls::Error::InvalidMessage(_)
                | rustls::Error::NoApplicationProtocol
                | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                    Some(code::NOT_FLOTTA)
                }
                _ => None,
            },
            Self::NotFlotta(..) | Self::TooLong(..) => Some(code::NOT_FLOTTA),
            // h2 keeps only this text of a protocol error by the other side
            Self::Broken(..) if chain(self).contains(" error detected: ") => Some(code::NOT_FLOTTA),
            Self::Slow(..) => Some(code::TOO_SLOW),
            _ => None,
        }
    }

    /// Whether something answered that people should know about.
    pub fn is_refusal(&self) -> bool {
        self.refusal().is_some()
    }

    /// Whether the connection is unusable.
    pub fn is_lost(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::TooLong(..))
    }

    /// Whether retrying will not help: a person has to do something.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Settings(_) | Self::Proxy(_) => true,
            Self::Refused { status, .. } => {
                status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    /// When the server allows another request.
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

    /// Whether the server does not serve this identity, so that every other request would fail too.
    pub(super) fn is_of_identity(&self) -> bool {
        self.is_of(code::REVOKED) || self.is_of(code::UNKNOWN_DEVICE)
    }

    /// Whether the server's TLS refused the device's certificate. HTTP/2 keeps only the text of such an error.
    pub(super) fn is_certificate_refused(&self) -> bool {
        let text = chain(self);
        let alert = text.split("received fatal alert: ").nth(1);
        let kinds = ["Certificate", "UnknownCA", "AccessDenied", "DecryptError"];
        alert.is_some_and(|alert| kinds.iter().any(|kind| alert.contains(kind)))
    }
}

/// The TLS error behind an error, if there is one.
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

/// An error's own message, without the current time: with it the message would be another one at each try.
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
