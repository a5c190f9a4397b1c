//! Errors of enrolment.

use flotta_bundle::DeviceName;
use flotta_bundle::code::{self, Code, Problem};
use jiff::Timestamp;

use crate::keys::{CsrError, KeysError};
use crate::store::StoreError;

/// Why a device cannot join, or a request cannot be decided. The message goes to the device too, so it reveals nothing about
/// others.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token is unknown, or was deleted long after it expired.
    #[error("this token was not made by this server, or expired long ago")]
    TokenUnknown,
    /// The token was used by another device.
    #[error("this token was used already, at {0:.0}")]
    TokenUsed(Timestamp),
    /// The token has expired.
    #[error("this token expired at {0:.0}")]
    TokenExpired(Timestamp),
    /// The token was revoked.
    #[error("this token was revoked at {0:.0}")]
    TokenRevoked(Timestamp),
    /// The token is for another name.
    #[error("this token is for another device than {0}")]
    TokenOther(DeviceName),
    /// The certificate request is not valid.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The sealing key is not signed by the identity key.
    #[error("the sealing key is not an X25519 key that the identity key vouches for")]
    Sealing,
    /// A renewal must be for the key that the device joined with.
    #[error("the certificate request has another key than the device joined with")]
    OtherKey,
    /// The device's identity was revoked.
    #[error("the identity of this device was revoked")]
    Revoked,
    /// The key belongs to another device, as on a cloned disk.
    #[error("this key belongs to {0}")]
    KeyTaken(DeviceName),
    /// The name belongs to a joined device; shown to people who approve.
    #[error("{0} has joined with another key")]
    NameTaken(DeviceName),
    /// What the device ran may depend on a set that is not known any more.
    #[error(
        "{0} is not in Git, as far as this server has read it: its set and labels came with its token or approval, and are not known any more"
    )]
    NotInGit(DeviceName),
    /// Too many requests are pending.
    #[error("too many requests to join are waiting for approval")]
    TooManyRequests,
    /// There is no such request.
    #[error("no request to join as {0}")]
    NoRequest(DeviceName),
    /// There is no such device.
    #[error("no device {0} has joined")]
    NoDevice(DeviceName),
    /// There is no such token.
    #[error("no token {0}")]
    NoToken(String),
    /// Several requests have the same name.
    #[error("{1} keys ask to join as {0}")]
    Ambiguous(DeviceName, usize),
    /// The given part of a fingerprint is too short to be safe.
    #[error("give at least 16 hex digits of the key")]
    ShortKey,
    /// The request was approved already.
    #[error("the request of {0} was approved already")]
    AlreadyApproved(DeviceName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA failed.
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

    /// The problem to show to a person who approves, denies or revokes.
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
            Self::NoRequest(_) => problem.with_help("to list them: flotta get requests"),
            Self::NoToken(_) => problem.with_help("to list them: flotta token list"),
            Self::Ambiguous(device, _) => problem.with_help(format!(
                "name the key as well, as the device shows it: flotta approve {device} --key SHA256:…"
            )),
            Self::ShortKey => problem.with_help("copy it from: flotta get requests -o wide"),
            Self::AlreadyApproved(device) => {
                problem.with_help(format!("to undo that: flotta revoke {device}"))
            }
            _ => problem,
        }
    }

    /// Whether the device was refused, as opposed to a failure of the server.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Keys(_))
    }
}
