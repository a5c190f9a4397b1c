//! Why a device does not join.

use flotta_bundle::DeviceName;
use flotta_bundle::code::{self, Code, Problem};
use jiff::Timestamp;

use crate::keys::{CsrError, KeysError};
use crate::store::StoreError;

/// Why somebody does not join, or cannot be let in. The message goes to the device too, so it tells nothing about others.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No such token, or forgotten long ago.
    #[error("this server did not make this token, or it ended long ago")]
    TokenUnknown,
    /// One use, and that was another.
    #[error("this token was used already, at {0:.0}")]
    TokenUsed(Timestamp),
    /// Too late.
    #[error("this token expired at {0:.0}")]
    TokenExpired(Timestamp),
    /// Somebody thought better of it.
    #[error("this token was taken back at {0:.0}")]
    TokenRevoked(Timestamp),
    /// Not for this name.
    #[error("this token is for another device than {0}")]
    TokenOther(DeviceName),
    /// The certificate request proves nothing.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The sealing key is not vouched for by the identity key.
    #[error("the sealing key is not an X25519 key that the identity key vouches for")]
    Sealing,
    /// A renewal is for the key that the device has.
    #[error("the certificate request is by another key than the device joined with")]
    OtherKey,
    /// Its identity was revoked.
    #[error("the identity of this device was revoked")]
    Revoked,
    /// A cloned disk: two machines with one key.
    #[error("this key is the one of {0}")]
    KeyTaken(DeviceName),
    /// A name that a joined device has; for people who approve.
    #[error("{0} has joined with another key")]
    NameTaken(DeviceName),
    /// What it ran may depend on a set that nobody knows any more.
    #[error(
        "{0} is not in Git, as far as this server has read it: its set and labels came with its token or approval, and are not known any more"
    )]
    NotInGit(DeviceName),
    /// Too many wait.
    #[error("too many requests to join wait for a person")]
    TooManyRequests,
    /// Nobody asks.
    #[error("no request to join as {0}")]
    NoRequest(DeviceName),
    /// No such device.
    #[error("no device {0} has joined")]
    NoDevice(DeviceName),
    /// No such token.
    #[error("no token {0}")]
    NoToken(String),
    /// Several ask for one name.
    #[error("{1} keys ask to join as {0}")]
    Ambiguous(DeviceName, usize),
    /// A part of a fingerprint that is too short to be sure of.
    #[error("give at least 16 hex digits of the key")]
    ShortKey,
    /// A request that was approved.
    #[error("the request of {0} was approved already")]
    AlreadyApproved(DeviceName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority failed.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl EnrolError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::TokenUnknown => code::TOKEN_UNKNOWN,
            Self::TokenUsed(_) => code::TOKEN_USED,
            Self::TokenExpired(_) => code::TOKEN_EXPIRED,
            Self::TokenRevoked(_) => code::TOKEN_REVOKED,
            Self::TokenOther(_) => code::TOKEN_OTHER_DEVICE,
            Self::Csr(_) | Self::Sealing | Self::OtherKey => code::CSR,
            Self::Revoked => code::REVOKED,
            Self::KeyTaken(_) => code::KEY_TAKEN,
            Self::NameTaken(_) => code::NAME_TAKEN,
            Self::TooManyRequests => code::TOO_MANY,
            Self::NotInGit(_) | Self::NoRequest(_) | Self::NoDevice(_) | Self::NoToken(_) => {
                code::NOT_FOUND
            }
            Self::Ambiguous(..) => code::AMBIGUOUS,
            Self::AlreadyApproved(_) | Self::ShortKey => code::BAD_REQUEST,
            Self::Store(error) => error.code(),
            Self::Keys(error) => error.code(),
        }
    }

    /// The error as a person who approves, denies or revokes meets it.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self {
            Self::NameTaken(device) => problem.with_help(format!(
                "if the machine was replaced: flotta approve --replace {device}"
            )),
            Self::NotInGit(device) => problem.with_help(format!(
                "approve it with what it had: flotta approve {device} --set … --label …"
            )),
            Self::Revoked => {
                problem.with_help("to let it in again: flotta token create, and join with that")
            }
            Self::NoRequest(_) => problem.with_help("see who asks: flotta get requests"),
            Self::NoToken(_) => problem.with_help("see which there are: flotta token list"),
            Self::Ambiguous(device, _) => problem.with_help(format!(
                "name the key as well, as the device shows it: flotta approve {device} --key SHA256:…"
            )),
            Self::ShortKey => problem.with_help("copy it from: flotta get requests -o wide"),
            Self::AlreadyApproved(device) => {
                problem.with_help(format!("to take it back: flotta revoke {device}"))
            }
            _ => problem,
        }
    }

    /// Whether the device was refused, rather than the server unable.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Keys(_))
    }
}
