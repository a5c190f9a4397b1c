//! Tokens, without their secrets.

use jiff::Timestamp;

use crate::admin::Admin;
use crate::admin::list::Listed;
use crate::admin::query::Query;
use crate::admin::resource::{JoinToken, Metadata, TokenStatus};
use crate::store::{StoreError, TokenRecord};

impl Listed for JoinToken {
    async fn all(admin: &Admin, _query: &Query, now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let tokens = admin.0.store.tokens().await?;
        Ok(tokens.into_iter().map(|token| view(token, now)).collect())
    }
}

/// The object for a token.
pub(in crate::admin) fn view(token: TokenRecord, now: Timestamp) -> JoinToken {
    let (state, message) = match (&token.used, &token.revoked) {
        (Some((at, _, device)), _) => ("Used", format!("{device} joined at {at:.0}")),
        (None, Some((at, by))) => ("Revoked", format!("by {by} at {at:.0}")),
        (None, None) if token.is_open(now) => ("Open", String::new()),
        (None, None) => ("Expired", String::new()),
    };
    let metadata = Metadata {
        name: token.id(),
        labels: token.token.labels,
        creation_timestamp: Some(token.created_at),
        ..Metadata::default()
    };
    let status = TokenStatus {
        state: state.to_owned(),
        message,
        device: token.token.device.map(|device| device.to_string()),
        set: token.token.set,
        expires: Some(token.expires_at),
        created_by: token.token.created_by,
        used_as: token.used.map(|(_, _, device)| device.to_string()),
    };
    JoinToken::new(metadata, status)
}
