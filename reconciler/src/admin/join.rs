//! People's decisions about joining and leaving.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use flotta_bundle::name::check_subdomain;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Admin;
use super::answer::Refused;
use super::request::{
    Approval, Decided, Denial, FleetFacts, Left, RestoredDevices, Revocation, TokenCreated,
    TokenRequest, TokenRevocation,
};
use super::resource::JoinToken;
use super::socket::Peer;
use super::views;
use crate::enrol::{self, EnrolError, MAX_TTL, Target};
use crate::keys::KeysError;
use crate::store::NewToken;

type Body<T> = Result<Json<T>, JsonRejection>;
type Answer<T> = Result<Json<T>, Refused>;

pub(super) async fn fleet(State(admin): State<Admin>) -> Json<FleetFacts> {
    Json(FleetFacts {
        server_expires: admin.0.fleet.server_not_after(),
        waiting: admin.0.index.waiting(),
        clock: admin
            .0
            .fleet
            .clock()
            .check()
            .err()
            .map(|doubt| doubt.problem()),
        ..admin.0.facts.clone()
    })
}

pub(super) async fn token(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body<TokenRequest>,
) -> Answer<TokenCreated> {
    let Json(request) = body?;
    let ttl = SignedDuration::from_secs(request.ttl_seconds);
    if ttl <= SignedDuration::ZERO || ttl > MAX_TTL {
        let most = MAX_TTL.as_hours() / 24;
        return Err(Refused::bad_request(format!(
            "a token is valid for at most {most} days"
        )));
    }
    check_terms(request.set.as_deref(), &request.labels)?;
    let server = request
        .server
        .unwrap_or_else(|| admin.0.facts.server.clone());
    if !server.starts_with("https://") {
        return Err(Refused::bad_request(format!(
            "`{server}` is not the URL of an edge API: write https://HOST:PORT"
        )));
    }
    let enroller = &admin.0.enroller;
    if request.ask {
        return Ok(Json(TokenCreated {
            join: enroller.join_file(server, request.device, None),
            expires: None,
        }));
    }
    let token = NewToken {
        device: request.device.clone(),
        set: request.set,
        labels: request.labels,
        created_by: peer.0,
    };
    let (token, expires) = enroller.create_token(token, ttl, Timestamp::now()).await?;
    Ok(Json(TokenCreated {
        join: enroller.join_file(server, request.device, Some(token)),
        expires: Some(expires),
    }))
}

pub(super) async fn revoke_token(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body<TokenRevocation>,
) -> Answer<JoinToken> {
    let Json(request) = body?;
    let now = Timestamp::now();
    let enroller = &admin.0.enroller;
    let token = enroller.revoke_token(&request.token, &peer.0, now).await?;
    Ok(Json(views::token::view(token, now)))
}

pub(super) async fn approve(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body<Approval>,
) -> Answer<Decided> {
    let Json(request) = body?;
    check_terms(request.set.as_deref(), &request.labels)?;
    let target = Target {
        device: request.device,
        key: request.key,
    };
    let approval = enrol::Approval {
        set: request.set,
        labels: request.labels,
        replace: request.replace,
    };
    let now = Timestamp::now();
    let device = admin
        .0
        .enroller
        .approve(target, approval, &peer.0, now)
        .await?;
    Ok(Json(Decided::new(device.device, device.key)))
}

pub(super) async fn approve_restored(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Answer<RestoredDevices> {
    let enroller = &admin.0.enroller;
    // it is empty before Git was read
    let described = admin.0.index.described();
    let in_git = described.iter().filter(|(_, known)| known.in_git);
    let in_git = in_git.map(|(device, _)| device.clone()).collect();
    let restored = enroller
        .approve_restored(&in_git, &peer.0, Timestamp::now())
        .await?;
    let approved = restored
        .approved
        .into_iter()
        .map(|device| Decided::new(device.device, device.key));
    let left = restored.left.into_iter().map(|(request, error)| Left {
        problem: error.problem(),
        request: Decided::new(request.device, request.key),
    });
    Ok(Json(RestoredDevices {
        approved: approved.collect(),
        left: left.collect(),
    }))
}

pub(super) async fn deny(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body<Denial>,
) -> Answer<Decided> {
    let Json(request) = body?;
    let target = Target {
        device: request.device,
        key: request.key,
    };
    let (reason, now) = (request.reason, Timestamp::now());
    let denied = admin.0.enroller.deny(target, &reason, &peer.0, now).await?;
    Ok(Json(Decided::new(denied.device, denied.key)))
}

pub(super) async fn revoke(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body<Revocation>,
) -> Answer<Decided> {
    let Json(request) = body?;
    let now = Timestamp::now();
    let (key, is_new) = admin
        .0
        .enroller
        .revoke(&request.device, &peer.0, now)
        .await?;
    Ok(Json(Decided {
        device: request.device,
        fingerprint: key.map(|key| key.hex()).unwrap_or_default(),
        again: !is_new,
    }))
}

/// Checks set and labels. They become an input of every release from then on, so they are checked here, where a person can
/// correct them.
fn check_terms(set: Option<&str>, labels: &BTreeMap<String, String>) -> Result<(), Refused> {
    if let Some(set) = set {
        check_subdomain(set).map_err(|error| Refused::bad_request(error.to_string()))?;
    }
    for (key, value) in labels {
        if !is_label_key(key) || !(value.is_empty() || is_qualified(value)) {
            return Err(Refused::bad_request(format!(
                "`{key}={value}` is not a label: letters, digits, `-`, `_` and `.`, at most 63 each, the key with a prefix `example.com/` at most"
            )));
        }
    }
    Ok(())
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => check_subdomain(prefix).is_ok() && is_qualified(name),
        None => is_qualified(key),
    }
}

/// Whether this is a name as Kubernetes allows it in label keys and values.
fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

impl From<EnrolError> for Refused {
    fn from(error: EnrolError) -> Self {
        let status = match &error {
            EnrolError::Keys(KeysError::Clock(_)) => StatusCode::SERVICE_UNAVAILABLE,
            EnrolError::Store(_) | EnrolError::Keys(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "enrolment failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            EnrolError::NoRequest(_) | EnrolError::NoDevice(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::of(status, error.problem())
    }
}
