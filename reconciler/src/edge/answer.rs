//! Error answers, and reading the bodies of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use flotta_bundle::wire::Failure;
use flotta_bundle::{Code, Problem, code};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::limits;
use crate::enrol::EnrolError;
use crate::failures::chain;
use crate::keys::KeysError;
use crate::store::StoreError;

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    problem: Box<Problem>,
    /// The code for the log line; none when the refusal is logged elsewhere.
    log_code: Option<LogCode>,
    server_failure: Option<Box<ServerFailure>>,
}

/// The code of a refusal, attached to its response for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogCode(pub(super) &'static str);

/// Attached to an answer that is the server's own failure, so that the failure is counted.
#[derive(Debug, Clone)]
pub(super) struct ServerFailure {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            problem: Box::new(Problem::new(code, message)),
            log_code: Some(LogCode(code.id)),
            server_failure: None,
        }
    }

    /// Marks a refusal as logged already.
    pub(super) fn noted(self) -> Self {
        Self {
            log_code: None,
            ..self
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::BAD_REQUEST, message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, "not found")
    }

    pub(super) fn too_many() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            code::TOO_MANY,
            "too many requests",
        )
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, message)
    }

    /// A failure of the server itself. The log has the details; the device learns only that it failed.
    pub(super) fn failed(code: Code, error: &(dyn std::error::Error + 'static)) -> Self {
        let message = chain(error);
        Self {
            server_failure: Some(Box::new(ServerFailure { code, message })),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, code.title).noted()
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let busy = self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error();
        let failure = Failure {
            error: *self.problem,
            details: BTreeMap::new(),
        };
        let mut response = (self.status, Json(failure)).into_response();
        if busy {
            let seconds = HeaderValue::from(limits::retry_after());
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if let Some(code) = self.log_code {
            response.extensions_mut().insert(code);
        }
        if let Some(server_failure) = self.server_failure {
            response.extensions_mut().insert(*server_failure);
        }
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::failed(error.code(), &error)
    }
}

impl From<EnrolError> for Refused {
    fn from(error: EnrolError) -> Self {
        let status = match &error {
            // the clock's own check logs it once
            EnrolError::Keys(KeysError::Clock(_)) => StatusCode::SERVICE_UNAVAILABLE,
            EnrolError::Store(_) | EnrolError::Keys(_) => {
                return Self::failed(error.code(), &error);
            }
            EnrolError::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            EnrolError::KeyTaken(_) | EnrolError::NameTaken(_) => StatusCode::CONFLICT,
            EnrolError::Csr(_) | EnrolError::Sealing | EnrolError::OtherKey => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::FORBIDDEN,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

pub(super) async fn no_route() -> Refused {
    Refused::not_found()
}

pub(super) async fn no_method() -> Refused {
    Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        code::BAD_REQUEST,
        "not a method of this route",
    )
}

fn is_too_long(error: &axum::Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// Reads a JSON body of at most `max` bytes, within `in_time`.
pub(super) async fn read_json<T: DeserializeOwned>(
    body: Body,
    max: usize,
    in_time: Duration,
) -> Result<T, Refused> {
    let bytes = tokio::time::timeout(in_time, to_bytes(body, max)).await;
    let bytes = match bytes {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_too_long(&error) => {
            return Err(Refused::too_large(format!("more than {max} bytes")));
        }
        // its chunks are malformed, or the connection broke and nobody reads this
        Ok(Err(_)) => return Err(Refused::bad_request("the body cannot be read")),
        Err(_) => {
            return Err(Refused::new(
                StatusCode::REQUEST_TIMEOUT,
                code::BAD_REQUEST,
                "the body did not arrive in time",
            ));
        }
    };
    // serde's message quotes the body, but only to its sender
    serde_json::from_slice(&bytes).map_err(|error| Refused::bad_request(error.to_string()))
}
