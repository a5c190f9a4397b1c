//! Error answers of the admin API.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use flotta_bundle::wire::Failure;
use flotta_bundle::{Code, Problem, code};
use http::StatusCode;

use crate::store::StoreError;

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refused(StatusCode, Box<Problem>);

impl Refused {
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self::of(status, Problem::new(code, message))
    }

    pub(super) fn of(status: StatusCode, problem: Problem) -> Self {
        Self(status, Box::new(problem))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        let mut problem = Problem::new(code::BAD_REQUEST, message);
        // the message says what to do; the code's help is about agents
        problem.help.clear();
        Self::of(StatusCode::BAD_REQUEST, problem)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let failure = Failure {
            error: *self.1,
            details: BTreeMap::new(),
        };
        (self.0, Json(failure)).into_response()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.code(),
            error.to_string(),
        )
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

pub(super) async fn no_route() -> Refused {
    Refused::not_found("no such route: is this flotta of the server's version?")
}
